"""Each way torch has of training with many processes: over thinwire and over Gloo, from one seed, to the same weights.

The two differ in the order of additions only, so the weights agree to rounding; where gradients travel as float16 it
is Gloo that rounds at every addition.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from tests.system.world import World

pytestmark = pytest.mark.system

WIDTH = 16
STEPS = 6


class Layers(nn.Sequential):
    """Four layers, enough parameters for several buckets."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)))


class Forked(nn.Module):
    """Uses one of its two branches, by turns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.step = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.step += 1
        return self.branches[(self.step + dist.get_rank()) % 3 == 0](inputs)


class Embedded(nn.Module):
    """Gradients of the embedding are sparse."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, WIDTH, sparse=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(self.embedding((inputs[:, 0].abs() * 15).long().clamp(max=49)))


def batches(rank: int, count: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(rank)
    for _ in range(count):
        inputs = torch.randn(8, WIDTH, generator=generator)
        yield inputs, inputs.roll(1, dims=1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, count: int = STEPS) -> None:
    for inputs, targets in batches(rank, count):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    found = [parameter.detach() for parameter in model.parameters()]
    return [(item.full_tensor() if isinstance(item, DTensor) else item).clone() for item in found]


# The ways: each trains over ``group`` and returns the weights --------------------------------------------------------


def data_parallel(group: Any, model_class: type[nn.Module] = Layers, **options: Any) -> list[Tensor]:
    model = DistributedDataParallel(model_class(), process_group=group, bucket_cap_mb=0.002, **options)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), dist.get_rank(group))
    return weights(model)


def data_parallel_with_join(group: Any) -> list[Tensor]:
    """Rank r has r more batches than rank 0."""
    model = DistributedDataParallel(Layers(), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rank = dist.get_rank(group)
    with Join([model]):
        train(model, optimizer, rank, STEPS + rank)
    return weights(model)


def data_parallel_with_hook(group: Any, hook: Callable[..., Any]) -> list[Tensor]:
    model = DistributedDataParallel(Layers(), process_group=group, bucket_cap_mb=0.002)
    model.register_comm_hook(group, hook)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), dist.get_rank(group))
    return weights(model)


def data_parallel_with_power_sgd(group: Any) -> list[Tensor]:
    """Over Gloo, whose few threads its blocking callbacks exhaust, the hook is given calls that end at once."""
    model = DistributedDataParallel(Layers(), process_group=group, bucket_cap_mb=0.002)
    state = powerSGD_hook.PowerSGDState(
        process_group=group if dist.get_backend(group) == "thinwire" else Synchronous(group),
        matrix_approximation_rank=2,
        start_powerSGD_iter=2,
    )
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), dist.get_rank(group))
    return weights(model)


class Synchronous:
    """As much of a process group as the PowerSGD hook calls."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def size(self) -> int:
        return self.group.size()

    def allreduce(self, tensors: list[Tensor], options: Any) -> Synchronous:
        self.group.allreduce(tensors, options).wait()
        self.future: torch.futures.Future[list[Tensor]] = torch.futures.Future()
        self.future.set_result(tensors)
        return self

    def get_future(self) -> torch.futures.Future[list[Tensor]]:
        return self.future


def fully_sharded(group: Any) -> list[Tensor]:
    mesh = DeviceMesh.from_group(group, "cpu")
    model = Layers()
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    train(model, torch.optim.Adam(model.parameters(), lr=0.01), dist.get_rank(group))
    return weights(model)


def zero_redundancy(group: Any) -> list[Tensor]:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns

    model = DistributedDataParallel(Layers(), process_group=group)
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), torch.optim.Adam, process_group=group, parameters_as_bucket_view=True, lr=0.01
    )
    train(model, optimizer, dist.get_rank(group))
    optimizer.consolidate_state_dict(to=0)
    return weights(model)


def tensor_parallel(group: Any) -> list[Tensor]:
    """Every rank sees the same data; the layers are cut by columns and rows in turn."""
    mesh = DeviceMesh.from_group(group, "cpu")
    model = Layers()
    plan = {f"{layer}.0": RowwiseParallel() if layer % 2 else ColwiseParallel() for layer in range(4)}
    parallelize_module(model, mesh, plan)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), rank=0)
    return weights(model)


def pipeline(group: Any, schedule_class: type) -> list[Tensor]:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    stage_module = Layers()[rank]
    stage = PipelineStage(stage_module, rank, size, torch.device("cpu"), group=group)
    schedule = schedule_class(stage, n_microbatches=4, loss_fn=nn.functional.mse_loss)
    optimizer = torch.optim.SGD(stage_module.parameters(), lr=0.1)
    for inputs, targets in batches(0):
        optimizer.zero_grad()
        schedule.step(*([inputs] if rank == 0 else []), **({"target": targets} if rank == size - 1 else {}))
        optimizer.step()
    return weights(stage_module)


def checkpointed(group: Any) -> list[Tensor]:
    """Sharded weights are saved, spoilt, read back, and trained on."""
    mesh = DeviceMesh.from_group(group, "cpu")
    model = Layers()
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rank = dist.get_rank(group)
    train(model, optimizer, rank, 2)
    folders = [tempfile.mkdtemp() if rank == 0 else None]
    dist.broadcast_object_list(folders, group_src=0, group=group)
    checkpoint.save(model.state_dict(), checkpoint_id=folders[0], process_group=group)
    train(model, optimizer, rank, 2)
    state = model.state_dict()
    checkpoint.load(state, checkpoint_id=folders[0], process_group=group)
    model.load_state_dict(state)
    train(model, optimizer, rank, 2)
    return weights(model)


WAYS: dict[str, tuple[Callable[[Any], list[Tensor]], float]] = {
    "data parallel": (data_parallel, 1e-5),
    "static graph": (functools.partial(data_parallel, static_graph=True), 1e-5),
    "bucket view": (functools.partial(data_parallel, gradient_as_bucket_view=True), 1e-5),
    "unused parameters": (
        functools.partial(data_parallel, model_class=Forked, find_unused_parameters=True),
        1e-5,
    ),
    "sparse gradients": (functools.partial(data_parallel, model_class=Embedded), 1e-5),
    "join": (data_parallel_with_join, 1e-5),
    "float16 hook": (functools.partial(data_parallel_with_hook, hook=default_hooks.fp16_compress_hook), 1e-3),
    "PowerSGD hook": (data_parallel_with_power_sgd, 1e-4),
    "fully sharded": (fully_sharded, 1e-4),
    "zero redundancy": (zero_redundancy, 1e-4),
    "tensor parallel": (tensor_parallel, 1e-5),
    "GPipe": (functools.partial(pipeline, schedule_class=ScheduleGPipe), 1e-5),
    "1F1B": (functools.partial(pipeline, schedule_class=Schedule1F1B), 1e-5),
    "checkpoint": (checkpointed, 1e-5),
}


def check_training(name: str) -> None:
    way, tolerance = WAYS[name]
    found = way(dist.group.WORLD)
    gloo = dist.new_group(backend="gloo")
    expected = way(gloo)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    dist.destroy_process_group(gloo)


@pytest.mark.parametrize("name", WAYS)
def test_training(world: World, name: str) -> None:
    world.run(check_training, name)
