"""Element types and the reductions on them: what "+" means in a schedule, on one-dimensional NumPy arrays.

Half types (float16, bfloat16) compute in float32 and round to nearest even. A reduction over several ranks
rounds at every step when it is done with ``reducer``; ``mixed_reducer`` reduces into a float32 accumulator
instead, which ``narrow`` rounds once. Everything else accumulates in its own type; integers wrap around.

A NaN on either side of min or max wins, as in ``torch.minimum``: the result does not depend on the order of
the ranks. On bool, sum and max are "or", product and min are "and". Overflow to infinity is silent, as in
torch.

NumPy's loops and the kernels let go of the GIL on large arrays. Not here: torch, collectives, threads, and
the kernels of the half types, which ``half_kernels`` compiles when one is first asked for.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from thinwire.errors import UsageError

if TYPE_CHECKING:
    from thinwire.runtime.half_kernels import HalfKernels

Array = npt.NDArray[Any]
Reduction = Callable[[Array, Array], None]


class ReduceOp(enum.StrEnum):
    """The reductions. An average is a sum and ``divide``; a pre-multiplied sum is ``scale`` and a sum."""

    SUM = "sum"
    PRODUCT = "product"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Attributes:
        name: torch's name without the prefix, e.g. ``"bfloat16"``.
        storage: how NumPy holds it. NumPy has no bfloat16: its bits are held as uint16.
        accumulation: name of the type that a rank may sum in before it rounds: float32 for half types, else
            the type itself.
    """

    name: str
    storage: np.dtype[Any]
    accumulation: str

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.storage.itemsize

    @property
    def is_half(self) -> bool:
        return self.accumulation != self.name

    @property
    def is_integer(self) -> bool:
        return self.storage.kind in "iu" and not self.is_half


DTYPES: dict[str, DType] = {
    **{
        name: DType(name, np.dtype(name), name)
        for name in (
            *("float64", "float32"),
            *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
            *("bool", "complex64", "complex128"),
        )
    },
    "float16": DType("float16", np.dtype("float16"), "float32"),
    "bfloat16": DType("bfloat16", np.dtype("uint16"), "float32"),
}

HALF_OPS = (ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp.MIN, ReduceOp.MAX)
_Ufuncs = dict[ReduceOp, np.ufunc]
_BITWISE: _Ufuncs = {
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}
_COMPLEX: _Ufuncs = {ReduceOp.SUM: np.add, ReduceOp.PRODUCT: np.multiply}
_FLOAT: _Ufuncs = {**_COMPLEX, ReduceOp.MIN: np.minimum, ReduceOp.MAX: np.maximum}
_BOOL: _Ufuncs = {
    **_BITWISE,
    ReduceOp.SUM: np.bitwise_or,
    ReduceOp.MAX: np.bitwise_or,
    ReduceOp.PRODUCT: np.bitwise_and,
    ReduceOp.MIN: np.bitwise_and,
}
_UFUNCS_OF_KIND: dict[str, _Ufuncs] = {
    "b": _BOOL,
    "i": {**_FLOAT, **_BITWISE},
    "u": {**_FLOAT, **_BITWISE},
    "f": _FLOAT,
    "c": _COMPLEX,
}


@functools.cache
def reducer(op: ReduceOp, dtype: DType) -> Reduction:
    """The function ``(target, source)`` that does ``target = target op source`` in place, in ``dtype``.

    Both are contiguous arrays of ``dtype.storage`` with one dimension and one size.

    Raises:
        UsageError: there is no such reduction on this type.

    >>> target = np.array([1.0, 5.0], np.float32)
    >>> reducer(ReduceOp.MAX, DTYPES["float32"])(target, np.array([2.0, 3.0], np.float32))
    >>> target
    array([2., 5.], dtype=float32)
    """
    ufunc = _ufunc(op, dtype)
    if dtype.is_half:
        return _on_halves(_kernels(dtype).reduce, op)
    return _in_place(ufunc, silent=dtype.storage.kind in "fc")


@functools.cache
def mixed_reducer(op: ReduceOp, dtype: DType) -> Reduction:
    """Like ``reducer``, with ``target`` in ``dtype.accumulation``: differs for half types only."""
    if not dtype.is_half:
        return reducer(op, dtype)
    _ufunc(op, dtype)
    return _on_halves(_kernels(dtype).reduce_mixed, op)


