"""The ways to train: thinwire's, and those of others, each at its good settings. One function each, named in ``WAYS``.

A way takes a task, is entered before the first step and left after the last, and gives a ``Training`` in between. Not
here: torchft and hivemind (``peers``), which live in an environment of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.autopilot import peers
from benchmarks.autopilot.models import Task

Way = Callable[[Task], AbstractContextManager["Training"]]


@dataclass(frozen=True)
class Training:
    """One rank, ready for its first step.

    Attributes:
        model: what the loss is computed with.
        optimizer: what to call ``zero_grad`` and ``step`` of.
        link: of the autopilot, which tells what it did.
        settle: makes the parameters whole, so that they can be read.
    """

    model: Any
    optimizer: Any
    link: Any = None
    settle: Callable[[], None] = lambda: None


def attached(fidelity: str) -> Way:
    """DistributedDataParallel over thinwire, with ``thinwire.attach``."""

    @contextmanager
    def way(task: Task) -> Iterator[Training]:
        import thinwire

        dist.init_process_group("thinwire")
        model = DistributedDataParallel(task.network)
        yield Training(model, task.optimizer, thinwire.attach(model, fidelity, quiet=True))

    return way


@contextmanager
def across_the_boundary(task: Task) -> Iterator[Training]:
    """``thinwire.DataParallel``: exact, and the next forward pass begins while gradients travel."""
    import thinwire

    dist.init_process_group("thinwire")
    model = thinwire.DataParallel(task.network)
    yield Training(model, model.overlap(task.optimizer), settle=model.synchronize)


def gloo(
    register_hook: Callable[[DistributedDataParallel], None] = lambda model: None,
    bucket_cap_mb: float | None = None,
) -> Way:
    """DistributedDataParallel over Gloo, with one of torch's communication hooks or none."""

    @contextmanager
    def way(task: Task) -> Iterator[Training]:
        dist.init_process_group("gloo", timeout=timedelta(minutes=10))
        model = DistributedDataParallel(task.network, bucket_cap_mb=bucket_cap_mb)
        register_hook(model)
        yield Training(model, task.optimizer)

    return way


def _fp16(model: DistributedDataParallel) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    model.register_comm_hook(None, fp16_compress_hook)


def _power_sgd(model: DistributedDataParallel) -> None:
    """With error feedback and warm start, as torch's documentation advises; exact for the first ten steps."""
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

    state = PowerSGDState(process_group=None, matrix_approximation_rank=2, start_powerSGD_iter=10)
    model.register_comm_hook(state, powerSGD_hook)


def _peer(enter: Callable[[Task], Iterator[tuple[Any, Any]]]) -> Way:
    @contextmanager
    def way(task: Task) -> Iterator[Training]:
        dist.init_process_group("gloo")  # for the benchmark's own messages
        with contextmanager(enter)(task) as (model, optimizer):
            yield Training(model, optimizer)

    return way


WAYS: dict[str, Way] = {
    "thinwire auto": attached("auto"),
    "thinwire exact": attached("exact"),
    "thinwire.DataParallel": across_the_boundary,
    "Gloo": gloo(),
    "Gloo, fp16 hook": gloo(_fp16),
    # One bucket, because with two the hook's callbacks wait for each other over Gloo, for ever.
    "Gloo, PowerSGD hook": gloo(_power_sgd, bucket_cap_mb=100),
    "torchft DiLoCo": _peer(peers.diloco),
    "hivemind": _peer(peers.hivemind),
}
