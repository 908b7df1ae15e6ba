"""Signs and the mean magnitude of a tensor in NumPy: what ``kernels.sign`` must give, bit for bit.

Magnitudes are added in float64 in ``COLUMNS`` sums that take turns, which are then added halves on halves: one order on
every machine. A sign is a bit, 1 for plus, as it is of zeros; the first of eight is the lowest bit of a byte.
"""

from __future__ import annotations

import numpy as np

from thinwire.codec.base import Array

COLUMNS = 4096


def add_magnitudes(values: Array, residual: Array, columns: Array) -> None:
    """Add the magnitudes of ``values + residual`` (the latter may be empty) to the sums, which are ``COLUMNS``."""
    magnitudes = np.abs(_total(values, residual))
    full = magnitudes.size // COLUMNS * COLUMNS
    for row in magnitudes[:full].reshape(-1, COLUMNS):
        columns += row
    columns[: magnitudes.size - full] += magnitudes[full:]


def take_signs(values: Array, residual: Array, scale: np.float32, is_owed: bool, packed: Array) -> None:
    """Pack the signs of ``values + residual``; if ``is_owed``, leave there that sum less the signs times ``scale``."""
    total = _total(values, residual)
    is_plus = total >= 0
    packed[:] = np.packbits(is_plus, bitorder="little")
    if is_owed:
        with np.errstate(all="ignore"):
            residual[:] = total - np.where(is_plus, scale, -scale)


def put_signs(packed: Array, scale: np.float32, is_added: bool, out: Array) -> None:
    """Write the signs times ``scale`` to ``out``, or add them to it."""
    is_plus = np.unpackbits(packed, count=out.size, bitorder="little")
    values = np.where(is_plus, scale, -scale)
    with np.errstate(all="ignore"):
        np.copyto(out, out + values if is_added else values)


def _total(values: Array, residual: Array) -> Array:
    with np.errstate(all="ignore"):
        return values + residual if residual.size else values
