"""``thinwire.attach`` under DistributedDataParallel: exact to the bit, coded with equal replicas, plans in step."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import thinwire
from tests.system import gradients
from tests.system.gradients import Switches, slow_wire, switches_of
from tests.system.test_data_parallel import Forked, batch_of
from tests.system.world import World
from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.training import opening
from thinwire.training.fidelity import candidates
from thinwire.training.figures import Figures

pytestmark = pytest.mark.system

STEPS = 6
CODEC = "quantize(bits=3)"
FACTORS = "low_rank(low_rank_dim=2)"


class Layers(nn.Sequential):
    """Large enough for several buckets of 0.1 MiB."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Flatten(), nn.Linear(256, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 10)
        )


def made(
    fidelity: str | None, kind: Callable[[], nn.Module] = Layers, **options: Any
) -> tuple[Any, Any, Any]:
    """Model, optimizer, link (None without a fidelity)."""
    torch.manual_seed(0)
    model = DistributedDataParallel(kind(), bucket_cap_mb=0.1, **options)
    link = None if fidelity is None else thinwire.attach(model, fidelity, quiet=True)
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), link


def loss_at(model: Any, step: int) -> Tensor:
    inputs, targets = batch_of(model.module, dist.get_rank(), step)
    return nn.functional.cross_entropy(model(inputs), targets)


train = partial(gradients.train, loss_at)


def bits(model: Any) -> list[bytes]:
    return [each.detach().numpy().tobytes() for each in model.state_dict().values()]


def _exact(fidelity: str | None) -> list[bytes]:
    model, optimizer, _ = made(fidelity)
    with model.no_sync():
        loss_at(model, 99).backward()
    train(model, optimizer, range(STEPS))
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    return bits(model)


def test_exact_is_ddp_to_the_bit(world: World) -> None:
    assert world.run(_exact, "exact") == world.run(_exact, None)


def test_on_one_host_auto_is_exact(world: World) -> None:
    assert world.run(_exact, "auto") == world.run(_exact, None)


def _coded(fidelity: str) -> tuple[list[bytes], list[float], str]:
    model, optimizer, link = made(fidelity)
    losses = train(model, optimizer, range(30))
    report = link.report()
    link.close()
    return bits(model), losses, str(report)


def _uncoded_losses() -> list[float]:
    model, optimizer, _ = made(None)
    return train(model, optimizer, range(30))


@pytest.mark.parametrize("fidelity", [CODEC, FACTORS])
def test_coded_replicas_are_equal_and_learn_as_exact_ones_do(world: World, fidelity: str) -> None:
    answers = world.run(_coded, fidelity)
    assert all(answer[0] == answers[0][0] for answer in answers)
    exact = world.run(_uncoded_losses)
    for (_, losses, report), exact_losses in zip(answers, exact, strict=True):
        assert sum(losses[-5:]) == pytest.approx(sum(exact_losses[-5:]), abs=0.3)
        assert f"sent as {fidelity}" in report


def _unused() -> list[bytes]:
    model, optimizer, _ = made(CODEC, Forked, find_unused_parameters=True)
    train(model, optimizer, range(STEPS))
    return bits(model)


def test_unused_parameters_and_coded_gradients(world: World) -> None:
    answers = world.run(_unused)
    assert all(answer == answers[0] for answer in answers)


def _overflowing(fidelity: str) -> tuple[bool, bool]:
    """Rank 2's gradient overflows in the third step: everybody must see it, once."""
    model, optimizer, _ = made(fidelity)
    train(model, optimizer, range(2))
    optimizer.zero_grad()
    (loss_at(model, 2) * (float("inf") if dist.get_rank() == 2 else 1.0)).backward()
    seen = all(not each.grad.isfinite().all() for each in model.parameters())
    train(model, optimizer, range(3, 5))
    return seen, all(bool(each.isfinite().all()) for each in model.parameters())


