"""Codes of a few bits to bytes and back, as ``quantize_numpy`` lays them out: neighbours in a byte are far apart.

Not here: what a code stands for.
"""

from __future__ import annotations

import numba
import numpy as np

from thinwire.codec.base import Array
from thinwire.codec.kernels.vectors import LANES, load, seen_as, store

_u1, _u4 = np.uint8, np.uint32
_EACH_BYTE = 0x01010101


@numba.njit(nogil=True, forceinline=True)
def _pack_plane(codes: Array, shift: int, bits: int, out: Array, at: int, width: int) -> None:
    ones = (1 << bits) - 1
    mask = _u4(ones * _EACH_BYTE)
    whole = width // LANES * LANES
    for i in range(0, whole, LANES):
        # Four at a time, because there is no shift of single bytes; the mask keeps them apart.
        byte = seen_as(load(codes, i), np.uint32) >> shift & mask
        for j in range(1, 8 // bits):
            byte = byte | (seen_as(load(codes, j * width + i), np.uint32) >> shift & mask) << (j * bits)
        store(out, at + i, seen_as(byte, np.uint8))
    for i in range(whole, width):
        rest = _u4(0)
        for j in range(8 // bits):
            rest |= _u4((_u4(codes[j * width + i]) >> _u4(shift)) & _u4(ones)) << _u4(j * bits)
        out[at + i] = _u1(rest)


@numba.njit(nogil=True, forceinline=True)
def pack(codes: Array, size: int, bits: int, out: Array, at: int) -> None:
    """The first ``size`` codes, a multiple of 8, to the bytes of ``out`` from ``at`` on."""
    if bits == 3:
        _pack_plane(codes, 0, 2, out, at, size // 4)
        _pack_plane(codes, 2, 1, out, at + size // 4, size // 8)
    elif bits == 6:
        _pack_plane(codes, 0, 4, out, at, size // 2)
        _pack_plane(codes, 4, 2, out, at + size // 2, size // 4)
    elif bits == 1:  # each with its number written out, so that the compiler knows all shifts
        _pack_plane(codes, 0, 1, out, at, size // 8)
    elif bits == 2:
        _pack_plane(codes, 0, 2, out, at, size // 4)
    elif bits == 4:
        _pack_plane(codes, 0, 4, out, at, size // 2)
    else:
        _pack_plane(codes, 0, 8, out, at, size)


@numba.njit(nogil=True, forceinline=True)
def _unpack_plane(packed: Array, at: int, width: int, bits: int, shift: int, codes: Array) -> None:
    """Write a plane's bits, shifted, to the codes, or add them to those of the plane before."""
    ones = (1 << bits) - 1
    mask = _u4(ones * _EACH_BYTE)
    whole = width // LANES * LANES
    for i in range(0, whole, LANES):
        byte = seen_as(load(packed, at + i), np.uint32)
        for j in range(8 // bits):
            code = (byte >> (j * bits) & mask) << shift
            if shift:
                code = code | seen_as(load(codes, j * width + i), np.uint32)
            store(codes, j * width + i, seen_as(code, np.uint8))
    for i in range(whole, width):
        for j in range(8 // bits):
            rest = _u4((_u4(packed[at + i]) >> _u4(j * bits)) & _u4(ones)) << _u4(shift)
            codes[j * width + i] = _u1(rest | _u4(codes[j * width + i]) if shift else rest)


@numba.njit(nogil=True, forceinline=True)
def unpack(packed: Array, at: int, size: int, bits: int, codes: Array) -> None:
    """The inverse of ``pack``."""
    if bits == 3:
        _unpack_plane(packed, at, size // 4, 2, 0, codes)
        _unpack_plane(packed, at + size // 4, size // 8, 1, 2, codes)
    elif bits == 6:
        _unpack_plane(packed, at, size // 2, 4, 0, codes)
        _unpack_plane(packed, at + size // 2, size // 4, 2, 4, codes)
    elif bits == 1:
        _unpack_plane(packed, at, size // 8, 1, 0, codes)
    elif bits == 2:
        _unpack_plane(packed, at, size // 4, 2, 0, codes)
    elif bits == 4:
        _unpack_plane(packed, at, size // 2, 4, 0, codes)
    else:
        _unpack_plane(packed, at, size, 8, 0, codes)
