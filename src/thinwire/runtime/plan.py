"""From a call to what runs: the schedule, the sizes, the tiles, and the signature that ranks compare.

A plan depends on the call's description alone, never on the data, and is made once for each shape of call. Large
calls are cut into tiles, slices of every chunk, which run as a window over the data: that bounds what can be
staged, and so the memory of an operation of any size.

The choice of algorithm here is the explicit table of ``collective.selection``; a planner may hand over another
schedule.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np

from thinwire.codec.base import Codec
from thinwire.collective import generate, prove
from thinwire.collective.schedule import (
    Buffer,
    Collective,
    CollectiveKind,
    OpKind,
    Ref,
    Schedule,
    chunk_bounds,
)
from thinwire.collective.selection import Place, choose
from thinwire.runtime.coding import Coding
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.lowering import Grid, Lowered, grid_for, lower, only_answers
from thinwire.runtime.memory import Arithmetic, BufferPool, Chunk, CodedTile, Memory
from thinwire.runtime.reduction import DTYPES, DType, ReduceOp

TILE_BYTES = 16 << 20
_proving = threading.Lock()
MOST_ELEMENTS_TO_JUDGE_BY = 1 << 16  # a payload of so many has about the bits a value of a larger one

Sizes = tuple[tuple[Buffer, tuple[int, ...]], ...]  # elements of each chunk of the user's buffers


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a call but its data. Hashable: the key under which its plan is kept.

    Attributes:
        sizes: elements of the chunks of INPUT and OUTPUT, or the total of DATA.
        common_sizes: what of the sizes is known to every rank, and therefore compared between them.
        tiled_bytes: bytes of the whole collective if every rank knows them, else 0: such a call is one tile.
        place: where the group's ranks are; decides the algorithm, and how chunks are cut.
        codec: what encodes the data on its way; None: nothing does.
    """

    kind: CollectiveKind
    rank: int
    num_ranks: int
    dtype: DType
    sizes: Sizes
    common_sizes: tuple[int, ...]
    tiled_bytes: int
    place: Place
    root: int = 0
    op: ReduceOp | None = None
    average: bool = False
    algorithm: str | None = None
    shape: tuple[int, ...] = ()
    codec: Codec | None = None

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape)) if self.shape else ",".join(map(str, self.common_sizes))
        words = [f"{self.dtype.name}[{size}]"]
        if self.op is not None:
            words.append("avg" if self.average else str(self.op))
        if self.kind in _ROOTED:
            words.append(f"root={self.root}")
        if self.codec is not None:
            words.append(str(self.codec))
        return f"{self.kind}({', '.join(words)})"


_ROOTED = (CollectiveKind.REDUCE, CollectiveKind.BROADCAST, CollectiveKind.GATHER, CollectiveKind.SCATTER)
_IN_PLACE = (
    CollectiveKind.ALL_REDUCE,
    CollectiveKind.REDUCE,
    CollectiveKind.BROADCAST,
    CollectiveKind.BARRIER,
    CollectiveKind.SEND_RECV,
)


class Tile(NamedTuple):
    """One slice of an operation.

    Attributes:
        lowered: what this rank does.
        scratch: buffers that come and go with the tile: (which, elements of each chunk, NumPy type).
        staging_bytes: memory beyond the user's that it may need at once: scratch, and what may arrive too early.
    """

    lowered: Lowered
    scratch: tuple[tuple[Buffer, tuple[int, ...], np.dtype[Any]], ...]
    staging_bytes: int


