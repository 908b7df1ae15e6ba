"""What blockwise quantised bytes stand for, compiled: written to memory or added to it, block by block.

``quantize_numpy`` is the same in NumPy. Not here: encoding (``quantize``), and how codes lie in bytes (``planes``).
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.planes import unpack
from thinwire.codec.kernels.vectors import LANES, choose, converted, is_at_least, load, splat, store

_f4, _i2, _i4, _u1 = np.float32, np.int16, np.int32, np.uint8


@numba.njit(nogil=True, forceinline=True)
def _put(out: Array, start: int, values: Array, is_added: bool) -> None:
    store(out, start, load(out, start) + values if is_added else values)


@numba.njit(nogil=True, forceinline=True)
def _decode_nearest(
    codes: Array,
    size: int,
    scale: np.float32,
    at: Array,
    half: int,
    has_16: bool,
    is_added: bool,
    out: Array,
    start: int,
) -> None:
    """At most 16 levels, or 4: chosen between pairs, which are vector instructions, where looking up would not be."""
    l0, l1, l2, l3 = splat(at[0]), splat(at[1]), splat(at[2]), splat(at[3])
    l4, l5, l6, l7 = splat(at[4]), splat(at[5]), splat(at[6]), splat(at[7])
    for i in range(0, size, LANES):
        code = converted(load(codes, i), np.int16)
        is_negative = is_at_least(splat(_i2(half - 1)), code)
        place = choose(is_negative, splat(_i2(half - 1)) - code, code - _i2(half))
        is_odd = is_at_least(place & _i2(1), _i2(1))
        level = choose(is_odd, l1, l0)
        if has_16:
            is_second = is_at_least(place & _i2(2), _i2(2))
            lower = choose(is_second, choose(is_odd, l3, l2), level)
            upper = choose(is_second, choose(is_odd, l7, l6), choose(is_odd, l5, l4))
            level = choose(is_at_least(place, _i2(4)), upper, lower)
        level = choose(is_negative, splat(_i2(0)) - level, level)
        _put(out, start + i, converted(level, np.float32) * scale, is_added)


@numba.njit(nogil=True, forceinline=True)
def _decode_uniform(
    codes: Array, size: int, scale: np.float32, most: int, is_added: bool, out: Array, start: int
) -> None:
    for i in range(0, size, LANES):
        code = converted(load(codes, i), np.int32)
        _put(out, start + i, converted((code << 1) - most, np.float32) * scale, is_added)


@numba.njit(nogil=True, forceinline=True)
def _look_up(
    codes: Array,
    begin: int,
    end: int,
    scale: np.float32,
    table: Array,
    is_added: bool,
    out: Array,
    start: int,
) -> None:
    for i in range(begin, end):
        value = scale * _f4(table[codes[i]])
        out[start + i] = out[start + i] + value if is_added else value


@compiled(
    read_only(types.float32),
    read_only(types.uint8),
    types.int64,
    types.int64,
    types.boolean,
    read_only(types.int16),
    types.boolean,
    types.float32[::1],
)
def decode(
    scales: Array,
    packed: Array,
    block: int,
    bits: int,
    is_uniform: bool,
    table: Array,
    is_added: bool,
    out: Array,
) -> None:
    """As ``quantize_numpy.decode``."""
    most = (1 << bits) - 1
    half = (1 << bits) >> 1
    codes = np.empty(block, np.uint8)
    at = np.empty(8, np.int16)  # the positive levels, the last of them repeated
    for i in range(8):
        at[i] = table[min(half + i, most)]
    for number in range(scales.size):
        start = number * block
        n = min(block, out.size - start)
        padded = (n + 7) // 8 * 8
        whole = n // LANES * LANES
        scale = scales[number]
        unpack(packed, start * bits // 8, padded, bits, codes)
        if is_uniform:
            _decode_uniform(codes, whole, scale, most, is_added, out, start)
        elif bits <= 2:
            _decode_nearest(codes, whole, scale, at, half, False, is_added, out, start)
        elif bits <= 4:
            _decode_nearest(codes, whole, scale, at, half, True, is_added, out, start)
        else:
            whole = 0
        _look_up(codes, whole, n, scale, table, is_added, out, start)
