"""Conversions to and from 16 bit floats in Triton, by whole numbers, so that each bit is ``codec.kernels.floats``'s.

Triton's own conversions round alike but make infinities of what is too large, and NaNs of each device's kind.
"""

from __future__ import annotations

import triton
import triton.language as tl

from thinwire.codec.device.kernels import kernel

MAGNITUDE = tl.constexpr(0x7FFFFFFF)
NOT_FINITE = tl.constexpr(0x7F800000)


@triton.jit
def _bfloat16_of(x):
    bits = x.to(tl.uint32, bitcast=True)
    magnitude = bits & MAGNITUDE
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    is_too_large = ((rounded & MAGNITUDE) >= NOT_FINITE) & (magnitude < NOT_FINITE)
    rounded = tl.where(is_too_large, (bits & 0x80000000) | 0x7F7F0000, rounded)
    return tl.where(magnitude > NOT_FINITE, 0x7FC00000, rounded) >> 16


@triton.jit
def _from_bfloat16(half):
    return (half << 16).to(tl.float32, bitcast=True)


@triton.jit
def _float16_of(x):
    bits = x.to(tl.uint32, bitcast=True)
    magnitude = bits & MAGNITUDE
    # Added to 2**-1, whose last place is 2**-24, a value is rounded as a subnormal float16 is.
    small = (magnitude.to(tl.float32, bitcast=True) + 0.5).to(tl.uint32, bitcast=True) - 0x3F000000
    large = ((magnitude + 0xFFF + ((magnitude >> 13) & 1)) >> 13) - 0x1C000
    code = tl.where(magnitude < 0x38800000, small, tl.minimum(large, 0x7BFF))
    code = tl.where(magnitude == NOT_FINITE, 0x7C00, code)
    code = tl.where(magnitude > NOT_FINITE, 0x7E00, code)
    return code | ((bits >> 16) & 0x8000)


@triton.jit
def _from_float16(half):
    magnitude = half & 0x7FFF
    value = ((magnitude << 13).to(tl.float32, bitcast=True) * 5.192296858534828e33).to(  # 2**112
        tl.uint32, bitcast=True
    )
    value = tl.where(magnitude >= 0x7C00, value | NOT_FINITE, value)
    return (value | ((half & 0x8000) << 16)).to(tl.float32, bitcast=True)


@kernel
def encode(
    source,
    residual,
    halves,
    size,
    IS_BFLOAT16: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    TILE: tl.constexpr,
):
    """``source + residual`` as 16 bits each, in uint16 ``halves``; what they lack, or 0 if not finite, is then owed."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    x = tl.load(source + at, mask=at < size, other=0.0)
    if HAS_RESIDUAL:
        x += tl.load(residual + at, mask=at < size, other=0.0)
    if IS_BFLOAT16:
        half = _bfloat16_of(x)
        back = _from_bfloat16(half)
    else:
        half = _float16_of(x)
        back = _from_float16(half)
    tl.store(halves + at, half.to(tl.uint16), mask=at < size)
    if HAS_RESIDUAL:
        left = x - back
        left = tl.where(tl.abs(left) < float("inf"), left, 0.0)
        tl.store(residual + at, left, mask=at < size)


@kernel
def decode(
    halves,
    out,
    size,
    IS_BFLOAT16: tl.constexpr,
    IS_ADDED: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write what the 16 bits stand for to ``out``, or add it."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    half = tl.load(halves + at, mask=at < size, other=0).to(tl.uint32)
    value = _from_bfloat16(half) if IS_BFLOAT16 else _from_float16(half)
    if IS_ADDED:
        value = tl.load(out + at, mask=at < size, other=0.0) + value
    tl.store(out + at, value, mask=at < size)
