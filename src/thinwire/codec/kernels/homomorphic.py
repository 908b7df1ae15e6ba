"""Rounding to integers of one scale, and sums of such integers, over bytes in little-endian order."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import unit


@kernel
def _read(data: Any, index: int, width: int) -> int:
    value = np.int64(0)
    for byte in range(width):
        value |= np.int64(data[index * width + byte]) << (8 * byte)
    top = np.int64(1) << (8 * width - 1)
    return (value ^ top) - top


@kernel
def write_integer(value: int, index: int, width: int, out: Any) -> None:
    """The ``index``-th integer of ``width`` bytes."""
    for byte in range(width):
        out[index * width + byte] = np.uint8((value >> (8 * byte)) & 0xFF)


@kernel
def encode_integers(
    values: Any, factor: float, limit: int, stochastic: bool, seed: np.uint64, width: int, out: Any
) -> None:
    """Round ``factor * values`` to integers of at most ``limit`` in magnitude; NaN becomes 0."""
    for i in range(values.size):
        offset = np.float64(unit(seed, np.uint64(i))) if stochastic else 0.5
        value = np.floor(values[i] * factor + offset)
        value = min(max(value, -float(limit)), float(limit)) if value == value else 0.0
        write_integer(np.int64(value), i, width, out)


@kernel
def decode_integers(data: Any, width: int, limit: int, step: float, add: bool, out: Any) -> bool:
    """out = step * integers, or what is there and that; says whether no magnitude is above ``limit``."""
    fits = True
    for i in range(out.size):
        value = _read(data, i, width)
        fits &= abs(value) <= limit
        decoded = np.float32(value * step)
        out[i] = out[i] + decoded if add else decoded
    return fits


@kernel
def add_integers(data: Any, width: int, limit: int, sums: Any) -> bool:
    """Add the integers to ``sums``; says whether no magnitude is above ``limit``."""
    fits = True
    for i in range(sums.size):
        value = _read(data, i, width)
        fits &= abs(value) <= limit
        sums[i] += value
    return fits


@kernel
def write_integers(values: Any, width: int, out: Any) -> None:
    """All of them, in ``width`` bytes each."""
    for i in range(values.size):
        write_integer(values[i], i, width, out)
