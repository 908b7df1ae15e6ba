"""``thinwire.attach`` under FSDP2: exact to the bit, coded and as good, and whatever else a training loop does."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import thinwire
from tests.system import gradients
from tests.system.gradients import Switches, slow_wire, switches_of
from tests.system.world import World
from thinwire.errors import UsageError

pytestmark = pytest.mark.system

STEPS = 5
CODEC = "quantize(bits=4)"
WIDTH = 97  # shards are uneven


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(33, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10)
    )


def sharded(fidelity: str | None, kind: Callable[[], nn.Module] = layers, **options: Any) -> tuple[Any, Any]:
    """Model and link (None without a fidelity)."""
    model = kind()
    attaching = {name: options.pop(name) for name in ("parameters", "budget") if name in options}
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, **options)
    fully_shard(model, **options)
    link = None if fidelity is None else thinwire.attach(model, fidelity, quiet=True, **attaching)
    return model, link


def made(fidelity: str | None, **options: Any) -> tuple[Any, Any, Any]:
    model, link = sharded(fidelity, **options)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), link


def loss_at(model: Any, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    inputs = torch.randn(16, 33, generator=generator)
    targets = inputs[:, :10].argmax(dim=1)
    return nn.functional.cross_entropy(model(inputs).float(), targets)


train = partial(gradients.train, loss_at)


def whole(tensor: Tensor) -> bytes:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().numpy().tobytes()


def bits(model: Any) -> list[bytes]:
    return [whole(each) for each in model.state_dict().values()]


def _through_everything(fidelity: str | None) -> list[bytes]:
    """Accumulation without and with reduction, clipping, an unused layer, and plain steps."""
    model, optimizer, _ = made(fidelity)
    model.set_requires_gradient_sync(False)
    loss_at(model, 98).backward()
    model.set_requires_gradient_sync(True)
    loss_at(model, 99).backward()
    loss_at(model, 97).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    train(model, optimizer, range(STEPS))
    optimizer.zero_grad()
    model[0](torch.ones(2, 33)).sum().backward()
    optimizer.step()
    model.set_gradient_divide_factor(3.0)
    train(model, optimizer, range(2))
    return bits(model)


@pytest.mark.parametrize("fidelity", ["exact", "auto"])
def test_exact_is_fsdp_to_the_bit(world: World, fidelity: str) -> None:
    assert world.run(_through_everything, fidelity) == world.run(_through_everything, None)


def _mixed(fidelity: str | None, reduce_dtype: torch.dtype | None) -> list[bytes]:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=reduce_dtype)
    model, optimizer, _ = made(fidelity, mp_policy=policy)
    train(model, optimizer, range(STEPS))
    return bits(model)


@pytest.mark.parametrize("reduce_dtype", [None, torch.float32])
def test_mixed_precision_is_fsdps_to_the_bit(world: World, reduce_dtype: torch.dtype | None) -> None:
    assert world.run(_mixed, "exact", reduce_dtype) == world.run(_mixed, None, reduce_dtype)


def _losses(backend: str, fidelity: str | None = None, parameters: str = "exact") -> list[float]:
    mesh = None
    if backend == "gloo":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),), backend_override={0: "gloo"})
    attaching = {"parameters": parameters} if fidelity else {}
    model, optimizer, link = made(fidelity, mesh=mesh, **attaching)
    losses = train(model, optimizer, range(20))
    if link is not None:
        said = str(link.report())
        assert f"sent as {fidelity}" in said
        assert f"sent as parameters, {parameters[:-1]}" in said
    return losses


@pytest.mark.parametrize(
    ("fidelity", "parameters", "bound"),
    [
        ("exact", "exact", 1e-4),
        ("quantize(bits=8)", "exact", 0.01),
        ("quantize(bits=4)", "exact", 0.05),
        ("quantize(bits=8)", "cast(to=float16)", 0.05),
    ],
)
def test_it_learns_as_over_gloo(world: World, fidelity: str, parameters: str, bound: float) -> None:
    expected, found = world.run(_losses, "gloo")[0], world.run(_losses, "thinwire", fidelity, parameters)[0]
    assert found == pytest.approx(expected, abs=bound)


def _under_way_while_backward_goes_on() -> list[int]:
    """How many transfers nobody has waited for, whenever a layer's gradients are ready."""
    model, _, link = made("exact")
    seen: list[int] = []
    for layer in (model[0], model[2], model[4]):
        layer.register_full_backward_pre_hook(lambda *_: seen.append(len(link._under_way)))
    loss_at(model, 0).backward()
    return [*seen, len(link._under_way)]


