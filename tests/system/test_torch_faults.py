"""A rank dies, or calls something else, while torch waits: every other says so where it waits, and can leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist

from tests.system.world import World
from thinwire.errors import MismatchError, PeerError

pytestmark = pytest.mark.system

VICTIM = 2
GENEROUS_LIMIT_S = 3.0  # the promise is one second, on an idle machine

MODEL: list[torch.nn.Module] = []


@pytest.fixture
def doomed_world() -> Iterator[World]:
    world = World(3)
    world.run(warm_up)
    yield world
    world.healthy = False
    world.close()


def warm_up() -> None:
    MODEL.append(torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4)))
    MODEL[0](torch.ones(1, 4)).sum().backward()


def die_or_notice() -> None:
    if dist.get_rank() == VICTIM:
        os._exit(9)
    began_s = time.monotonic()
    loss = MODEL[0](torch.ones(1, 4)).sum()
    work = dist.all_reduce(torch.ones(100), async_op=True)
    message = dist.irecv(torch.ones(1), VICTIM)
    future = dist.barrier(async_op=True).get_future().then(lambda done: done.value())
    waits: list[Callable[[], object]] = [work.wait, message.wait, future.wait, dist.barrier]
    for wait in waits:
        with pytest.raises(PeerError, match=f"rank {VICTIM} on ") as raised:
            wait()
        assert raised.value.rank == VICTIM
    assert isinstance(work.exception(), PeerError)
    # Gradients are reduced in C++, which knows no types of errors but carries the text.
    with pytest.raises(RuntimeError, match=f"PeerError: rank {VICTIM} on "):
        loss.backward()
    assert time.monotonic() - began_s < GENEROUS_LIMIT_S
    dist.destroy_process_group()


def test_death(doomed_world: World) -> None:
    with pytest.raises(AssertionError) as raised:
        doomed_world.run(die_or_notice)
    assert str(raised.value) == f"rank {VICTIM}:\nthe process ended with status 9"


def call_with_another_shape() -> None:
    with pytest.raises(MismatchError, match=r"\[5\].*\[4\]|\[4\].*\[5\]"):
        dist.all_reduce(torch.ones(5 if dist.get_rank() == 1 else 4))


def test_mismatch(doomed_world: World) -> None:
    doomed_world.run(call_with_another_shape)
