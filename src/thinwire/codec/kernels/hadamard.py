"""The randomised Hadamard transform, compiled. ``hadamard_numpy`` is the same in NumPy, and explains it.

There all stages are one loop, which moves every value; here stage k combines values that are 2**k apart, in place. That
is the same sum for each value in the same order: after the last stage the moves there have undone each other.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.bits import mixed, mixed_vector
from thinwire.codec.kernels.hadamard_numpy import SHRINK
from thinwire.codec.kernels.vectors import (
    LANES,
    choose,
    is_at_least,
    lanes,
    load,
    seen_as,
    smaller,
    splat,
    store,
    swapped,
)

_f4, _u4 = np.float32, np.uint32
_MOST = _f4(np.finfo(np.float32).max)


@numba.njit(nogil=True, forceinline=True)
def _flip(values: Array, start: int, size: int, key: np.uint32) -> None:
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        signs = mixed_vector(key, lanes(np.uint32) + _u4(i)) & _u4(0x80000000)
        store(values, start + i, seen_as(seen_as(load(values, start + i), np.uint32) ^ signs, np.float32))
    for i in range(whole, size):
        if mixed(key, _u4(i)) & _u4(0x80000000):
            values[start + i] = -values[start + i]


@numba.njit(nogil=True, forceinline=True)
def _multiply(values: Array, start: int, size: int, factor: np.float32) -> None:
    whole = size // LANES * LANES
    for i in range(start, start + whole, LANES):
        store(values, i, load(values, i) * factor)
    for i in range(start + whole, start + size):
        values[i] *= factor


@numba.njit(nogil=True, forceinline=True)
def _combined(x: object, other: object, distance: int) -> object:
    """Sums where the lane's bit of that distance is 0, differences where it is 1."""
    is_upper = is_at_least(lanes(np.uint32) & _u4(distance), _u4(distance))
    return choose(is_upper, other - x, x + other)  # type: ignore[operator]


@numba.njit(nogil=True)
def _transform(values: Array, start: int, size: int) -> None:
    distance = 1
    if size >= LANES:
        for i in range(start, start + size, LANES):
            x = load(values, i)
            x = _combined(x, swapped(x, 1), 1)
            x = _combined(x, swapped(x, 2), 2)
            x = _combined(x, swapped(x, 4), 4)
            x = _combined(x, swapped(x, 8), 8)
            store(values, i, _combined(x, swapped(x, 16), 16))
        distance = LANES
    while distance < size:
        for first in range(start, start + size, 2 * distance):
            if distance >= LANES:
                for i in range(first, first + distance, LANES):
                    left, right = load(values, i), load(values, i + distance)
                    store(values, i, left + right)
                    store(values, i + distance, left - right)
            else:
                for i in range(first, first + distance):
                    a, b = values[i], values[i + distance]
                    values[i], values[i + distance] = a + b, a - b
        distance *= 2
    _multiply(values, start, size, _f4(1 / np.sqrt(np.float64(size))))


@compiled(types.float32[::1], types.int64, read_only(types.uint32))
def rotate(values: Array, width: int, keys: Array) -> None:
    """As ``hadamard_numpy.rotate``."""
    for number in range(keys.size // 2):
        start = number * width
        end = min(start + width, values.size)
        size = 1
        while 2 * size <= end - start:
            size *= 2
        _multiply(values, start, end - start, _f4(SHRINK))
        _flip(values, start, end - start, keys[2 * number])
        _transform(values, start, size)
        if size < end - start:
            _flip(values, start, end - start, keys[2 * number + 1])
            _transform(values, end - size, size)


@compiled(types.float32[::1], types.int64, read_only(types.uint32), types.boolean)
def rotate_back(values: Array, width: int, keys: Array, forgets_nan: bool) -> None:
    """As ``hadamard_numpy.rotate_back``."""
    for number in range(keys.size // 2):
        start = number * width
        end = min(start + width, values.size)
        size = 1
        while 2 * size <= end - start:
            size *= 2
        if size < end - start:
            _transform(values, end - size, size)
            _flip(values, start, end - start, keys[2 * number + 1])
        _transform(values, start, size)
        _flip(values, start, end - start, keys[2 * number])
        whole = (end - start) // LANES * LANES
        for i in range(start, start + whole, LANES):
            x = smaller(load(values, i) * _f4(1 / SHRINK), _MOST)
            x = choose(is_at_least(splat(_f4(-_MOST)), x), splat(_f4(-_MOST)), x)
            if forgets_nan:
                x = choose(is_at_least(x, x), x, splat(_f4(0)))
            store(values, i, x)
        for i in range(start + whole, end):
            value = values[i] * _f4(1 / SHRINK)
            value = _f4(0) if forgets_nan and np.isnan(value) else value
            value = _MOST if value > _MOST else value
            values[i] = -_MOST if value < -_MOST else value
