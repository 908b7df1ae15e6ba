"""Round-robin, also linear or pairwise exchange: direct, but one peer at a time.

In round i a rank sends to rank + i and receives from rank - i, and goes on when both are done: every port serves one
message at a time, and no receiver ever has more than one sender.

=============================  =========  ===================  =============================================
collective                     steps      bytes a rank sends   wins
=============================  =========  ===================  =============================================
all_reduce                     2 (p - 1)  2 (p - 1) / p        where direct would overrun a switch (incast)
reduce_scatter, all_gather     p - 1      (p - 1) / p          as above
all_to_all                     p - 1      (p - 1) / p          large blocks, many ranks
=============================  =========  ===================  =============================================

Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
International Journal of High Performance Computing Applications 19 (1), 2005 (pairwise exchange).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from thinwire.collective.algorithms import direct
from thinwire.collective.algorithms.base import Algorithm, PartialSums, block_sums, gathered, shares
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data, input_block, output_block

NAME = "round_robin"


def all_reduce(num_ranks: int, *, weights: Sequence[int] | None = None, wide: bool = False) -> Schedule:
    """Chunk c is owned by rank c, and has its weight."""
    ranks = range(num_ranks)
    parts = [(chunk,) for chunk in ranks]

    def body(ops: ProgramBuilder) -> None:
        sums = PartialSums(ops, data, wide=wide)
        direct.reduce_scatter_phase(ops, ranks, ops.rank, parts, sums, paced=True)
        sums.finish(ops.rank)
        ops.phase += 1
        direct.all_gather_phase(ops, ranks, ops.rank, parts, data, paced=True)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(
        collective, NAME, body, weights=shares(num_ranks, weights), params={"wide": int(wide)}
    )


def reduce_scatter(num_ranks: int, *, wide: bool = False) -> Schedule:
    """In round i everybody sends the block of the rank i above."""
    ranks = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        sums = block_sums(ops, wide=wide)
        direct.reduce_scatter_phase(ops, ranks, ops.rank, [(block,) for block in ranks], sums, paced=True)
        sums.finish(ops.rank)

    collective = Collective(kind=CollectiveKind.REDUCE_SCATTER, num_ranks=num_ranks)
    return write_schedule(collective, NAME, body, params={"wide": int(wide)})


def all_gather(num_ranks: int) -> Schedule:
    """In round i everybody sends its block to the rank i above."""
    ranks = range(num_ranks)
    parts = [(block,) for block in ranks]

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(0), output_block(ops.rank))
        direct.all_gather_phase(ops, ranks, ops.rank, parts, gathered(ops.rank), paced=True)

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def all_to_all(num_ranks: int) -> Schedule:
    """In round i everybody sends the block of the rank i above."""

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(ops.rank), output_block(ops.rank))
        direct.exchange_phase(ops, num_ranks, paced=True)

    return write_schedule(Collective(kind=CollectiveKind.ALL_TO_ALL, num_ranks=num_ranks), NAME, body)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2 * (p - 1),
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
        example_params=lambda p: direct.WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE_SCATTER,
        generate=reduce_scatter,
        steps_formula=lambda p, **_: p - 1,
        bytes_formula=lambda p, **_: Fraction(p - 1, p),
        example_params=lambda p: direct.WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=lambda p: p - 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_TO_ALL,
        generate=all_to_all,
        steps_formula=lambda p: p - 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
)
