"""Reductions against oracles that compute otherwise: Python numbers, and torch for the half types."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from thinwire.errors import UsageError
from thinwire.runtime import half_kernels
from thinwire.runtime.reduction import (
    DTYPES,
    HALF_OPS,
    Array,
    DType,
    ReduceOp,
    divide,
    mixed_reducer,
    narrow,
    reducer,
    scale,
    widen,
)

HALVES = (DTYPES["float16"], DTYPES["bfloat16"])
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.fixture(params=["compiled", "numpy"])
def _float16_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs a test on both float16 implementations, whatever this machine's processor can do."""
    if request.param == "numpy":
        monkeypatch.setattr(half_kernels, "FLOAT16", half_kernels.FLOAT16_NUMPY)
        reducer.cache_clear()
        mixed_reducer.cache_clear()
    yield
    reducer.cache_clear()
    mixed_reducer.cache_clear()


def to_torch(array: Array, dtype: DType) -> torch.Tensor:
    if dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def every_half() -> Array:
    return np.arange(1 << 16, dtype=np.uint16)


def half_pairs(dtype: DType) -> tuple[Array, Array]:
    """All 65,536 values, each against eight others: NaN, infinities, subnormals, ties, overflows."""
    rng = np.random.default_rng(7)
    left = np.concatenate([every_half() for _ in range(8)])
    right = np.concatenate([rng.permutation(every_half()) for _ in range(7)] + [every_half()])
    return left.view(dtype.storage), right.view(dtype.storage)


def torch_reduce(op: ReduceOp, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    functions = {
        ReduceOp.SUM: torch.add,
        ReduceOp.PRODUCT: torch.mul,
        ReduceOp.MIN: torch.minimum,
        ReduceOp.MAX: torch.maximum,
    }
    return functions[op](target, source)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def test_names_are_torchs() -> None:
    for dtype in DTYPES.values():
        assert getattr(torch, dtype.name).itemsize == dtype.itemsize


@pytest.mark.usefixtures("_float16_path")
@pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("op", HALF_OPS)
def test_half_reduction_is_float32_rounded_to_nearest_even(op: ReduceOp, dtype: DType) -> None:
    left, right = half_pairs(dtype)
    expected = torch_reduce(op, to_torch(left, dtype).float(), to_torch(right, dtype).float())
    reducer(op, dtype)(left, right)
    assert_same(to_torch(left, dtype), expected.to(getattr(torch, dtype.name)))


@pytest.mark.usefixtures("_float16_path")
@pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("op", HALF_OPS)
def test_half_into_accumulator(op: ReduceOp, dtype: DType) -> None:
    left, right = half_pairs(dtype)
    accumulator = np.empty(left.size, np.float32)
    widen(accumulator, left, dtype)
    expected = torch_reduce(op, to_torch(left, dtype).float(), to_torch(right, dtype).float())
    mixed_reducer(op, dtype)(accumulator, right)
    assert_same(torch.from_numpy(accumulator), expected)


@pytest.mark.usefixtures("_float16_path")
@pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
def test_widen_then_narrow_gives_every_half_back(dtype: DType) -> None:
    halves = every_half().view(dtype.storage)
    wide = np.empty(halves.size, np.float32)
    back = np.empty_like(halves)
    widen(wide, halves, dtype)
    assert_same(torch.from_numpy(wide), to_torch(halves, dtype).float())
    narrow(back, wide, dtype)
    is_nan = np.isnan(wide)
    assert np.array_equal(back[~is_nan].view(np.uint16), halves[~is_nan].view(np.uint16))
    assert torch.isnan(to_torch(back, dtype)[torch.from_numpy(is_nan)]).all()


@pytest.mark.usefixtures("_float16_path")
@pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
def test_narrow_rounds_as_torch_does(dtype: DType) -> None:
    rng = np.random.default_rng(11)
    random_bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties_and_neighbours = (every_half().astype(np.uint32) << 16)[:, None] + np.array(
        [0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32
    )
    wide = np.concatenate([random_bits, ties_and_neighbours.ravel()]).view(np.float32)
    halves = np.empty(wide.size, dtype.storage)
    narrow(halves, wide, dtype)
    assert_same(to_torch(halves, dtype), torch.from_numpy(wide).to(getattr(torch, dtype.name)))


def test_bfloat16_ties_go_to_even() -> None:
    """1 + 2**-8 lies midway between 1 and the next bfloat16; 1 + 3 * 2**-8 midway between odd and even."""
    wide = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)
    halves = np.empty(3, np.uint16)
    narrow(halves, wide, DTYPES["bfloat16"])
    assert to_torch(halves, DTYPES["bfloat16"]).tolist() == [1.0, 1.015625, -1.0]


def test_an_accumulator_keeps_what_rounding_at_every_step_loses() -> None:
    dtype = DTYPES["bfloat16"]
    one, small = np.array([0x3F80], np.uint16), np.array([0x3B00], np.uint16)  # 1 and 2**-9
    stepwise, accumulator, rounded_once = one.copy(), np.empty(1, np.float32), one.copy()
    widen(accumulator, one, dtype)
    for _ in range(4):
        reducer(ReduceOp.SUM, dtype)(stepwise, small)
        mixed_reducer(ReduceOp.SUM, dtype)(accumulator, small)
    narrow(rounded_once, accumulator, dtype)
    assert to_torch(stepwise, dtype).item() == 1.0
    assert to_torch(rounded_once, dtype).item() == 1.0078125


@pytest.mark.parametrize("name", ["float64", "float32", "complex64", "complex128", *INTEGERS])
@pytest.mark.parametrize("op", list(ReduceOp))
def test_whole_types_agree_with_python(op: ReduceOp, name: str) -> None:
    dtype = DTYPES[name]
    rng = np.random.default_rng(3)
    left, right = (rng.integers(0, 100, 257).astype(dtype.storage) for _ in range(2))
    if (name in FLOATS and op not in HALF_OPS) or (
        name.startswith("complex") and op not in (ReduceOp.SUM, ReduceOp.PRODUCT)
    ):
        with pytest.raises(UsageError, match=f"{op} is not defined on {name}: use one of"):
            reducer(op, dtype)
        return
    python = {
        ReduceOp.SUM: lambda a, b: a + b,
        ReduceOp.PRODUCT: lambda a, b: a * b,
        ReduceOp.MIN: min,
        ReduceOp.MAX: max,
        ReduceOp.BAND: lambda a, b: a & b,
        ReduceOp.BOR: lambda a, b: a | b,
        ReduceOp.BXOR: lambda a, b: a ^ b,
    }[op]
    expected = [python(a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    if name in INTEGERS:
        bits = 8 * dtype.itemsize
        expected = [value % (1 << bits) for value in expected]
        left_unsigned = left.view(f"u{dtype.itemsize}")
    else:
        left_unsigned = left
    reducer(op, dtype)(left, right)
    assert left_unsigned.tolist() == expected


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (ReduceOp.SUM, [False, True, True, True]),
        (ReduceOp.MAX, [False, True, True, True]),
        (ReduceOp.BOR, [False, True, True, True]),
        (ReduceOp.PRODUCT, [False, False, False, True]),
        (ReduceOp.MIN, [False, False, False, True]),
        (ReduceOp.BAND, [False, False, False, True]),
        (ReduceOp.BXOR, [False, True, True, False]),
    ],
)
def test_bool(op: ReduceOp, expected: list[bool]) -> None:
    target = np.array([False, False, True, True])
    reducer(op, DTYPES["bool"])(target, np.array([False, True, False, True]))
    assert target.tolist() == expected


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("op", HALF_OPS)
def test_nan_wins_from_either_side(op: ReduceOp, name: str) -> None:
    dtype = DTYPES[name]
    left = torch.tensor([float("nan"), 1.0], dtype=getattr(torch, name))
    right = torch.tensor([1.0, float("nan")], dtype=getattr(torch, name))
    arrays = [
        tensor.view(torch.int16).numpy().view(np.uint16) if name == "bfloat16" else tensor.numpy()
        for tensor in (left, right)
    ]
    reducer(op, dtype)(arrays[0], arrays[1])
    assert torch.isnan(left).all()


@pytest.mark.parametrize("name", FLOATS)
def test_overflow_is_silent_infinity(name: str) -> None:
    dtype = DTYPES[name]
    largest = torch.full((3,), torch.finfo(getattr(torch, name)).max, dtype=getattr(torch, name))
    array = largest.view(torch.int16).numpy().view(np.uint16) if name == "bfloat16" else largest.numpy()
    reducer(ReduceOp.SUM, dtype)(array, array.copy())
    assert torch.isinf(largest).all()


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS, "complex64"])
@pytest.mark.parametrize("divisor", [3, 128, 200])
def test_divide_is_torchs_division(name: str, divisor: int) -> None:
    dtype = DTYPES[name]
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 256, (1 << 15) * dtype.itemsize + 8 * dtype.itemsize, dtype=np.uint8)
    array = bits.view(dtype.storage)
    if dtype.is_integer:
        expected = torch.from_numpy(
            np.array([_truncated(value, divisor) for value in array.tolist()], dtype.storage)
        )
    else:
        expected = to_torch(array.copy(), dtype) / divisor
    divide(array, divisor, dtype)
    assert_same(to_torch(array, dtype), expected)


