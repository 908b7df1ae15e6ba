"""The quick form from beginning to end: the store for meeting, datagrams for the rest.

A rank writes its card into the store; rank 0 waits for all of them and from then on speaks in datagrams
(``quick_member``). The result goes into the store too, for a rank that no datagram reaches.

Every rank gets the reports of all and makes the same topology of them, by itself (``quick_report``).

Not here: the full form (``coordinator``, ``campaign``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing

import ifaddr
import msgspec

from thinwire.clock import Clock
from thinwire.errors import CollectiveTimeoutError, ThinwireError
from thinwire.probe.quick_member import LIMIT_S, Member
from thinwire.probe.quick_messages import KEY_BYTES, QuickCard
from thinwire.probe.quick_report import QuickOutcome, topology_of
from thinwire.probe.store import Desk, Store, store_errors
from thinwire.topology import Topology
from thinwire.transport.addresses import by_route, host_key, join_address, local_addresses, split_address
from thinwire.transport.trains import Address, TrainPort

_LOOK_S = 0.8  # without a word from rank 0: is the result in the store?
_PATIENCE_S = 0.9  # for the result, once this rank knows the plan


def quick_probe(
    store: Store,
    rank: int,
    num_ranks: int,
    host: str,
    *,
    now: Callable[[], str],
    interface: str | None,
    join_s: float,
    clock: Clock,
    progress: Callable[[str], None],
) -> Topology:
    """See ``session.probe``."""
    with store_errors():
        desk = _Desk(store, rank, num_ranks)
        try:
            port = TrainPort(interface, clock)
        except ThinwireError as error:
            desk.put(f"join/{rank}", str(error))
            raise
        with closing(port):
            key = secrets.token_bytes(KEY_BYTES)
            desk.put(f"join/{rank}", _card(host, interface, port.port, key))
            own_key = host_key()
            routes = _Routes(own_key)
            if rank == 0:
                progress("waiting for all")
                joined = desk.joined(join_s)
                progress("round trips and trains")
                outcome = _lead(desk, port, key, routes, clock, joined, now)
            else:
                outcome = _follow(desk, port, rank, key, routes, clock, join_s)
    return topology_of(outcome)


class _Desk(Desk):
    """Where a rank meets the others, and finds the outcome."""

    def joined(self, join_s: float) -> list[QuickCard | str]:
        """Everybody's card, or why there is none. Takes ``join_s`` if somebody does not come."""
        keys = [f"join/{rank}" for rank in range(self.num_ranks)]
        here = self.wait_for(keys, join_s)
        absent = f"it did not come within {join_s:g} s"
        return [
            self.read(key, QuickCard | str)  # type: ignore[arg-type]
            if key in here
            else absent
            for key in keys
        ]

    def outcome(self, timeout_s: float) -> QuickOutcome | None:
        """What rank 0 left, if it has by then; 0: by now."""
        is_there = bool(self.wait_for(["outcome"], timeout_s)) if timeout_s else self.is_there("outcome")
        return self.read("outcome", QuickOutcome) if is_there else None


class _Routes:
    """At which addresses a host can be tried. Asked once for each."""

    def __init__(self, own_key: str) -> None:
        self._own_key = own_key

    def __call__(self, card: QuickCard) -> Sequence[Address]:
        addresses = [address for address, _ in card.addresses]
        found = by_route(addresses, same_host=card.host_key == self._own_key)
        return [split_address(address) for address in found]


def _lead(
    desk: _Desk,
    port: TrainPort,
    key: bytes,
    routes: _Routes,
    clock: Clock,
    joined: Sequence[QuickCard | str],
    now: Callable[[], str],
) -> QuickOutcome:
    """Rank 0: tells the others who is there, takes part, and makes the outcome of their reports."""
    cards = [card if isinstance(card, QuickCard) else None for card in joined]
    absent = {rank: word for rank, word in enumerate(joined) if isinstance(word, str)}

    def conclude(reports: dict[int, bytes]) -> bytes:
        outcome = QuickOutcome(cards=cards, absent=absent, reports=reports, measured_at=now())
        desk.put("outcome", outcome)
        return msgspec.msgpack.encode(msgspec.structs.replace(outcome, cards=[]))

    member = Member(0, key, routes, clock.now_s(), cards, conclude)
    while not member.is_over(clock.now_s()):
        _advance(member, port, clock, LIMIT_S)
    assert member.result is not None
    return _outcome(member)


def _follow(
    desk: _Desk, port: TrainPort, rank: int, key: bytes, routes: _Routes, clock: Clock, join_s: float
) -> QuickOutcome:
    """The others: take part when rank 0 says so. Where no datagram comes, the store may have the outcome."""
    began_s = looked_s = clock.now_s()
    member = Member(rank, key, routes, began_s)
    planned_s: float | None = None
    while not member.is_over(clock.now_s()):
        _advance(member, port, clock, _LOOK_S)
        now_s = clock.now_s()
        if member.has_begun and planned_s is None:
            planned_s = now_s
        is_late = planned_s is not None and now_s - planned_s > _PATIENCE_S
        if is_late or (planned_s is None and now_s - looked_s >= _LOOK_S):
            looked_s = now_s
            is_last = is_late or now_s - began_s > join_s + _PATIENCE_S
            outcome = desk.outcome(_LOOK_S if is_last else 0.0)
            if outcome is not None:
                return outcome
            if is_last:
                raise CollectiveTimeoutError(
                    f"rank 0 did not go on with the probe within {now_s - began_s:.1f} s: check that it runs"
                )
    return _outcome(member)


def _advance(member: Member, port: TrainPort, clock: Clock, longest_s: float) -> None:
    """Send what is due, and take what comes until something else is."""
    for address, datagrams in member.poll(clock.now_s()):
        begun_s = clock.now_s()
        port.send(address, datagrams)
        member.has_sent(datagrams, clock.now_s() - begun_s)
    now_s = clock.now_s()
    for arrived in port.receive(min(longest_s, member.due_s(now_s) - now_s)):
        for address, datagrams in member.take(*arrived):
            port.send(address, datagrams)


def _outcome(member: Member) -> QuickOutcome:
    assert member.result is not None
    outcome = msgspec.msgpack.decode(member.result, type=QuickOutcome)
    return msgspec.structs.replace(outcome, cards=list(member.cards))


def _card(host: str, interface: str | None, port: int, key: bytes) -> QuickCard:
    names = {
        ip.ip if isinstance(ip.ip, str) else ip.ip[0]: adapter.name
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    }
    return QuickCard(
        host=host,
        host_key=host_key(),
        addresses=tuple((join_address(ip, port), names.get(ip, "")) for ip in local_addresses(interface)),
        key=key,
    )
