"""DataParallel trains to the same bits as DistributedDataParallel, and lets the step go on while gradients travel."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from tests.runtime.thread_ranks import groups_of, on_each
from tests.system.world import World
from thinwire.errors import UsageError
from thinwire.training.data_parallel import DataParallel

pytestmark = pytest.mark.system

STEPS = 5
WIDTH = 32


class Convolutional(nn.Sequential):
    """With batch norm, whose buffers are broadcast."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * 7 * 7, 300), nn.ReLU(), nn.Linear(300, 10)),
        )


class Transformer(nn.Module):
    """With tied embeddings, and attention, whose ``out_proj`` is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 64, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(text)))


class Forked(nn.Module):
    """Uses one of its branches, by turns, another one on each rank, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(16 * 16, 10) for _ in range(3))
        self.step = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.step += 1
        return self.branches[(self.step + dist.get_rank()) % 2](inputs.flatten(1))


def batch_of(model: nn.Module, rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    if isinstance(model, Transformer):
        text = torch.randint(64, (4, 12), generator=generator)
        return text, text.roll(-1, 1).flatten()
    return torch.randn(4, 1, 16, 16, generator=generator), torch.randint(10, (4,), generator=generator)


def loss_of(model: nn.Module, inner: nn.Module, rank: int, step: int) -> Tensor:
    inputs, targets = batch_of(inner, rank, step)
    return nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
}


def train(kind: type[nn.Module], optimizer_name: str, how: str, **options: Any) -> list[bytes]:
    """The parameters, buffers and the optimizer's state after some steps, with a schedule."""
    torch.manual_seed(dist.get_rank() if how == "overlap" else 0)  # DataParallel takes rank 0's
    inner = kind()
    model: Any = (DistributedDataParallel if how == "ddp" else DataParallel)(inner, **options)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    if how == "overlap":
        model.overlap(optimizer)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    for step in range(STEPS):
        loss = loss_of(model, inner, dist.get_rank(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    tensors = [each for _, each in sorted(model.state_dict().items())]
    for _, state in sorted(optimizer.state_dict()["state"].items()):
        tensors += [each for _, each in sorted(state.items()) if isinstance(each, Tensor)]
    return [each.numpy().tobytes() for each in tensors]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", [Convolutional, Transformer])
def test_to_the_same_bits_as_ddp(world: World, kind: type[nn.Module], optimizer: str) -> None:
    expected = world.run(train, kind, optimizer, "ddp")
    assert world.run(train, kind, optimizer, "plain") == expected
    assert world.run(train, kind, optimizer, "overlap") == expected


def _train_forked(how: str) -> list[bytes]:
    return train(Forked, "momentum", how, find_unused_parameters=True)


def test_unused_parameters_as_ddp(world: World) -> None:
    expected = world.run(_train_forked, "ddp")
    assert world.run(_train_forked, "plain") == expected
    assert world.run(_train_forked, "overlap") == expected


def _without_find_unused() -> str:
    model = DataParallel(Forked())
    with pytest.raises(
        UsageError, match=r"no gradient came for branches\.0\.weight|branches\.1\.weight"
    ) as caught:
        loss_of(model, model.module, dist.get_rank(), 0).backward()
    return str(caught.value)


def test_an_unused_parameter_is_named(world: World) -> None:
    assert all("find_unused_parameters=True" in each for each in world.run(_without_find_unused))
    world.healthy = False  # transfers of that backward pass were begun on some ranks only


def _accumulate_and_clip(how: str) -> list[bytes]:
    torch.manual_seed(0)
    inner = Convolutional()
    model: Any = (DistributedDataParallel if how == "ddp" else DataParallel)(inner)
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    if how == "overlap":
        model.overlap(optimizer)
    for step in range(STEPS):
        with model.no_sync():
            loss_of(model, inner, dist.get_rank(), 2 * step).backward()
        loss_of(model, inner, dist.get_rank(), 2 * step + 1).backward()
        if how == "ddp":
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        else:
            model.clip_grad_norm_(0.1)
        optimizer.step()
        optimizer.zero_grad()
    return [each.numpy().tobytes() for each in model.state_dict().values()]


def test_accumulation_and_clipping_as_ddp(world: World) -> None:
    expected = world.run(_accumulate_and_clip, "ddp")
    assert world.run(_accumulate_and_clip, "plain") == expected
    assert world.run(_accumulate_and_clip, "overlap") == expected


def test_backward_and_step_return_while_gradients_travel() -> None:
    """Rank 1 does not begin its backward pass before rank 0 has stepped: who waited for it would wait for ever."""
    stepped = threading.Event()
    with groups_of(2) as (groups, _):
        models = [nn.Sequential(nn.Linear(4, 200), nn.Linear(200, 100), nn.Linear(100, 2)) for _ in groups]
        reference = copy.deepcopy(models[0])

        def run(rank: int) -> None:
            model = DataParallel(models[rank], process_group=groups[rank], bucket_cap_mb=0)
            optimizer = model.overlap(torch.optim.SGD(model.parameters(), lr=0.1))
            for step in range(3):
                loss = model(torch.ones(1, 4) * (rank + 1)).sum()
                if rank == 1 and not stepped.wait(20):
                    raise AssertionError("rank 0 waits for rank 1")
                loss.backward()
                optimizer.step()
                if rank == 0 and step == 1:
                    stepped.set()
                if step == 0:
                    stepped.set()  # the first step agrees on an order, and waits
                    model.synchronize()
                    if rank == 1:
                        dist.barrier(group=groups[rank])
                    else:
                        stepped.clear()
                        dist.barrier(group=groups[rank])
            model.synchronize()

        on_each([0, 1], run)
    assert stepped.is_set()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (reference(torch.ones(1, 4)).sum() / 2 + reference(torch.ones(1, 4) * 2).sum() / 2).backward()
        optimizer.step()
    for model in models:
        torch.testing.assert_close(model.state_dict(), reference.state_dict())


def test_front_layers_have_the_highest_priority() -> None:
    with groups_of(1) as (groups, _):
        model = DataParallel(
            nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)), process_group=groups[0], bucket_cap_mb=0
        )
        assert [parcel.priority for parcel in model._parcels] == [4, 3, 2, 1]


