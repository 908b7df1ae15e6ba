"""Conversions to and from 16 and 8 bit floats, compiled. ``floats_numpy`` is the same in NumPy."""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from thinwire.codec.base import Array
from thinwire.codec.kernels import compiled, read_only
from thinwire.codec.kernels.floats_numpy import NOT_FINITE, Format

_f4, _i4, _u1, _u2, _u4 = np.float32, np.int32, np.uint8, np.uint16, np.uint32


@numba.njit(nogil=True, forceinline=True)
def _bfloat16_of(bits: np.uint32) -> np.uint16:
    magnitude = bits & _u4(0x7FFFFFFF)
    rounded = _u4(bits + _u4(0x7FFF) + (_u4(bits >> _u4(16)) & _u4(1)))
    too_large = (_u4(rounded & _u4(0x7FFFFFFF)) >= _u4(0x7F800000)) & (magnitude < _u4(0x7F800000))
    rounded = _u4((bits & _u4(0x80000000)) | _u4(0x7F7F0000)) if too_large else rounded
    rounded = _u4(0x7FC00000) if magnitude > _u4(0x7F800000) else rounded
    return _u2(rounded >> _u4(16))


@numba.njit(nogil=True, forceinline=True)
def _from_bfloat16(half: np.uint16) -> np.float32:
    value: np.float32 = _u4(_u4(half) << _u4(16)).view(np.float32)
    return value


@numba.njit(nogil=True, forceinline=True)
def _owed(left: np.float32) -> np.float32:
    return left if abs(left) < _f4(np.inf) else _f4(0)


@compiled(read_only(types.uint32), types.uint16[::1])
def to_bfloat16(source: Array, target: Array) -> None:
    """As ``floats_numpy.to_bfloat16``."""
    for i in range(target.size):
        target[i] = _bfloat16_of(source[i])


@compiled(read_only(types.float32), types.float32[::1], types.uint16[::1])
def owe_bfloat16(source: Array, residual: Array, target: Array) -> None:
    """As ``floats_numpy.owe_bfloat16``."""
    for i in range(target.size):
        total = _f4(source[i] + residual[i])
        target[i] = _bfloat16_of(total.view(np.uint32))
        residual[i] = _owed(_f4(total - _from_bfloat16(target[i])))


@compiled(read_only(types.uint16), types.uint32[::1])
def from_bfloat16(source: Array, target: Array) -> None:
    """As ``floats_numpy.from_bfloat16``."""
    for i in range(target.size):
        target[i] = _u4(source[i]) << _u4(16)


@compiled(read_only(types.uint16), types.float32[::1])
def add_bfloat16(source: Array, target: Array) -> None:
    """As ``floats_numpy.add_bfloat16``."""
    for i in range(target.size):
        target[i] += _from_bfloat16(source[i])


@numba.njit(nogil=True, forceinline=True)
def _float16_of(value: np.float32) -> np.uint16:
    own = _f4(value).view(np.uint32)
    magnitude = own & _u4(0x7FFFFFFF)
    # Added to 2**-1, whose last place is 2**-24, a value is rounded as a subnormal float16 is.
    small = _u4(_f4(abs(value) + _f4(0.5)).view(np.uint32) - _u4(0x3F000000))
    large = _u4(_u4(magnitude + _u4(0xFFF) + (_u4(magnitude >> _u4(13)) & _u4(1))) >> _u4(13)) - _u4(
        112 << 10
    )
    code = small if magnitude < _u4(0x38800000) else min(_u4(large), _u4(0x7BFF))
    code = _u4(0x7C00) if magnitude == _u4(0x7F800000) else code
    code = _u4(0x7E00) if magnitude > _u4(0x7F800000) else code
    return _u2(_u4(code) | (_u4(own >> _u4(16)) & _u4(0x8000)))


@numba.njit(nogil=True, forceinline=True)
def _from_float16(half: np.uint16) -> np.float32:
    bits = _u4(half)
    magnitude = bits & _u4(0x7FFF)
    value = _f4(_u4(magnitude << _u4(13)).view(np.float32) * _f4(2.0**112)).view(np.uint32)
    value = _u4(value | _u4(0x7F800000)) if magnitude >= _u4(0x7C00) else value
    return _u4(value | _u4(_u4(bits & _u4(0x8000)) << _u4(16))).view(np.float32)


@compiled(read_only(types.float32), types.uint16[::1])
def to_float16(source: Array, target: Array) -> None:
    """As ``floats_numpy.to_float16``."""
    for i in range(target.size):
        target[i] = _float16_of(source[i])


@compiled(read_only(types.float32), types.float32[::1], types.uint16[::1])
def owe_float16(source: Array, residual: Array, target: Array) -> None:
    """As ``floats_numpy.owe_float16``."""
    for i in range(target.size):
        total = _f4(source[i] + residual[i])
        target[i] = _float16_of(total)
        residual[i] = _owed(_f4(total - _from_float16(target[i])))


