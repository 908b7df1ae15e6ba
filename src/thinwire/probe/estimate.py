"""From raw observations to numbers: the rate that a flow settles at, and statistics of delays. Pure.

Not here: what the numbers mean for a network (``campaign``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from thinwire.probe.experiment import FlowReport, Together, TrainReport
from thinwire.transport.bulk import Progress
from thinwire.transport.datagrams import Train

_SAMPLES_LEAST = 5
_EVEN_SAMPLES = 200
_LONGEST_ROUND_TRIP_S = 10.0  # what seems longer is a clock that was set
_JUMP_S = 1.0


def flow_report(progress: Progress, retransmitted: float | None = None) -> FlowReport | None:
    """The rates of both phases of a flow; None if there is nothing to tell from."""
    times_s, totals, joined = progress.times_s, progress.totals, progress.joined
    if joined is None:
        joined = len(times_s)
    one, several = (
        steady_rate(times_s[:joined], totals[:joined]),
        steady_rate(times_s[joined:], totals[joined:]),
    )
    if one is None and several is None:
        return None
    return FlowReport(
        one_stream_bytes_per_s=one, several_streams_bytes_per_s=several, retransmitted=retransmitted
    )


def steady_rate(times_s: Sequence[float], totals: Sequence[int]) -> float | None:
    """The rate a flow settles at, in bytes a second, from its totals at some times. None if there is too little.

    It is the slope of the line that fits the second half of the time best, because the first is the flow's start. All
    samples count, where the difference of two would have the whole jitter of both acknowledgements in it.

    >>> times_s = [number / 100 for number in range(101)]
    >>> round(steady_rate(times_s, [0] * 20 + [1000 * number for number in range(81)]))
    100000
    """
    if len(times_s) < _SAMPLES_LEAST:
        return None
    middle_s = (times_s[0] + times_s[-1]) / 2
    if totals[-1] <= float(np.interp(middle_s, times_s, totals)):
        return None
    even_s = np.linspace(middle_s, times_s[-1], _EVEN_SAMPLES)
    line = np.polynomial.Polynomial.fit(even_s, np.interp(even_s, times_s, totals), 1)
    return max(0.0, float(line.deriv()(middle_s))) or None


def together(flows: Mapping[int, Progress], duration_s: float) -> Together | None:
    """What flows of that duration carried at one time; ``flows`` by place. None if there were never two of them.

    Each begins when its host hears of it. Rates at different times must not be added up: where all share one wire the
    sum would be more than the wire. A flow that others have starved is there all the same.
    """
    begun = {place: flow for place, flow in flows.items() if flow.times_s}
    if len(begun) < 2:
        return None
    begin_s = min(flow.times_s[0] for flow in begun.values())
    window_s = (begin_s + duration_s / 2, begin_s + duration_s)
    present = tuple(sorted(place for place, flow in begun.items() if flow.times_s[0] <= window_s[0]))
    if len(present) < 2:
        return None
    num_bytes = sum(
        float(np.diff(np.interp(window_s, flow.times_s, flow.totals))[0]) for flow in begun.values()
    )
    return Together(bytes_per_s=num_bytes / (window_s[1] - window_s[0]), places=present)


def train_report(train: Train) -> TrainReport:
    """The statistics of a train. If a clock jumped meanwhile, delays one way mean nothing, and are left out."""
    delays, rtts = np.array(train.delays_s), np.array(train.rtts_s)
    rtts = rtts[(rtts > 0) & (rtts < _LONGEST_ROUND_TRIP_S)]
    counts = TrainReport(
        num_sent=train.num_sent,
        num_received=train.num_received,
        num_expected=train.num_expected,
        span_s=train.span_s,
    )
    if not delays.size or not rtts.size:
        return counts
    has_jumped = float(np.ptp(delays)) > 2 * float(np.ptp(rtts)) + _JUMP_S
    return msgspec.structs.replace(
        counts,
        has_jumped=has_jumped,
        delay_min_s=None if has_jumped else float(delays.min()),
        delay_median_s=None if has_jumped else float(np.median(delays)),
        jitter_s=None if has_jumped else float(delays.std()),
        rtt_min_s=float(rtts.min()),
        rtt_median_s=float(np.median(rtts)),
        rtt_p99_s=float(np.quantile(rtts, 0.99)),
        rtt_p999_s=float(np.quantile(rtts, 0.999)),
    )


def longer_train(first: TrainReport, second: TrainReport) -> TrainReport:
    """Two trains over the same way as one, where counts are concerned; delays are those of the longer."""
    return msgspec.structs.replace(
        max(first, second, key=lambda train: train.num_received),
        num_sent=first.num_sent + second.num_sent,
        num_received=first.num_received + second.num_received,
        num_expected=first.num_expected + second.num_expected,
    )
