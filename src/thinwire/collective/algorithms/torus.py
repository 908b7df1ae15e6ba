"""2-D torus: rings along the rows, then along the columns, then back.

Ranks stand in ``rows`` x ``columns``, row after row. all_reduce is a ring reduce_scatter along each row of the chunks
of whole columns, a ring all_reduce along each column of what is left, and a ring all_gather along the rows.

===========  ==============================  ==================  ===============================================
collective   steps                           bytes a rank sends  wins
===========  ==============================  ==================  ===============================================
all_reduce   2 (rows - 1) + 2 (columns - 1)  2 (p - 1) / p       large data, many ranks: the ring's optimal bytes
                                                                 and two neighbours, in 4 sqrt(p) steps, not 2 p;
                                                                 grids of links
===========  ==============================  ==================  ===============================================

It loses to direct and halving-doubling in steps. With one row it is the ring.

Source: H. Mikami, H. Suganuma, P. U-chupala, Y. Tanaka, Y. Kageyama, "Massively distributed SGD: ImageNet/ResNet-50
training in a flash", arXiv 1811.05233, 2018 (2D-torus all-reduce).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from thinwire.collective.algorithms import ring
from thinwire.collective.algorithms.base import Algorithm, PartialSums, shares
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data
from thinwire.errors import UsageError

NAME = "torus"


def all_reduce(num_ranks: int, *, rows: int | None = None, weights: Sequence[int] | None = None) -> Schedule:
    """Chunk c is completed by rank c, and has its weight. ``rows`` divides ``num_ranks``; default: near a square."""
    rows, columns = _grid(num_ranks, rows)

    def body(ops: ProgramBuilder) -> None:
        row, column = divmod(ops.rank, columns)
        row_ring = range(row * columns, (row + 1) * columns)
        column_ring = range(column, num_ranks, columns)
        row_parts = [range(other, num_ranks, columns) for other in range(columns)]
        column_parts = [(chunk,) for chunk in column_ring]
        sums = PartialSums(ops, data)
        ring.reduce_scatter_phase(ops, row_ring, column, row_parts, sums)
        ops.phase += 1
        ring.reduce_scatter_phase(ops, column_ring, row, column_parts, sums)
        ring.all_gather_phase(ops, column_ring, row, column_parts, data)
        ops.phase += 1
        ring.all_gather_phase(ops, row_ring, column, row_parts, data)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(collective, NAME, body, weights=shares(num_ranks, weights), params={"rows": rows})


def _grid(num_ranks: int, rows: int | None) -> tuple[int, int]:
    if rows is None:
        rows = next(count for count in range(math.isqrt(num_ranks), 0, -1) if num_ranks % count == 0)
    if rows < 1 or num_ranks % rows:
        raise UsageError(
            f"{num_ranks} ranks cannot stand in {rows} rows of one length; give a divisor of {num_ranks}"
        )
    return rows, num_ranks // rows


def _steps(num_ranks: int, *, rows: int | None = None, **_: object) -> int:
    rows, columns = _grid(num_ranks, rows)
    return 2 * (rows - 1) + 2 * (columns - 1)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=_steps,
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
        example_params=lambda p: [{"rows": rows} for rows in range(1, p + 1) if p % rows == 0],
    ),
)
