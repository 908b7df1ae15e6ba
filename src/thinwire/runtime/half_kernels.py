"""Reductions and conversions of float16 and bfloat16, compiled by Numba: one pass each, GIL released.

Halves come as their bits, in arrays of uint16. float16 is converted by the processor's own instructions (F16C
on x86, the base instruction set on ARM); a processor without them takes NumPy's conversions: same values,
some ten times slower. bfloat16 is the upper half of a float32 and needs only integer arithmetic. Rounding is
to nearest even; a NaN stays a NaN, not necessarily with the same bits.

Importing compiles the kernels (seconds, once a machine) or loads them from Numba's cache. Callers go through
``reduction``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from thinwire.codec.kernels import compiled, read_only
from thinwire.runtime.reduction import HALF_OPS, Array

_SUM, _PRODUCT, _MIN, _MAX = range(len(HALF_OPS))
_QUIET_NAN = 0x7FC0  # in bfloat16

_HALVES = types.uint16[::1]
_FLOATS = types.float32[::1]
_SOURCE_HALVES = read_only(types.uint16)
_SOURCE_FLOATS = read_only(types.float32)


class HalfKernels(NamedTuple):
    """The functions of one half type. ``op`` is an index into ``HALF_OPS``.

    Attributes:
        reduce: ``(op, target halves, source halves)``: target = target op source, rounded.
        reduce_mixed: ``(op, target floats, source halves)``: the same into a float32 target, exact operands.
        widen: ``(target floats, source halves)``.
        narrow: ``(target halves, source floats)``.
    """

    reduce: Callable[[int, Array, Array], None]
    reduce_mixed: Callable[[int, Array, Array], None]
    widen: Callable[[Array, Array], None]
    narrow: Callable[[Array, Array], None]


@numba.njit(inline="always")
def _combine(op: int, x: np.float32, y: np.float32) -> np.float32:
    # The compiler hoists these branches, which do not change, out of the caller's loop.
    if op == _SUM:
        return x + y
    if op == _PRODUCT:
        return x * y
    if op == _MIN:
        return x if (x < y) | (x != x) else y
    return x if (x > y) | (x != x) else y


@numba.njit(inline="always")
def _from_bfloat16(bits: np.uint16) -> np.float32:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@numba.njit(inline="always")
def _to_bfloat16(value: np.float32) -> np.uint16:
    bits = np.float32(value).view(np.uint32)
    # Just under half of the last kept place, and one more where that place is odd: ties go to even.
    is_odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + is_odd) >> np.uint32(16))
    return rounded if value == value else np.uint16(_QUIET_NAN)


@compiled(types.int64, _HALVES, _SOURCE_HALVES)
def _reduce_bfloat16(op: int, target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _to_bfloat16(_combine(op, _from_bfloat16(target[i]), _from_bfloat16(source[i])))


@compiled(types.int64, _FLOATS, _SOURCE_HALVES)
def _reduce_mixed_bfloat16(op: int, target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _combine(op, target[i], _from_bfloat16(source[i]))


@compiled(_FLOATS, _SOURCE_HALVES)
def _widen_bfloat16(target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _from_bfloat16(source[i])


@compiled(_HALVES, _SOURCE_FLOATS)
def _narrow_bfloat16(target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _to_bfloat16(source[i])


def _type_from_float16(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


_from_float16: Any = intrinsic(_type_from_float16)


def _type_to_float16(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


_to_float16: Any = intrinsic(_type_to_float16)


@compiled(types.int64, _HALVES, _SOURCE_HALVES)
def _reduce_float16(op: int, target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _to_float16(_combine(op, _from_float16(target[i]), _from_float16(source[i])))


@compiled(types.int64, _FLOATS, _SOURCE_HALVES)
def _reduce_mixed_float16(op: int, target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _combine(op, target[i], _from_float16(source[i]))


@compiled(_FLOATS, _SOURCE_HALVES)
def _widen_float16(target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _from_float16(source[i])


@compiled(_HALVES, _SOURCE_FLOATS)
def _narrow_float16(target: Array, source: Array) -> None:
    for i in range(target.size):
        target[i] = _to_float16(source[i])


_UFUNCS = (np.add, np.multiply, np.minimum, np.maximum)


@np.errstate(all="ignore")
def _reduce_float16_numpy(op: int, target: Array, source: Array) -> None:
    halves = target.view(np.float16)
    _UFUNCS[op](halves, source.view(np.float16), out=halves, dtype=np.float32, casting="same_kind")


@np.errstate(all="ignore")
def _reduce_mixed_float16_numpy(op: int, target: Array, source: Array) -> None:
    _UFUNCS[op](target, source.view(np.float16), out=target)


def _widen_float16_numpy(target: Array, source: Array) -> None:
    np.copyto(target, source.view(np.float16))


@np.errstate(all="ignore")
def _narrow_float16_numpy(target: Array, source: Array) -> None:
    np.copyto(target.view(np.float16), source, casting="same_kind")


def _processor_converts_float16() -> bool:
    if config.CPU_NAME is not None:  # type: ignore[attr-defined]  # kernels are made for some other processor
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return True
    return bool(llvmlite.binding.get_host_cpu_features().get("f16c", False))


BFLOAT16 = HalfKernels(_reduce_bfloat16, _reduce_mixed_bfloat16, _widen_bfloat16, _narrow_bfloat16)
FLOAT16_NUMPY = HalfKernels(
    _reduce_float16_numpy, _reduce_mixed_float16_numpy, _widen_float16_numpy, _narrow_float16_numpy
)
FLOAT16 = (
    HalfKernels(_reduce_float16, _reduce_mixed_float16, _widen_float16, _narrow_float16)
    if _processor_converts_float16()
    else FLOAT16_NUMPY
)
