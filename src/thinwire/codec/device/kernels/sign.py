"""Signs and the mean magnitude of a tensor in Triton. ``codec.kernels.sign_numpy`` is what it is held against.

Magnitudes are added in float64 in another order than the twin's, whose 4096 sums that take turns would leave most of a
device idle: each program adds up a stretch of its own, and one program their sums. The order is the same for tensors
of one size, so the bytes are the same again. Sums differ from the twin's by some 1e-16 of themselves, so the scale, a
float32, is nearly always the same one, and else its neighbour. Signs are the twin's.
"""

from __future__ import annotations

import triton.language as tl

from thinwire.codec.device.kernels import kernel


@kernel
def add_magnitudes(
    source,
    residual,
    sums,
    size,
    STRETCH: tl.constexpr,
    TILE: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """Write to float64 ``sums`` the sum of the magnitudes of each ``STRETCH`` of ``source + residual``."""
    start = tl.program_id(0).to(tl.int64) * STRETCH
    total = tl.zeros((TILE,), tl.float64)
    for first in range(0, STRETCH, TILE):
        at = start + first + tl.arange(0, TILE)
        x = tl.load(source + at, mask=at < size, other=0.0)
        if HAS_RESIDUAL:
            x += tl.load(residual + at, mask=at < size, other=0.0)
        total += tl.abs(x).to(tl.float64)
    tl.store(sums + tl.program_id(0), tl.sum(total, axis=0))


@kernel
def take_mean(sums, num_sums, size, scale, TILE: tl.constexpr):
    """Write to float32 ``scale`` the sum of ``sums`` for each of ``size`` values; NaN if it is not finite."""
    total = tl.zeros((TILE,), tl.float64)
    for first in range(0, num_sums, TILE):
        at = first + tl.arange(0, TILE)
        total += tl.load(sums + at, mask=at < num_sums, other=0.0)
    mean = (tl.sum(total, axis=0) / size.to(tl.float64)).to(tl.float32)
    tl.store(scale, tl.where(mean < float("inf"), mean, float("nan")))


@kernel
def take_signs(
    source,
    residual,
    scale,
    packed,
    size,
    BYTES: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """As ``sign_numpy.take_signs``; what is owed stays as it was where ``scale`` is NaN."""
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + bit
    x = tl.load(source + at, mask=at < size, other=-1.0)
    if HAS_RESIDUAL:
        x += tl.load(residual + at, mask=at < size, other=0.0)
    is_plus = x >= 0
    signs = tl.sum(is_plus.to(tl.int32) << bit, axis=1)
    tl.store(packed + byte, signs.to(tl.uint8), mask=byte * 8 < size)
    if HAS_RESIDUAL:
        mean = tl.load(scale + tl.zeros_like(at))
        is_owed = (at < size) & (mean == mean)
        tl.store(residual + at, x - tl.where(is_plus, mean, -mean), mask=is_owed)


@kernel
def put_signs(scale, packed, out, size, BYTES: tl.constexpr, IS_ADDED: tl.constexpr):
    """As ``sign_numpy.put_signs``."""
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + bit
    signs = tl.load(packed + byte, mask=byte * 8 < size, other=0).to(tl.int32)[:, None]
    mean = tl.load(scale)
    value = tl.where(((signs >> bit) & 1) == 1, mean, -mean)
    if IS_ADDED:
        value = tl.load(out + at, mask=at < size, other=0.0) + value
    tl.store(out + at, value, mask=at < size)
