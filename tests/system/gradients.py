"""What the tests of ``attach`` share, under DistributedDataParallel and FSDP2: a training loop, and a slow wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor

from thinwire.collective.selection import Place
from thinwire.runtime.communicator import Communicator
from thinwire.training import link as linking
from thinwire.training import opening
from thinwire.training.figures import Report
from thinwire.training.group_speed import Speed

Switches = list[tuple[int, int, tuple[str, ...]]]


def train(loss_at: Callable[[Any, int], Tensor], model: Any, optimizer: Any, steps: range) -> list[float]:
    """Train on the loss that the first argument gives at each step; returns them."""
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_at(model, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextmanager
def slow_wire(bytes_per_s: float) -> Iterator[None]:
    """What is attached in here finds a network that slow, and looks again at every step: at the machine's memory."""
    with (
        mock.patch.object(Communicator, "place", Place.NETWORK),
        mock.patch.object(opening, "speed_of", return_value=Speed(1e-4, bytes_per_s)),
        mock.patch.object(linking, "ROUND_S", 0.01),
        mock.patch.object(linking, "FIGURES_S", 0.0),
    ):
        yield


def switches_of(report: Report) -> Switches:
    """Every plan: from which step on, its number, and its forms."""
    return [(each.step, each.plan.number, each.plan.forms) for each in report.switches]
