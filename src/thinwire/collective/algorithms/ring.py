"""Ring: every rank sends to the next and receives from the one before; nobody else is ever talked to.

all_reduce is a reduce_scatter (p - 1 steps: chunk c starts at rank c + 1, gathers one contribution a step, and is
complete at rank c) and an all_gather (p - 1 steps: the complete chunks go round). broadcast and reduce are
the chain: whole data from neighbour to neighbour, pipelined by the executor's segments.

========================  =========  ===================  =====================================================
collective                steps      bytes a rank sends   wins
========================  =========  ===================  =====================================================
all_reduce                2 (p - 1)  2 (p - 1) / p        large data, many ranks, cheap neighbours: bytes are
                                                          optimal and no port ever serves two ranks
reduce_scatter            p - 1      (p - 1) / p          as above
all_gather                p - 1      (p - 1) / p          as above
broadcast, reduce         p - 1      1                    large data: every rank sends it once
========================  =========  ===================  =====================================================

It loses where latency counts: the steps grow with p.

Source: P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of
Parallel and Distributed Computing 69 (2), 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, PartialSums, block_sums, gathered, shares
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

NAME = "ring"


def all_reduce(num_ranks: int, *, weights: Sequence[int] | None = None) -> Schedule:
    """Chunk c is completed by rank c, and has its weight."""
    ring = range(num_ranks)
    parts = [(chunk,) for chunk in ring]

    def body(ops: ProgramBuilder) -> None:
        reduce_scatter_phase(ops, ring, ops.rank, parts, PartialSums(ops, data))
        ops.phase += 1
        all_gather_phase(ops, ring, ops.rank, parts, data)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(collective, NAME, body, weights=shares(num_ranks, weights))


def reduce_scatter(num_ranks: int) -> Schedule:
    """Partial sums go round in scratch; block r is complete at rank r."""
    ring = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        sums = block_sums(ops)
        reduce_scatter_phase(ops, ring, ops.rank, [(block,) for block in ring], sums)
        sums.finish(ops.rank)

    return write_schedule(Collective(kind=CollectiveKind.REDUCE_SCATTER, num_ranks=num_ranks), NAME, body)


def all_gather(num_ranks: int) -> Schedule:
    """Every block goes once round the ring."""
    ring = range(num_ranks)

    def body(ops: ProgramBuilder) -> None:
        ops.copy(input_block(0), output_block(ops.rank))
        all_gather_phase(ops, ring, ops.rank, [(block,) for block in ring], gathered(ops.rank))

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def broadcast(num_ranks: int, *, root: int = 0) -> Schedule:
    """From the root up the ring, to the rank below it."""

    def body(ops: ProgramBuilder) -> None:
        if ops.rank != root:
            ops.recv((ops.rank - 1) % num_ranks, data(0))
        if (ops.rank + 1) % num_ranks != root:
            ops.send((ops.rank + 1) % num_ranks, data(0))

    collective = Collective(kind=CollectiveKind.BROADCAST, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body)


def reduce(num_ranks: int, *, root: int = 0) -> Schedule:
    """From the rank above the root up the ring, to the root."""

    def body(ops: ProgramBuilder) -> None:
        if (ops.rank - 1) % num_ranks != root:
            ops.recv_reduce((ops.rank - 1) % num_ranks, data(0))
        if ops.rank != root:
            ops.send((ops.rank + 1) % num_ranks, data(0))

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body)


def reduce_scatter_phase(
    ops: ProgramBuilder,
    ring: Sequence[int],
    place: int,
    parts: Sequence[Sequence[int]],
    sums: PartialSums,
) -> None:
    """Add up, over the ranks of ``ring``, the chunks ``parts[i]`` at ``ring[i]``. ``place`` is this rank's i."""
    size = len(ring)
    for step in range(size - 1):
        outgoing, incoming = parts[(place - 1 - step) % size], parts[(place - 2 - step) % size]
        ops.send(ring[(place + 1) % size], *map(sums.ref, outgoing))
        ops.recv_reduce(ring[(place - 1) % size], *map(sums.writable, incoming))


def all_gather_phase(
    ops: ProgramBuilder,
    ring: Sequence[int],
    place: int,
    parts: Sequence[Sequence[int]],
    ref: Callable[[int], Ref],
) -> None:
    """Bring the chunks ``parts[i]`` of ``ring[i]`` to every rank of ``ring``. ``ref`` is where a chunk is kept."""
    size = len(ring)
    for step in range(size - 1):
        outgoing, incoming = parts[(place - step) % size], parts[(place - 1 - step) % size]
        ops.send(ring[(place + 1) % size], *map(ref, outgoing))
        ops.recv(ring[(place - 1) % size], *map(ref, incoming))


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2 * (p - 1),
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE_SCATTER,
        generate=reduce_scatter,
        steps_formula=lambda p: p - 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
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
        kind=CollectiveKind.BROADCAST,
        generate=broadcast,
        steps_formula=lambda p, **_: p - 1,
        bytes_formula=lambda p, **_: 1,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE,
        generate=reduce,
        steps_formula=lambda p, **_: p - 1,
        bytes_formula=lambda p, **_: 1,
    ),
)
