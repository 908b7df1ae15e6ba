"""The proof that a schedule does what its collective promises, or a counterexample.

``prove`` expands all programs and proves, chunk by chunk:

1. matching: ops are well formed, every SEND has its RECV of the same size (``expansion``);
2. no deadlock, under a given credit window (``order``);
3. no race: two accesses to one chunk, one of them a write, are ordered in every execution. Two additions into one
   chunk in no order are a race too: the sum would depend on who came first;
4. data flow: nothing is read before it was written, and at the end every chunk holds every contribution it should,
   exactly once;
5. identical bytes: every rank ends with the same expression, added up in the same order, and decoded from the same
   payload where it was encoded (``expressions``);
6. what was encoded: how often each contribution was, on its way to the results (``Proof.num_encodes``). That only what
   was encoded is decoded, or sent as a payload, follows from 1 and 4.

A proved schedule is deterministic: without races every execution computes the same expressions.

What the proof takes for granted: the executor keeps the meaning of an op list as ``schedule`` states it; all ranks
run the same schedule; the reduce op commutes (see ``expressions`` for the fine print).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import msgspec

from thinwire.collective.conditions import Sum, postcondition, precondition
from thinwire.collective.expansion import Expansion
from thinwire.collective.expressions import Expressions
from thinwire.collective.local_order import Piece
from thinwire.collective.order import HappensBefore
from thinwire.collective.schedule import Buffer, CollectiveKind, Op, OpKind, Ref, Schedule
from thinwire.errors import ScheduleError


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was proved of a schedule, and its price in symbols.

    Attributes:
        window: the credit window it was proved for: most unconsumed messages of a channel; None for no limit.
        steps: the longest chain of messages, each of which waits for the one before. Messages that one rank sends
            or receives at once count once; what they cost is in ``weight_sent``.
        messages_sent: for each rank.
        chunks_sent: for each rank.
        weight_sent: for each rank the weight of the chunks it sends (every block of a block collective weighs 1, a
            payload as much as what it stands for).
        total_weight: the weight of all data (of the larger buffer, for block collectives).
        max_fan_in: the most ranks that one rank receives from.
        num_encodes: how many encodes the contributions in the results went through, each at most.
    """

    window: int | None
    steps: int
    messages_sent: tuple[int, ...]
    chunks_sent: tuple[int, ...]
    weight_sent: tuple[int, ...]
    total_weight: int
    max_fan_in: int
    num_encodes: int

    @property
    def bytes_sent_fraction(self) -> Fraction:
        """Bytes sent by the rank that sends most, as a fraction of the bytes of all data."""
        return Fraction(max(self.weight_sent), self.total_weight) if self.total_weight else Fraction(0)


def prove(schedule: Schedule, *, window: int | None = None) -> Proof:
    """Prove that ``schedule`` does what its collective promises.

    Args:
        schedule: expanded here on every rank; a ring of 64 ranks takes some tenths of a second.
        window: most unconsumed messages of a channel, so that deadlocks for want of credit are found; 0 for
            rendezvous, None for no limit.

    Raises:
        ScheduleError: it does not; the message is a counterexample.

    >>> from thinwire.collective.algorithms.ring import all_reduce
    >>> prove(all_reduce(4), window=1).steps
    6
    """
    expansion = Expansion(schedule)
    order = HappensBefore(expansion, window)
    num_encodes = _DataFlow(expansion, order).prove()
    if schedule.collective.kind == CollectiveKind.BARRIER:
        _prove_barrier(expansion, order)
    return _measure(expansion, order, window, num_encodes)


class _Cell:
    """One chunk as the walk goes on: its value, its last write, and the reads since."""

    __slots__ = ("reads", "value", "write")

    def __init__(self, value: int) -> None:
        self.value = value
        self.write: Piece | None = None
        self.reads: list[Piece] = []