def test_what_cannot_be_is_refused() -> None:
    with groups_of(1) as (groups, _):
        network = nn.Linear(2, 2)
        with pytest.raises(UsageError, match=r'"auto" is for attach\(\)'):
            DataParallel(network, process_group=groups[0], fidelity="auto")
        with pytest.raises(UsageError, match="nothing to reduce"):
            DataParallel(nn.ReLU(), process_group=groups[0])
        model = thinwire.DataParallel(network, process_group=groups[0])
        with pytest.raises(UsageError, match="LBFGS"):
            model.overlap(torch.optim.LBFGS(network.parameters()))
        optimizer = model.overlap(torch.optim.SGD(network.parameters(), lr=0.1))
        with pytest.raises(UsageError, match="already"):
            model.overlap(optimizer)
        with pytest.raises(UsageError, match="closure"):
            optimizer.step(lambda: 0.0)


def _coded(fidelity: str, how: str) -> tuple[list[float], list[bytes]]:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(256, 300), nn.Tanh(), nn.Linear(300, 10))
    model = DataParallel(inner, fidelity=fidelity)
    optimizer: Any = OPTIMIZERS["momentum"](model.parameters())
    if how == "overlap":
        model.overlap(optimizer)
    losses = []
    for step in range(20):
        loss = loss_of(model, inner, dist.get_rank(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.synchronize()
    return losses, [each.detach().numpy().tobytes() for each in model.parameters()]


@pytest.mark.parametrize("how", ["plain", "overlap"])
def test_coded_gradients_give_equal_replicas_that_learn(world: World, how: str) -> None:
    exact = world.run(_coded, "exact", how)
    for fidelity, bound in (("quantize(bits=8)", 0.05), ("quantize(bits=4)", 0.3)):
        coded = world.run(_coded, fidelity, how)
        for (losses, replica), (exact_losses, _) in zip(coded, exact, strict=True):
            assert replica == coded[0][1]
            assert sum(losses[-4:]) == pytest.approx(sum(exact_losses[-4:]), abs=bound)


def _overflowing_and_resumed() -> None:
    torch.manual_seed(0)
    inner = Convolutional()
    model = DataParallel(inner, fidelity="quantize(bits=4)", broadcast_buffers=False)

    def gradients(step: int) -> list[Tensor]:
        model.zero_grad()
        factor = float("inf") if step == 1 and dist.get_rank() == 2 else 1.0
        (loss_of(model, inner, dist.get_rank(), step) * factor).backward()
        return [each.grad.clone() for each in model.parameters() if each.grad is not None]

    first = gradients(0)
    assert not any(bool(each.isfinite().any()) for each in gradients(1)), (
        "rank 2 knows, and the others do not"
    )
    saved = model.memory.state_dict()
    after = gradients(0)
    assert all(bool(each.isfinite().all()) for each in after)
    assert not torch.equal(first[0], after[0]), "what was owed was not paid"
    model.memory.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(gradients(0), after, strict=True))


def test_an_overflow_is_seen_by_all_and_what_is_owed_is_saved(world: World) -> None:
    world.run(_overflowing_and_resumed)
