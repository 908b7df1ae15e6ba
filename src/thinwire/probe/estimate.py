"""From raw observations to numbers: the rate that a flow settles at, and statistics of delays. Pure.

Not here: what the numbers mean for a network (``campaign``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinwire.probe.experiment import FlowReport, TrainReport
from thinwire.transport.bulk import Progress
from thinwire.transport.datagrams import Train

_SAMPLES_LEAST = 5


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

    It is the mean of the second half of the time: the first is the flow's start. The half is the same for all, so that
    the rates of flows that run together add up.

    >>> times_s = [number / 100 for number in range(101)]
    >>> round(steady_rate(times_s, [0] * 20 + [1000 * number for number in range(81)]))
    100000
    """
    if len(times_s) < _SAMPLES_LEAST:
        return None
    middle_s = (times_s[0] + times_s[-1]) / 2
    late = totals[-1] - float(np.interp(middle_s, times_s, totals))
    return late / (times_s[-1] - middle_s) if late > 0 else None


def train_report(train: Train) -> TrainReport:
    """The statistics of a train."""
    delays, rtts = np.array(train.delays_s), np.array(train.rtts_s)
    rtts = rtts[rtts > 0]  # a clock was set back
    if not delays.size or not rtts.size:
        return TrainReport(num_sent=train.num_sent, num_received=train.num_received)
    return TrainReport(
        num_sent=train.num_sent,
        num_received=train.num_received,
        delay_min_s=float(delays.min()),
        delay_median_s=float(np.median(delays)),
        jitter_s=float(delays.std()),
        rtt_min_s=float(rtts.min()),
        rtt_median_s=float(np.median(rtts)),
        rtt_p99_s=float(np.quantile(rtts, 0.99)),
        rtt_p999_s=float(np.quantile(rtts, 0.999)),
    )