class _DataFlow:
    """Walks all ops in one order that can happen. Absent races, what it finds holds for every order.

    Accesses to a chunk are ordered in the walk as they are in every execution, if they are ordered at all. So it
    is enough to compare each write with the reads since the write before it, and each read with the last write.
    """

    def __init__(self, expansion: Expansion, order: HappensBefore) -> None:
        self.expansion = expansion
        self.order = order
        self.collective = expansion.schedule.collective
        self.expressions = Expressions()
        self.in_flight: dict[int, list[int]] = {}
        self.memory = [
            {
                ref: _Cell(self.expressions.contribution(rank, chunk))
                for ref, chunk in precondition(self.collective, rank).items()
            }
            for rank in range(self.collective.num_ranks)
        ]

    def prove(self) -> int:
        """Returns ``Proof.num_encodes``."""
        for number in self.order.sequence:
            self._step(number)
        num_encodes = 0
        kept: dict[int, tuple[int, int]] = {}
        for rank in range(self.collective.num_ranks):
            for ref, promised in postcondition(self.collective, rank).items():
                if self._is_sized(rank, ref):
                    value = self._prove_sum(rank, ref, promised)
                    num_encodes = max(num_encodes, self.expressions.num_encodes(value))
                    if self.collective.kind == CollectiveKind.ALL_REDUCE:
                        self._prove_identical(rank, ref, value, *kept.setdefault(ref.chunk, (rank, value)))
        return num_encodes

    def _step(self, number: int) -> None:
        op = self.expansion.ops[number]
        values = [self._read(number, piece, ref) for piece, ref in enumerate(op.source)]
        if op.kind is OpKind.SEND:
            self.in_flight[number] = values
            return
        if op.kind is OpKind.RECV:
            values = self.in_flight.pop(self.expansion.partner[number])
        if op.kind is OpKind.ENCODE:
            values = [self.expressions.coded(value, number) for value in values]
        for piece, (ref, value) in enumerate(zip(op.target, values, strict=True)):
            self._write(number, piece, ref, value, adds=_adds(op))

    def _read(self, number: int, piece: int, ref: Ref) -> int:
        cell = self.memory[self.expansion.rank[number]].get(ref)
        if cell is None:
            raise ScheduleError(
                f"{self.expansion.describe(number)} reads {ref} before anything was written to it"
            )
        if cell.write is not None:
            self._prove_ordered(cell.write, (number, piece), ref)
        cell.reads.append((number, piece))
        return cell.value

    def _write(self, number: int, piece: int, ref: Ref, value: int, *, adds: bool) -> None:
        memory = self.memory[self.expansion.rank[number]]
        cell = memory.get(ref)
        if cell is not None and ref.buffer is Buffer.PAYLOAD:
            raise ScheduleError(
                f"{self.expansion.describe(number)} writes {ref} again: a payload is written once"
            )
        if cell is not None:
            for access in cell.reads or filter(None, [cell.write]):
                self._prove_ordered(access, (number, piece), ref)
        elif adds:
            raise ScheduleError(
                f"{self.expansion.describe(number)} adds to {ref} before anything was written to it"
            )
        else:
            cell = memory[ref] = _Cell(value)
        wide = ref.buffer is Buffer.ACCUMULATOR
        if adds:
            cell.value = self.expressions.add(cell.value, value, wide=wide)
        else:
            cell.value = value if wide or ref.buffer is Buffer.PAYLOAD else self.expressions.round(value)
        cell.write = (number, piece)
        cell.reads = []

    def _prove_ordered(self, before: Piece, after: Piece, ref: Ref) -> None:
        if not self.order.precedes(before, after):
            one, other = sorted((before[0], after[0]))
            raise ScheduleError(
                f"race on {ref}: nothing orders {self.expansion.describe(one)} "
                f"and {self.expansion.describe(other)}"
            )

    def _is_sized(self, rank: int, ref: Ref) -> bool:
        """Chunks of weight 0 hold nothing, whatever the size of the data."""
        return _weight(self.expansion, rank, ref) > 0

    def _prove_sum(self, rank: int, ref: Ref, promised: Sum) -> int:
        cell = self.memory[rank].get(ref)
        if cell is None:
            raise ScheduleError(f"rank {rank} ends with nothing in {ref}")
        if not self.expressions.is_sum(cell.value, _bit_set(promised.ranks), promised.chunk):
            faults = self._faults(cell.value, promised)
            raise ScheduleError(f"rank {rank} ends with a wrong {ref}: {faults}")
        return cell.value

    def _faults(self, value: int, promised: Sum) -> str:
        """How a sum differs from what was promised: one contribution of each kind of fault."""
        found = self.expressions.contributions(value)
        due = {(rank, promised.chunk) for rank in promised.ranks}
        missing = sorted(due - found.keys())
        foreign = sorted(found.keys() - due)
        repeated = sorted(origin for origin in due & found.keys() if found[origin] > 1)
        faults = [f"chunk {chunk} of rank {rank} is missing" for rank, chunk in missing[:1]]
        faults += [f"chunk {chunk} of rank {rank} does not belong there" for rank, chunk in foreign[:1]]
        faults += [
            f"chunk {chunk} of rank {rank} is in it {found[rank, chunk]} times"
            for rank, chunk in repeated[:1]
        ]
        return ", ".join(faults)

    def _prove_identical(self, rank: int, ref: Ref, value: int, other_rank: int, other_value: int) -> None:
        if value != other_value:
            raise ScheduleError(
                f"{ref} is added up in different orders: {self.expressions.text(other_value)} on rank {other_rank}, "
                f"{self.expressions.text(value)} on rank {rank}"
            )