@pytest.mark.parametrize("fidelity", [CODEC, FACTORS])
def test_an_overflow_is_seen_by_all_and_kept_by_none(world: World, fidelity: str) -> None:
    assert world.run(_overflowing, fidelity) == [(True, True)] * 4


def _resumed(fidelity: str | Codec) -> tuple[bool, bool]:
    """Train on from a checkpoint twice: the same bytes; and what is loaded is what was saved."""
    model, optimizer, link = made(fidelity)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), link.state_dict()], file)

    def go_on() -> list[bytes]:
        train(model, optimizer, range(3, STEPS))
        return bits(model)

    def restore() -> bytes:
        file.seek(0)
        saved = torch.load(file, weights_only=False)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        link.load_state_dict(saved[2])
        again = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict(), link.state_dict()], again)
        return again.getvalue()

    first = go_on()
    is_same_state = restore() == file.getvalue()
    return go_on() == first, is_same_state


@pytest.mark.parametrize("fidelity", ["exact", CODEC, FACTORS])
def test_a_checkpoint_restores_to_the_same_bytes(world: World, fidelity: str | Codec) -> None:
    assert world.run(_resumed, fidelity) == [(True, True)] * 4


def _over_a_slow_wire() -> tuple[list[bytes], Switches, str, list[Figures]]:
    """The probe finds a slow wire, so the first plan is lossy; what training then sees is the machine's memory."""
    seen: list[Figures] = []
    with slow_wire(1e5):
        torch.manual_seed(0)
        model = DistributedDataParallel(Layers(), bucket_cap_mb=0.1)
        link = thinwire.attach(model, quiet=True, on_figures=seen.append)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for start in range(0, 2000, 40):  # until all ranks have heard each other often enough
            losses = train(model, optimizer, range(start, start + 40))
            if len(link.report().switches) > 1:
                break
        link.observe_loss(losses[-1])
        report = link.report()
    return bits(model), switches_of(report), str(report), seen


def test_plans_begin_at_the_same_steps_everywhere(world: World) -> None:
    answers = world.run(_over_a_slow_wire)
    for replica, switches, report, seen in answers:
        assert replica == answers[0][0]
        assert switches == answers[0][1]
        assert switches[0][2] != ("exact",)
        assert "the first steps: 800 kbit/s" in report
        assert seen
        assert seen[-1].bytes_sent > 0
    assert len(answers[0][1]) > 1, "the wire turned out faster than the probe had said, and nothing changed"


def _without_a_codec_on_rank_3() -> list[tuple[str, ...]]:
    """Rank 3 has no other form than exact."""
    forms = [] if dist.get_rank() == 3 else candidates(None)
    with mock.patch.object(opening, "candidates", return_value=forms):
        _, switches, _, _ = _over_a_slow_wire()
    return [switch[2] for switch in switches]


def test_what_one_rank_cannot_use_nobody_uses(world: World) -> None:
    assert world.run(_without_a_codec_on_rank_3) == [[("exact",)]] * 4


def _refused() -> list[str]:
    said = []
    model = DistributedDataParallel(nn.Linear(2, 2))
    for arguments in ({"fidelity": "no such codec"}, {"target": -1.0}, {"budget": -1.0}):
        with pytest.raises(UsageError) as caught:
            thinwire.attach(model, **arguments)
        said.append(str(caught.value))
    model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    with pytest.raises(UsageError, match="hook already"):
        thinwire.attach(model, "exact")
    with pytest.raises(UsageError, match="DistributedDataParallel"):
        thinwire.attach(nn.Linear(2, 2))
    exact = thinwire.attach(DistributedDataParallel(nn.Linear(2, 2)), "exact")
    with pytest.raises(UsageError, match="saved with fidelity"):
        exact.load_state_dict({"fidelity": str(CODEC)})
    with pytest.raises(UsageError, match="not the state of a link"):
        exact.load_state_dict({"fidelity": "exact"})
    return said


def test_what_cannot_be_attached_is_refused(world: World) -> None:
    world.run(_refused)
