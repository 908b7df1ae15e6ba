"""Every collective, element type and reduction through torch.distributed: against an oracle, and Gloo where it can."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.system.world import World
from thinwire.runtime.reduction import DTYPES

pytestmark = pytest.mark.system

SHAPES = [(), (0,), (7,), (2, 3), (65, 129)]
ROOT = 1
FACTOR = 0.5
OPS = ["SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"]
BITWISE = {"BAND": operator.and_, "BOR": operator.or_, "BXOR": operator.xor}
MOVED = [*DTYPES, "float8_e4m3fn", "float8_e5m2", "complex32"]
GLOO_DTYPES = {"float64", "float32", "float16", "bfloat16", "uint8", "int8", "int32", "int64"}

Pairs = Iterator[tuple[Tensor, Tensor]]  # what a rank has after the call, and what it should have


def is_defined(name: str, op: str, dtype: torch.dtype) -> bool:
    if dtype.is_complex:  # torch refuses the complex product in all_reduce itself
        return op in ("SUM", "AVG", "PREMUL_SUM") or (op == "PRODUCT" and "all_reduce" not in name)
    if dtype.is_floating_point:
        return op not in BITWISE
    return op != "PREMUL_SUM" and (op != "AVG" or dtype != torch.bool)


def gloo_can_reduce(op: str, dtype: torch.dtype) -> bool:
    name = str(dtype).removeprefix("torch.")
    return name in GLOO_DTYPES and op != "PREMUL_SUM" and (op != "AVG" or dtype.is_floating_point)


def sample(rank: int, shape: tuple[int, ...], dtype: torch.dtype, salt: int = 0) -> Tensor:
    """Small whole numbers, of which any type holds the sum and the product over four ranks exactly."""
    generator = torch.Generator().manual_seed(1000 * salt + rank)
    real, imaginary = torch.randint(1, 4, (2, *shape), generator=generator)
    if dtype.is_complex:
        return torch.complex(real.float(), imaginary.float()).to(dtype)
    return (real % 2 if dtype == torch.bool else real.float()).to(dtype)


def reduced(op: str, parts: list[Tensor]) -> Tensor:
    """The oracle: one tensor from all ranks' parts, computed in wide types."""
    dtype = parts[0].dtype
    if dtype.is_complex:
        wide = torch.stack(parts).to(torch.complex128)
    else:
        wide = torch.stack([part.to(torch.float64) for part in parts])
    if op == "AVG":
        mean = wide.sum(0) / len(parts)
        return (mean if dtype.is_floating_point or dtype.is_complex else mean.trunc()).to(dtype)
    if op in BITWISE:
        return functools.reduce(BITWISE[op], wide.to(torch.int64)).to(dtype)
    folds: dict[str, Callable[[], Tensor]] = {
        "SUM": lambda: wide.sum(0),
        "PREMUL_SUM": lambda: FACTOR * wide.sum(0),
        "PRODUCT": lambda: wide.prod(0),
        "MIN": lambda: wide.amin(0),
        "MAX": lambda: wide.amax(0),
    }
    return folds[op]().to(dtype)


def torch_op(name: str) -> Any:
    if name == "PREMUL_SUM":
        return torch._C._distributed_c10d._make_nccl_premul_sum(FACTOR)
    return getattr(dist.ReduceOp, name)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def joined(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks) if blocks[0].dim() else torch.stack(blocks)


@functools.cache
def gloo() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


def check(call: Callable[..., Pairs], *, on_gloo: bool) -> None:
    """What comes out is what should, bit for bit; what Gloo makes of the same call too, unless it cannot take it."""
    pairs = [pair for shape in SHAPES for pair in call(shape, group=None)]
    if on_gloo:  # it reads past the end of tensors without dimensions
        pairs += [pair for shape in SHAPES if shape for pair in call(shape, group=gloo())]
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        assert torch.equal(bits(found), bits(expected)), f"{found}, not {expected}"


# Reductions: each yields what is found and what is expected, for one shape --------------------------------------


