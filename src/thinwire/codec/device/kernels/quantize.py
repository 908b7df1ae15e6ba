"""Blockwise quantisation in Triton: ``codec.kernels.quantize_numpy`` says what each step does, and this does the same.

A program works on ``BLOCKS`` blocks, 32 values of each at a time, and reads them three times, of which the cache serves
two: for the sum of squares, added in the twin's 32 sums that take turns; for the codes; and for what they lack. Sums of
whole numbers are exact in any order. So payloads and residuals are the twin's, bit for bit.

Not here: stochastic rounding, 3 and 6 bits, Lloyd-Max levels of more than 4 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from thinwire.codec.device.kernels import kernel

LANES = tl.constexpr(32)
NOT_FINITE = tl.constexpr(0x7F800000)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
ROUNDER = tl.constexpr(
    12582912.0
)  # 1.5 * 2**23: added to a small float32, leaves it rounded in the last bits
ROUNDER_BITS = tl.constexpr(0x4B400000)
LEAST = tl.constexpr(2.0**-100)
LEAST_SQUARE, MOST_SQUARE = tl.constexpr(2.0**-80), tl.constexpr(2.0**120)


@triton.jit
def _total(source, residual, at, mask, HAS_RESIDUAL: tl.constexpr):
    """The values there, and what is owed to them; zeros outside."""
    x = tl.load(source + at, mask=mask, other=0.0)
    if HAS_RESIDUAL:
        x += tl.load(residual + at, mask=mask, other=0.0)
    return x


@triton.jit
def _squares(
    source,
    residual,
    start,
    count,
    factor,
    BLOCK: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Each block's sum of squares of the values times ``factor``, and the bits of its largest magnitude without it."""
    sums = tl.zeros((BLOCKS, LANES), tl.float32)
    top = tl.zeros((BLOCKS, LANES), tl.int32)
    for first in range(0, BLOCK, LANES):
        at = first + tl.arange(0, LANES)[None, :]
        x = _total(source, residual, start + at, at < count, HAS_RESIDUAL)
        top = tl.maximum(top, x.to(tl.int32, bitcast=True) & MAGNITUDE)
        x = x * factor
        sums += x * x
    # Halves on halves: of two, either order gives the same sum.
    sums = tl.sum(tl.reshape(sums, (BLOCKS, 2, 16)), axis=1)
    sums = tl.sum(tl.reshape(sums, (BLOCKS, 2, 8)), axis=1)
    sums = tl.sum(tl.reshape(sums, (BLOCKS, 2, 4)), axis=1)
    sums = tl.sum(tl.reshape(sums, (BLOCKS, 2, 2)), axis=1)
    sums = tl.sum(tl.reshape(sums, (BLOCKS, 2, 1)), axis=1)
    return sums, tl.reshape(tl.max(top, axis=1), (BLOCKS, 1))


@triton.jit
def _coded(x, factor, limits, table, BITS: tl.constexpr, IS_UNIFORM: tl.constexpr):
    """For scaled values: the whole number next to each, its code, and the code's level."""
    HALF: tl.constexpr = 1 << (BITS - 1)
    MOST: tl.constexpr = 2 * HALF - 1
    if IS_UNIFORM:
        code = (x * factor + (MOST * 0.5 + 0.5)).to(tl.int32)
        code = tl.minimum(tl.maximum(code, 0), MOST)
        number = code
        level = 2 * code - MOST
    else:
        number = (x * factor + ROUNDER).to(tl.int32, bitcast=True) - ROUNDER_BITS
        magnitude = tl.abs(number)
        place = tl.zeros_like(number)
        for border in tl.static_range(HALF - 1):
            place += (magnitude >= tl.load(limits + border)).to(tl.int32)
        code = tl.where(number >= 0, HALF + place, HALF - 1 - place)
        level = tl.load(table + code)
    return number, code, level


