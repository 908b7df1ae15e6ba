"""Rank order: ``direct``, but every element is added up in the order of the ranks, wherever it lies.

The sum of floating-point numbers depends on the order of additions, and in most algorithms that order depends on the
chunk that an element is in: cut the same tensors otherwise, and the last bits differ. Here it is ((0 + 1) + 2) + ...
everywhere, so any way of cutting gradients into messages gives the same bits.

============  =====  ====================  =====================================================================
collective    steps  bytes a rank sends    wins
============  =====  ====================  =====================================================================
all_reduce    2      2 (p - 1) / p         where results must not depend on how tensors were packed
============  =====  ====================  =====================================================================

It loses a little to ``direct``: what rank 3 sent waits in memory until ranks 0 to 2 have been added.

Source: the two phases are those of ``direct``; the fixed order of J. Demmel and H. D. Nguyen, "Parallel reproducible
summation", IEEE Transactions on Computers 64(7), 2015, section 1, as the simplest way to reproducible sums.
"""

from __future__ import annotations

from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, peers
from thinwire.collective.algorithms.direct import all_gather_phase
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data

NAME = "rank_order"


def all_reduce(num_ranks: int) -> Schedule:
    """Chunk c is owned by rank c, who adds up the ranks below itself, then itself, then the ranks above."""
    ranks = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        own = data(ops.rank)
        for peer in peers(ops.rank, num_ranks):
            ops.send(peer, data(peer))
        if ops.rank == 1:
            ops.recv_reduce(0, own)  # 0 + 1 is 1 + 0
        elif ops.rank > 1:
            below = ops.scratch(like=own)
            ops.recv(0, below)
            for peer in range(1, ops.rank):
                ops.recv_reduce(peer, below)
            ops.reduce(below, own)
        for peer in range(ops.rank + 1, num_ranks):
            ops.recv_reduce(peer, own)
        ops.phase += 1
        all_gather_phase(ops, ranks, ops.rank, [(chunk,) for chunk in ranks], data)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(collective, NAME, body, weights=(1,) * num_ranks)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p: 2,
        bytes_formula=lambda p: Fraction(2 * (p - 1), p),
    ),
)
