"""What every rank of ``thinwire bench`` does: check and time one collective of each size over each backend.

The backends are measured in turn, in the same processes, over the same tensors, and the order is swapped from turn to
turn, so that what disturbs the machine disturbs them alike. A separate Gloo group carries the bench's own words.

Not here: starting the ranks, and printing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist

import thinwire  # noqa: F401  (registers the backend)
from thinwire.cli.measurement import BenchKind, BenchRequest, Measurement
from thinwire.clock import SYSTEM_CLOCK
from thinwire.units import format_bytes

TURN_S = 0.1
MAX_CALLS_A_TURN = 1000
# The pattern repeats after a prime number of elements, so that data in the wrong place differ from the right ones.
PERIOD = 251

Group = dist.ProcessGroup


class Workload:
    """One collective over tensors of one size, with values whose result is known exactly.

    Args:
        kind: which collective.
        size_bytes: of the larger buffer; rounded down to a whole number of float32 a rank, one at least.
    """

    def __init__(self, kind: BenchKind, size_bytes: int) -> None:
        self.kind = kind
        self.rank, self.num_ranks = dist.get_rank(), dist.get_world_size()
        self.block = max(1, size_bytes // 4 // self.num_ranks)
        whole = self.block * self.num_ranks
        if kind in (BenchKind.ALL_REDUCE, BenchKind.BROADCAST, BenchKind.SEND_RECV):
            whole = max(1, size_bytes // 4)
        self.size_bytes = whole * 4
        self.input = torch.empty(self.block if kind is BenchKind.ALL_GATHER else whole)
        self.output = torch.empty(self.block if kind is BenchKind.REDUCE_SCATTER else whole)

    def run(self, group: Group) -> None:
        """The collective, once."""
        match self.kind:
            case BenchKind.ALL_REDUCE:
                dist.all_reduce(self.output, group=group)
            case BenchKind.REDUCE_SCATTER:
                dist.reduce_scatter_single(self.output, self.input, group=group)
            case BenchKind.ALL_GATHER:
                dist.all_gather_single(self.output, self.input, group=group)
            case BenchKind.BROADCAST:
                dist.broadcast(self.output, src=0, group=group)
            case BenchKind.ALL_TO_ALL:
                dist.all_to_all_single(self.output, self.input, group=group)
            case BenchKind.SEND_RECV:
                there, back = (self.rank + 1) % self.num_ranks, (self.rank - 1) % self.num_ranks
                send = dist.P2POp(dist.isend, self.input, there, group=group)
                receive = dist.P2POp(dist.irecv, self.output, back, group=group)
                for work in dist.batch_isend_irecv([send, receive]):
                    work.wait()

    def num_wrong(self, group: Group) -> int:
        """Run once on the pattern and count this rank's wrong elements; leaves zeros in the tensors."""
        self._fill(self.input, self.rank)
        if self.kind in (BenchKind.ALL_REDUCE, BenchKind.BROADCAST):
            self._fill(self.output, self.rank)
        else:
            self.output.fill_(-1)
        self.run(group)
        wrong = self._count_wrong()
        self.input.zero_()  # sums of zeros stay finite however often they are taken
        self.output.zero_()
        return wrong

    def _fill(self, tensor: torch.Tensor, rank: int) -> None:
        pattern = torch.arange(PERIOD, dtype=torch.float32) + rank
        periods = tensor.numel() // PERIOD
        whole = periods * PERIOD
        tensor[:whole].view(periods, PERIOD).copy_(pattern.expand(periods, PERIOD))
        tensor[whole:].copy_(pattern[: tensor.numel() - whole])

    def _count_wrong(self) -> int:
        """Compare ``output`` with the definition of the collective, applied to the pattern."""
        expected = torch.empty_like(self.output)
        ranks = range(self.num_ranks)
        match self.kind:
            case BenchKind.ALL_REDUCE:
                self._fill(expected, 0)
                expected.mul_(self.num_ranks).add_(sum(ranks))
            case BenchKind.REDUCE_SCATTER:
                self._fill(self.input, 0)
                expected = self._block(self.input, self.rank) * self.num_ranks + sum(ranks)
            case BenchKind.ALL_GATHER:
                for rank in ranks:
                    self._fill(self._block(expected, rank), rank)
            case BenchKind.BROADCAST:
                self._fill(expected, 0)
            case BenchKind.ALL_TO_ALL:
                for rank in ranks:
                    self._fill(self.input, rank)
                    self._block(expected, rank).copy_(self._block(self.input, self.rank))
            case BenchKind.SEND_RECV:
                self._fill(expected, (self.rank - 1) % self.num_ranks)
        return int((self.output != expected).sum())

    def _block(self, tensor: torch.Tensor, index: int) -> torch.Tensor:
        return tensor[index * self.block : (index + 1) * self.block]


def measure(say: Callable[[Measurement | str], None], request: BenchRequest, init_method: str) -> None:
    """Measure all of ``request``; rank 0 says each ``Measurement``, and words of progress between.

    RANK in the environment says who this is. The process group is made here and destroyed at the end.
    """
    torch.set_num_threads(1)  # as torchrun does: the ranks of one host share its cores
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=request.num_ranks)
    control = dist.group.WORLD
    assert control is not None
    groups = {backend: dist.new_group(backend=backend) for backend in request.backends}
    for size_bytes in request.sizes_bytes:
        workload = Workload(request.kind, size_bytes)
        wrong = {backend: _sum(workload.num_wrong(group), control) for backend, group in groups.items()}
        calls = {backend: _calls_a_turn(workload, group, control) for backend, group in groups.items()}
        times_s: dict[str, list[float]] = {backend: [] for backend in groups}
        for turn in range(request.pairs):
            say(f"{request.num_ranks} ranks, {format_bytes(size_bytes)}: turn {turn + 1} of {request.pairs}")
            for backend in request.backends if turn % 2 == 0 else reversed(request.backends):
                times_s[backend].append(_time_s(workload, groups[backend], control, calls[backend]))
        for backend in groups:
            say(
                Measurement(
                    kind=request.kind,
                    backend=backend,
                    num_ranks=request.num_ranks,
                    size_bytes=workload.size_bytes,
                    times_s=tuple(times_s[backend]),
                    num_wrong=wrong[backend],
                )
            )
    dist.destroy_process_group()


def _calls_a_turn(workload: Workload, group: Group, control: Group) -> int:
    """As many calls as fill a turn, equal on all ranks; also the warm-up."""
    for _ in range(2):
        one_s = _time_s(workload, group, control, calls=1)
    few = min(20, max(1, int(TURN_S / 4 / one_s)))
    return min(MAX_CALLS_A_TURN, max(1, round(TURN_S / _time_s(workload, group, control, few))))


def _time_s(workload: Workload, group: Group, control: Group, calls: int) -> float:
    """Mean time of one call on the slowest rank, equal on all ranks."""
    dist.barrier(control)
    began_s = SYSTEM_CLOCK.now_s()
    for _ in range(calls):
        workload.run(group)
    mine = torch.tensor((SYSTEM_CLOCK.now_s() - began_s) / calls, dtype=torch.float64)
    dist.all_reduce(mine, op=dist.ReduceOp.MAX, group=control)
    return mine.item()


def _sum(value: int, control: Group) -> int:
    total = torch.tensor(value)
    dist.all_reduce(total, group=control)
    return int(total)
