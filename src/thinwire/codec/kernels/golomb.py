"""Golomb codes of the gaps between ascending positions, as bits; ``thinwire.codec.sparse_indices`` says which.

A gap g is g // m in unary (ones, ended by a zero) and g % m in truncated binary: with b = ceil(log2 m), the lowest 2^b
- m remainders take b - 1 bits and the others b. Bits fill bytes from the lowest up.

Not here: the choice of m, and how many positions there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import lowest_bit

_LONG = 24  # ones that are written at once, so that a remainder of up to 32 bits fits beside them


@kernel
def _binary_bits(m: int) -> int:
    bits = 0
    while (1 << bits) < m:
        bits += 1
    return bits


@kernel
def _write(code: Any, cursor: int, out: Any) -> None:
    """Set the bits of ``code``, 57 at most, from bit ``cursor`` on."""
    rest = np.uint64(code << np.uint64(cursor & 7))
    at = cursor >> 3
    while rest != np.uint64(0):
        out[at] |= np.uint8(rest & np.uint64(0xFF))
        rest >>= np.uint64(8)
        at += 1


@kernel
def _encode_block(positions: Any, m: int, out: Any, cursor: int) -> int:
    """Write from bit ``cursor`` on; returns the bit after the last."""
    binary_bits = _binary_bits(m)
    num_short = (1 << binary_bits) - m
    expected: Any = 0
    for i in range(positions.size):
        gap = np.int64(positions[i]) - expected
        expected = np.int64(positions[i]) + 1
        quotient: Any = np.int64(np.uint32(gap) // np.uint32(m))  # half the time of a division of 64 bits
        remainder = gap - quotient * m
        while quotient >= _LONG:
            _write(np.uint64((1 << _LONG) - 1), cursor, out)
            quotient -= _LONG
            cursor += _LONG
        num_bits = quotient + 1
        code = np.uint64((1 << quotient) - 1)
        if m > 1:
            # The first b - 1 bits tell a decoder whether there is another.
            is_short = remainder < num_short
            binary = remainder if is_short else (remainder + num_short) >> 1
            code |= np.uint64(binary) << np.uint64(num_bits)
            num_bits += binary_bits - 1
            if not is_short:
                code |= np.uint64((remainder + num_short) & 1) << np.uint64(num_bits)
                num_bits += 1
        _write(code, cursor, out)
        cursor += num_bits
    return cursor


@kernel
def _window(data: Any, cursor: int) -> np.uint64:
    """The 57 bits or more from ``cursor`` on; zeros beyond the end."""
    first = cursor >> 3
    word = np.uint64(0)
    if first + 8 <= data.size:
        for i in range(8):
            word |= np.uint64(data[first + i]) << np.uint64(8 * i)
    else:
        for i in range(data.size - first):
            word |= np.uint64(data[first + i]) << np.uint64(8 * i)
    return word >> np.uint64(cursor & 7)


@kernel
def _decode_block(data: Any, cursor: int, m: int, size: int, positions: Any) -> int:
    """Read ``positions.size`` positions below ``size`` from bit ``cursor`` on; returns the bit after them, or -1."""
    end = 8 * data.size
    binary_bits = _binary_bits(m)
    num_short = (1 << binary_bits) - m
    expected: Any = 0
    for i in range(positions.size):
        quotient = 0
        while True:
            ones = min(lowest_bit(~_window(data, cursor)), 56)
            quotient += ones
            cursor += ones
            if ones < 56:
                break
        cursor += 1
        remainder: Any = 0
        if m > 1:
            num_bits = binary_bits - 1
            word = _window(data, cursor)
            remainder = np.int64(word & ((np.uint64(1) << np.uint64(num_bits)) - np.uint64(1)))
            cursor += num_bits
            if remainder >= num_short:
                low = np.int64((word >> np.uint64(num_bits)) & np.uint64(1))
                remainder = 2 * remainder + low - num_short
                cursor += 1
        position = expected + quotient * m + remainder
        if cursor > end or position >= size:
            return -1
        positions[i] = position
        expected = position + 1
    return cursor


@kernel
def encode_gaps(positions: Any, size: int, block: int, kept: int, m: int, m_in_rest: int, out: Any) -> int:
    """Write the positions in each block of ``size`` values to ``out``, which holds zeros; returns how many bytes."""
    cursor = 0
    done = 0
    for start in range(0, size, block):
        is_whole = start + block <= size
        own = positions[done : done + kept] if is_whole else positions[done:]
        cursor = _encode_block(own, m if is_whole else m_in_rest, out, cursor)
        done += own.size
    return (cursor + 7) >> 3


@kernel
def decode_gaps(data: Any, size: int, block: int, kept: int, m: int, m_in_rest: int, positions: Any) -> int:
    """Read what ``encode_gaps`` wrote of ``size`` values in blocks; returns bytes, or -1 where it did not write it."""
    cursor = 0
    done = 0
    for start in range(0, size, block):
        stop = min(start + block, size)
        is_whole = stop - start == block
        own = positions[done : done + kept] if is_whole else positions[done:]
        cursor = _decode_block(data, cursor, m if is_whole else m_in_rest, stop - start, own)
        if cursor < 0:
            return -1
        done += own.size
    if cursor & 7 and data[cursor >> 3] >> (cursor & 7):
        return -1
    return (cursor + 7) >> 3