def test_the_backward_pass_does_not_wait_for_gradients(world: World) -> None:
    assert world.run(_under_way_while_backward_goes_on) == [[0, 1, 2, 0]] * 4


def _overflowing() -> tuple[bool, bool, float]:
    """Rank 2's gradient overflows: the scaler skips the step on all ranks, and nobody remembers it."""
    model, optimizer, _ = made(CODEC)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = bits(model)
    for step in range(4):
        optimizer.zero_grad()
        loss = scaler.scale(loss_at(model, step)) * (
            float("inf") if step == 0 and dist.get_rank() == 2 else 1.0
        )
        loss.backward()
        scaler.step(optimizer)
        scaler.update()
        if step == 0:
            skipped = bits(model) == before
    finite = all(bool(each.full_tensor().isfinite().all()) for each in model.parameters())
    return skipped, finite, scaler.get_scale()


def test_an_overflow_skips_the_step_everywhere(world: World) -> None:
    assert world.run(_overflowing) == [(True, True, 2.0)] * 4


def _resumed(fidelity: str) -> bool:
    model, optimizer, link = made(fidelity)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), link.state_dict()], file)
    train(model, optimizer, range(3, STEPS))
    first = bits(model)
    again, optimizer, link = made(fidelity)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    for each, state in zip((again, optimizer, link), saved, strict=True):
        each.load_state_dict(state)
    train(again, optimizer, range(3, STEPS))
    return bits(again) == first


def test_a_checkpoint_restores_to_the_same_bytes_in_a_new_model(world: World) -> None:
    assert world.run(_resumed, CODEC) == [True] * 4


def _interrupted() -> bool:
    """A backward pass that fails half-way leaves transfers behind; the next one is whole."""
    model, optimizer, _ = made("exact")
    handle = model[0].register_full_backward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss_at(model, 0).backward()
    handle.remove()
    model.reset_iter_state()
    optimizer.zero_grad()
    train(model, optimizer, range(1))
    other, optimizer, _ = made(None)
    train(other, optimizer, range(1))
    return bits(model) == bits(other)


def test_after_a_backward_pass_that_failed_the_next_is_whole(world: World) -> None:
    assert world.run(_interrupted) == [True] * 4


def _over_a_slow_wire() -> tuple[list[bytes], Switches, str]:
    with slow_wire(2e4):
        model, optimizer, link = made("auto")
        for start in range(0, 2000, 40):  # until all ranks have heard each other often enough
            train(model, optimizer, range(start, start + 40))
            if len(link.report().switches) > 1:
                break
        report = link.report()
    return bits(model), switches_of(report), str(report)


def test_plans_begin_at_the_same_steps_everywhere(world: World) -> None:
    answers = world.run(_over_a_slow_wire)
    for replica, switches, report in answers:
        assert replica == answers[0][0]
        assert switches == answers[0][1]
        assert switches[0][2] != ("exact",)
        assert "the first steps: 160 kbit/s" in report
    assert len(answers[0][1]) > 1, "the wire turned out faster than the probe had said, and nothing changed"


def _refused() -> None:
    halves = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16)}
    with pytest.raises(UsageError, match=r"use reduce_dtype=torch\.float32"):
        sharded("auto", **halves)
    sharded(CODEC, **halves)
    model, _ = sharded("exact")
    with pytest.raises(UsageError, match="a communication of its own already"):
        thinwire.attach(model)
    with pytest.raises(UsageError, match='not "auto"'):
        sharded("exact", parameters="auto")
    factors = "low_rank(low_rank_dim=2)"
    for asked in ({"fidelity": factors}, {"fidelity": "exact", "parameters": factors}, {"budget": [factors]}):
        with pytest.raises(UsageError, match="travel as flat shards"):
            sharded(**{"fidelity": "auto", **asked})
    with pytest.raises(UsageError, match="does not gather parameters"):
        thinwire.attach(DistributedDataParallel(nn.Linear(2, 2)), parameters="cast(to=bfloat16)")
    gloo = init_device_mesh("cpu", (dist.get_world_size(),), backend_override={0: "gloo"})
    with pytest.raises(UsageError, match="not over a thinwire group"):
        sharded("exact", mesh=gloo)
    with pytest.raises(UsageError, match="over one group, found 0"):
        thinwire.attach(fully_shard(nn.Tanh()))


def test_what_cannot_be_attached_is_refused(world: World) -> None:
    world.run(_refused)
