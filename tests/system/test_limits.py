"""What the runtime promises about silence, bystanders, memory and rest, held against real processes."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import thinwire
from tests.codecs import Half
from tests.system.world import World
from thinwire.codec.plain import Plain
from thinwire.errors import PeerError

pytestmark = pytest.mark.system

HEARTBEAT_S = 2.0
VICTIM = 2
MEMORY_LIMIT_BYTES = 64 << 20


@pytest.fixture
def watchful_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("THINWIRE_HEARTBEAT_S", str(HEARTBEAT_S))
    world = World(3)
    yield world
    world.healthy = False
    world.close()


def fall_silent_or_notice() -> None:
    pids: list[object] = [None] * 3
    dist.all_gather_object(pids, os.getpid())
    survivors = dist.new_group([0, 1])
    dist.barrier()
    if dist.get_rank() == VICTIM:
        os.kill(os.getpid(), signal.SIGSTOP)
    began_s = time.monotonic()
    with pytest.raises(PeerError, match=f"rank {VICTIM} on .*no word from it"):
        dist.all_reduce(torch.ones(4))
    assert HEARTBEAT_S / 2 < time.monotonic() - began_s < 3 * HEARTBEAT_S
    tensor = torch.ones(1000)
    dist.all_reduce(tensor, group=survivors)  # they have nothing to do with the victim, and are not disturbed
    assert tensor.unique().tolist() == [2.0]
    if dist.get_rank() == 0:
        assert isinstance(pids[VICTIM], int)
        os.kill(pids[VICTIM], signal.SIGKILL)
    dist.destroy_process_group()


def test_a_stopped_process_is_noticed_and_other_groups_are_not_disturbed(watchful_world: World) -> None:
    with pytest.raises(AssertionError) as raised:
        watchful_world.run(fall_silent_or_notice)
    assert str(raised.value) == f"rank {VICTIM}:\nthe process ended with status -9"


def peak_growth_bytes(collective: str) -> int:
    """How much more memory than its own tensors this process ever had during one large collective."""
    ranks = dist.get_world_size()
    whole = torch.ones(64 << 20)  # 256 MiB
    part = torch.ones(whole.numel() // ranks)
    dist.all_reduce(torch.ones(8, dtype=torch.bfloat16))  # load the kernels: code is not data
    dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status_bytes("VmHWM")
    if collective == "all_reduce":
        dist.all_reduce(whole)
    elif collective == "all_reduce of bfloat16":
        half = whole.view(torch.bfloat16)
        dist.all_reduce(half, op=dist.ReduceOp.MAX)
    elif collective == "encoded all_reduce":
        thinwire.all_reduce(whole, fidelity=Plain())
    elif collective == "encoded all_reduce of bfloat16":
        thinwire.all_reduce(whole.view(torch.bfloat16), fidelity=Half())
    elif collective == "all_gather":
        dist.all_gather_single(whole, part)
    elif collective == "reduce_scatter":
        dist.reduce_scatter_single(part, whole)
    else:
        dist.broadcast(whole, 0)
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


@pytest.mark.parametrize(
    "collective",
    [
        "all_reduce",
        "all_reduce of bfloat16",
        "encoded all_reduce",
        "encoded all_reduce of bfloat16",
        "all_gather",
        "reduce_scatter",
        "broadcast",
    ],
)
def test_memory_beyond_the_tensors_is_bounded(world: World, collective: str) -> None:
    growth = world.run(peak_growth_bytes, collective)
    assert max(growth) <= MEMORY_LIMIT_BYTES, f"{[found >> 20 for found in growth]} MiB"


def cpu_of_two_idle_seconds() -> float:
    dist.all_reduce(torch.ones(1 << 20))
    dist.barrier()
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(2.0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_an_idle_rank_uses_no_measurable_cpu(world: World) -> None:
    assert max(world.run(cpu_of_two_idle_seconds)) < 0.02


def sum_of_more_than_two_gibibytes() -> None:
    numel = (2 << 30) + 12345
    tensor = torch.ones(numel, dtype=torch.uint8)
    dist.all_reduce(tensor)
    # (Comparing a piece at a time: a mask of the whole would be as large again.)
    assert all(bool((piece == dist.get_world_size()).all()) for piece in tensor.split(1 << 26))


def test_more_than_two_gibibytes() -> None:
    world = World(2)
    try:
        world.run(sum_of_more_than_two_gibibytes)
    finally:
        world.close()