class Plan:
    """How a call runs on this rank.

    Attributes:
        description: the call in words.
        signature: 64 bits that are equal on all ranks that make the same call with the same schedule.
        num_tiles: how many slices it runs in.
    """

    def __init__(self, call: Call, schedule: Schedule) -> None:
        self.call = call
        self.schedule = schedule
        self.description = str(call)
        common = (
            self.description,
            call.dtype.name,
            call.common_sizes,
            schedule.fingerprint,
            call.average,
            call.place,
            repr(call.codec),  # with the parameters that its text leaves out, because they are as by default
        )
        digest = hashlib.blake2b(repr(common).encode(), digest_size=8).digest()
        self.signature = int.from_bytes(digest, "little")
        self.num_tiles = max(1, -(-_staged_bytes(call, schedule) // TILE_BYTES))
        self.arithmetic = (
            Arithmetic.of(call.op, call.dtype, call.num_ranks if call.average else 1)
            if call.op is not None
            else None
        )
        self._sizes = {
            buffer: _data_sizes(sizes[0], schedule) if buffer is Buffer.DATA else sizes
            for buffer, sizes in call.sizes
        }
        self._data_bounds = [
            bound
            for buffer, sizes in call.sizes
            if buffer is Buffer.DATA
            for bound in pairwise(chunk_bounds(sizes[0], schedule.weights))
        ]
        self._tiles: dict[int, Tile] = {}
        # One rank may round out for all (a star's hub), and then has divided for all. What is decoded as a result has
        # been divided too.
        self._has_divided = call.average and (
            any(map(schedule.accumulators, range(call.num_ranks)))
            or any(op.kind is OpKind.DECODE and not op.reduce for op in schedule.program(call.rank))
        )

    def split(self, data: Chunk) -> list[Chunk]:
        """The DATA chunks of an in-place collective, as views."""
        return [data[begin:end] for begin, end in self._data_bounds]

    def tile_of(self, arrays: Sequence[Chunk], index: int) -> Sequence[Chunk]:
        """The slice of each array that belongs to one tile."""
        tiles = self.num_tiles
        if tiles == 1:
            return arrays
        return [
            array[_bound(array.size, index, tiles) : _bound(array.size, index + 1, tiles)] for array in arrays
        ]

    def tile(self, index: int) -> Tile:
        """What one tile does and needs; made once."""
        found = self._tiles.get(index)
        if found is None:
            sizes = {
                buffer: tuple(
                    _bound(size, index + 1, self.num_tiles) - _bound(size, index, self.num_tiles)
                    for size in chunks
                )
                for buffer, chunks in self._sizes.items()
            }
            found = _lowered(
                self.schedule,
                self.call.rank,
                self.call.dtype,
                self.call.codec,
                grid_for(self.call.place, is_coded=self.call.codec is not None),
                tuple(sizes.items()),
            )
            self._tiles[index] = found
        return found

    @property
    def num_elements(self) -> int:
        """Of the user's tensor, as far as this rank has it: of what is read."""
        return sum(next(iter(self._sizes.values()), ()))

    def memory(
        self,
        index: int,
        chunks: Mapping[Buffer, Sequence[Chunk]],
        pool: BufferPool,
        coding: Coding | None = None,
    ) -> Memory:
        """The arrays of one tile: slices of the user's chunks, and scratch from the pool, or on their device."""
        own: dict[Buffer, Sequence[Chunk]] = {
            buffer: self.tile_of(arrays, index) for buffer, arrays in chunks.items()
        }
        borrowed = []
        for buffer, sizes, storage in self.tile(index).scratch:
            like = own[Buffer.DATA][0] if Buffer.DATA in own else None
            if isinstance(like, DeviceArray):
                own[buffer] = [like.new(size) for size in sizes]
                continue
            views = [pool.take(size * storage.itemsize) for size in sizes]
            own[buffer] = [np.frombuffer(view, storage) for view in views]
            borrowed += views
        coded = CodedTile(coding, self.call.dtype, self._first_elements(index)) if coding else None
        return Memory(own, self.call.dtype.itemsize, self.arithmetic, borrowed, coded)

    def _first_elements(self, index: int) -> dict[tuple[Buffer, int], int]:
        """Where in the user's tensor each chunk of a tile begins; a sum begins where the chunk does that it sums up."""
        found: dict[tuple[Buffer, int], int] = {}
        for buffer, sizes in self._sizes.items():
            begin = 0
            for chunk, size in enumerate(sizes):
                found[buffer, chunk] = begin + _bound(size, index, self.num_tiles)
                begin += size
        rank = self.call.rank
        for buffer, likes in (
            (Buffer.SCRATCH, self.schedule.scratch(rank)),
            (Buffer.ACCUMULATOR, self.schedule.accumulators(rank)),
        ):
            for chunk, like in enumerate(likes):
                found[buffer, chunk] = found[like.buffer, like.chunk]
        return found

    @property
    def divides_result(self) -> bool:
        """Whether an average still has to be divided when a tile is done (accumulators divide as they round)."""
        return self.call.average and not self._has_divided

    @property
    def result(self) -> Buffer | None:
        """The buffer that holds this rank's result, if it has one."""
        call = self.call
        if call.kind in (CollectiveKind.REDUCE, CollectiveKind.GATHER) and call.rank != call.root:
            return None
        return Buffer.DATA if call.kind in _IN_PLACE else Buffer.OUTPUT


@functools.lru_cache(maxsize=1024)
def plan_for(call: Call) -> Plan:
    """The plan of a call, made once.

    Raises:
        UsageError: no such algorithm for this collective, or no such reduction on this type.
    """
    half = call.op is not None and call.dtype.is_half
    algorithm, params = choose(
        call.kind,
        call.num_ranks,
        call.tiled_bytes,
        is_half=half,
        is_even=_is_even(call),
        is_commutative=not _has_signed_zeros(call),
        is_coded=call.codec is not None,
        place=call.place,
        override=call.algorithm,
    )
    return Plan(
        call, _schedule(call.kind, call.num_ranks, call.root, algorithm, tuple(sorted(params.items())))
    )


def _schedule(
    kind: CollectiveKind, num_ranks: int, root: int, algorithm: str, params: tuple[tuple[str, int], ...]
) -> Schedule:
    """A schedule, proved once, also where several ranks are threads of this process."""
    with _proving:
        return _proved(kind, num_ranks, root, algorithm, params)


@functools.lru_cache(maxsize=256)
def _proved(
    kind: CollectiveKind, num_ranks: int, root: int, algorithm: str, params: tuple[tuple[str, int], ...]
) -> Schedule:
    """A schedule, proved: nothing runs that the checker has not passed. ScheduleError would be our own bug."""
    schedule = generate(Collective(kind=kind, num_ranks=num_ranks, root=root), algorithm, **dict(params))
    prove(schedule)
    return schedule


@functools.lru_cache(maxsize=1024)
def _lowered(
    schedule: Schedule, rank: int, dtype: DType, codec: Codec | None, grid: Grid, sizes: Sizes
) -> Tile:
    known = dict(sizes)

    def num_elements(ref: Ref) -> int:
        return known[ref.buffer][ref.chunk]

    scratch = []
    for buffer, like, storage in (
        (Buffer.SCRATCH, schedule.scratch(rank), dtype.storage),
        (Buffer.ACCUMULATOR, schedule.accumulators(rank), DTYPES[dtype.accumulation].storage),
    ):
        if like:
            known[buffer] = tuple(num_elements(ref) for ref in like)
            scratch.append((buffer, known[buffer], storage))
    known[Buffer.PAYLOAD] = tuple(num_elements(ref) for ref in schedule.payloads(rank))

    def payload_bound(elements: int) -> int:
        assert codec is not None
        return codec.payload_bound((elements,)) if elements else 0

    lowered = lower(
        schedule.program(rank),
        num_elements,
        dtype.itemsize,
        grid,
        None if codec is None else payload_bound,
        lambda peer: only_answers(schedule.program(peer), rank),
    )
    scratch_bytes = sum(sum(elements) * storage.itemsize for _, elements, storage in scratch)
    return Tile(lowered, tuple(scratch), lowered.staging_bytes + scratch_bytes)


def _staged_bytes(call: Call, schedule: Schedule) -> int:
    """About what a call that is not cut into tiles stages: its own size, or that of its payloads and accumulators.

    A rank holds at most the payloads of all contributions, of all sums, and of what it receives of its own chunk.
    """
    if call.codec is None:
        return call.tiled_bytes
    segment = (min(MOST_ELEMENTS_TO_JUDGE_BY, call.tiled_bytes // call.dtype.itemsize),)
    staged = 3 * call.tiled_bytes / call.dtype.itemsize * call.codec.bits_per_value(segment) / 8
    share = max(schedule.weights, default=1) / (sum(schedule.weights) or call.num_ranks)
    if any(map(schedule.accumulators, range(call.num_ranks))):
        staged += share * call.tiled_bytes / call.dtype.itemsize * 4
    return int(staged)


def _has_signed_zeros(call: Call) -> bool:
    """Whether the result depends, in its bits, on which operand stands left: min and max of -0.0 and 0.0."""
    return call.op in (ReduceOp.MIN, ReduceOp.MAX) and call.dtype.storage.kind == "f"


def _is_even(call: Call) -> bool:
    """Whether all blocks are known by every rank to have one size, as algorithms that relay blocks need."""
    return bool(call.common_sizes) and len(set(call.common_sizes)) == 1


def _data_sizes(total: int, schedule: Schedule) -> tuple[int, ...]:
    bounds = chunk_bounds(total, schedule.weights)
    return tuple(end - begin for begin, end in pairwise(bounds))


def _bound(size: int, index: int, parts: int) -> int:
    return size * index // parts
