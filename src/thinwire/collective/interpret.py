"""Runs a schedule on NumPy arrays, piece by piece, in an order drawn at random: what the schedule means, made visible.

The checker argues about all executions; the interpreter shows one of them, and with another generator another. It
shares with the checker the meaning of deps (``local_order``) and of the promises (``conditions``), and nothing
else: it matches messages itself, and finds a deadlock by running into it. Tests use it as the oracle.

A payload is kept as the values it stands for: encoding is a function of them and of the number of the encode, so that
a test can let every encode lose something of its own.

Order: every piece draws a priority, and of the pieces that may run the one with the highest runs. So a piece can be
held back until nothing else is left to do, which is what shows up races.

Not here: segments, sockets, speed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thinwire.collective.conditions import Extent, extents, precondition
from thinwire.collective.local_order import LocalOrder, num_pieces
from thinwire.collective.schedule import Buffer, Collective, Op, OpKind, Ref, Schedule
from thinwire.errors import ScheduleError

Array = NDArray[Any]
Memory = dict[Ref, Array]
Contributions = Mapping[tuple[int, int], Array]
"""(rank, chunk) -> what that rank's chunk, or block, holds at the start."""


class Interpreter:
    """A schedule made ready to be run any number of times.

    Args:
        schedule: need not be right.
        add: the reduce op, e.g. ``np.add`` or ``np.maximum``.
        accumulation: dtype of the accumulators; None: that of the data.
        encode: ``(values, number of the encode)`` -> what is left of them; None: all.

    >>> from thinwire.collective.algorithms.ring import all_reduce
    >>> start = {(rank, chunk): np.array([10 ** rank]) for rank in range(2) for chunk in range(2)}
    >>> Interpreter(all_reduce(2)).run(start, np.random.default_rng(0))[0][Ref(Buffer.DATA, 1)]
    array([11])
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        add: np.ufunc = np.add,
        accumulation: DTypeLike | None = None,
        encode: Callable[[Array, int], Array] | None = None,
    ) -> None:
        self.schedule = schedule
        self._encode = encode
        self._add = add
        self._accumulation = accumulation
        self._extents = [extents(schedule, rank) for rank in range(schedule.num_ranks)]
        self._pieces: list[tuple[int, Op, int]] = []  # (rank, op, piece)
        self._followers: list[list[int]] = []
        self._num_waits: list[int] = []
        self._arrives_as: dict[int, int] = {}  # piece of a SEND -> piece of its RECV
        first_pieces = [self._add_program(rank) for rank in range(schedule.num_ranks)]
        self._match(first_pieces)

    def run(self, start: Contributions, rng: np.random.Generator) -> list[Memory]:
        """Run all programs to their end, in an order drawn from ``rng``.

        Returns:
            For each rank what its refs hold; refs that were never written are missing.

        Raises:
            ScheduleError: something can never run, is read before it is written, does not exist, or has another
                size than what is put into it.
        """
        execution = _Execution(self.schedule.collective, self._extents, start)
        waits = self._num_waits.copy()
        piece_at = rng.permutation(len(waits)).tolist()
        priority = np.argsort(piece_at).tolist()
        ready = [priority[number] for number, count in enumerate(waits) if count == 0]
        heapq.heapify(ready)
        num_run = 0
        while ready:
            number = piece_at[heapq.heappop(ready)]
            num_run += 1
            self._run_piece(number, execution)
            for follower in self._followers[number]:
                waits[follower] -= 1
                if waits[follower] == 0:
                    heapq.heappush(ready, priority[follower])
        if num_run < len(waits):
            raise ScheduleError(f"deadlock: {len(waits) - num_run} pieces can never run")
        if execution.in_flight:
            raise ScheduleError(f"{len(execution.in_flight)} pieces of messages are never received")
        return execution.memory

    def _run_piece(self, number: int, execution: _Execution) -> None:
        rank, op, piece = self._pieces[number]
        value = execution.read(rank, op.source[piece]) if op.source else None
        if op.kind is OpKind.SEND:
            execution.in_flight[self._arrives_as.get(number, -1 - number)] = value
            return
        if op.kind is OpKind.RECV:
            value = execution.in_flight.pop(number)
        if (value is None) != (not op.target):
            raise ScheduleError("a message with chunks meets a recv without, or the reverse")
        if value is None:
            return
        if op.kind is OpKind.ENCODE and self._encode is not None:
            value = self._encode(value, number)
        target = op.target[piece]
        execution.check_fit(rank, target, value)
        if target.buffer is Buffer.ACCUMULATOR:
            value = value.astype(self._accumulation or value.dtype)
        elif target.buffer is not Buffer.PAYLOAD:
            value = value.astype(execution.dtype)
        if op.reduce or op.kind is OpKind.REDUCE:
            value = self._add(execution.read(rank, target), value)
        execution.memory[rank][target] = value

    def _add_program(self, rank: int) -> list[int]:
        """Add the pieces of one program and their order; return the number of each op's first piece."""
        program = self.schedule.program(rank)
        order = LocalOrder(program)
        first_pieces: list[int] = []
        for index, op in enumerate(program):
            first_pieces.append(len(self._pieces))
            for piece in range(num_pieces(op)):
                waits_for = {first_pieces[other] + k for other, k in order.waits_for(index, piece)}
                for other in waits_for:
                    self._followers[other].append(len(self._pieces))
                self._pieces.append((rank, op, piece))
                self._followers.append([])
                self._num_waits.append(len(waits_for))
        return first_pieces

    def _match(self, first_pieces: list[list[int]]) -> None:
        """Let every RECV wait for its SEND; one without waits for ever."""
        messages: dict[tuple[int, int, OpKind], list[int]] = defaultdict(list)
        for rank, firsts in enumerate(first_pieces):
            for op, first in zip(self.schedule.program(rank), firsts, strict=True):
                if op.kind is OpKind.SEND:
                    messages[rank, op.peer, op.kind].append(first)
                elif op.kind is OpKind.RECV:
                    messages[op.peer, rank, op.kind].append(first)
        for (source, to, kind), firsts in list(messages.items()):
            if kind is OpKind.RECV:
                for send, recv in zip_longest(messages[source, to, OpKind.SEND], firsts):
                    self._match_message(send, recv)

    def _match_message(self, send: int | None, recv: int | None) -> None:
        if recv is None:
            return
        for piece in range(num_pieces(self._pieces[recv][1])):
            self._num_waits[recv + piece] += 1
            if send is not None and piece < num_pieces(self._pieces[send][1]):
                self._followers[send + piece].append(recv + piece)
                self._arrives_as[send + piece] = recv + piece


class _Execution:
    """The memories of all ranks and the messages between them, during one run."""

    def __init__(
        self, collective: Collective, extents: list[dict[Ref, Extent]], start: Contributions
    ) -> None:
        held = [precondition(collective, rank) for rank in range(collective.num_ranks)]
        self.memory: list[Memory] = [
            {ref: start[rank, chunk].copy() for ref, chunk in refs.items()} for rank, refs in enumerate(held)
        ]
        self.dtype = next((array.dtype for array in start.values()), np.dtype(np.uint8))
        self.in_flight: dict[int, Array | None] = {}
        self._extents = extents
        self._sizes = {
            extents[rank][ref]: array.size
            for rank, own in enumerate(self.memory)
            for ref, array in own.items()
        }

    def read(self, rank: int, ref: Ref) -> Array:
        if ref not in self.memory[rank]:
            raise ScheduleError(f"rank {rank} reads {ref} before anything was written to it")
        return self.memory[rank][ref]

    def check_fit(self, rank: int, ref: Ref, value: Array) -> None:
        extent = self._extents[rank].get(ref)
        if extent is None or self._sizes[extent] != value.size:
            raise ScheduleError(f"rank {rank}: {value.size} elements do not fit into {ref}")