def all_reduce(shape: tuple[int, ...], dtype: torch.dtype, op: str, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    tensor = sample(rank, shape, dtype)
    dist.all_reduce(tensor, torch_op(op), group)
    yield tensor, reduced(op, [sample(r, shape, dtype) for r in range(size)])


def all_reduce_coalesced(shape: tuple[int, ...], dtype: torch.dtype, op: str, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    tensors = [sample(rank, shape, dtype, salt) for salt in range(3)]
    with dist.distributed_c10d._coalescing_manager(group, async_ops=True) as works:
        for tensor in tensors:
            dist.all_reduce(tensor, torch_op(op), group)
    works.wait()
    for salt, tensor in enumerate(tensors):
        yield tensor, reduced(op, [sample(r, shape, dtype, salt) for r in range(size)])


def reduce(shape: tuple[int, ...], dtype: torch.dtype, op: str, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    tensor = sample(rank, shape, dtype)
    dist.reduce(tensor, group_dst=ROOT, op=torch_op(op), group=group)
    if rank == ROOT:
        yield tensor, reduced(op, [sample(r, shape, dtype) for r in range(size)])


def reduce_scatter(shape: tuple[int, ...], dtype: torch.dtype, op: str, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    output = torch.zeros(shape, dtype=dtype)
    dist.reduce_scatter(output, [sample(rank, shape, dtype, r) for r in range(size)], torch_op(op), group)
    yield output, reduced(op, [sample(r, shape, dtype, rank) for r in range(size)])


def reduce_scatter_single(shape: tuple[int, ...], dtype: torch.dtype, op: str, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    output = torch.zeros(shape, dtype=dtype)
    blocks = [sample(rank, shape, dtype, r) for r in range(size)]
    dist.reduce_scatter_single(output, joined(blocks), torch_op(op), group)
    yield output, reduced(op, [sample(r, shape, dtype, rank) for r in range(size)])


REDUCTIONS = {
    function.__name__: function
    for function in (all_reduce, all_reduce_coalesced, reduce, reduce_scatter, reduce_scatter_single)
}


def check_reduction(name: str, op: str, dtype_name: str) -> None:
    dtype = getattr(torch, dtype_name)
    check(functools.partial(REDUCTIONS[name], dtype=dtype, op=op), on_gloo=gloo_can_reduce(op, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(world: World, name: str, op: str, dtype: str) -> None:
    if is_defined(name, op, getattr(torch, dtype)):
        world.run(check_reduction, name, op, dtype)
    else:
        world.run(check_refusal, name, op, dtype)


def check_refusal(name: str, op: str, dtype_name: str) -> None:
    with pytest.raises(ValueError, match=r"not defined|does not support|needs a floating-point"):
        list(REDUCTIONS[name]((3,), getattr(torch, dtype_name), op, None))


# Moving data ----------------------------------------------------------------------------------------------------


def broadcast(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    tensor = sample(dist.get_rank(group), shape, dtype)
    dist.broadcast(tensor, group_src=ROOT, group=group)
    yield tensor, sample(ROOT, shape, dtype)


def all_gather(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    outputs = [torch.zeros(shape, dtype=dtype) for _ in range(size)]
    dist.all_gather(outputs, sample(rank, shape, dtype), group)
    for r, output in enumerate(outputs):
        yield output, sample(r, shape, dtype)


def all_gather_single(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    joins = (joined, torch.stack) if group is None else (joined,)
    for join in joins:
        output = torch.zeros_like(join([sample(rank, shape, dtype)] * size))
        dist.all_gather_single(output, sample(rank, shape, dtype), group)
        yield output, join([sample(r, shape, dtype) for r in range(size)])


def all_gather_coalesced(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    inputs = [sample(rank, shape, dtype, salt) for salt in range(2)]
    outputs = [[torch.zeros(shape, dtype=dtype) for _ in inputs] for _ in range(size)]
    with pytest.warns(FutureWarning):
        dist.all_gather_coalesced(outputs, inputs, group)
    for r, of_rank in enumerate(outputs):
        for salt, output in enumerate(of_rank):
            yield output, sample(r, shape, dtype, salt)


def gather(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    outputs = [torch.zeros(shape, dtype=dtype) for _ in range(size)] if rank == ROOT else None
    dist.gather(sample(rank, shape, dtype), outputs, group_dst=ROOT, group=group)
    for r, output in enumerate(outputs or []):
        yield output, sample(r, shape, dtype)


def scatter(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    inputs = [sample(ROOT, shape, dtype, r) for r in range(size)] if rank == ROOT else None
    output = torch.zeros(shape, dtype=dtype)
    dist.scatter(output, inputs, group_src=ROOT, group=group)
    yield output, sample(ROOT, shape, dtype, rank)


def all_to_all(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    outputs = [torch.zeros(shape, dtype=dtype) for _ in range(size)]
    dist.all_to_all(outputs, [sample(rank, shape, dtype, r) for r in range(size)], group)
    for r, output in enumerate(outputs):
        yield output, sample(r, shape, dtype, rank)


def all_to_all_single(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    output = torch.zeros((size, *shape), dtype=dtype)
    dist.all_to_all_single(
        output, torch.stack([sample(rank, shape, dtype, r) for r in range(size)]), group=group
    )
    for r in range(size):
        yield output[r], sample(r, shape, dtype, rank)


def all_to_all_single_uneven(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    """Rank a sends ``a + b`` rows to rank b; rank 0 sends nothing to itself."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    splits = [rank + r for r in range(size)]
    blocks = [sample(rank, (rows, *shape), dtype, r) for r, rows in enumerate(splits)]
    output = torch.zeros((sum(splits), *shape), dtype=dtype)
    dist.all_to_all_single(output, torch.cat(blocks), splits, splits, group)
    for r, block in enumerate(output.split(splits)):
        yield block, sample(r, (rank + r, *shape), dtype, rank)


def send_recv(shape: tuple[int, ...], dtype: torch.dtype, group: Any) -> Pairs:
    """Around a ring, two tags crossing each other."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    right, left = (rank + 1) % size, (rank - 1) % size
    outputs = {tag: torch.zeros(shape, dtype=dtype) for tag in (5, 6)}
    works = [dist.irecv(outputs[tag], group_src=left, group=group, tag=tag) for tag in (6, 5)]
    works += [
        dist.isend(sample(rank, shape, dtype, tag), group_dst=right, group=group, tag=tag) for tag in (5, 6)
    ]
    for work in works:
        work.wait()
    for tag, output in outputs.items():
        yield output, sample(left, shape, dtype, tag)


MOVES = {
    function.__name__: function
    for function in (
        broadcast,
        all_gather,
        all_gather_single,
        all_gather_coalesced,
        gather,
        scatter,
        all_to_all,
        all_to_all_single,
        all_to_all_single_uneven,
        send_recv,
    )
}


def check_move(name: str, dtype_name: str) -> None:
    dtype = getattr(torch, dtype_name)
    check(functools.partial(MOVES[name], dtype=dtype), on_gloo=dtype_name in GLOO_DTYPES)


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize("name", MOVES)
def test_move(world: World, name: str, dtype: str) -> None:
    world.run(check_move, name, dtype)
