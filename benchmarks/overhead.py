"""What a collective costs in processor time, over thinwire and over Gloo in turn: its price where cores are scarce.

    python -m benchmarks.overhead > benchmarks/results/overhead.json

Processor time hardly depends on what else the machine does, so this says sooner than a clock whether a change saves
work. Each figure is a mean over calls and ranks: user and system time of all threads of a rank, how often one of them
went to sleep (each a hand-over between threads or processes), and, for thinwire, the frames that its links sent. The
calls are made as C++ makes them for DistributedDataParallel, without torch.distributed's Python front end.

Not here: how long a collective takes (``thinwire bench``).
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import torch
import torch.distributed as dist

from benchmarks.local_group import local_group
from thinwire.cli.local_ranks import Say, words_of_rank_0
from thinwire.cli.measurement import Surroundings
from thinwire.clock import SYSTEM_CLOCK
from thinwire.runtime.endpoint import Endpoint
from thinwire.units import format_bytes, format_seconds

NUM_RANKS = 4
SIZES_BYTES = (1 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20)
TURNS, TURN_S, CALLS_MAX = 5, 0.25, 300
BACKENDS = ("thinwire", "gloo")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One all_reduce of float32 on one rank, in the mean.

    Attributes:
        user_s, system_s: processor time.
        num_sleeps: how often a thread gave up its core to wait for something.
        num_frames: that thinwire's links sent, control frames included; 0 for Gloo.
    """

    backend: str
    size_bytes: int
    user_s: float
    system_s: float
    num_sleeps: float
    num_frames: float

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


class OverheadReport(msgspec.Struct, frozen=True, kw_only=True):
    """All sizes, first thinwire, then Gloo."""

    surroundings: Surroundings
    num_ranks: int
    rows: tuple[Cost, ...]


def work(say: Say, sizes_bytes: tuple[int, ...], init_method: str) -> None:
    """What every rank does; rank 0 says each ``Cost``."""
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=num_ranks)
    with local_group("overhead", init_method) as (group, endpoint):
        groups: dict[str, Any] = {"thinwire": group, "gloo": dist.new_group(backend="gloo")}
        for size_bytes in sizes_bytes:
            for cost in _measure(groups, endpoint, size_bytes):
                say(cost)
    dist.destroy_process_group()


def _measure(groups: Mapping[str, Any], endpoint: Endpoint, size_bytes: int) -> Iterator[Cost]:
    """Both backends, in turn."""

    def used() -> torch.Tensor:
        """User and system seconds, sleeps, and thinwire's frames, of this process so far."""
        of_process = resource.getrusage(resource.RUSAGE_SELF)
        frames = sum(link.frames_sent for link in endpoint.carried().values())
        figures = (of_process.ru_utime, of_process.ru_stime, of_process.ru_nvcsw, frames)
        return torch.tensor(figures, dtype=torch.float64)

    tensor = torch.zeros(size_bytes // 4)
    calls = {backend: _calls_a_turn(group, tensor) for backend, group in groups.items()}
    sums = {backend: torch.zeros(4, dtype=torch.float64) for backend in BACKENDS}
    for turn in range(TURNS):
        for backend in BACKENDS if turn % 2 == 0 else reversed(BACKENDS):
            dist.barrier()
            before = used()
            _call(groups[backend], tensor, calls[backend])
            dist.barrier()  # over Gloo, and equally cheap for both
            sums[backend] += used() - before
    for backend in BACKENDS:
        dist.all_reduce(sums[backend])
        num_calls = dist.get_world_size() * TURNS * calls[backend]
        user_s, system_s, sleeps, frames = (sums[backend] / num_calls).tolist()
        yield Cost(
            backend=backend,
            size_bytes=size_bytes,
            user_s=user_s,
            system_s=system_s,
            num_sleeps=sleeps,
            num_frames=frames,
        )


def _call(group: Any, tensor: torch.Tensor, times: int) -> None:
    for _ in range(times):
        group.allreduce([tensor]).wait()


def _calls_a_turn(group: Any, tensor: torch.Tensor) -> int:
    """As many calls as fill a turn, equal on all ranks; also the warm-up."""
    _call(group, tensor, 3)
    began_s = SYSTEM_CLOCK.now_s()
    _call(group, tensor, 5)
    slowest_s = torch.tensor(SYSTEM_CLOCK.now_s() - began_s)
    dist.all_reduce(slowest_s, op=dist.ReduceOp.MAX)
    return max(2, min(CALLS_MAX, round(TURN_S * 5 / slowest_s.item())))


if __name__ == "__main__":
    rows = []
    for cost in words_of_rank_0(work, SIZES_BYTES, NUM_RANKS):
        rows.append(cost)
        print(
            f"{format_bytes(cost.size_bytes):>8} {cost.backend:>8}: {format_seconds(cost.user_s)} user, "
            f"{format_seconds(cost.system_s)} system, {cost.num_sleeps:.1f} sleeps, {cost.num_frames:.1f} frames",
            file=sys.stderr,
        )
    report = OverheadReport(
        surroundings=Surroundings.of_this_machine(), num_ranks=NUM_RANKS, rows=tuple(rows)
    )
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=1))