@compiled(read_only(types.uint16), types.float32[::1])
def from_float16(source: Array, target: Array) -> None:
    """As ``floats_numpy.from_float16``."""
    for i in range(target.size):
        target[i] = _from_float16(source[i])


@compiled(read_only(types.uint16), types.float32[::1])
def add_float16(source: Array, target: Array) -> None:
    """As ``floats_numpy.add_float16``."""
    for i in range(target.size):
        target[i] += _from_float16(source[i])


@numba.njit(nogil=True, forceinline=True)
def _from_float8(code: np.uint32, shift: np.uint32, lift: np.float32, most: np.uint32) -> np.float32:
    magnitude = code & _u4(0x7F)
    value = _f4(_u4(magnitude << shift).view(np.float32) * lift)
    value = _f4(np.nan) if magnitude > most else value
    return -value if code >= _u4(128) else value


@compiled(
    read_only(types.float32), types.float32[::1], *[types.int64] * 4, types.uint8[::1], types.uint8[::1]
)
def _to_float8(
    source: Array,
    residual: Array,
    fraction_bits: int,
    bias: int,
    most_code: int,
    block: int,
    scales: Array,
    codes: Array,
) -> None:
    shift = _u4(23 - fraction_bits)
    half = _u4((1 << (22 - fraction_bits)) - 1)
    rebias = _u4((127 - bias) << fraction_bits)
    least_normal = _f4(2.0 ** (1 - bias))
    adder = _f4(2.0 ** (24 - bias - fraction_bits))
    adder_bits = adder.view(np.uint32)
    lift = _f4(2.0 ** (127 - bias))
    most = _u4(most_code)
    most_exponent = (most_code >> fraction_bits) - bias
    fraction = (most_code & ((1 << fraction_bits) - 1)) << (23 - fraction_bits)
    totals = np.empty(block, np.float32)
    for number in range(scales.size):
        values = source[number * block : (number + 1) * block]
        here = totals[: values.size]
        owed = residual[number * block : (number + 1) * block]
        out = codes[number * block : (number + 1) * block]
        bits = here.view(np.uint32)
        if residual.size:
            for i in range(here.size):
                here[i] = values[i] + owed[i]
        else:
            for i in range(here.size):
                here[i] = values[i]
        top = _u4(0)
        for i in range(bits.size):
            top = max(top, bits[i] & _u4(0x7FFFFFFF))
        if top >= _u4(0x7F800000):
            scales[number] = _u1(NOT_FINITE)
            out[:] = _u1(0)
            owed[:] = _f4(0)
            continue
        power = int(top >> _u4(23)) - 127 - most_exponent
        if int(top & _u4(0x7FFFFF)) > fraction:
            power += 1
        power = min(max(power, -126), 126)
        scales[number] = _u1(power + 127)
        factor = _u4((127 - power) << 23).view(np.float32)
        for i in range(here.size):
            value = _f4(here[i] * factor)
            own = value.view(np.uint32)
            magnitude = own & _u4(0x7FFFFFFF)
            small = _u4(_f4(abs(value) + adder).view(np.uint32) - adder_bits)
            large = _u4(_u4(_u4(magnitude + half) + (_u4(magnitude >> shift) & _u4(1))) >> shift) - rebias
            code = small if abs(value) < least_normal else min(_u4(large), most)
            out[i] = _u1(_u4(code) | _u4(_u4(own >> _u4(31)) << _u4(7)))
        if residual.size:
            back = _u4((power + 127) << 23).view(np.float32)
            for i in range(here.size):
                owed[i] = here[i] - _f4(_from_float8(_u4(out[i]), shift, lift, most) * back)


@compiled(read_only(types.uint8), read_only(types.float32), *[types.int64] * 4, types.float32[::1])
def _add_float8(
    codes: Array, factors: Array, fraction_bits: int, bias: int, most_code: int, block: int, target: Array
) -> None:
    shift = _u4(23 - fraction_bits)
    lift = _f4(2.0 ** (127 - bias))
    most = _u4(most_code)
    for number in range(factors.size):
        factor = factors[number]
        here = target[number * block : (number + 1) * block]
        source = codes[number * block : (number + 1) * block]
        for i in range(here.size):
            here[i] += _f4(_from_float8(_u4(source[i]), shift, lift, most) * factor)


def to_float8(source: Array, residual: Array, form: Format, block: int, scales: Array, codes: Array) -> None:
    """As ``floats_numpy.to_float8``."""
    _to_float8(source, residual, form.fraction_bits, form.bias, form.most_code, block, scales, codes)


def add_float8(codes: Array, factors: Array, form: Format, block: int, target: Array) -> None:
    """As ``floats_numpy.add_float8``."""
    _add_float8(codes, factors, form.fraction_bits, form.bias, form.most_code, block, target)
