"""``thinwire.all_reduce`` with a fidelity, by real processes over TCP, on tensors of every kind and size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

import thinwire
from tests.codecs import Deflated, Half, Noisy
from tests.system.world import World
from thinwire.codec.base import Codec
from thinwire.errors import MismatchError, UsageError

pytestmark = pytest.mark.system

SIZES = (0, 1, 7, 1001, 300_007)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.fixture(scope="module", params=[1, 3, 8])
def tcp_world(request: pytest.FixtureRequest) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("THINWIRE_TRANSPORT", "tcp")
        environment.setenv("THINWIRE_CROSS_MEMORY", "0")
        world = World(request.param)
    yield world
    world.close()


def contribution(rank: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(numel, generator=generator).to(dtype)


def sums_of_every_size_and_type(codec: Codec) -> None:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    for numel in SIZES:
        for dtype in DTYPES:
            for op in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
                tensor = contribution(rank, numel, dtype)
                thinwire.all_reduce(tensor, op, fidelity=codec)
                expected = sum(contribution(other, numel, dtype).double() for other in range(ranks))
                if op == dist.ReduceOp.AVG:
                    expected = expected / ranks
                assert torch.allclose(tensor.double(), expected, rtol=0, atol=0.1), (numel, dtype, op)
                assert_replicas_are_equal(tensor)


def assert_replicas_are_equal(tensor: torch.Tensor) -> None:
    raw = tensor.contiguous().view(torch.uint8)
    first = raw.clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, raw)


@pytest.mark.parametrize("codec", [Half(), Deflated()], ids=str)
def test_sums_and_averages(tcp_world: World, codec: Codec) -> None:
    tcp_world.run(sums_of_every_size_and_type, codec)


def steps_of_four_bits() -> None:
    """Each step is rough; with what is still owed all steps together are exact, so their mean becomes better."""
    ranks, rank, steps = dist.get_world_size(), dist.get_rank(), 16
    memory = thinwire.CodecMemory()
    expected = torch.zeros(100_001, dtype=torch.float64)
    for other in range(ranks):
        expected += contribution(other, 100_001, torch.float32)
    total = torch.zeros_like(expected)
    errors = []
    for step in range(1, steps + 1):
        tensor = contribution(rank, 100_001, torch.float32)
        thinwire.all_reduce(tensor, fidelity="quantize(bits=4)", memory=memory["gradient"])
        assert_replicas_are_equal(tensor)
        total += tensor
        errors.append(float((total / step - expected).norm() / expected.norm()))
    if ranks == 1:
        assert errors[-1] < 1e-6
        return
    owed = torch.from_numpy(memory["gradient"].residual).double()
    dist.all_reduce(owed)
    assert torch.allclose(total + owed, steps * expected, rtol=0, atol=1e-3)
    assert 0.02 < errors[0] < 0.2
    assert errors[-1] < errors[0] / 4


def test_four_bits_with_error_feedback(tcp_world: World) -> None:
    tcp_world.run(steps_of_four_bits)


def sums_of_awkward_tensors() -> None:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    matrix = torch.full((30, 40), float(rank))
    column = matrix.t()[::2]
    thinwire.all_reduce(column, fidelity=Half())
    assert matrix[:, ::2].unique().tolist() == [ranks * (ranks - 1) / 2]
    assert matrix[:, 1::2].unique().tolist() == [rank]
    scalar = torch.tensor(2.0)
    work = thinwire.all_reduce(scalar, fidelity=Half(), async_op=True)
    assert work is not None
    work.wait()
    assert scalar.item() == 2.0 * ranks
    exact = torch.tensor(0.1)
    thinwire.all_reduce(exact, dist.ReduceOp.MAX)
    assert exact.item() == torch.tensor(0.1).item()


def test_views_scalars_and_waiting_later(world: World) -> None:
    world.run(sums_of_awkward_tensors)


def sums_at_once() -> None:
    """Several are under way at once, each with a memory of its own: the same bytes as one after the other."""
    rank, names, results = dist.get_rank(), ("a", "b", "c"), []
    for is_async in (False, True):
        memory, rounds = thinwire.CodecMemory(), []
        for fidelity in (Noisy(1.0), Half(), "exact"):
            tensors = [contribution(rank, 10_007 + number, torch.float32) for number in range(len(names))]
            works = [
                thinwire.all_reduce(each, fidelity=fidelity, memory=memory[name], async_op=is_async)
                for each, name in zip(tensors, names, strict=True)
            ]
            if is_async:
                futures = [work.get_future() for work in works if work is not None]
                values = [future.wait()[0] for future in futures]
                assert [value.data_ptr() for value in values] == [each.data_ptr() for each in tensors]
            else:
                assert works == [None] * len(names)
            rounds += [each.numpy().tobytes() for each in tensors]
        results.append(rounds)
    assert results[0] == results[1]


def test_several_calls_at_once(world: World) -> None:
    world.run(sums_at_once)


def what_cannot_be_done() -> None:
    with pytest.raises(UsageError, match="real floating-point numbers, not int64"):
        thinwire.all_reduce(torch.ones(3, dtype=torch.int64), fidelity=Half())
    with pytest.raises(UsageError, match="summed or averaged, not reduced by max"):
        thinwire.all_reduce(torch.ones(3), dist.ReduceOp.MAX, fidelity=Half())
    with pytest.raises(UsageError, match="is not a codec"):
        thinwire.all_reduce(torch.ones(3), fidelity="quantise(bits=4")
    memory = thinwire.CodecMemory()["a"]
    thinwire.all_reduce(torch.ones(3), fidelity=Half(), memory=memory)
    with pytest.raises(UsageError, match="'a' is of a tensor of 3 elements, not of 4"):
        thinwire.all_reduce(torch.ones(4), fidelity=Half(), memory=memory)
    dist.barrier()
    codec = Noisy(0.5) if dist.get_rank() == 1 else Noisy(0.25)
    with pytest.raises(MismatchError, match=r"noisy\(scale=0.5\)") as raised:
        thinwire.all_reduce(torch.ones(100_000), fidelity=codec)
    assert "noisy(scale=0.25)" in str(raised.value)


def test_mistakes_are_named_and_ranks_that_disagree_all_hear_of_it() -> None:
    world = World(3)
    try:
        world.run(what_cannot_be_done)
    finally:
        world.healthy = False
        world.close()
