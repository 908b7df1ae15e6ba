"""Vectors for kernels: 32 elements that are loaded, computed with and stored together, in LLVM's vector types.

Left to find vectors in loops by itself, the compiler finds some of them, and not the same ones next year. A loop
written with these is made of vector instructions on every processor that has any (of several narrower ones where 32
elements do not fit one), and says in which order floats are added. They exist inside compiled functions only::

    total = splat(np.float32(0))
    for i in range(0, values.size // LANES * LANES, LANES):
        x = load(values, i)
        total = total + x * x
    norm = sum_of(total)

``+ - * & | ^ << >>`` take two vectors of one kind, or a vector and then a scalar that stands for 32 equal ones;
integers wrap around, and ``>>`` keeps the sign if there is one.

Not here: what is left over where a size is no multiple of 32. Nothing checks bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 32
_INDEX = ir.IntType(32)


class Vector(types.Type):
    """Numba's type of a vector of ``width`` elements."""

    def __init__(self, element: Any, width: int = LANES) -> None:
        self.element = element
        self.width = width
        super().__init__(f"Vector({element}, {width})")

    @property
    def is_float(self) -> bool:
        """Whether its elements are float32; else they are integers or truths."""
        return isinstance(self.element, types.Float)

    @property
    def llvm(self) -> Any:
        """What LLVM calls it."""
        bits = 1 if isinstance(self.element, types.Boolean) else self.element.bitwidth
        return ir.VectorType(ir.FloatType() if self.is_float else ir.IntType(bits), self.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)  # type: ignore[no-untyped-call]


Emit = Callable[..., Any]  # (builder, argument...) -> LLVM's value


def _typed(signature: Any, emit: Emit) -> tuple[Any, Any]:
    """What a function given to ``intrinsic`` returns."""
    return signature, lambda context, builder, signature, arguments: emit(builder, *arguments)


def _address(context: Any, builder: Any, array: Any, arguments: Any, kind: Vector) -> Any:
    """Of the vector that begins at ``arguments[1]`` of the array ``arguments[0]``."""
    data = context.make_array(array)(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), kind.llvm.as_pointer())


def _type_load(context: Any, array: Any, start: Any) -> Any:
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_address(context, builder, array, arguments, kind))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return kind(array, types.int64), generate


def _type_store(context: Any, array: Any, start: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = builder.store(arguments[2], _address(context, builder, array, arguments, vector))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


def _type_prefetch(context: Any, array: Any, start: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        byte = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte.type, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte.type], kind)
        builder.call(fetch, [byte, number(0), number(3), number(1)])  # to read it, soon, as data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _shuffled(builder: Any, vector: Any, places: list[int]) -> Any:
    nothing = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, nothing, ir.Constant(ir.VectorType(_INDEX, len(places)), places))


def _spread(builder: Any, scalar: Any, kind: Vector) -> Any:
    nothing = ir.Constant(kind.llvm, ir.Undefined)
    return _shuffled(builder, builder.insert_element(nothing, scalar, _INDEX(0)), [0] * kind.width)


def _type_splat(context: Any, scalar: Any) -> Any:
    kind = Vector(scalar)
    return _typed(kind(scalar), lambda builder, value: _spread(builder, value, kind))


