"""The randomised Hadamard transform, compiled. ``hadamard_numpy`` is the same in NumPy, and explains it."""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.bits import mixed
from thinwire.codec.kernels.hadamard_numpy import SHRINK

_f4, _u4 = np.float32, np.uint32
_MOST = _f4(np.finfo(np.float32).max)


@numba.njit(nogil=True, inline="never")
def _flip(values: Array, key: np.uint32) -> None:
    bits = values.view(np.uint32)
    for i in range(bits.size):
        bits[i] ^= mixed(key, _u4(i)) & _u4(0x80000000)


@numba.njit(nogil=True, inline="never")
def _stage(source: Array, target: Array) -> None:
    half = source.size // 2
    for i in range(half):
        a, b = source[2 * i], source[2 * i + 1]
        target[i] = a + b
        target[i + half] = a - b


@numba.njit(nogil=True, inline="never")
def _transform(values: Array, spare: Array) -> None:
    size = values.size
    factor = _f4(1 / np.sqrt(np.float64(size)))
    width = 1
    is_here = True
    while width < size:
        if is_here:
            _stage(values, spare)
        else:
            _stage(spare, values)
        is_here = not is_here
        width *= 2
    for i in range(size):
        values[i] = (values[i] if is_here else spare[i]) * factor


@compiled(types.float32[::1], types.int64, read_only(types.uint32))
def rotate(values: Array, width: int, keys: Array) -> None:
    """As ``hadamard_numpy.rotate``."""
    spare = np.empty(width, np.float32)
    for i in range(values.size):
        values[i] *= _f4(SHRINK)
    for number in range(keys.size // 2):
        chunk = values[number * width : (number + 1) * width]
        size = 1
        while 2 * size <= chunk.size:
            size *= 2
        _flip(chunk, keys[2 * number])
        _transform(chunk[:size], spare[:size])
        if size < chunk.size:
            _flip(chunk, keys[2 * number + 1])
            _transform(chunk[chunk.size - size :], spare[:size])


@compiled(types.float32[::1], types.int64, read_only(types.uint32))
def rotate_back(values: Array, width: int, keys: Array) -> None:
    """As ``hadamard_numpy.rotate_back``."""
    spare = np.empty(width, np.float32)
    for number in range(keys.size // 2):
        chunk = values[number * width : (number + 1) * width]
        size = 1
        while 2 * size <= chunk.size:
            size *= 2
        if size < chunk.size:
            _transform(chunk[chunk.size - size :], spare[:size])
            _flip(chunk, keys[2 * number + 1])
        _transform(chunk[:size], spare[:size])
        _flip(chunk, keys[2 * number])
    for i in range(values.size):
        value = values[i] * _f4(1 / SHRINK)
        value = _MOST if value > _MOST else value
        values[i] = -_MOST if value < -_MOST else value
