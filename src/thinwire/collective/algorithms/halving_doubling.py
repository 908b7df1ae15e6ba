"""Recursive halving and doubling: in each round the distance halves, and so does the data; then back.

Halving (reduce_scatter): a rank starts responsible for all chunks. Each round it hands the chunks it will not keep to
one rank and adds what another hands to it, until it is left with its own. Doubling (all_gather) is the same rounds
backwards. all_reduce is the one and then the other.

For a power of two this is the butterfly: in the round of distance d, rank r exchanges with r xor d. For any other
number it is the circulant graph: a rank that is responsible for the s chunks from its own upwards hands the upper half
of them (the smaller, if s is odd) to the rank that far above. Both send each chunk's sum exactly once and take
ceil(log2 p) rounds, so no rank sits out, as in schemes that first fold the ranks beyond a power of two.

=========================  ============  ==================  ======================================================
collective                 steps         bytes a rank sends  wins
=========================  ============  ==================  ======================================================
all_reduce                 2 S           2 (p - 1) / p       middle sizes, many ranks: optimal in bytes and in
                                                             rounds, but a round waits for the one before
reduce_scatter             S             (p - 1) / p         as above
all_gather                 S             (p - 1) / p         as above
=========================  ============  ==================  ======================================================

S = ceil(log2 p), but one less if p is no more than 3/4 of the next power of two (two rounds then overlap).

Source: the butterfly is R. Rabenseifner, "Optimization of collective reduction operations", ICCS 2004; the circulant
graph is J. L. Träff, "Optimal, non-pipelined reduce-scatter and allreduce algorithms", arXiv 2410.14234, 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from thinwire.collective.algorithms.base import (
    Algorithm,
    PartialSums,
    block_sums,
    chained_rounds,
    gathered,
    shares,
)
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import (
    Collective,
    CollectiveKind,
    Ref,
    Schedule,
    data,
    input_block,
    output_block,
)

NAME = "halving_doubling"


class Round(NamedTuple):
    """One round of halving: ``handed`` goes to rank ``to``, and rank ``source`` hands us its part of ``kept``."""

    to: int
    handed: list[int]
    source: int
    kept: list[int]


def halving_rounds(rank: int, num_ranks: int) -> list[Round]:
    """The rounds of one rank; doubling is these backwards, with the directions turned round.

    >>> halving_rounds(0, 4)[0]
    Round(to=2, handed=[2, 3], source=2, kept=[0, 1])
    >>> halving_rounds(0, 3)[0]
    Round(to=2, handed=[2], source=1, kept=[0])
    """
    is_power_of_two = num_ranks & (num_ranks - 1) == 0
    return (_butterfly if is_power_of_two else _circulant)(rank, num_ranks)


def all_reduce(num_ranks: int, *, weights: Sequence[int] | None = None) -> Schedule:
    """Chunk c is completed by rank c, and has its weight."""

    def body(ops: ProgramBuilder) -> None:
        _halve(ops, num_ranks, PartialSums(ops, data))
        ops.phase += 1
        _double(ops, num_ranks, data)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(collective, NAME, body, weights=shares(num_ranks, weights))


def reduce_scatter(num_ranks: int) -> Schedule:
    """Halving only; partial sums are kept in scratch."""

    def body(ops: ProgramBuilder) -> None:
        sums = block_sums(ops)
        _halve(ops, num_ranks, sums)
        sums.finish(ops.rank)

    return write_schedule(Collective(kind=CollectiveKind.REDUCE_SCATTER, num_ranks=num_ranks), NAME, body)


def all_gather(num_ranks: int) -> Schedule:
    """Doubling only."""

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(0), output_block(ops.rank))
        _double(ops, num_ranks, gathered(ops.rank))

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def _halve(ops: ProgramBuilder, num_ranks: int, sums: PartialSums) -> None:
    for to, handed, source, kept in halving_rounds(ops.rank, num_ranks):
        ops.send(to, *map(sums.ref, handed))
        ops.recv_reduce(source, *map(sums.writable, kept))


def _double(ops: ProgramBuilder, num_ranks: int, ref: Callable[[int], Ref]) -> None:
    for to, handed, source, kept in reversed(halving_rounds(ops.rank, num_ranks)):
        ops.send(source, *map(ref, kept))
        ops.recv(to, *map(ref, handed))


def _butterfly(rank: int, num_ranks: int) -> list[Round]:
    rounds = []
    kept = list(range(num_ranks))
    distance = num_ranks // 2
    while distance:
        partner = rank ^ distance
        handed = [chunk for chunk in kept if chunk & distance == partner & distance]
        kept = [chunk for chunk in kept if chunk & distance == rank & distance]
        rounds.append(Round(partner, handed, partner, kept))
        distance //= 2
    return rounds


def _circulant(rank: int, num_ranks: int) -> list[Round]:
    rounds = []
    size = num_ranks
    while size > 1:
        half = (size + 1) // 2
        handed = [(rank + offset) % num_ranks for offset in range(half, size)]
        kept = [(rank + offset) % num_ranks for offset in range(size - half)]
        rounds.append(Round((rank + half) % num_ranks, handed, (rank - half) % num_ranks, kept))
        size = half
    return rounds


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2 * chained_rounds(p),
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE_SCATTER,
        generate=reduce_scatter,
        steps_formula=chained_rounds,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=chained_rounds,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
)