def _alike(kind: Vector, other: Any, emit: Emit) -> Any:
    """For ``intrinsic``: a function of a vector of this kind and of another, or of a scalar that is made one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = arguments
        if not isinstance(other, Vector):
            right = _spread(builder, context.cast(builder, right, other, kind.element), kind)
        return emit(builder, left, right)

    return generate


def _type_lanes(context: Any, element: Any) -> Any:
    kind = Vector(element.dtype)
    return _typed(kind(element), lambda builder, _: ir.Constant(kind.llvm, list(range(LANES))))


def _type_is_at_least(context: Any, left: Any, right: Any) -> Any:
    def emit(builder: Any, left_value: Any, right_value: Any) -> Any:
        if left.is_float:
            return builder.fcmp_ordered(">=", left_value, right_value)
        compare = builder.icmp_signed if left.element.signed else builder.icmp_unsigned
        return compare(">=", left_value, right_value)

    return Vector(types.boolean, left.width)(left, right), _alike(left, right, emit)


def _type_larger(context: Any, left: Any, right: Any) -> Any:
    def emit(builder: Any, left_value: Any, right_value: Any) -> Any:
        _, compare = _type_is_at_least(context, left, left)
        is_larger = compare(context, builder, None, (left_value, right_value))
        return builder.select(is_larger, left_value, right_value)

    return left(left, right), _alike(left, right, emit)


def _type_smaller(context: Any, left: Any, right: Any) -> Any:
    def emit(builder: Any, left_value: Any, right_value: Any) -> Any:
        _, compare = _type_is_at_least(context, left, left)
        is_larger = compare(context, builder, None, (left_value, right_value))
        return builder.select(is_larger, right_value, left_value)

    return left(left, right), _alike(left, right, emit)


def _type_choose(context: Any, condition: Any, yes: Any, no: Any) -> Any:
    return _typed(yes(condition, yes, no), lambda builder, *values: builder.select(*values))


def _type_converted(context: Any, vector: Any, element: Any) -> Any:
    kind = Vector(element.dtype, vector.width)

    def emit(builder: Any, value: Any, _: Any) -> Any:
        if vector.is_float:
            return builder.fptosi(value, kind.llvm)
        if kind.is_float:
            return builder.sitofp(value, kind.llvm)
        if vector.element.bitwidth > kind.element.bitwidth:
            return builder.trunc(value, kind.llvm)
        return (builder.sext if vector.element.signed else builder.zext)(value, kind.llvm)

    return _typed(kind(vector, element), emit)


def _type_seen_as(context: Any, vector: Any, element: Any) -> Any:
    kind = Vector(element.dtype, vector.width * vector.element.bitwidth // element.dtype.bitwidth)
    return _typed(kind(vector, element), lambda builder, value, _: builder.bitcast(value, kind.llvm))


def _type_swapped(context: Any, vector: Any, distance: Any) -> Any:
    places = [lane ^ distance.literal_value for lane in range(vector.width)]
    return _typed(vector(vector, distance), lambda builder, value, _: _shuffled(builder, value, places))


def _type_mask_of(context: Any, condition: Any) -> Any:
    return _typed(types.uint32(condition), lambda builder, value: builder.bitcast(value, ir.IntType(LANES)))


def _type_products(context: Any, left: Any, right: Any) -> Any:
    kind = Vector(types.int32, left.width // 2)

    def emit(builder: Any, left_value: Any, right_value: Any) -> Any:
        halves = [
            [
                builder.sext(_shuffled(builder, value, list(range(odd, left.width, 2))), kind.llvm)
                for odd in (0, 1)
            ]
            for value in (left_value, right_value)
        ]
        even, odd = (builder.mul(*pair) for pair in zip(*halves, strict=True))
        return builder.add(even, odd)

    return _typed(kind(left, right), emit)


def _folded(builder: Any, value: Any, width: int, combine: Emit) -> Any:
    """The lower half combined with the upper, until one element is left."""
    while width > 1:
        width //= 2
        lower, upper = (_shuffled(builder, value, list(range(at, at + width))) for at in (0, width))
        value = combine(lower, upper)
    return builder.extract_element(value, _INDEX(0))


def _type_sum_of(context: Any, vector: Any) -> Any:
    def emit(builder: Any, value: Any) -> Any:
        if vector.is_float:
            return _folded(builder, value, vector.width, builder.fadd)
        wide = builder.sext(value, ir.VectorType(ir.IntType(64), vector.width))
        return _folded(builder, wide, vector.width, builder.add)

    return _typed((types.float32 if vector.is_float else types.int64)(vector), emit)


def _type_largest_of(context: Any, vector: Any) -> Any:
    def emit(builder: Any, value: Any) -> Any:
        return _folded(
            builder,
            value,
            vector.width,
            lambda lower, upper: builder.select(builder.icmp_unsigned(">=", lower, upper), lower, upper),
        )

    return _typed(vector.element(vector), emit)


# (array, start): the 32 elements of a contiguous array from ``start`` on.
load: Any = intrinsic(_type_load)
# (array, start, vector): write them there.
store: Any = intrinsic(_type_store)
# (array, start): have the cache line with this element fetched; it may lie beyond the array.
prefetch: Any = intrinsic(_type_prefetch)
# (scalar): 32 times the same.
splat: Any = intrinsic(_type_splat)
# (type): 0, 1, ..., 31.
lanes: Any = intrinsic(_type_lanes)
# (left, right): where left >= right; nowhere for NaN.
is_at_least: Any = intrinsic(_type_is_at_least)
# (left, right): the larger one; right where one is NaN.
larger: Any = intrinsic(_type_larger)
# (left, right): the smaller one; left where one is NaN.
smaller: Any = intrinsic(_type_smaller)
# (condition, yes, no): element by element.
choose: Any = intrinsic(_type_choose)
# (vector, type): the same numbers; float32 to integers drops the fraction, narrower integers the upper bits.
converted: Any = intrinsic(_type_converted)
# (vector, type): the same bits, as more, as many or fewer elements.
seen_as: Any = intrinsic(_type_seen_as)
# (vector, distance): lane i has what lane i ^ distance had; the distance is a constant.
swapped: Any = intrinsic(prefer_literal=True)(_type_swapped)
# (condition): its 32 truths as one uint32, the first in the lowest bit.
mask_of: Any = intrinsic(_type_mask_of)
# (left, right) of int16: 16 int32, each the sum of the products of two neighbours.
products: Any = intrinsic(_type_products)
# (vector): float32 added as the lower half to the upper until one is left; signed integers as int64.
sum_of: Any = intrinsic(_type_sum_of)
# (vector) of unsigned integers: the largest.
largest_of: Any = intrinsic(_type_largest_of)


def _define(symbol: Any, of_integers: str, of_floats: str = "") -> None:
    def type_operation(context: Any, left: Any, right: Any) -> Any:
        name = of_floats if left.is_float else of_integers
        if name == "ashr" and not left.element.signed:
            name = "lshr"
        emit = _alike(left, right, lambda builder, *values: getattr(builder, name)(*values))
        return left(left, right), emit

    operation: Any = intrinsic(type_operation)

    def call(left: Any, right: Any) -> Any:
        return operation(left, right)

    @overload(symbol)
    def overloaded(left: Any, right: Any) -> Any:
        is_ours = isinstance(left, Vector) and (left == right or isinstance(right, types.Number))
        return call if is_ours else None


_define(operator.add, "add", "fadd")
_define(operator.sub, "sub", "fsub")
_define(operator.mul, "mul", "fmul")
_define(operator.and_, "and_")
_define(operator.or_, "or_")
_define(operator.xor, "xor")
_define(operator.lshift, "shl")
_define(operator.rshift, "ashr")
