"""A collective as a precondition and a postcondition: what each rank's chunks hold before, and must hold after.

The values are symbolic. A contribution is (origin rank, chunk): "rank 2's chunk 5 as it was at the start". After,
a chunk holds the sum of the same chunk of some ranks, each exactly once; where nothing is added, of one rank.

Not here: how one becomes the other (``Schedule``), and whether it does (``check``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from thinwire.collective.schedule import (
    Buffer,
    Collective,
    CollectiveKind,
    Ref,
    Schedule,
    data,
    input_block,
    output_block,
)
from thinwire.errors import ScheduleError


class Extent(NamedTuple):
    """The identity of a size. Two chunks are known to have one size only if they have one extent.

    Chunks of equal weight may still differ by an element, and blocks may be uneven.

    Attributes:
        unit: "chunk" of in-place data, or "block".
        number: which chunk, or which rank's block.
        to: the rank it is for, in all_to_all.
    """

    unit: Literal["chunk", "block"]
    number: int = 0
    to: int = 0


class Sum(NamedTuple):
    """What a chunk must hold at the end: the sum of ``chunk`` of each of ``ranks``."""

    ranks: range | tuple[int, ...]
    chunk: int


def precondition(collective: Collective, rank: int) -> dict[Ref, int]:
    """What ``rank`` holds at the start: for each readable ref the chunk of its own contribution.

    >>> precondition(Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=2, num_chunks=2), 1)[data(1)]
    1
    """
    blocks = range(collective.num_ranks)
    match collective.kind:
        case CollectiveKind.ALL_REDUCE | CollectiveKind.REDUCE:
            return {data(chunk): chunk for chunk in range(collective.num_chunks)}
        case CollectiveKind.BROADCAST if rank == collective.root:
            return {data(chunk): chunk for chunk in range(collective.num_chunks)}
        case CollectiveKind.SEND_RECV if rank == 0:
            return {data(chunk): chunk for chunk in range(collective.num_chunks)}
        case CollectiveKind.ALL_GATHER | CollectiveKind.GATHER:
            return {input_block(0): 0}
        case CollectiveKind.SCATTER if rank == collective.root:
            return {input_block(block): block for block in blocks}
        case CollectiveKind.REDUCE_SCATTER | CollectiveKind.ALL_TO_ALL:
            return {input_block(block): block for block in blocks}
        case _:
            return {}


def postcondition(collective: Collective, rank: int) -> dict[Ref, Sum]:
    """What ``rank`` must hold at the end. Refs that are not listed may hold anything.

    >>> after = postcondition(Collective(kind=CollectiveKind.ALL_TO_ALL, num_ranks=2), 1)
    >>> after[output_block(0)]
    Sum(ranks=(0,), chunk=1)
    """
    everybody = range(collective.num_ranks)
    root = (collective.root,)
    chunks = range(collective.num_chunks)
    match collective.kind:
        case CollectiveKind.ALL_REDUCE:
            return {data(chunk): Sum(everybody, chunk) for chunk in chunks}
        case CollectiveKind.REDUCE if rank == collective.root:
            return {data(chunk): Sum(everybody, chunk) for chunk in chunks}
        case CollectiveKind.BROADCAST:
            return {data(chunk): Sum(root, chunk) for chunk in chunks}
        case CollectiveKind.SEND_RECV:
            return {data(chunk): Sum((0,), chunk) for chunk in chunks}
        case CollectiveKind.ALL_GATHER:
            return {output_block(origin): Sum((origin,), 0) for origin in everybody}
        case CollectiveKind.GATHER if rank == collective.root:
            return {output_block(origin): Sum((origin,), 0) for origin in everybody}
        case CollectiveKind.SCATTER:
            return {output_block(0): Sum(root, rank)}
        case CollectiveKind.REDUCE_SCATTER:
            return {output_block(0): Sum(everybody, rank)}
        case CollectiveKind.ALL_TO_ALL:
            return {output_block(origin): Sum((origin,), rank) for origin in everybody}
        case _:
            return {}


def extents(schedule: Schedule, rank: int) -> dict[Ref, Extent]:
    """Every ref that ``rank`` has, with the identity of its size (of a payload: of what it stands for).

    Raises:
        ScheduleError: a SCRATCH, ACCUMULATOR or PAYLOAD chunk has the size of a ref that this rank does not have.
    """
    collective = schedule.collective
    found: dict[Ref, Extent] = {data(chunk): Extent("chunk", chunk) for chunk in range(collective.num_chunks)}
    for ref in precondition(collective, rank).keys() | postcondition(collective, rank).keys():
        if ref.buffer is not Buffer.DATA:
            found[ref] = Extent("block") if schedule.even_blocks else _block_extent(collective, rank, ref)
    for buffer, likes in (
        (Buffer.SCRATCH, schedule.scratch(rank)),
        (Buffer.ACCUMULATOR, schedule.accumulators(rank)),
        (Buffer.PAYLOAD, schedule.payloads(rank)),
    ):
        for chunk, like in enumerate(likes):
            if like not in found:
                raise ScheduleError(
                    f"rank {rank}: {Ref(buffer, chunk)} has the size of {like}, which this rank does not have"
                )
            found[Ref(buffer, chunk)] = found[like]
    return found


def _block_extent(collective: Collective, rank: int, ref: Ref) -> Extent:
    """Blocks are sized by the rank they come from or go to; those of all_to_all by both."""
    is_input = ref.buffer is Buffer.INPUT
    match collective.kind:
        case CollectiveKind.ALL_TO_ALL:
            return Extent("block", rank, ref.chunk) if is_input else Extent("block", ref.chunk, rank)
        case CollectiveKind.ALL_GATHER | CollectiveKind.GATHER:
            return Extent("block", rank if is_input else ref.chunk)
        case _:  # scatter, reduce_scatter
            return Extent("block", ref.chunk if is_input else rank)
