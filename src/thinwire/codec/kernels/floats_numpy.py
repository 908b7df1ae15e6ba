"""Conversions to and from 16 and 8 bit floats in NumPy: what ``kernels.floats`` must give, bit for bit.

Rounding is to nearest even, and what is too large becomes the largest. The 8 bit formats are those of the OCP 8-bit
Floating Point Specification; their blocks have a power of two as scale, in one byte as in the OCP Microscaling
specification (MX), but never one so small that the block's largest value would not fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thinwire.codec.base import Array

NOT_FINITE = 255  # the scale byte of a block with an infinity or NaN in it


class Format(NamedTuple):
    """An 8 bit float: a sign bit, an exponent with this bias, a fraction of so many bits; the largest finite code."""

    fraction_bits: int
    bias: int
    most_code: int

    def values(self) -> Array:
        """The 256 values; NaN also where the format has infinities."""
        code = np.arange(128)
        exponent, fraction = code >> self.fraction_bits, code & ((1 << self.fraction_bits) - 1)
        unit = 2.0 ** (np.maximum(exponent, 1) - self.bias - self.fraction_bits)
        values = (fraction + ((exponent > 0) << self.fraction_bits)) * unit
        values[self.most_code + 1 :] = np.nan
        return np.concatenate([values, -values]).astype(np.float32)


FLOAT8_E4M3 = Format(3, 7, 0x7E)
FLOAT8_E5M2 = Format(2, 15, 0x7B)


def to_float16(source: Array, target: Array) -> None:
    """Float32 ``source`` as the bits of float16."""
    with np.errstate(all="ignore"):
        limited = np.where(np.isinf(source), source, np.clip(source, -65504, 65504)).astype(np.float16)
    target[:] = np.where(
        np.isnan(source), np.uint16(0x7E00) | np.signbit(source) * np.uint16(0x8000), limited.view(np.uint16)
    )


def from_float16(source: Array, target: Array) -> None:
    """The bits of float16 as float32."""
    target[:] = source.view(np.float16)


def add_float16(source: Array, target: Array) -> None:
    """Add the float16 values with the bits ``source`` to float32 ``target``."""
    with np.errstate(all="ignore"):
        target += source.view(np.float16)


def to_bfloat16(source: Array, target: Array) -> None:
    """The float32 values whose bits are ``source``, as the bits of bfloat16."""
    magnitude = source & np.uint32(0x7FFFFFFF)
    with np.errstate(over="ignore"):
        rounded = source + np.uint32(0x7FFF) + (source >> np.uint32(16) & np.uint32(1))
    is_finite = magnitude < 0x7F800000
    is_too_large = (rounded & np.uint32(0x7FFFFFFF)) >= 0x7F800000
    largest = source & np.uint32(0x80000000) | np.uint32(0x7F7F0000)
    rounded = np.where(is_finite & is_too_large, largest, rounded)
    target[:] = (np.where(magnitude > 0x7F800000, 0x7FC00000, rounded) >> 16).astype(np.uint16)


def from_bfloat16(source: Array, target: Array) -> None:
    """The bits of bfloat16 as those of float32."""
    target[:] = source.astype(np.uint32) << np.uint32(16)


def add_bfloat16(source: Array, target: Array) -> None:
    """Add the bfloat16 values with the bits ``source`` to float32 ``target``."""
    with np.errstate(all="ignore"):
        target += (source.astype(np.uint32) << np.uint32(16)).view(np.float32)


def owe_float16(source: Array, residual: Array, target: Array) -> None:
    """``source + residual`` as the bits of float16, and in ``residual`` what they lack, or 0 where it is not finite."""
    with np.errstate(all="ignore"):
        total = source + residual
        to_float16(total, target)
        left = total - target.view(np.float16)
    residual[:] = np.where(np.isfinite(left), left, 0)


def owe_bfloat16(source: Array, residual: Array, target: Array) -> None:
    """The same as the bits of bfloat16."""
    with np.errstate(all="ignore"):
        total = source + residual
        to_bfloat16(total.view(np.uint32), target)
        left = total - (target.astype(np.uint32) << np.uint32(16)).view(np.float32)
    residual[:] = np.where(np.isfinite(left), left, 0)


def to_float8(source: Array, residual: Array, form: Format, block: int, scales: Array, codes: Array) -> None:
    """``source + residual`` as ``codes``, and a power of two plus 127 in ``scales`` for each block.

    The residual, if it is not empty, becomes what these lack, and 0 in blocks that are not finite.
    """
    if residual.size:
        with np.errstate(all="ignore"):
            source = source + residual
    table = form.values()[: form.most_code + 1].astype(np.float64)
    borders = (table[1:] + table[:-1]) / 2
    for number in range(scales.size):
        here = source[number * block : (number + 1) * block]
        out = codes[number * block : (number + 1) * block]
        owed = residual[number * block : (number + 1) * block]
        if not np.isfinite(here).all():
            scales[number], out[:], owed[:] = NOT_FINITE, 0, 0
            continue
        fraction, exponent = np.frexp(np.abs(here).max())
        most_fraction, most_exponent = np.frexp(table[-1])
        power = int(exponent - most_exponent + (fraction > most_fraction))
        power = min(max(power, -126), 126) if here.any() else -126
        scales[number] = power + 127
        scaled = np.abs(here.astype(np.float64)) * 2.0**-power
        code = np.searchsorted(borders, scaled, side="left")
        is_tie = (code < borders.size) & (scaled == borders[np.minimum(code, borders.size - 1)])
        code += is_tie & (code % 2 == 1)
        out[:] = code | np.signbit(here).astype(np.uint8) << 7
        if residual.size:
            owed[:] = here - form.values()[out] * np.ldexp(np.float32(1), power)


def add_float8(codes: Array, factors: Array, form: Format, block: int, target: Array) -> None:
    """Add the values of ``codes`` times their block's factor to ``target``."""
    with np.errstate(all="ignore"):
        target += form.values()[codes] * np.repeat(factors, block)[: codes.size]
