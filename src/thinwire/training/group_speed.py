"""How fast a group's collectives are, found in a fraction of a second by making a few of them.

Good for a first plan only: what training itself shows then takes its place. Every rank gets the same numbers, those of
the slowest: what the bytes took, or what the kernel says the wire took of that, if it says so.

Not here: what each link does (``probe``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thinwire.clock import Clock
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.reduction import DTYPES, ReduceOp
from thinwire.training.wire_meter import WireMeter

_FIRST_BYTES, _LAST_BYTES = 16 << 10, 4 << 20
_ENOUGH_S = 0.05
_NUM_TINY = 5
FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]


class Speed(NamedTuple):
    """Of a group.

    Attributes:
        latency_s: of an all-reduce of almost nothing.
        bandwidth_bytes_per_s: that each rank sends with, to all others together, in a large one.
    """

    latency_s: float
    bandwidth_bytes_per_s: float


def speed_of(communicator: Communicator, clock: Clock) -> Speed:
    """Measure; every rank of the group calls it."""

    def slowest(took_s: float) -> float:
        everyones = np.array([took_s])
        communicator.all_reduce(everyones, ReduceOp.MAX, FLOAT64).wait()
        return float(everyones[0])

    def timed(num_bytes: int) -> float:
        data = np.zeros(max(1, num_bytes // 4), np.float32)
        start_s = clock.now_s()
        communicator.all_reduce(data, ReduceOp.SUM, FLOAT32).wait()
        return slowest(clock.now_s() - start_s)

    timed(0)  # connects
    latency_s = min(timed(0) for _ in range(_NUM_TINY))
    wire = WireMeter(latency_s)
    wire.look(clock.now_s(), communicator.traffic())
    num_bytes = _FIRST_BYTES
    while (took_s := timed(num_bytes)) < _ENOUGH_S and num_bytes < _LAST_BYTES:
        num_bytes *= 4
    if took_s < _ENOUGH_S:
        took_s = min(took_s, timed(num_bytes))
    wire.look(clock.now_s(), communicator.traffic())
    num_ranks = communicator.num_ranks
    sent_bytes = 2 * (num_ranks - 1) / num_ranks * num_bytes
    shown = sent_bytes / max(took_s - latency_s, took_s / 4)
    counted = 1 / slowest(1 / max(wire.bytes_per_s, shown))
    return Speed(latency_s, max(shown, counted))