def _prove_barrier(expansion: Expansion, order: HappensBefore) -> None:
    """Nobody leaves before everybody has entered: each rank has an op that waits for an op of every other."""
    heard = [0] * len(expansion.ops)
    heard_on = [1 << rank for rank in range(expansion.schedule.num_ranks)]
    for number in order.sequence:
        rank = expansion.rank[number]
        heard[number] = 1 << rank
        for dep in expansion.deps(number):
            heard[number] |= heard[dep]
        if expansion.ops[number].kind is OpKind.RECV:
            heard[number] |= heard[expansion.partner[number]]
        heard_on[rank] |= heard[number]
    for rank, ranks in enumerate(heard_on):
        for other in range(expansion.schedule.num_ranks):
            if not ranks >> other & 1:
                raise ScheduleError(f"rank {rank} can leave the barrier before rank {other} has entered it")


def _measure(expansion: Expansion, order: HappensBefore, window: int | None, num_encodes: int) -> Proof:
    schedule = expansion.schedule
    messages = [0] * schedule.num_ranks
    chunks = [0] * schedule.num_ranks
    weight = [0] * schedule.num_ranks
    senders: list[set[int]] = [set() for _ in range(schedule.num_ranks)]
    for rank, op in zip(expansion.rank, expansion.ops, strict=True):
        if op.kind is OpKind.SEND:
            messages[rank] += 1
            chunks[rank] += len(op.source)
            weight[rank] += sum(_weight(expansion, rank, ref) for ref in op.source)
            senders[op.peer].add(rank)
    collective = schedule.collective
    blocks = 0 if collective.kind == CollectiveKind.BARRIER else collective.num_ranks
    return Proof(
        window=window,
        steps=max(order.depth, default=0),
        messages_sent=tuple(messages),
        chunks_sent=tuple(chunks),
        weight_sent=tuple(weight),
        total_weight=sum(schedule.weights) if collective.num_chunks else blocks,
        max_fan_in=max(map(len, senders)),
        num_encodes=num_encodes,
    )


def _adds(op: Op) -> bool:
    return op.reduce or op.kind is OpKind.REDUCE


def _weight(expansion: Expansion, rank: int, ref: Ref) -> int:
    extent = expansion.extents[rank][ref]
    return expansion.schedule.weights[extent.number] if extent.unit == "chunk" else 1


@cache
def _bit_set(ranks: range | tuple[int, ...]) -> int:
    return sum(1 << rank for rank in ranks)
