"""From raw observations to numbers: the rate that a flow settles at, and statistics of delays. Pure.

Not here: what the numbers mean for a network (``campaign``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinwire.probe.experiment import FlowReport, TrainReport
from thinwire.transport.bulk import BIN_S, Arrivals
from thinwire.transport.datagrams import Train

_WINDOWS = 12
_WINDOWS_LEAST = 4
_RISEN = 0.9


def flow_report(arrivals: Arrivals) -> FlowReport:
    """The rates of both phases of a flow."""
    bins = arrivals.bins[:-1]  # the last one is not over
    joined = arrivals.joined_bin
    if joined is None:
        return FlowReport(one_stream_bytes_per_s=steady_rate(bins, BIN_S), several_streams_bytes_per_s=None)
    return FlowReport(
        one_stream_bytes_per_s=steady_rate(bins[:joined], BIN_S),
        several_streams_bytes_per_s=steady_rate(bins[joined:], BIN_S),
    )


def steady_rate(bins: Sequence[int], bin_s: float) -> float | None:
    """The rate a flow settles at: bytes a second, from the bytes of each ``bin_s``. None if there is too little.

    Time is cut into windows. Those before the flow first comes near its upper quartile are its start; of the
    others the mean of the middle half counts, so that neither a stall nor the burst after it does.

    >>> steady_rate([0, 1, 2, 4, 8] + [10] * 95, 0.01)
    1000.0
    """
    width = len(bins) // _WINDOWS or 1
    windows = len(bins) // width if bins else 0
    if windows < _WINDOWS_LEAST or not any(bins):
        return None
    rates = np.array(bins[len(bins) - windows * width :]).reshape(windows, width).sum(axis=1) / (
        width * bin_s
    )
    risen = int(np.argmax(rates >= _RISEN * np.quantile(rates, 0.75)))
    settled = np.sort(rates[risen:])
    quarter = len(settled) // 4
    return float(settled[quarter : len(settled) - quarter].mean())


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
    )
