"""Blockwise quantisation, compiled: each block is read once, and worked on in the first-level cache.

What is summed is summed as integers (values as 11-bit fractions of the block's largest), because compilers may then
use as wide vectors as there are without changing the result: the same bytes on every machine. ``quantize_numpy`` is
the same in NumPy, and says what each step does. Loops index slices from 0 to their size: of any other index the
compiler does not know that it is not negative, which NumPy would count from the end, and makes no vectors.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.bits import mixed
from thinwire.codec.kernels.quantize_numpy import (
    CELLS,
    FIXED,
    LARGEST,
    LEAST,
    UNBIASED,
    UNIFORM,
)

_f4, _i2, _i4, _i8, _u1, _u4 = np.float32, np.int16, np.int32, np.int64, np.uint8, np.uint32
_FLOATS = types.float32[::1]
_BYTES = types.uint8[::1]
_ROUNDER = _f4(12582912)  # 1.5 * 2**23: added to a small float32, leaves it rounded in the last bits
_ROUNDER_BITS = _i4(0x4B400000)
_NOT_FINITE = _u4(0x7F800000)


@numba.njit(nogil=True, inline="never")
def _top(values: Array) -> np.uint32:
    bits = values.view(np.uint32)
    top = _u4(0)
    for i in range(bits.size):
        top = max(top, bits[i] & _u4(0x7FFFFFFF))
    return top


@numba.njit(nogil=True, inline="never")
def _to_fixed(values: Array, factor: np.float32, fixed: Array) -> np.int64:
    """Rounded multiples of 1 / factor, and the sum of their squares."""
    total = _i8(0)
    for start in range(0, values.size, 256):
        source, target = values[start : start + 256], fixed[start : start + 256]
        part = _i4(0)
        for i in range(source.size):
            number = _i4(_f4(source[i] * factor + _ROUNDER).view(np.int32) - _ROUNDER_BITS)
            target[i] = _i2(number)
            part = _i4(part + number * number)
        total += _i8(part)
    return total


@numba.njit(nogil=True, inline="never")
def _dots(fixed: Array, levels: Array) -> tuple[np.int64, np.int64]:
    """The inner products of the values with their levels, and of the levels with themselves."""
    cross, square = _i8(0), _i8(0)
    for start in range(0, fixed.size, 128):
        left, right = fixed[start : start + 128], levels[start : start + 128]
        part, own = _i4(0), _i4(0)
        for i in range(left.size):
            part = _i4(part + _i4(left[i]) * _i4(right[i]))
            own = _i4(own + _i4(right[i]) * _i4(right[i]))
        cross += _i8(part)
        square += _i8(own)
    return cross, square


@numba.njit(nogil=True, inline="never")
def _nearest_of_16(fixed: Array, limits: Array, at: Array, half: int, levels: Array, codes: Array) -> None:
    """At most 16 levels, symmetric: compared with all limits at once, unused ones being out of reach."""
    t1, t2, t3, t4, t5, t6, t7 = limits[0], limits[1], limits[2], limits[3], limits[4], limits[5], limits[6]
    l0, l1, l2, l3, l4, l5, l6, l7 = at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]
    above, below = _i2(half), _i2(half - 1)
    for i in range(fixed.size):
        number = fixed[i]
        x = _i2(-number) if number < 0 else number
        place = _i2(_i2(x >= t1) + (x >= t2) + (x >= t3) + (x >= t4) + (x >= t5) + (x >= t6) + (x >= t7))
        level = l0
        level = l1 if x >= t1 else level
        level = l2 if x >= t2 else level
        level = l3 if x >= t3 else level
        level = l4 if x >= t4 else level
        level = l5 if x >= t5 else level
        level = l6 if x >= t6 else level
        level = l7 if x >= t7 else level
        levels[i] = level if number >= 0 else _i2(-level)
        codes[i] = _u1(above + place if number >= 0 else below - place)


@numba.njit(nogil=True, inline="never")
def _nearest_of_4(fixed: Array, limits: Array, at: Array, half: int, levels: Array, codes: Array) -> None:
    t1, l0, l1 = limits[0], at[0], at[1]
    above, below = _i2(half), _i2(half - 1)
    for i in range(fixed.size):
        number = fixed[i]
        x = _i2(-number) if number < 0 else number
        level = l1 if x >= t1 else l0
        place = _i2(x >= t1)
        levels[i] = level if number >= 0 else _i2(-level)
        codes[i] = _u1(above + place if number >= 0 else below - place)


@numba.njit(nogil=True, inline="never")
def _nearest_by_cell(
    fixed: Array, factor: np.float32, cells: Array, table: Array, levels: Array, codes: Array
) -> None:
    for i in range(fixed.size):
        cell = _i4(
            _f4(min(max(_f4(fixed[i]) * factor, _f4(-CELLS // 2)), _f4(CELLS // 2 - 1)) + _ROUNDER).view(
                np.int32
            )
            - _ROUNDER_BITS
        )
        code = cells[cell + CELLS // 2]
        codes[i] = code
        levels[i] = table[code]


@numba.njit(nogil=True, inline="never")
def _nearest_uniform(values: Array, factor: np.float32, num_levels: int, levels: Array, codes: Array) -> None:
    most = _i4(num_levels - 1)
    middle = _f4(most) * _f4(0.5) + _f4(0.5)
    for i in range(values.size):
        code = min(max(_i4(values[i] * factor + middle), _i4(0)), most)
        codes[i] = _u1(code)
        levels[i] = _i2(_i4(2) * code - most)


@numba.njit(nogil=True, inline="never")
def _random_uniform(
    values: Array, factor: np.float32, num_levels: int, key: np.uint32, levels: Array, codes: Array
) -> None:
    most = _i4(num_levels - 1)
    middle = _f4(most) * _f4(0.5)
    for i in range(values.size):
        place = max(_f4(values[i] * factor) + middle, _f4(0))
        code = _i4(place)
        draw = _f4(_i4(mixed(key, _u4(i)) >> _u4(8))) * _f4(2.0**-24)
        code = min(_i4(code + _i4(draw < _f4(place - _f4(code)))), most)
        codes[i] = _u1(code)
        levels[i] = _i2(_i4(2) * code - most)


@numba.njit(nogil=True, inline="never")
def _pack_plane(codes: Array, shift: int, bits: int, out: Array) -> None:
    width = out.size
    mask = _u1((1 << bits) - 1)
    low = _u1(shift)
    if bits == 8:
        for i in range(width):
            out[i] = codes[i]
        return
    for i in range(width):
        out[i] = _u1(codes[i] >> low) & mask
    for j in range(1, 8 // bits):
        here = _u1(j * bits)
        source = codes[j * width : (j + 1) * width]
        for i in range(width):
            out[i] |= _u1(_u1(_u1(source[i] >> low) & mask) << here)


@numba.njit(nogil=True)
def _pack(codes: Array, bits: int, out: Array) -> None:
    n = codes.size
    if bits == 3:
        _pack_plane(codes, 0, 2, out[: n // 4])
        _pack_plane(codes, 2, 1, out[n // 4 :])
    elif bits == 6:
        _pack_plane(codes, 0, 4, out[: n // 2])
        _pack_plane(codes, 4, 2, out[n // 2 :])
    else:
        _pack_plane(codes, 0, bits, out)


@numba.njit(nogil=True, inline="never")
def _unpack_plane(packed: Array, bits: int, codes: Array) -> None:
    width = packed.size
    mask = _u1((1 << bits) - 1)
    for j in range(8 // bits):
        here = _u1(j * bits)
        target = codes[j * width : (j + 1) * width]
        for i in range(width):
            target[i] = _u1(packed[i] >> here) & mask


@numba.njit(nogil=True, inline="never")
def _unpack_upper(packed: Array, bits: int, shift: int, codes: Array) -> None:
    width = packed.size
    mask = _u1((1 << bits) - 1)
    up = _u1(shift)
    for j in range(8 // bits):
        here = _u1(j * bits)
        target = codes[j * width : (j + 1) * width]
        for i in range(width):
            target[i] |= _u1(_u1(_u1(packed[i] >> here) & mask) << up)


@numba.njit(nogil=True)
def _unpack(packed: Array, bits: int, codes: Array) -> None:
    n = codes.size
    if bits == 3:
        _unpack_plane(packed[: n // 4], 2, codes)
        _unpack_upper(packed[n // 4 :], 1, 2, codes)
    elif bits == 6:
        _unpack_plane(packed[: n // 2], 4, codes)
        _unpack_upper(packed[n // 2 :], 2, 4, codes)
    else:
        _unpack_plane(packed, bits, codes)


@compiled(
    read_only(types.float32),
    _FLOATS,
    types.int64,
    types.int64,
    types.int64,
    read_only(types.int16),
    read_only(types.float64),
    read_only(types.uint8),
    read_only(types.uint32),
    _FLOATS,
    _BYTES,
)
def encode(
    source: Array,
    residual: Array,
    block: int,
    bits: int,
    rule: int,
    table: Array,
    thresholds: Array,
    cells: Array,
    keys: Array,
    scales: Array,
    packed: Array,
) -> None:
    """As ``quantize_numpy.encode``. An empty ``residual`` stands for none."""
    num_levels = 1 << bits
    values = np.empty(block, np.float32)
    fixed = np.empty(block, np.int16)
    levels = np.empty(block, np.int16)
    codes = np.empty(block, np.uint8)
    limits = np.empty(7, np.int16)
    at_most_8 = np.empty(8, np.int16)  # the positive levels, the last of them repeated
    for i in range(8):
        at_most_8[i] = table[min(num_levels // 2 + i, num_levels - 1)]
    for number in range(scales.size):
        start = number * block
        n = min(block, source.size - start)
        padded = (n + 7) // 8 * 8
        here = values[:n]
        if residual.size:
            for i in range(n):
                here[i] = source[start + i] + residual[start + i]
        else:
            for i in range(n):
                here[i] = source[start + i]
        at = start * bits // 8
        out = packed[at : at + padded * bits // 8]
        top_bits = _top(here)
        top = _u4(top_bits).view(np.float32)
        if top_bits >= _NOT_FINITE or top < _f4(LEAST):
            scales[number] = _f4(np.nan) if top_bits >= _NOT_FINITE else _f4(0)
            out[:] = _u1(0)
            if residual.size and top_bits < _NOT_FINITE:
                residual[start : start + n] = here
            continue
        codes[n:padded] = _u1(0)
        if rule >= UNIFORM:
            factor = _f4(_f4(num_levels - 1) * _f4(0.5)) / top
            if rule == UNIFORM:
                _nearest_uniform(here, factor, num_levels, levels[:n], codes[:n])
            else:
                _random_uniform(here, factor, num_levels, keys[number], levels[:n], codes[:n])
            scale = np.float64(top) / np.float64(num_levels - 1)
        else:
            square = _to_fixed(here, _f4(FIXED) / top, fixed[:n])
            rms = np.sqrt(np.float64(square) / np.float64(n))
            for i in range(7):
                limits[i] = _i2(min(thresholds[i] * rms, np.float64(32767)))
            if bits <= 2:
                _nearest_of_4(fixed[:n], limits, at_most_8, num_levels // 2, levels[:n], codes[:n])
            elif bits <= 4:
                _nearest_of_16(fixed[:n], limits, at_most_8, num_levels // 2, levels[:n], codes[:n])
            else:
                _nearest_by_cell(fixed[:n], _f4(np.float64(512) / rms), cells, table, levels[:n], codes[:n])
            cross, own = _dots(fixed[:n], levels[:n])
            ratio = (
                np.float64(square) / np.float64(cross)
                if rule == UNBIASED
                else np.float64(cross) / np.float64(own)
            )
            scale = np.float64(top) / np.float64(FIXED) * ratio
        scale32 = _f4(min(scale, np.float64(LARGEST) / np.float64(table[num_levels - 1])))
        scales[number] = scale32
        if residual.size:
            for i in range(n):
                residual[start + i] = here[i] - scale32 * _f4(levels[i])
        _pack(codes[:padded], bits, out)


@numba.njit(nogil=True, inline="never")
def _add_1(packed: Array, scale: np.float32, out: Array) -> None:
    width = packed.size
    for j in range(8):
        here = _u1(1 << j)
        target = out[j * width : (j + 1) * width]  # shorter at the end of the last block
        for i in range(target.size):
            target[i] += scale if (packed[i] & here) != 0 else -scale


@numba.njit(nogil=True, inline="never")
def _add_2(packed: Array, small: np.float32, large: np.float32, out: Array) -> None:
    width = packed.size
    for j in range(4):
        here = _u4(2 * j)
        target = out[j * width : (j + 1) * width]  # shorter at the end of the last block
        for i in range(target.size):
            code = _u4(packed[i]) >> here
            outer = ((code & _u4(1)) != 0) == ((code & _u4(2)) != 0)
            size = large if outer else small
            target[i] += size if (code & _u4(2)) != 0 else -size


@numba.njit(nogil=True, inline="never")
def _add_4(packed: Array, at: Array, out: Array) -> None:
    """The level by three choices between pairs, which are vector instructions, where a table would not be."""
    l0, l1, l2, l3, l4, l5, l6, l7 = at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]
    width = packed.size
    for j in range(2):
        here = _u4(4 * j)
        target = out[j * width : (j + 1) * width]  # shorter at the end of the last block
        for i in range(target.size):
            code = _u4(packed[i]) >> here
            sign = code & _u4(8)
            place = code if sign != 0 else ~code
            is_odd, is_second, is_upper = (place & _u4(1)) != 0, (place & _u4(2)) != 0, (place & _u4(4)) != 0
            a = l1 if is_odd else l0
            b = l3 if is_odd else l2
            c = l5 if is_odd else l4
            d = l7 if is_odd else l6
            lower = b if is_second else a
            upper = d if is_second else c
            size = upper if is_upper else lower
            target[i] += size if sign != 0 else -size


@numba.njit(nogil=True, inline="never")
def _add_uniform(codes: Array, scale: np.float32, most: int, out: Array) -> None:
    top = _i4(most)
    for i in range(out.size):
        out[i] += scale * _f4(_i4(2) * _i4(codes[i]) - top)


@numba.njit(nogil=True, inline="never")
def _add_from_table(codes: Array, scale: np.float32, table: Array, out: Array) -> None:
    for i in range(out.size):
        out[i] += scale * _f4(table[codes[i]])


@compiled(
    read_only(types.float32),
    read_only(types.uint8),
    types.int64,
    types.int64,
    types.boolean,
    read_only(types.int16),
    types.boolean,
    _FLOATS,
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
    """As ``quantize_numpy.decode``; added to ``out``, or in place of what it held."""
    codes = np.empty(block, np.uint8)
    sizes = np.empty(8, np.float32)
    for number in range(scales.size):
        start = number * block
        n = min(block, out.size - start)
        padded = (n + 7) // 8 * 8
        at = start * bits // 8
        here = out[start : start + n]
        part = packed[at : at + padded * bits // 8]
        scale = scales[number]
        if not is_added:
            here[:] = _f4(-0.0)
        if bits == 1:
            _add_1(part, scale * _f4(table[1]), here)
        elif bits == 2:
            _add_2(part, scale * _f4(table[2]), scale * _f4(table[3]), here)
        elif bits == 4:
            for i in range(8):
                sizes[i] = scale * _f4(table[8 + i])
            _add_4(part, sizes, here)
        elif bits == 8 and is_uniform:
            _add_uniform(part, scale, 255, here)
        else:
            _unpack(part, bits, codes[:padded])
            if is_uniform:
                _add_uniform(codes, scale, (1 << bits) - 1, here)
            else:
                _add_from_table(codes, scale, table, here)
