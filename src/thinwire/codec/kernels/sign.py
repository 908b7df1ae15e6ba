"""Signs and the mean magnitude of a tensor, compiled. ``sign_numpy`` is the same in NumPy.

Not here: what the bytes are for (``thinwire.codec.sign``).
"""

from __future__ import annotations

import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.sign_numpy import COLUMNS
from thinwire.codec.kernels.vectors import LANES, choose, is_at_least, load, mask_of, splat, store

_f4, _u1, _u4 = np.float32, np.uint8, np.uint32
_FLOATS = types.float32[::1]


@compiled(read_only(types.float32), _FLOATS, types.float64[::1])
def add_magnitudes(values: Array, residual: Array, columns: Array) -> None:
    """As ``sign_numpy.add_magnitudes``."""
    for start in range(0, values.size, COLUMNS):
        here = values[start : start + COLUMNS]
        if residual.size:
            owed = residual[start : start + COLUMNS]
            for i in range(here.size):
                columns[i] += np.float64(abs(_f4(here[i] + owed[i])))
        else:
            for i in range(here.size):
                columns[i] += np.float64(abs(here[i]))


@compiled(read_only(types.float32), _FLOATS, types.float32, types.boolean, types.uint8[::1])
def take_signs(values: Array, residual: Array, scale: np.float32, is_owed: bool, packed: Array) -> None:
    """As ``sign_numpy.take_signs``."""
    whole = values.size // LANES * LANES
    plus, minus = splat(scale), splat(_f4(-scale))
    for i in range(0, whole, LANES):
        x = load(values, i)
        if residual.size:
            x = x + load(residual, i)
        is_plus = is_at_least(x, _f4(0))
        mask = mask_of(is_plus)
        for j in range(4):
            packed[i // 8 + j] = _u1(mask >> _u4(8 * j) & _u4(0xFF))
        if is_owed:
            store(residual, i, x - choose(is_plus, plus, minus))
    for start in range(whole, values.size, 8):
        byte = 0
        for i in range(start, min(start + 8, values.size)):
            total = values[i] + residual[i] if residual.size else values[i]
            byte |= int(total >= 0) << i - start
            if is_owed:
                residual[i] = total - (scale if total >= 0 else _f4(-scale))
        packed[start // 8] = _u1(byte)


@compiled(read_only(types.uint8), types.float32, types.boolean, _FLOATS)
def put_signs(packed: Array, scale: np.float32, is_added: bool, out: Array) -> None:
    """As ``sign_numpy.put_signs``."""
    for byte in range(packed.size):
        bits = _u4(packed[byte])
        for i in range(8 * byte, min(8 * byte + 8, out.size)):
            value = scale if bits & _u4(1) else _f4(-scale)
            out[i] = out[i] + value if is_added else value
            bits >>= _u4(1)
