"""Blockwise quantisation, compiled: each block is read once, and worked on in the first-level cache.

``quantize_numpy`` is the same in NumPy, and says what each step does. Sums are of integers, or of floats in an order
that is written down, so that the bytes are the same on every machine.

Not here: what is decoded (``dequantize``), and how codes lie in bytes (``planes``).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.bits import mixed_vector
from thinwire.codec.kernels.dequantize import decode
from thinwire.codec.kernels.planes import pack
from thinwire.codec.kernels.quantize_numpy import (
    CELLS,
    LARGEST,
    LEAST,
    LEAST_SQUARE,
    MOST_SQUARE,
    PLACE_SHIFT,
    SUMMED,
    UNBIASED,
    UNIFORM,
)
from thinwire.codec.kernels.vectors import (
    LANES,
    choose,
    converted,
    is_at_least,
    lanes,
    larger,
    largest_of,
    load,
    prefetch,
    products,
    seen_as,
    smaller,
    splat,
    store,
    sum_of,
)

__all__ = ["decode", "encode"]

_f4, _i2, _i4, _i8, _u1, _u4 = np.float32, np.int16, np.int32, np.int64, np.uint8, np.uint32
_FLOATS = types.float32[::1]
_BYTES = types.uint8[::1]
_ROUNDER = _f4(12582912)  # 1.5 * 2**23: added to a small float32, leaves it rounded in the last bits
_NOT_FINITE = _u4(0x7F800000)
_LINE = 16  # values in a cache line


@numba.njit(nogil=True, forceinline=True)
def _add_up(source: Array, residual: Array, start: int, size: int, here: Array) -> Any:
    """Write source + residual to ``here``, zeros up to a multiple of 32, and return the sum of the squares."""
    whole = size // LANES * LANES
    total = splat(_f4(0))
    if residual.size:
        for i in range(0, whole, LANES):
            x = load(source, start + i) + load(residual, start + i)
            store(here, i, x)
            total = total + x * x
    else:
        for i in range(0, whole, LANES):
            x = load(source, start + i)
            store(here, i, x)
            total = total + x * x
    if whole < size:
        store(here, whole, splat(_f4(0)))
        for i in range(whole, size):
            here[i] = source[start + i] + residual[start + i] if residual.size else source[start + i]
        x = load(here, whole)
        total = total + x * x
    return sum_of(total)


@numba.njit(nogil=True, forceinline=True)
def _fetch(source: Array, residual: Array, start: int, size: int) -> None:
    """Have a block come from memory while the one before it is computed, which touches no memory itself."""
    for i in range(start, start + size, _LINE):
        prefetch(source, i)
        if residual.size:
            prefetch(residual, i)


@numba.njit(nogil=True, forceinline=True)
def _top(here: Array, size: int) -> Any:
    """The bits of the largest magnitude."""
    top = splat(_u4(0))
    for i in range(0, size, LANES):
        top = larger(top, seen_as(load(here, i), np.uint32) & _u4(0x7FFFFFFF))
    return largest_of(top)


@numba.njit(nogil=True, forceinline=True)
def _multiply(here: Array, factor: np.float32, size: int) -> Any:
    """Multiply in place; returns the sum of the squares."""
    total = splat(_f4(0))
    for i in range(0, size, LANES):
        x = load(here, i) * factor
        store(here, i, x)
        total = total + x * x
    return sum_of(total)


@numba.njit(nogil=True, forceinline=True)
def _nearest(
    here: Array,
    size: int,
    factor: np.float32,
    limits: Array,
    words: Array,
    half: int,
    has_16: bool,
    levels: Array,
    codes: Array,
) -> tuple[np.int64, np.int64]:
    """At most 16 levels, or 4, symmetric: compared with all limits, those not used being out of reach.

    Returns the inner products of the values with their levels, and of the levels with themselves.
    """
    t1, t2, t3, t4 = splat(limits[0]), splat(limits[1]), splat(limits[2]), splat(limits[3])
    t5, t6, t7 = splat(limits[4]), splat(limits[5]), splat(limits[6])
    w0, w1, w2, w3 = splat(words[0]), splat(words[1]), splat(words[2]), splat(words[3])
    w4, w5, w6, w7 = splat(words[4]), splat(words[5]), splat(words[6]), splat(words[7])
    first, most, level_bits = _i2(half), _i2(2 * half - 1), _i2((1 << PLACE_SHIFT) - 1)
    cross_sum, own_sum = _i8(0), _i8(0)
    for start in range(0, size, SUMMED):
        cross, own = products(splat(_i2(0)), splat(_i2(0))), products(splat(_i2(0)), splat(_i2(0)))
        for i in range(start, min(start + SUMMED, size), LANES):
            x = converted(seen_as(load(here, i) * factor + _ROUNDER, np.int32), np.int16)
            sign = x >> 15
            magnitude = (x ^ sign) - sign
            word = choose(is_at_least(magnitude, t1), w1, w0)
            if has_16:
                word = choose(is_at_least(magnitude, t2), w2, word)
                word = choose(is_at_least(magnitude, t3), w3, word)
                word = choose(is_at_least(magnitude, t4), w4, word)
                word = choose(is_at_least(magnitude, t5), w5, word)
                word = choose(is_at_least(magnitude, t6), w6, word)
                word = choose(is_at_least(magnitude, t7), w7, word)
            level = word & level_bits
            cross = cross + products(magnitude, level)
            own = own + products(level, level)
            store(levels, i, (level ^ sign) - sign)
            store(codes, i, converted(((word >> PLACE_SHIFT) | first) ^ (sign & most), np.uint8))
        cross_sum += sum_of(cross)
        own_sum += sum_of(own)
    return cross_sum, own_sum


@numba.njit(nogil=True, forceinline=True)
def _nearest_by_cell(
    here: Array,
    size: int,
    factor: np.float32,
    per_cell: np.float32,
    cells: Array,
    table: Array,
    levels: Array,
    codes: Array,
) -> tuple[np.int64, np.int64]:
    """More levels: looked up. ``per_cell`` times a value is its place among the cells."""
    cross, own = _i8(0), _i8(0)
    for i in range(size):
        place = min(max(_f4(here[i] * per_cell), _f4(-CELLS // 2)), _f4(CELLS // 2 - 1))
        cell = _i4(_f4(place + _ROUNDER).view(np.int32) - _i4(0x4B400000))
        number = _i4(_f4(_f4(here[i] * factor) + _ROUNDER).view(np.int32) - _i4(0x4B400000))
        code = cells[cell + CELLS // 2]
        level = table[code]
        codes[i] = code
        levels[i] = level
        cross += _i8(number) * _i8(level)
        own += _i8(level) * _i8(level)
    return cross, own


@numba.njit(nogil=True, forceinline=True)
def _uniform(here: Array, size: int, factor: np.float32, most: int, levels: Array, codes: Array) -> None:
    middle = _f4(_f4(most) * _f4(0.5) + _f4(0.5))
    for i in range(0, size, LANES):
        code = converted(load(here, i) * factor + middle, np.int32)
        _keep_uniform(code, i, most, levels, codes)


@numba.njit(nogil=True, forceinline=True)
def _random_uniform(
    here: Array, size: int, factor: np.float32, most: int, key: np.uint32, levels: Array, codes: Array
) -> None:
    middle = _f4(_f4(most) * _f4(0.5))
    for i in range(0, size, LANES):
        place = larger(load(here, i) * factor + middle, _f4(0))
        code = converted(place, np.int32)
        bits = mixed_vector(key, lanes(np.uint32) + _u4(i))
        draw = converted(seen_as(bits >> 8, np.int32), np.float32) * _f4(2.0**-24)
        stays = is_at_least(draw, place - converted(code, np.float32))
        _keep_uniform(choose(stays, code, code + 1), i, most, levels, codes)


@numba.njit(nogil=True, forceinline=True)
def _keep_uniform(code: Any, start: int, most: int, levels: Array, codes: Array) -> None:
    code = smaller(larger(code, 0), most)
    store(codes, start, converted(code, np.uint8))
    store(levels, start, converted((code << 1) - most, np.int16))


@numba.njit(nogil=True, forceinline=True)
def _owe(here: Array, size: int, scale: np.float32, levels: Array, residual: Array, start: int) -> None:
    """What is left of the values."""
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        store(residual, start + i, load(here, i) - converted(load(levels, i), np.float32) * scale)
    for i in range(whole, size):
        residual[start + i] = here[i] - scale * _f4(levels[i])


@compiled(
    read_only(types.float32),
    _FLOATS,
    types.int64,
    types.int64,
    types.int64,
    types.int64,
    read_only(types.int16),
    read_only(types.int16),
    read_only(types.int16),
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
    units: int,
    table: Array,
    limits: Array,
    words: Array,
    cells: Array,
    keys: Array,
    scales: Array,
    packed: Array,
) -> None:
    """As ``quantize_numpy.encode``."""
    half = (1 << bits) >> 1
    most = 2 * half - 1
    room = -(-block // LANES) * LANES
    here = np.empty(room, np.float32)
    levels = np.empty(room, np.int16)
    codes = np.empty(room, np.uint8)
    largest = np.float64(LARGEST) / np.float64(table[most])
    for number in range(scales.size):
        start = number * block
        n = min(block, source.size - start)
        size = -(-n // LANES) * LANES  # what follows the block's values is zero
        padded = (n + 7) // 8 * 8
        at = start * bits // 8
        square = _add_up(source, residual, start, n, here)
        _fetch(source, residual, start + block, block)
        is_usual = (square >= _f4(LEAST_SQUARE)) & (square <= _f4(MOST_SQUARE)) & (rule < UNIFORM)
        shrink = _f4(1)
        top = _f4(0)
        if not is_usual:
            top_bits = _top(here, size)
            top = _u4(top_bits).view(np.float32)
            if top_bits >= _NOT_FINITE or top < _f4(LEAST):
                scales[number] = _f4(np.nan) if top_bits >= _NOT_FINITE else _f4(0)
                packed[at : at + padded * bits // 8] = _u1(0)
                if residual.size and top_bits < _NOT_FINITE:
                    residual[start : start + n] = here[:n]
                continue
            if rule < UNIFORM:
                exponent = max(_i8(253) - _i8(top_bits >> _u4(23)), _i8(1))
                shrink = _u4(_u4(exponent) << _u4(23)).view(np.float32)
                square = _multiply(here, shrink, size)
        if rule >= UNIFORM:
            factor = _f4(_f4(most) * _f4(0.5)) / top
            if rule == UNIFORM:
                _uniform(here, size, factor, most, levels, codes)
            else:
                _random_uniform(here, size, factor, most, keys[number], levels, codes)
            scale = np.float64(top) / np.float64(most)
        else:
            rms = np.sqrt(np.float64(square) / np.float64(n))
            factor = _f4(np.float64(units) / rms)
            if bits <= 2:
                cross, own = _nearest(here, size, factor, limits, words, half, False, levels, codes)
            elif bits <= 4:
                cross, own = _nearest(here, size, factor, limits, words, half, True, levels, codes)
            else:
                cross, own = _nearest_by_cell(here, n, factor, _f4(512 / rms), cells, table, levels, codes)
            if bits <= 4:  # the zeros after the block have levels too
                own -= (size - n) * _i8(table[half]) * _i8(table[half])
            rms = rms / np.float64(shrink)
            if rule == UNBIASED:
                scale = rms * np.float64(units * n) / np.float64(cross)
            else:
                scale = rms / np.float64(units) * (np.float64(cross) / np.float64(own))
        scale32 = _f4(min(scale, largest))
        scales[number] = scale32
        if residual.size:
            if shrink != _f4(1):
                _add_up(source, residual, start, n, here)
            _owe(here, n, scale32, levels, residual, start)
        for i in range(n, padded):
            codes[i] = _u1(0)
        pack(codes, padded, bits, packed, at)
