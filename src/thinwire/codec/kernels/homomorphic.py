"""Rounding to integers of one scale, and sums of such integers.

Not here: the scale, and what is done about integers that are too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import unit


@kernel
def round_values(values: Any, factor: float, limit: int, stochastic: bool, seed: np.uint64, out: Any) -> None:
    """out = ``factor * values`` as integers of at most ``limit`` in magnitude; NaN becomes 0."""
    for i in range(values.size):
        offset = np.float64(unit(seed, np.uint64(i))) if stochastic else 0.5
        value = np.floor(values[i] * factor + offset)
        value = min(max(value, -float(limit)), float(limit))
        out[i] = np.int64(value) if value == value else 0


@kernel
def scale_integers(integers: Any, limit: int, step: float, add: bool, out: Any) -> bool:
    """out = step * integers, or what is there and that; says whether no magnitude is above ``limit``."""
    fits: Any = True
    for i in range(out.size):
        value = np.int64(integers[i])
        fits &= abs(value) <= limit
        scaled = np.float32(value * step)
        out[i] = out[i] + scaled if add else scaled
    return bool(fits)


@kernel
def add_integers(integers: Any, limit: int, sums: Any) -> bool:
    """Add the integers to ``sums``, of int64; says whether no magnitude is above ``limit``."""
    fits: Any = True
    for i in range(sums.size):
        value = np.int64(integers[i])
        fits &= abs(value) <= limit
        sums[i] += value
    return bool(fits)
