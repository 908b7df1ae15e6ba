"""Blockwise quantisation in NumPy: what ``kernels.quantize`` must give, bit for bit, and where it is explained.

A block with an infinity or NaN in it gets the scale NaN, and leaves the residual as it was. One whose largest
magnitude is below ``LEAST`` gets the scale 0. Else, by ``rule``:

- ``UNIFORM``, ``STOCHASTIC``: the levels span the block from minus its largest magnitude to that; a value takes the
  nearest level, or one of its two neighbours at random with the chances that make the mean exact.
- ``LEAST_SQUARES``, ``UNBIASED``: each value is divided by the block's root mean square, rounded to ``units_of`` the
  block, and takes the nearest Lloyd-Max level. Then the scale s is the one that minimises |x - s q|, or EDEN's
  |x|^2 / <x, q> (Vargaftik et al. 2022), with which what is lost is orthogonal to x. Squares are added in float32, in
  32 sums that take turns; products of rounded values are whole numbers, whose sums are exact in any order.
  Where squares would leave the range of float32 the block is first multiplied by a power of two.

Codes of b bits are packed block by block, in a *plane* for 1, 2, 4 or 8 bits: with n codes (rounded up to a
multiple of 8), byte i of the n b / 8 holds codes i, i + n b / 8, i + 2 n b / 8, ..., the first in the lowest bits. 3
bits are a plane of the lower 2 and one of the upper 1, 6 are one of 4 and one of 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thinwire.codec.base import Array
from thinwire.codec.kernels.random_bits import random_bits

LEAST_SQUARES, UNBIASED, UNIFORM, STOCHASTIC = range(4)
LANES = 32  # sums that take turns
SUMMED = 4096  # values whose products are added up in 32 bits: 256 for each of 16 sums
CELLS = 8192
PLACE_SHIFT = 12  # above the bits of a level, its number
LEAST_SQUARE, MOST_SQUARE = 2.0**-80, 2.0**120  # sums of squares that lost nothing to underflow or overflow
LEAST = 2.0**-100  # the smallest magnitude that is told from 0
# The most that a scale times a level may be: what is rounded from it stays finite.
LARGEST = float(np.finfo(np.float32).max) * (1 - 2.0**-20)
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 6: (4, 2), 8: (8,)}


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
    """Quantise ``source + residual`` and leave in ``residual`` what was lost.

    Args:
        source: float32.
        residual: as many, or empty for none.
        block: values for each scale, a multiple of 8.
        bits: of a code.
        rule: which of the four above.
        units: see ``units_of``.
        table: the levels, ascending whole numbers.
        limits: see ``levels.limits``; for up to 4 bits.
        words: the levels once more, as ``levels.words`` has them; not used here.
        cells: see ``levels.cells``; for more.
        keys: a number for each block, for STOCHASTIC.
        scales: float32 for each block, written.
        packed: the codes, written.
    """
    for blocks, start, end in _runs(source.size, block):
        shape = (blocks.stop - blocks.start, -1)
        values = source[start:end].reshape(shape)
        if residual.size:
            with np.errstate(all="ignore"):
                values = values + residual[start:end].reshape(shape)
        scale, level, code = _quantise(values, bits, rule, units, table, limits, cells, keys[blocks])
        scales[blocks] = scale
        packed[start * bits // 8 : (end + 7) // 8 * bits] = _packed(code, bits).reshape(-1)
        if residual.size:
            is_finite = ~np.isnan(scale)[:, None]
            lost = values - np.where(is_finite, scale[:, None] * level.astype(np.float32), 0)
            np.copyto(residual[start:end].reshape(shape), lost, where=is_finite)


def _quantise(
    values: Array, bits: int, rule: int, units: int, table: Array, limits: Array, cells: Array, keys: Array
) -> tuple[Array, Array, Array]:
    most = (1 << bits) - 1
    top_bits = (values.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=1)
    is_finite = top_bits < 0x7F800000
    top = np.where(is_finite, top_bits, 0).astype(np.uint32).view(np.float32)
    is_coded = is_finite & (top >= np.float32(LEAST))
    values = np.where(is_coded[:, None], values, np.float32(1))
    top = np.where(is_coded, top, np.float32(1))
    if rule in (UNIFORM, STOCHASTIC):
        scaled = values * (np.float32(most) * np.float32(0.5) / top)[:, None]
        middle = np.float32(most) * np.float32(0.5)
        if rule == UNIFORM:
            code = np.clip((scaled + (middle + np.float32(0.5))).astype(np.int32), 0, most)
        else:
            place = np.maximum(scaled + middle, np.float32(0))
            draw = (random_bits(keys, values.shape[1]) >> np.uint32(8)).astype(np.float32) * np.float32(
                2.0**-24
            )
            code = place.astype(np.int32)
            code = np.minimum(code + (draw < place - code.astype(np.float32)), most)
        scale = top.astype(np.float64) / most
    else:
        square = _squares(values)
        is_usual = (square >= np.float32(LEAST_SQUARE)) & (square <= np.float32(MOST_SQUARE))
        exponent = top.view(np.uint32) >> np.uint32(23)
        shrink = (np.maximum(253 - exponent.astype(np.int64), 1) << 23).astype(np.uint32).view(np.float32)
        shrink = np.where(is_usual, np.float32(1), shrink)
        values = values * shrink[:, None]
        num_values = values.shape[1]
        rms = np.sqrt(_squares(values).astype(np.float64) / num_values)
        fixed = np.rint(values * (units / rms).astype(np.float32)[:, None]).astype(np.int64)
        if bits <= 4:
            place = (np.abs(fixed)[:, :, None] >= limits).sum(axis=2)
            code = np.where(fixed >= 0, (most + 1) // 2 + place, most // 2 - place)
        else:
            in_cells = values * (512 / rms).astype(np.float32)[:, None]
            code = cells[
                np.rint(np.clip(in_cells, -CELLS // 2, CELLS // 2 - 1)).astype(np.int64) + CELLS // 2
            ]
        exact = table[code].astype(np.int64)
        cross, own = (fixed * exact).sum(axis=1), (exact * exact).sum(axis=1)
        rms = rms / shrink
        scale = rms * (units * num_values) / cross if rule == UNBIASED else rms / units * (cross / own)
    scale = np.minimum(scale, LARGEST / table[-1]).astype(np.float32)
    scale = np.where(is_coded, scale, np.where(is_finite, np.float32(0), np.float32(np.nan)))
    code = np.where(is_coded[:, None], code, 0).astype(np.uint8)
    return scale, table[code], code


def _squares(values: Array) -> Array:
    """The sum of each row's squares, in float32."""
    num_blocks, width = values.shape
    padded = np.zeros((num_blocks, -(-width // LANES) * LANES), np.float32)
    padded[:, :width] = values
    sums = np.zeros((num_blocks, LANES), np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, padded.shape[1], LANES):
            part = padded[:, start : start + LANES]
            sums += part * part
        while sums.shape[1] > 1:
            lower, upper = np.split(sums, 2, axis=1)
            sums = lower + upper
    return sums[:, 0]


def units_of(block: int) -> int:
    """How finely values are rounded: so many for the root mean square, such that none of ``block`` leaves 16 bits.

    >>> units_of(256), units_of(4096), units_of(65536)
    (1024, 256, 64)
    """
    units = 1024
    while units * units * block > 1 << 28:
        units //= 2
    return units


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
    """Write each block's scale times the levels of its codes to ``out``, or add them to it.

    ``is_uniform`` says what ``table`` holds; it makes no difference here.
    """
    with np.errstate(all="ignore"):
        for blocks, start, end in _runs(out.size, block):
            num_blocks = blocks.stop - blocks.start
            width = (end - start) // num_blocks
            part = packed[start * bits // 8 : (end + 7) // 8 * bits].reshape(num_blocks, -1)
            values = table[_unpacked(part, bits)[:, :width]].astype(np.float32) * scales[blocks][:, None]
            here = out[start:end].reshape(num_blocks, width)
            if is_added:
                here += values
            else:
                here[:] = values


def _runs(size: int, block: int) -> Iterator[tuple[slice, int, int]]:
    """The full blocks as one run, then the one that is not full: (numbers, first value, end value)."""
    full = size // block
    if full:
        yield slice(0, full), 0, full * block
    if size % block:
        yield slice(full, full + 1), full * block, size


def _packed(codes: Array, bits: int) -> Array:
    num_blocks, width = codes.shape
    padded = np.zeros((num_blocks, (width + 7) // 8 * 8), np.uint8)
    padded[:, :width] = codes
    planes = []
    for plane_bits in _PLANES[bits]:
        parts = (padded & ((1 << plane_bits) - 1)).reshape(num_blocks, 8 // plane_bits, -1)
        shifts = np.arange(0, 8, plane_bits, dtype=np.uint8)[None, :, None]
        planes.append(np.bitwise_or.reduce(parts << shifts, axis=1))
        padded = padded >> plane_bits
    return np.concatenate(planes, axis=1)


def _unpacked(packed: Array, bits: int) -> Array:
    num_blocks, num_bytes = packed.shape
    width = num_bytes * 8 // bits
    codes = np.zeros((num_blocks, width), np.uint8)
    done, start = 0, 0
    for plane_bits in _PLANES[bits]:
        plane = packed[:, start : start + width * plane_bits // 8]
        shifts = np.arange(0, 8, plane_bits, dtype=np.uint8)[None, :, None]
        parts = (plane[:, None, :] >> shifts) & np.uint8((1 << plane_bits) - 1)
        codes |= parts.reshape(num_blocks, width) << np.uint8(done)
        done += plane_bits
        start += plane.shape[1]
    return codes