def widen(target: Array, source: Array, dtype: DType) -> None:
    """Copy ``source``, of ``dtype``, to ``target``, of ``dtype.accumulation``: exact."""
    if dtype.is_half:
        _kernels(dtype).widen(target, source.view(np.uint16))
    else:
        np.copyto(target, source)


def narrow(target: Array, source: Array, dtype: DType) -> None:
    """Copy ``source``, of ``dtype.accumulation``, to ``target``, of ``dtype``: rounded to nearest even."""
    if dtype.is_half:
        _kernels(dtype).narrow(target.view(np.uint16), source)
    else:
        np.copyto(target, source)


def divide(array: Array, divisor: int, dtype: DType) -> None:
    """Divide in place by a number of ranks: what makes an average of a sum. Integers truncate towards zero.

    Raises:
        UsageError: ``dtype`` is bool.

    >>> array = np.array([-7, 7], np.int32)
    >>> divide(array, 2, DTYPES["int32"])
    >>> array
    array([-3,  3], dtype=int32)
    """
    if dtype.storage.kind == "b":
        raise UsageError("an average of bool is not defined: average uint8 or float32 instead")
    if not dtype.is_integer:
        _on_values(np.divide, array, divisor, dtype)
    elif dtype.storage.kind == "u":
        np.floor_divide(array, divisor, out=array, dtype=np.uint64, casting="unsafe")
    else:
        # Less its remainder, a number divides without rounding; the wide type is for divisors beyond an int8.
        for block in _blocks(array):
            wide = block.astype(np.int64)
            wide -= np.fmod(wide, divisor)
            block[:] = wide // divisor


def scale(array: Array, factor: float, dtype: DType) -> None:
    """Multiply in place by ``factor``: what goes before a pre-multiplied sum.

    Raises:
        UsageError: ``dtype`` is bool or an integer type.

    >>> array = np.array([1.0, 2.0], np.float32)
    >>> scale(array, 0.5, DTYPES["float32"])
    >>> array
    array([0.5, 1. ], dtype=float32)
    """
    if dtype.is_integer or dtype.storage.kind == "b":
        raise UsageError(f"a pre-multiplied sum needs a floating-point or complex tensor, not {dtype.name}")
    _on_values(np.multiply, array, factor, dtype)


def _ufunc(op: ReduceOp, dtype: DType) -> np.ufunc:
    supported = _FLOAT if dtype.is_half else _UFUNCS_OF_KIND[dtype.storage.kind]
    if op not in supported:
        raise UsageError(f"{op} is not defined on {dtype.name}: use one of {', '.join(sorted(supported))}")
    return supported[op]


def _in_place(ufunc: np.ufunc, *, silent: bool) -> Reduction:
    def reduce(target: Array, source: Array) -> None:
        ufunc(target, source, out=target)

    return np.errstate(all="ignore")(reduce) if silent else reduce


def _on_halves(kernel: Callable[[int, Array, Array], None], op: ReduceOp) -> Reduction:
    code = HALF_OPS.index(op)

    def reduce(target: Array, source: Array) -> None:
        kernel(code, target if target.dtype == np.float32 else target.view(np.uint16), source.view(np.uint16))

    return reduce


def _on_values(ufunc: np.ufunc, array: Array, number: float, dtype: DType) -> None:
    """``array = ufunc(array, number)``, computed in the accumulation type."""
    with np.errstate(all="ignore"):
        if not dtype.is_half:
            ufunc(array, number, out=array)
            return
        for block in _blocks(array):
            wide = np.empty(block.size, np.float32)
            widen(wide, block, dtype)
            ufunc(wide, number, out=wide)
            narrow(block, wide, dtype)


def _blocks(array: Array, block_elements: int = 1 << 15) -> list[Array]:
    """Views that cover ``array``: temporary copies of one stay in the cache and count little as memory."""
    return [array[start : start + block_elements] for start in range(0, array.size, block_elements)]


def _kernels(dtype: DType) -> HalfKernels:
    # Imported late: compiling or loading the kernels takes a while that most jobs never need to spend.
    from thinwire.runtime import half_kernels

    return half_kernels.BFLOAT16 if dtype.name == "bfloat16" else half_kernels.FLOAT16
