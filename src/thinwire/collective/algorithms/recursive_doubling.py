"""Recursive doubling: in each round everybody exchanges all it has with a partner, and what it knows doubles.

In the round of distance d = 1, 2, 4, ... rank r exchanges with r xor d. If p is not a power of two, the first ranks
form pairs: the even one gives what it has to the odd one before, and is given the result after.

Partners both add the other's value to their own, so all ranks end with identical bytes because addition commutes
(see ``collective.expressions``).

===========  =======  ====================  ================================================
collective   steps    bytes a rank sends    wins
===========  =======  ====================  ================================================
all_reduce   S (+ 1)  floor(log2 p) (+ 1)   small data: few steps, one message a step
all_gather   S (+ 1)  (p - 1) / p (+ < 2)   small data and a power of two; else see Bruck
===========  =======  ====================  ================================================

In brackets: what is added if p is not a power of two. S = ceil(log2 p), but one less if p is no more than 3/4 of the
next power of two: then no chain of messages leads from one pair through all rounds to another.

Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
International Journal of High Performance Computing Applications 19 (1), 2005.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, chained_rounds, floor_log2, gathered
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data, input_block, output_block

NAME = "recursive_doubling"


class Core:
    """The power of two of ranks that take part in the doubling.

    Core member i is rank 2 i + 1 and speaks for rank 2 i as well, as long as there are ranks to spare; the members
    after those are the remaining ranks.
    """

    def __init__(self, num_ranks: int) -> None:
        self.size = 1 << floor_log2(num_ranks)
        self.num_pairs = num_ranks - self.size

    def ranks(self, member: int) -> tuple[int, ...]:
        """For whom a member speaks: its pair, or only itself; it is the last of them."""
        if member < self.num_pairs:
            return (2 * member, 2 * member + 1)
        return (member + self.num_pairs,)

    def member(self, rank: int) -> int:
        """Who speaks for ``rank``."""
        return rank // 2 if rank < 2 * self.num_pairs else rank - self.num_pairs

    def distances(self) -> Iterator[int]:
        return (1 << level for level in range(floor_log2(self.size)))


def all_reduce(num_ranks: int) -> Schedule:
    """The whole data in every round."""
    core = Core(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        member = core.member(ops.rank)
        *represented, speaker = core.ranks(member)
        if ops.rank != speaker:
            ops.send(speaker, data(0))
            ops.recv(speaker, data(0))
            return
        for rank in represented:
            ops.recv_reduce(rank, data(0))
        for distance in core.distances():
            partner = core.ranks(member ^ distance)[-1]
            ops.send(partner, data(0))
            ops.recv_reduce(partner, data(0))
        for rank in represented:
            ops.send(rank, data(0))

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=1)
    return write_schedule(collective, NAME, body)


def all_gather(num_ranks: int) -> Schedule:
    """All blocks known so far in every round."""
    core = Core(num_ranks)

    def blocks(first_member: int, count: int) -> list[int]:
        return [rank for member in range(first_member, first_member + count) for rank in core.ranks(member)]

    def body(ops: ProgramBuilder) -> None:
        ref = gathered(ops.rank)
        member = core.member(ops.rank)
        *represented, speaker = core.ranks(member)
        others = [rank for rank in range(num_ranks) if rank != ops.rank]
        ops.copy(input_block(0), output_block(ops.rank))
        if ops.rank != speaker:
            ops.send(speaker, input_block(0))
            ops.recv(speaker, *map(output_block, others))
            return
        for rank in represented:
            ops.recv(rank, output_block(rank))
        for distance in core.distances():
            partner = member ^ distance
            ours, theirs = (blocks(group & -distance, distance) for group in (member, partner))
            ops.send(core.ranks(partner)[-1], *map(ref, ours))
            ops.recv(core.ranks(partner)[-1], *map(ref, theirs))
        for rank in represented:
            ops.send(rank, *(ref(block) for block in range(num_ranks) if block != rank))

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def _steps(num_ranks: int) -> int:
    return chained_rounds(num_ranks) + (1 if Core(num_ranks).num_pairs else 0)


def _all_reduce_bytes(num_ranks: int) -> int:
    return floor_log2(num_ranks) + (1 if Core(num_ranks).num_pairs else 0)


def _all_gather_bytes(num_ranks: int) -> Fraction:
    """Of member 0, whose groups hold most pairs."""
    core = Core(num_ranks)
    doubling = sum(distance + min(distance, core.num_pairs) for distance in core.distances())
    return Fraction(doubling + (num_ranks - 1 if core.num_pairs else 0), num_ranks)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=_steps,
        bytes_formula=_all_reduce_bytes,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=_steps,
        bytes_formula=_all_gather_bytes,
    ),
)
