"""The randomised Hadamard transform in NumPy: what ``kernels.hadamard`` must give, bit for bit.

A chunk whose size is a power of two gets random signs, then the orthogonal Hadamard transform. One of another size
gets both on its first 2**k values, then on its last, 2**k being the largest power of two that fits: an
orthogonal transform too, of any size and without padding.

Each stage of the transform reads neighbours and writes halves (the constant geometry of Pease 1968), so all stages
are one loop.
"""

from __future__ import annotations

import numpy as np

from thinwire.codec.base import Array
from thinwire.codec.kernels.random_bits import random_bits

SHRINK = 2.0**-16  # the rotated values' scale, so that sums of finite values stay finite
_MOST = np.finfo(np.float32).max


def rotate(values: Array, width: int, keys: Array) -> None:
    """Rotate each chunk of ``width`` values in place, and shrink it; two ``keys`` a chunk say how."""
    with np.errstate(all="ignore"):
        values *= np.float32(SHRINK)
        for number in range(keys.size // 2):
            chunk = values[number * width : (number + 1) * width]
            size = 1 << chunk.size.bit_length() - 1
            _flip(chunk, keys[2 * number])
            _transform(chunk[:size])
            if size < chunk.size:
                _flip(chunk, keys[2 * number + 1])
                _transform(chunk[-size:])


def rotate_back(values: Array, width: int, keys: Array, forgets_nan: bool) -> None:
    """Undo ``rotate``. What is too large for a float32 becomes the largest, and NaN zero if it shall be forgotten."""
    with np.errstate(all="ignore"):
        for number in range(keys.size // 2):
            chunk = values[number * width : (number + 1) * width]
            size = 1 << chunk.size.bit_length() - 1
            if size < chunk.size:
                _transform(chunk[-size:])
                _flip(chunk, keys[2 * number + 1])
            _transform(chunk[:size])
            _flip(chunk, keys[2 * number])
        values *= np.float32(1 / SHRINK)
        np.clip(values, -_MOST, _MOST, out=values)
    if forgets_nan:
        values[np.isnan(values)] = 0


def _flip(values: Array, key: np.uint32) -> None:
    values.view(np.uint32)[:] ^= random_bits(np.array([key]), values.size)[0] & np.uint32(0x80000000)


def _transform(values: Array) -> None:
    result = values
    for _ in range(values.size.bit_length() - 1):
        result = np.concatenate([result[0::2] + result[1::2], result[0::2] - result[1::2]])
    values[:] = result * np.float32(1 / np.sqrt(np.float64(values.size)))
