"""An Operation is one call on its way: its tiles, started a few at a time, and the Job that tells the caller.

Not here: what a tile does (``flight``), and which operation may go next (``communicator``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from thinwire.codec.base import Codec
from thinwire.collective.schedule import Buffer
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.coding import Coding
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.failure import QUESTION_AFTER_S
from thinwire.runtime.flight import Flight, Wires
from thinwire.runtime.job import Job
from thinwire.runtime.memory import Chunk
from thinwire.runtime.plan import Plan
from thinwire.runtime.reduction import divide


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may say about one call.

    Attributes:
        timeout_s: time limit; None: the group's.
        priority: larger ones overtake smaller ones, segment by segment, on every link.
        algorithm: instead of the table's choice; all ranks must name the same.
        shape: the tensor's shape, compared between ranks.
        codec: encodes what travels, in sums and all_gather of floating-point arrays; all ranks must give equal ones.
        memory: what the codec remembers of this tensor from call to call; None: nothing.
    """

    timeout_s: float | None = None
    priority: int = 0
    algorithm: str | None = None
    shape: tuple[int, ...] = ()
    codec: Codec | None = None
    memory: TensorMemory | None = None


TILES_IN_FLIGHT = 2  # one arrives while the next is already on its way; more would only stage more


class Operation:
    """One call in flight. Its communicator's lock guards the counters.

    Attributes:
        group: id of the group, or of the point-to-point stream.
        number: which operation of that group.
        job: what the caller holds.
        deadline_s: when it times out, on the endpoint's clock.
        question_s: when to ask those it waits for whether they make the same call; infinity once they are asked.
        coding: how it encodes, if it does.
        flights: the tiles that run now.
        wire_bytes_sent: by the tiles that have ended.
    """

    def __init__(
        self,
        plan: Plan,
        chunks: Mapping[Buffer, Sequence[Chunk]],
        wires: Wires,
        *,
        group: int,
        number: int,
        job: Job,
        coding: Coding | None,
        started_s: float,
        timeout_s: float,
        priority: int,
    ) -> None:
        self.plan = plan
        self.chunks = chunks
        self.wires = wires
        self.group = group
        self.number = number
        self.job = job
        self.started_s = started_s
        self.timeout_s = timeout_s
        self.deadline_s = started_s + timeout_s
        self.question_s = started_s + QUESTION_AFTER_S
        self.priority = priority
        self.coding = coding
        self.wire_bytes_sent = 0
        self.flights: dict[int, Flight] = {}
        self.num_started = 0
        self.num_done = 0

    def may_start_tile(self) -> bool:
        return self.num_started < self.plan.num_tiles and len(self.flights) < TILES_IN_FLIGHT

    def next_look_s(self) -> float:
        """When something is due, if nothing else happens first."""
        return min(self.deadline_s, self.question_s)

    def ask(self, now_s: float) -> None:
        """Ask those we wait for, once; later, if no tile has been started yet."""
        self.question_s = math.inf if self.flights else now_s + QUESTION_AFTER_S
        for flight in list(self.flights.values()):
            flight.ask()

    def finish_tile(self, tile: int) -> None:
        """The last touch on a tile whose segments have all completed: an average is divided here."""
        if self.plan.divides_result and self.plan.result is not None:
            for array in self.plan.tile_of(self.chunks[self.plan.result], tile):
                assert not isinstance(array, DeviceArray), self.plan  # what is decoded there is divided there
                divide(array, self.plan.call.num_ranks, self.plan.call.dtype)

    def ranks_waited_for(self) -> list[int]:
        """Ranks (of the schedule) that the running tiles still wait for."""
        return sorted({rank for flight in self.flights.values() for rank in flight.ranks_waited_for()})
