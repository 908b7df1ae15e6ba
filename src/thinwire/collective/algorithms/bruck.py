"""Bruck: all_gather and all_to_all in ceil(log2 p) rounds for any number of ranks.

all_gather: in the round of distance d = 1, 2, 4, ... a rank that has the d blocks from its own upwards fetches the
next d from the rank d above (fewer in the last round). Blocks go straight to their place, so nothing is rotated.

all_to_all: a block that must travel i ranks up goes there in hops of the powers of two in i, smallest first. In the
round of distance d all blocks with that bit in their i move together, as one message. Blocks are sent on from where
they are and land in OUTPUT at their last hop, so there is no rotation before or after.

===========  =====  ====================================  ==================================================
collective   steps  bytes a rank sends                    wins
===========  =====  ====================================  ==================================================
all_gather   S      (p - 1) / p                           small blocks, any number of ranks
all_to_all   S      number of 1 bits in 1 .. p-1, over p  small blocks, many ranks: log2 p messages, not p - 1
===========  =====  ====================================  ==================================================

S = ceil(log2 p), but one less if p is no more than 3/4 of the next power of two (two rounds then overlap).
all_to_all pays with bytes (log2(p) / 2 instead of 1) and needs even blocks, since ranks carry each other's.

Source: J. Bruck, C.-T. Ho, S. Kipnis, E. Upfal, D. Weathersby, "Efficient algorithms for all-to-all communications in
multiport message-passing systems", IEEE Transactions on Parallel and Distributed Systems 8 (11), 1997.
"""

from __future__ import annotations

from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, ceil_log2, chained_rounds, gathered
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, input_block, output_block

NAME = "bruck"


def all_gather(num_ranks: int) -> Schedule:
    """Fetch as many blocks as one has, from the rank that far above."""

    def body(ops: ProgramBuilder) -> None:
        ref = gathered(ops.rank)
        ops.copy(input_block(0), output_block(ops.rank))
        for distance in _distances(num_ranks):
            count = min(distance, num_ranks - distance)
            above, below = (ops.rank + distance) % num_ranks, (ops.rank - distance) % num_ranks
            ops.send(below, *(ref((ops.rank + offset) % num_ranks) for offset in range(count)))
            ops.recv(above, *(ref((above + offset) % num_ranks) for offset in range(count)))

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def all_to_all(num_ranks: int) -> Schedule:
    """Hand on, by powers of two, all blocks that must travel that far. Even blocks only."""

    def body(ops: ProgramBuilder) -> None:
        kept = [input_block((ops.rank + travel) % num_ranks) for travel in range(num_ranks)]
        ops.copy(kept[0], output_block(ops.rank))
        for distance in _distances(num_ranks):
            moving = [travel for travel in range(num_ranks) if travel & distance]
            ops.send((ops.rank + distance) % num_ranks, *(kept[travel] for travel in moving))
            for travel in moving:
                is_last_hop = travel < 2 * distance
                kept[travel] = (
                    output_block((ops.rank - travel) % num_ranks)
                    if is_last_hop
                    else ops.scratch(like=input_block(0))
                )
            ops.recv((ops.rank - distance) % num_ranks, *(kept[travel] for travel in moving))

    collective = Collective(kind=CollectiveKind.ALL_TO_ALL, num_ranks=num_ranks)
    return write_schedule(collective, NAME, body, even_blocks=True)


def _distances(num_ranks: int) -> list[int]:
    return [1 << level for level in range(ceil_log2(num_ranks))]


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=chained_rounds,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_TO_ALL,
        generate=all_to_all,
        steps_formula=chained_rounds,
        bytes_formula=lambda p: Fraction(sum(travel.bit_count() for travel in range(p)), p),
        even_blocks=True,
    ),
)