@kernel
def encode(
    source,
    residual,
    scales,
    packed,
    limits,
    table,
    size,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNITS: tl.constexpr,
    MOST_SCALE: tl.constexpr,
    IS_UNIFORM: tl.constexpr,
    IS_UNBIASED: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Quantise ``source + residual`` and leave in ``residual`` what was lost.

    Args:
        source: float32, ``size`` of them.
        residual: as many, if ``HAS_RESIDUAL``.
        scales: float32 for each block, written.
        packed: the codes, written.
        limits: int32, as ``levels.limits``.
        table: int32, the levels.
        UNITS: as ``quantize_numpy.units_of``.
        MOST_SCALE: no scale is larger.
        BLOCKS: of a program; a power of two.
    """
    MOST: tl.constexpr = (1 << BITS) - 1
    number = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)[:, None].to(tl.int64)
    start = number * BLOCK
    count = tl.minimum(tl.maximum(size - start, 0), BLOCK)
    one = tl.full((BLOCKS, 1), 1.0, tl.float32)
    square, top_bits = _squares(source, residual, start, count, one, BLOCK, HAS_RESIDUAL, BLOCKS)
    is_finite = top_bits < NOT_FINITE
    top = tl.where(is_finite, top_bits, 0).to(tl.float32, bitcast=True)
    is_coded = is_finite & (top >= LEAST)
    shrink = one
    rms = tl.full((BLOCKS, 1), 1.0, tl.float64)
    if IS_UNIFORM:
        factor = tl.div_rn(one * (MOST * 0.5), tl.where(is_coded, top, 1.0))
    else:
        is_usual = ((square >= LEAST_SQUARE) & (square <= MOST_SQUARE)) | (is_coded == 0)
        if tl.min(is_usual.to(tl.int32)) == 0:
            power = tl.maximum(253 - (top_bits >> 23), 1) << 23
            shrink = tl.where(is_usual, one, power.to(tl.float32, bitcast=True))
            square, _ = _squares(source, residual, start, count, shrink, BLOCK, HAS_RESIDUAL, BLOCKS)
        mean = tl.where(is_coded, square, 1.0).to(tl.float64) / tl.maximum(count, 1).to(tl.float64)
        rms = tl.sqrt(mean)
        factor = (tl.full((BLOCKS, 1), UNITS, tl.float64) / rms).to(tl.float32)

    width = (count + 7) // 8 * BITS  # bytes of the block; each holds codes that lie so far apart
    cross, own = tl.zeros((BLOCKS, LANES), tl.int64), tl.zeros((BLOCKS, LANES), tl.int64)
    for first in range(0, BLOCK * BITS // 8, LANES):
        place = first + tl.arange(0, LANES)[None, :]
        byte = tl.zeros((BLOCKS, LANES), tl.int32)
        for part in tl.static_range(8 // BITS):
            at = part * width + place
            is_value = (place < width) & (at < count) & is_coded
            x = _total(source, residual, start + at, is_value, HAS_RESIDUAL) * shrink
            near, code, level = _coded(x, factor, limits, table, BITS, IS_UNIFORM)
            byte |= tl.where(is_value, code, 0) << (part * BITS)
            if not IS_UNIFORM:
                level = tl.where(is_value, level, 0).to(tl.int64)
                cross += near.to(tl.int64) * level
                own += level * level
        tl.store(packed + start * BITS // 8 + place, byte.to(tl.uint8), mask=place < width)

    if IS_UNIFORM:
        scale = top.to(tl.float64) / tl.full((BLOCKS, 1), MOST, tl.float64)
    else:
        units = tl.full((BLOCKS, 1), UNITS, tl.float64)
        crossed = tl.reshape(tl.sum(cross, axis=1), (BLOCKS, 1)).to(tl.float64)
        rms = rms / shrink.to(tl.float64)
        if IS_UNBIASED:
            crossed = tl.where(is_coded, crossed, 1.0)
            scale = rms * (units * count.to(tl.float64)) / crossed
        else:
            squared = tl.reshape(tl.sum(own, axis=1), (BLOCKS, 1)).to(tl.float64)
            scale = rms / units * (crossed / tl.where(is_coded, squared, 1.0))
    scale = tl.minimum(scale, tl.full((BLOCKS, 1), MOST_SCALE, tl.float64)).to(tl.float32)
    scale = tl.where(is_coded, scale, tl.where(is_finite, 0.0, float("nan")))
    tl.store(scales + number, scale, mask=count > 0)

    if HAS_RESIDUAL:
        tl.debug_barrier()  # every thread has read what another now writes
        for first in range(0, BLOCK, LANES):
            at = first + tl.arange(0, LANES)[None, :]
            is_owed = (at < count) & is_finite
            x = _total(source, residual, start + at, is_owed, HAS_RESIDUAL)
            _, _, level = _coded(tl.where(is_coded, x * shrink, 0.0), factor, limits, table, BITS, IS_UNIFORM)
            lost = x - level.to(tl.float32) * scale
            tl.store(residual + start + at, tl.where(is_coded, lost, x), mask=is_owed)


@kernel
def decode(
    scales,
    packed,
    table,
    out,
    size,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_UNIFORM: tl.constexpr,
    IS_ADDED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Write each block's scale times the levels of its codes to ``out``, or add them to it. See ``encode``."""
    MOST: tl.constexpr = (1 << BITS) - 1
    number = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)[:, None].to(tl.int64)
    start = number * BLOCK
    count = tl.minimum(tl.maximum(size - start, 0), BLOCK)
    scale = tl.load(scales + number, mask=count > 0, other=0.0)
    width = (count + 7) // 8 * BITS
    for first in range(0, BLOCK * BITS // 8, LANES):
        place = first + tl.arange(0, LANES)[None, :]
        byte = tl.load(packed + start * BITS // 8 + place, mask=place < width, other=0).to(tl.int32)
        for part in tl.static_range(8 // BITS):
            at = part * width + place
            is_value = (place < width) & (at < count)
            code = (byte >> (part * BITS)) & MOST
            level = 2 * code - MOST if IS_UNIFORM else tl.load(table + code)
            value = level.to(tl.float32) * scale
            if IS_ADDED:
                value = tl.load(out + start + at, mask=is_value, other=0.0) + value
            tl.store(out + start + at, value, mask=is_value)
