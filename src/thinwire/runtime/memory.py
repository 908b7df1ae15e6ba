"""The memory of one tile and the arithmetic on it; and the pool of buffers for data that must wait or be reduced.

Everything here works on 1-D contiguous NumPy arrays of one element type. NumPy and the Numba kernels release the
GIL while they work, so readers of several links reduce in parallel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinwire.collective.schedule import Buffer, OpKind
from thinwire.runtime.coding import Coding
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.lowering import Piece, Segment, pooled_bytes
from thinwire.runtime.reduction import (
    DTYPES,
    DType,
    ReduceOp,
    Reduction,
    divide,
    mixed_reducer,
    narrow,
    reducer,
    widen,
)

Array = NDArray[Any]
Chunk = Array | DeviceArray  # the latter in sums that are encoded on a device


class Arithmetic(NamedTuple):
    """What "+" is. ``divisor`` makes an average of a sum that is rounded out of an accumulator; 1 leaves it a sum."""

    dtype: DType
    reduce: Reduction
    accumulate: Reduction
    divisor: int

    @classmethod
    def of(cls, op: ReduceOp, dtype: DType, divisor: int = 1) -> Arithmetic:
        """Raises UsageError if ``op`` is not defined on ``dtype``."""
        return cls(dtype, reducer(op, dtype), mixed_reducer(op, dtype), divisor)

    def round_out(self, target: Array, accumulator: Array) -> None:
        """``target`` = the accumulator, divided first if this is an average, so that a half type rounds once."""
        if self.divisor != 1:
            divide(accumulator, self.divisor, DTYPES[self.dtype.accumulation])
        narrow(target, accumulator, self.dtype)


class CodedTile(NamedTuple):
    """How the segments of one tile are encoded and decoded.

    Attributes:
        coding: by what, and with which memory.
        dtype: of the user's tensor; its values are encoded as float32.
        first_elements: for each chunk of the tile its first element's place in the whole tensor.
    """

    coding: Coding
    dtype: DType
    first_elements: Mapping[tuple[Buffer, int], int]


class Memory:
    """The chunks of one tile on one rank.

    Args:
        chunks: for each buffer its chunks, 1-D contiguous arrays (ACCUMULATOR in the accumulation dtype). All or none
            lie on a device.
        arithmetic: how to reduce, widen and narrow elements of this type; None for collectives that only move data.
        borrowed: what of it belongs to the pool.
        coded: how to encode and decode, for collectives that do.
    """

    __slots__ = ("_arithmetic", "_borrowed", "_chunks", "_coded", "_itemsize")

    def __init__(
        self,
        chunks: Mapping[Buffer, Sequence[Chunk]],
        itemsize: int,
        arithmetic: Arithmetic | None,
        borrowed: Sequence[memoryview] = (),
        coded: CodedTile | None = None,
    ) -> None:
        self._borrowed = borrowed
        self._coded = coded
        self._chunks = chunks
        self._itemsize = itemsize
        self._arithmetic = arithmetic

    def bytes_of(self, piece: Piece) -> memoryview:
        """The piece as writable bytes."""
        return self._array(piece).view(np.uint8).data

    def apply_received(self, targets: Iterable[Piece], payload: memoryview, *, reduce: bool) -> None:
        """Store or reduce what was received into its targets."""
        begin = 0
        for piece in targets:
            end = begin + (piece.end - piece.begin) * self._itemsize
            if not reduce:
                self.bytes_of(piece)[:] = payload[begin:end]
            elif end > begin:
                target = self._array(piece)
                assert self._arithmetic is not None
                incoming = np.frombuffer(payload[begin:end], self._arithmetic.dtype.storage)
                if piece.buffer is Buffer.ACCUMULATOR:
                    self._arithmetic.accumulate(target, incoming)
                else:
                    self._arithmetic.reduce(target, incoming)
            begin = end

    def apply_local(self, segment: Segment) -> None:
        """A COPY or a REDUCE."""
        for source, target in zip(segment.source, segment.target, strict=True):
            on_device, from_device = self._chunk(target), self._chunk(source)
            if isinstance(on_device, DeviceArray) and isinstance(from_device, DeviceArray):
                assert segment.kind is OpKind.COPY, segment  # what is reduced there is decoded
                on_device.copy(from_device)
                continue
            into, what = self._array(target), self._array(source)
            wide_source, wide_target = (piece.buffer is Buffer.ACCUMULATOR for piece in (source, target))
            if segment.kind is OpKind.COPY and wide_source == wide_target:
                np.copyto(into, what)
                continue
            assert self._arithmetic is not None
            if segment.kind is OpKind.COPY and wide_target:
                widen(into, what, self._arithmetic.dtype)
            elif segment.kind is OpKind.COPY:
                self._arithmetic.round_out(into, what)
            elif wide_target and not wide_source:
                self._arithmetic.accumulate(into, what)
            else:
                self._arithmetic.reduce(into, what)

    def encode(self, segment: Segment, payload: memoryview) -> int:
        """An ENCODE, into the front of ``payload``; returns how many bytes it took."""
        piece = segment.source[0]
        if piece.begin == piece.end:
            return 0
        assert self._coded is not None
        found = self._chunk(piece)
        values = found if isinstance(found, DeviceArray) else self._as_float32(found, self._coded.dtype)
        first_element = self._coded.first_elements[piece.buffer, piece.chunk] + piece.begin
        return self._coded.coding.encode(values, first_element, payload)

    def decode(self, segment: Segment, payload: memoryview) -> None:
        """A DECODE. What is stored, not added, is a result: an average is divided there.

        Raises:
            CodecError: the payload does not stand for values of this segment.
        """
        piece = segment.target[0]
        if piece.begin == piece.end:
            return
        assert self._coded is not None
        target, dtype = self._chunk(piece), self._coded.dtype
        divisor = self._arithmetic.divisor if self._arithmetic is not None else 1
        if isinstance(target, DeviceArray):
            target.decode(payload, is_added=segment.reduce, divisor=divisor)
            return
        values = self._as_float32(target, dtype)
        codec = self._coded.coding.codec
        encoded = np.frombuffer(payload, np.uint8)
        if segment.reduce:
            codec.add_decoded(encoded, values)
        else:
            codec.decode_into(encoded, values)
            if divisor != 1:
                divide(values, divisor, DTYPES["float32"])
        if values is not target:
            narrow(target, values, dtype)

    def release(self, pool: BufferPool) -> None:
        """Hand back what is borrowed. Nobody may touch the memory after this."""
        for view in self._borrowed:
            pool.give(view)

    def _as_float32(self, array: Array, dtype: DType) -> Array:
        """The values that are encoded: the array itself, or a copy."""
        if array.dtype == np.float32:
            return array
        values = np.empty(array.size, np.float32)
        with np.errstate(over="ignore"):
            widen(values, array, dtype)
        return values

    def _chunk(self, piece: Piece) -> Chunk:
        return self._chunks[piece.buffer][piece.chunk][piece.begin : piece.end]

    def _array(self, piece: Piece) -> Array:
        found = self._chunk(piece)
        assert not isinstance(found, DeviceArray), piece
        return found


class BufferPool:
    """Reusable byte buffers, last given first taken, so that they stay in the cache. Keeps at most ``limit_bytes``."""

    def __init__(self, limit_bytes: int = 40 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._kept_bytes = 0
        self._free: dict[int, list[Array]] = {}
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> memoryview:
        """A writable view of exactly ``num_bytes``."""
        capacity = pooled_bytes(num_bytes)
        with self._lock:
            free = self._free.get(capacity)
            if free:
                self._kept_bytes -= capacity
                return free.pop().data[:num_bytes]
        return np.empty(capacity, np.uint8).data[:num_bytes]

    def give(self, view: memoryview) -> None:
        """Hand back what ``take`` returned. Views of other memory are let go."""
        array = view.obj
        if not isinstance(array, np.ndarray):
            return
        with self._lock:
            if self._kept_bytes + array.nbytes <= self._limit_bytes:
                self._kept_bytes += array.nbytes
                self._free.setdefault(array.nbytes, []).append(array)
