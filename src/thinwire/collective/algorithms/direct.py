"""Direct, also transpose: every rank owns one chunk, and everybody sends straight to the owner.

all_reduce is scatter-reduce (everyone sends chunk c to rank c, which adds them up) and all-gather (rank c sends the
sum to everyone). Each contribution crosses the wire once, each sum once to each rank, so shares may be unequal
(``weights``), the owner can add in the accumulation dtype and round once (``wide``), and lossy codecs have their home
here. Ranks address their peers in staggered order (rank + 1, rank + 2, ...) so that nobody is sent to by all at
once. broadcast scatters the data over the other ranks, which pass their chunk on; reduce is the reverse.

=============================  =====  ===================  ==================================================
collective                     steps  bytes a rank sends   wins
=============================  =====  ===================  ==================================================
all_reduce                     2      2 (p - 1) / p        nearly always up to some tens of ranks: optimal
                                                           bytes in two steps; far ahead where the RTT is high
reduce_scatter, all_gather     1      (p - 1) / p          as above
all_to_all                     1      (p - 1) / p          blocks large enough that p - 1 messages do not hurt
broadcast                      2 (*)  1                    large data, few ranks
reduce                         2      1                    large data, few ranks; half types (``wide``)
send_recv                      1      1                    there is no other way
=============================  =====  ===================  ==================================================

(*) 1 for two ranks. It loses with many ranks: p - 1 messages each way, and incast where buffers are small.

Source: the two phases are those of R. Rabenseifner, "Optimization of collective reduction operations", ICCS 2004,
without the butterfly; the shards of J. Jiang et al., "A unified architecture for accelerating distributed DNN training
in heterogeneous GPU/CPU clusters" (BytePS), OSDI 2020; all_reduce as transpose after E. Warraich et al., "OptiReduce:
resilient and tail-optimal AllReduce for distributed deep learning in the cloud", NSDI 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, PartialSums, block_sums, gathered, peers, shares
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
from thinwire.errors import UsageError

NAME = "direct"
WIDE_OR_NOT: tuple[dict[str, bool], ...] = ({}, {"wide": True})


def all_reduce(num_ranks: int, *, weights: Sequence[int] | None = None, wide: bool = False) -> Schedule:
    """Chunk c is owned by rank c, and has its weight."""
    ranks = range(num_ranks)
    parts = [(chunk,) for chunk in ranks]

    def body(ops: ProgramBuilder) -> None:
        sums = PartialSums(ops, data, wide=wide)
        reduce_scatter_phase(ops, ranks, ops.rank, parts, sums)
        sums.finish(ops.rank)
        ops.phase += 1
        all_gather_phase(ops, ranks, ops.rank, parts, data)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(
        collective, NAME, body, weights=shares(num_ranks, weights), params={"wide": int(wide)}
    )


def reduce_scatter(num_ranks: int, *, wide: bool = False) -> Schedule:
    """Everybody sends block r straight to rank r."""
    ranks = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        sums = block_sums(ops, wide=wide)
        reduce_scatter_phase(ops, ranks, ops.rank, [(block,) for block in ranks], sums)
        sums.finish(ops.rank)

    collective = Collective(kind=CollectiveKind.REDUCE_SCATTER, num_ranks=num_ranks)
    return write_schedule(collective, NAME, body, params={"wide": int(wide)})


def all_gather(num_ranks: int) -> Schedule:
    """Everybody sends its block to everybody."""
    ranks = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(0), output_block(ops.rank))
        all_gather_phase(ops, ranks, ops.rank, [(block,) for block in ranks], gathered(ops.rank))

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def all_to_all(num_ranks: int) -> Schedule:
    """Everybody sends everybody its block."""

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(ops.rank), output_block(ops.rank))
        exchange_phase(ops, num_ranks)

    return write_schedule(Collective(kind=CollectiveKind.ALL_TO_ALL, num_ranks=num_ranks), NAME, body)


def broadcast(num_ranks: int, *, root: int = 0) -> Schedule:
    """The data is cut into one chunk for each rank but the root."""
    others = [(root + distance) % num_ranks for distance in range(1, num_ranks)]
    parts = [(chunk,) for chunk in range(len(others))]

    def body(ops: ProgramBuilder) -> None:
        if ops.rank == root:
            for chunk, other in enumerate(others):
                ops.send(other, data(chunk))
        else:
            place = others.index(ops.rank)
            ops.recv(root, data(place))
            ops.phase += 1
            all_gather_phase(ops, others, place, parts, data)

    collective = Collective(
        kind=CollectiveKind.BROADCAST, num_ranks=num_ranks, num_chunks=max(1, num_ranks - 1), root=root
    )
    return write_schedule(collective, NAME, body)


def reduce(
    num_ranks: int, *, root: int = 0, weights: Sequence[int] | None = None, wide: bool = False
) -> Schedule:
    """Chunk c is added up by rank c, and has its weight; then all go to the root."""
    ranks = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        sums = PartialSums(ops, data, wide=wide)
        reduce_scatter_phase(ops, ranks, ops.rank, [(chunk,) for chunk in ranks], sums)
        total = sums.finish(ops.rank)
        ops.phase += 1
        if ops.rank != root:
            ops.send(root, total)
        else:
            for peer in reversed(peers(root, num_ranks)):
                ops.recv(peer, data(peer))

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=num_ranks, num_chunks=num_ranks, root=root)
    return write_schedule(
        collective, NAME, body, weights=shares(num_ranks, weights), params={"wide": int(wide)}
    )


def send_recv(num_ranks: int) -> Schedule:
    """Rank 0 sends its data to rank 1."""
    if num_ranks != 2:
        raise UsageError(f"send_recv is between 2 ranks, not {num_ranks}")

    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
        else:
            ops.recv(0, data(0))

    return write_schedule(Collective(kind=CollectiveKind.SEND_RECV, num_ranks=2, num_chunks=1), NAME, body)


def reduce_scatter_phase(
    ops: ProgramBuilder,
    members: Sequence[int],
    place: int,
    parts: Sequence[Sequence[int]],
    sums: PartialSums,
    *,
    paced: bool = False,
) -> None:
    """Add up, over the ranks of ``members``, the chunks ``parts[i]`` at ``members[i]``.

    Args:
        place: this rank's i.
        parts: may be empty for members that own nothing.
        paced: send to one member at a time, as ``round_robin`` does.
    """
    size = len(members)
    pace: tuple[int, ...] = ()
    for distance in range(1, size):
        above, below = (place + distance) % size, (place - distance) % size
        step = []
        if parts[above]:
            step.append(ops.send(members[above], *map(sums.ref, parts[above]), after=pace))
        if parts[place]:
            step.append(ops.recv_reduce(members[below], *map(sums.writable, parts[place])))
        if paced:
            pace = tuple(step)


def all_gather_phase(
    ops: ProgramBuilder,
    members: Sequence[int],
    place: int,
    parts: Sequence[Sequence[int]],
    ref: Callable[[int], Ref],
    *,
    paced: bool = False,
) -> None:
    """Bring the chunks ``parts[i]`` of ``members[i]`` to all ``members``. ``ref`` is where a chunk is kept."""
    size = len(members)
    pace: tuple[int, ...] = ()
    for distance in range(1, size):
        above, below = (place + distance) % size, (place - distance) % size
        step = []
        if parts[place]:
            step.append(ops.send(members[above], *map(ref, parts[place]), after=pace))
        if parts[below]:
            step.append(ops.recv(members[below], *map(ref, parts[below])))
        if paced:
            pace = tuple(step)


def exchange_phase(ops: ProgramBuilder, num_ranks: int, *, paced: bool = False) -> None:
    """Send every rank its block of INPUT, and receive everybody's block into OUTPUT."""
    pace: tuple[int, ...] = ()
    for distance in range(1, num_ranks):
        above, below = (ops.rank + distance) % num_ranks, (ops.rank - distance) % num_ranks
        sent = ops.send(above, input_block(above), after=pace)
        received = ops.recv(below, output_block(below))
        if paced:
            pace = (sent, received)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2,
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
        example_params=lambda p: WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE_SCATTER,
        generate=reduce_scatter,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: Fraction(p - 1, p),
        example_params=lambda p: WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=lambda p: 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_TO_ALL,
        generate=all_to_all,
        steps_formula=lambda p: 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BROADCAST,
        generate=broadcast,
        steps_formula=lambda p, **_: min(2, p - 1),
        bytes_formula=lambda p, **_: 1,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE,
        generate=reduce,
        steps_formula=lambda p, **_: 2,
        bytes_formula=lambda p, **_: 1,
        example_params=lambda p: WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.SEND_RECV,
        generate=send_recv,
        steps_formula=lambda p: 1,
        bytes_formula=lambda p: 1,
    ),
)
