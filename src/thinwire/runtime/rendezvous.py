"""How the ranks of a new group meet: the job's secret, everybody's contact and the group's id, over torch's Store.

A store may outlive a group and be used for the next one (an elastic restart, ``init_process_group`` after
``destroy_process_group``), so what an earlier group left in it must not be read: each rank counts how often it
has joined under this prefix, and the n-th joining of one rank meets the n-th of the others.

The secret belongs to the job, not to a group, because all groups of a process share one endpoint: it lies at the
root of the store, written by whoever comes first. Who can read the store is therefore trusted. With
``THINWIRE_SECRET`` in the environment the secret never enters the store.

Not here: sockets and handshakes (the endpoint's), and torch's own rendezvous, which made the store.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec
from torch._C._distributed_c10d import PrefixStore, Store

from thinwire.errors import CollectiveTimeoutError, LinkError, UsageError
from thinwire.transport.base import Contact

SECRET_VARIABLE = "THINWIRE_SECRET"
_SECRET_KEY = "thinwire/secret"
_IN_ENVIRONMENT = "environment"


class Meeting(NamedTuple):
    """What the members of a group agree on.

    Attributes:
        contacts: one a rank, in the order of the ranks.
        group: the group's 64-bit id, never 0: unique among all groups that ever use these endpoints.
    """

    contacts: tuple[Contact, ...]
    group: int

    def derive(self, purpose: str) -> int:
        """A further id for the same members: equal on all ranks, another one for each ``purpose``."""
        name = f"{self.group}/{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") or 1

    def subset(self, ranks: Sequence[int], group: int) -> Meeting:
        """The meeting of some of the members, who need no store to agree on it."""
        return Meeting(tuple(self.contacts[rank] for rank in ranks), group)


class _Card(msgspec.Struct, frozen=True):
    """What a rank leaves in the store; the group's id is the proposal of rank 0."""

    contact: Contact
    proposal: int


def job_secret(store: Store) -> bytes:
    """The secret that all processes of the job share: from the environment, else agreed on through the store.

    Raises:
        UsageError: only some processes have ``THINWIRE_SECRET`` set.
    """
    own = os.environ.get(SECRET_VARIABLE)
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    agreed = store.compare_set(_SECRET_KEY, "", _IN_ENVIRONMENT if own else secrets.token_hex(32)).decode()
    if bool(own) != (agreed == _IN_ENVIRONMENT):
        who, but = ("this process", "the first to join") if own else ("the first to join", "this process")
        raise UsageError(
            f"{SECRET_VARIABLE} is set for {who} but not for {but}: "
            "give every process of the job the same value, or none"
        )
    return own.encode() if own else bytes.fromhex(agreed)


def meet(store: Store, rank: int, num_ranks: int, contact: Contact, timeout: timedelta) -> Meeting:
    """Publish this rank's contact and wait for the others'.

    Raises:
        CollectiveTimeoutError: some ranks did not come in time; the message names them.
        LinkError: the store cannot be reached.
    """
    try:
        joining = store.add(f"thinwire/joined/{rank}", 1)
        keys = [f"thinwire/{joining}/{other}" for other in range(num_ranks)]
        card = _Card(contact, 1 + secrets.randbelow(2**64 - 1))
        store.set(keys[rank], msgspec.json.encode(card).decode())
        _wait(store, keys, timeout)
        cards = [msgspec.json.decode(found, type=_Card) for found in store.multi_get(keys)]
    except CollectiveTimeoutError:
        raise
    except RuntimeError as error:
        raise LinkError(f"the store of the rendezvous failed: {error}; check that its host runs") from error
    return Meeting(tuple(card.contact for card in cards), cards[0].proposal)


def _wait(store: Store, keys: Sequence[str], timeout: timedelta) -> None:
    try:
        store.wait(list(keys), timeout)
    except RuntimeError as error:
        absent = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
        if not absent:
            return
        raise CollectiveTimeoutError(
            f"rank {', '.join(absent)} of {len(keys)} did not join the group within "
            f"{timeout.total_seconds():g} s: check that all run, with the same store and a fresh one for each "
            "run, and that no two have the same rank"
        ) from error
