"""Dissemination: a barrier in ceil(log2 p) rounds for any number of ranks, with no rank in the middle.

In the round of distance d = 1, 2, 4, ... a rank tells the rank d above that it, and everybody it has heard of, has
entered, and waits to be told by the rank d below. After the last round everybody has heard of everybody.

===========  ============  ==================  =========================================
collective   steps         bytes a rank sends  wins
===========  ============  ==================  =========================================
barrier      ceil(log2 p)  0                   always: no barrier has fewer rounds
===========  ============  ==================  =========================================

Source: D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier synchronization", International Journal of
Parallel Programming 17 (1), 1988.
"""

from __future__ import annotations

from thinwire.collective.algorithms.base import Algorithm, ceil_log2
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule

NAME = "dissemination"


def barrier(num_ranks: int) -> Schedule:
    """Empty messages at doubling distances."""

    def body(ops: ProgramBuilder) -> None:
        heard: list[int] = []
        for level in range(ceil_log2(num_ranks)):
            distance = 1 << level
            ops.send((ops.rank + distance) % num_ranks, after=heard)
            heard.append(ops.recv((ops.rank - distance) % num_ranks))

    return write_schedule(Collective(kind=CollectiveKind.BARRIER, num_ranks=num_ranks), NAME, body)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BARRIER,
        generate=barrier,
        steps_formula=ceil_log2,
        bytes_formula=lambda p: 0,
    ),
)
