"""Point-to-point messages as collectives of two ranks, each (sender, receiver, tag) on a stream of its own.

A stream has an id like a group's, and numbers its messages like a group its operations, so that everything made for
collectives (flow control, tiles, mismatches, deadlines) serves messages too.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from thinwire.collective.schedule import Buffer, CollectiveKind
from thinwire.collective.selection import Place
from thinwire.runtime.flight import Wires
from thinwire.runtime.job import Job
from thinwire.runtime.memory import Array
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.plan import Call
from thinwire.runtime.reduction import DType
from thinwire.runtime.runs import Pace
from thinwire.transport.base import Link


def stream_id(group: int, source: int, to: int, tag: int) -> int:
    """The 64-bit id of the stream of messages from one rank to another with one tag."""
    text = f"{group}/{source}/{to}/{tag}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Pair(NamedTuple):
    """The two ranks of a point-to-point message as the two ranks of its schedule."""

    group: Wires
    sender: int
    receiver: int

    def link(self, rank: int) -> Link:
        return self.group.link(self.group_rank(rank))

    def pace(self, rank: int) -> Pace:
        return self.group.pace(self.group_rank(rank))

    def take_allowance(self, rank: int, num_bytes: int, num_frames: int) -> bool:
        return self.group.take_allowance(self.group_rank(rank), num_bytes, num_frames)

    def return_allowance(self, rank: int, num_bytes: int) -> None:
        self.group.return_allowance(self.group_rank(rank), num_bytes)

    def on_coding_failed(self, rank: int | None, error: Exception) -> None:
        self.group.on_coding_failed(None if rank is None else self.group_rank(rank), error)

    def on_send_failed(self, rank: int, error: BaseException) -> None:
        self.group.on_send_failed(self.group_rank(rank), error)

    def on_mismatch(self, group: int, number: int) -> None:
        self.group.on_mismatch(group, number)

    def group_rank(self, rank: int) -> int:
        return self.receiver if rank else self.sender

    def schedule_rank(self, peer: str) -> int:
        return int(self.group.schedule_rank(peer) == self.receiver)


class Receive:
    """A receive that is not yet bound to a message. ``deadline_s`` counts while it waits for any source."""

    __slots__ = ("data", "deadline_s", "dtype", "job", "options", "tag")

    def __init__(self, data: Array, tag: int, dtype: DType, options: CallOptions, job: Job) -> None:
        self.data = data
        self.tag = tag
        self.dtype = dtype
        self.options = options
        self.job = job
        self.deadline_s = float("inf")


def pair_call(rank: int, data: Array, dtype: DType, place: Place, options: CallOptions) -> Call:
    """A message between two ranks, as the sender (0) or the receiver (1) describes it."""
    return Call(
        kind=CollectiveKind.SEND_RECV,
        rank=rank,
        num_ranks=2,
        dtype=dtype,
        sizes=((Buffer.DATA, (data.size,)),),
        common_sizes=(data.size,),
        tiled_bytes=data.nbytes,
        place=place,
        shape=options.shape,
    )
