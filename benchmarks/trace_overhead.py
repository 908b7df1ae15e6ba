"""What recording a trace costs, as a share of a collective's time.

    python -m benchmarks.trace_overhead > benchmarks/results/trace_overhead.json

Twice over. *Measured*: an all_reduce with recording on and off, in turn in the same processes; the ratio is the
median over pairs of turns. Times on shared cores vary by more than a hundredth, so the spread is told beside it.
*Counted*: the spans that a collective records, times what one takes, over the collective's time; this one is sharp.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any
from unittest import mock

import msgspec
import torch
from torch._C._distributed_c10d import AllreduceOptions, ReduceOp

from benchmarks.local_group import local_group
from thinwire.cli.local_ranks import Say, words_of_rank_0
from thinwire.cli.measurement import Surroundings
from thinwire.clock import SYSTEM_CLOCK
from thinwire.runtime.endpoint import Endpoint
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.trace import Recorder
from thinwire.units import format_bytes

NUM_RANKS = 4
SIZES_BYTES = (1 << 10, 1 << 20, 16 << 20)
PAIRS, TURN_S, CALLS_MAX = 15, 0.2, 300
SPANS_TIMED = 50_000


class TraceCost(msgspec.Struct, frozen=True, kw_only=True):
    """All turns of one size.

    Attributes:
        on_s, off_s: seconds a call with and without recording, in the order of the pairs.
        spans_a_call: how many spans a rank records for a call.
        span_s: seconds of a core to record one.
    """

    size_bytes: int
    on_s: tuple[float, ...]
    off_s: tuple[float, ...]
    spans_a_call: float
    span_s: float

    @property
    def measured(self) -> float:
        """Share of a call's time by which recording makes it longer."""
        return statistics.median(on / off for on, off in zip(self.on_s, self.off_s, strict=True)) - 1

    @property
    def spread(self) -> float:
        """Half of the interquartile range of that share."""
        shares = [on / off for on, off in zip(self.on_s, self.off_s, strict=True)]
        low, _, high = statistics.quantiles(shares, n=4, method="inclusive")
        return (high - low) / 2

    @property
    def counted(self) -> float:
        """Share of a call's time that recording its spans takes."""
        return self.spans_a_call * self.span_s / statistics.median(self.off_s)


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """All sizes, and where they were measured."""

    surroundings: Surroundings
    num_ranks: int
    rows: tuple[TraceCost, ...]


def work(say: Say, sizes_bytes: tuple[int, ...], init_method: str) -> None:
    """What every rank does; rank 0 says each ``TraceCost``."""
    with local_group("trace overhead", init_method) as (group, endpoint):
        span_s = _span_s(group, endpoint)
        for size_bytes in sizes_bytes:
            tensor = torch.zeros(size_bytes // 4)
            _call(group, tensor, 10)
            calls = max(2, min(CALLS_MAX, round(TURN_S / _call(group, tensor, 10))))
            times_s: dict[bool, list[float]] = {False: [], True: []}
            num_spans = 0
            for pair in range(PAIRS):
                for is_on in (False, True) if pair % 2 else (True, False):
                    endpoint.recorder = Recorder() if is_on else None
                    times_s[is_on].append(_call(group, tensor, calls))
                    if endpoint.recorder is not None:
                        num_spans += len(endpoint.recorder.trace(group.rank(), "here").spans)
            endpoint.recorder = None
            say(
                TraceCost(
                    size_bytes=size_bytes,
                    on_s=tuple(times_s[True]),
                    off_s=tuple(times_s[False]),
                    spans_a_call=num_spans / PAIRS / (calls + 2),  # with the two calls of ``_call`` itself
                    span_s=span_s,
                )
            )


def _call(group: ThinwireProcessGroup, tensor: torch.Tensor, times: int) -> float:
    """Seconds a call, on the slowest rank, equal on all."""
    group.barrier().wait()
    began_s = SYSTEM_CLOCK.now_s()
    for _ in range(times):
        group.allreduce([tensor]).wait()
    mine = torch.tensor((SYSTEM_CLOCK.now_s() - began_s) / times)
    options = AllreduceOptions()
    options.reduceOp = ReduceOp(ReduceOp.MAX)
    group.allreduce([mine], options).wait()
    return mine.item()


def _span_s(group: ThinwireProcessGroup, endpoint: Endpoint) -> float:
    """Seconds of a core to record an all_reduce that has ended: what the endpoint does then, on one that has."""
    ended: list[Any] = []
    with mock.patch.object(endpoint, "record", lambda *call: ended.append(call)):
        group.allreduce([torch.zeros(1)]).wait()
    best_s = float("inf")
    for _ in range(5):
        endpoint.recorder = Recorder()
        began_s = time.thread_time()
        for _ in range(SPANS_TIMED):
            endpoint.record(*ended[0])
        best_s = min(best_s, (time.thread_time() - began_s) / SPANS_TIMED)
    endpoint.recorder = None
    return best_s


if __name__ == "__main__":
    rows = []
    for cost in words_of_rank_0(work, SIZES_BYTES, NUM_RANKS):
        rows.append(cost)
        print(
            f"{format_bytes(cost.size_bytes)}: measured {cost.measured:+.2%} ± {cost.spread:.2%}, "
            f"counted {cost.counted:.3%} ({cost.spans_a_call:.2f} spans of {cost.span_s * 1e6:.2f} us)",
            file=sys.stderr,
        )
    report = TraceReport(surroundings=Surroundings.of_this_machine(), num_ranks=NUM_RANKS, rows=tuple(rows))
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=1))