def _truncated(value: int, divisor: int) -> int:
    return abs(value) // divisor * (1 if value >= 0 else -1)


def test_divide_refuses_bool() -> None:
    with pytest.raises(UsageError, match="average of bool"):
        divide(np.array([True]), 2, DTYPES["bool"])


@pytest.mark.parametrize("name", [*FLOATS, "complex64"])
def test_scale_is_torchs_multiplication(name: str) -> None:
    dtype = DTYPES[name]
    rng = np.random.default_rng(6)
    array = rng.integers(0, 256, (1 << 15) * dtype.itemsize + 8 * dtype.itemsize, dtype=np.uint8).view(
        dtype.storage
    )
    expected = to_torch(array.copy(), dtype) * 0.3
    scale(array, 0.3, dtype)
    assert_same(to_torch(array, dtype), expected)


@pytest.mark.parametrize("name", ["bool", "int32"])
def test_scale_refuses_whole_numbers(name: str) -> None:
    with pytest.raises(UsageError, match=f"needs a floating-point or complex tensor, not {name}"):
        scale(np.zeros(1, DTYPES[name].storage), 2.0, DTYPES[name])


def test_source_may_be_read_only() -> None:
    for name in ("float32", "float16", "bfloat16"):
        dtype = DTYPES[name]
        source = np.frombuffer(bytes(16), dtype.storage)
        target = np.zeros(source.size, dtype.storage)
        reducer(ReduceOp.SUM, dtype)(target, source)
        assert not target.any()


def test_empty_arrays_are_fine() -> None:
    for dtype in DTYPES.values():
        empty = np.empty(0, dtype.storage)
        reducer(ReduceOp.SUM, dtype)(empty, empty)
        if dtype.name != "bool":
            divide(empty, 2, dtype)
