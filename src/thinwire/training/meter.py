"""What a job tells about itself while it runs: when its buckets are ready, how long they travel, how much of it shows.

Told the times of events, a few a step; asked for a ``Measurement`` now and then. How fast the wire is, the kernel knows
better (``wire_meter``). Where nobody does, it is taken for what the bytes of a step took in the stretches in which any
bucket was on its way; a rank or a codec that is late makes that too small, so the best of the last second counts.

Not here: reading the clock (whoever tells the times), and anything a decision needs of other ranks (``agreement``).
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

MEMORY_S = 1.0
_STEPS_LEAST = 2
_STEPS_MOST = 32
_LEAST_OF_DURATION = 0.25  # of a transfer that is the wire's, however long the latency


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's recent steps.

    Attributes:
        sizes: values in each bucket.
        ready_s: when each is ready, after the first.
        step_s: from step to step, less what was exposed; 0: no whole step seen yet.
        exposed_s: between the last bucket being ready and all having travelled.
        bandwidth_bytes_per_s: that this rank sent with, to all others together; 0: nothing seen yet.
        residual_ratio, cosine, loss: see ``planner.guard.Evidence``.
    """

    sizes: tuple[int, ...] = ()
    ready_s: tuple[float, ...] = ()
    step_s: float = 0.0
    exposed_s: float = 0.0
    bandwidth_bytes_per_s: float = 0.0
    residual_ratio: float | None = None
    cosine: float | None = None
    loss: float | None = None


@dataclass
class Transfer:
    """One bucket on its way. ``end_s`` is set when it has arrived."""

    num_values: int
    start_s: float
    num_bytes: int
    end_s: float = 0.0


@dataclass
class Step:
    """One backward pass."""

    start_s: float
    transfers: list[Transfer] = field(default_factory=list)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(transfer.num_values for transfer in self.transfers)

    @property
    def end_s(self) -> float:
        return max(transfer.end_s for transfer in self.transfers)

    @property
    def exposed_s(self) -> float:
        return max(0.0, self.end_s - self.transfers[-1].start_s)


class Meter:
    """Collects steps. Thread-safe: transfers end on other threads than they begin on.

    Args:
        latency_s: of a collective of no size, which is not the bandwidth's fault.

    >>> meter = Meter(latency_s=0.0)
    >>> for start_s in (0.0, 1.0, 2.0):
    ...     meter.begin_step(start_s)
    ...     transfer = meter.begin_transfer(1000, start_s, num_bytes=4000)
    ...     meter.end_transfer(transfer, start_s + 0.5)
    >>> found = meter.measurement()
    >>> round(found.bandwidth_bytes_per_s), found.step_s, found.exposed_s
    (8000, 0.5, 0.5)
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._lock = threading.Lock()
        self._steps: deque[Step] = deque(maxlen=_STEPS_MOST)
        self._current: Step | None = None
        self.total_exposed_s = 0.0

    def begin_step(self, now_s: float) -> None:
        """The first bucket of a backward pass is ready."""
        with self._lock:
            done = self._current
            if done is not None and done.transfers and all(transfer.end_s for transfer in done.transfers):
                self._steps.append(done)
                self.total_exposed_s += done.exposed_s
            self._current = Step(now_s)

    def begin_transfer(self, num_values: int, now_s: float, num_bytes: int) -> Transfer:
        """A bucket is ready and goes: ``num_bytes`` from this rank to all others together."""
        transfer = Transfer(num_values, now_s, num_bytes)
        with self._lock:
            assert self._current is not None, "a step begins before its transfers"
            self._current.transfers.append(transfer)
        return transfer

    def end_transfer(self, transfer: Transfer, now_s: float) -> None:
        """It has arrived, everywhere as far as this rank can tell."""
        with self._lock:
            transfer.end_s = now_s

    def measurement(self) -> Measurement:
        """What the last second says, or at least the last two steps of the present layout; nothing before there are."""
        with self._lock:
            steps = list(self._steps)
            current = self._current
        alike = [step for step in steps if step.sizes == steps[-1].sizes]
        if len(alike) < _STEPS_LEAST:
            return Measurement()
        recent = [step for step in alike if step.end_s > alike[-1].end_s - MEMORY_S]
        recent = recent if len(recent) >= _STEPS_LEAST else alike[-_STEPS_LEAST:]
        starts = [step.start_s for step in alike] + ([current.start_s] if current else [])
        lengths = [
            after - before - step.exposed_s
            for step, before, after in zip(alike, starts, starts[1:], strict=False)
        ]
        return Measurement(
            sizes=alike[-1].sizes,
            ready_s=_medians([[each.start_s - step.start_s for each in step.transfers] for step in recent]),
            step_s=max(0.0, statistics.median(lengths[-len(recent) :])) if lengths else 0.0,
            exposed_s=statistics.median(step.exposed_s for step in recent),
            bandwidth_bytes_per_s=max(map(self._bandwidth, recent)),
        )

    def _bandwidth(self, step: Step) -> float:
        """Bytes over the time in which any bucket was on its way."""
        busy_s, until_s, num_stretches = 0.0, step.start_s, 0
        for transfer in step.transfers:
            num_stretches += transfer.start_s >= until_s
            busy_s += max(0.0, transfer.end_s - max(until_s, transfer.start_s))
            until_s = max(until_s, transfer.end_s)
        wire_s = busy_s - num_stretches * self._latency_s
        return sum(each.num_bytes for each in step.transfers) / max(wire_s, _LEAST_OF_DURATION * busy_s, 1e-6)


def _medians(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The median of each column, made ascending: buckets are ready one after the other."""
    found = [statistics.median(column) for column in zip(*rows, strict=True)]
    return tuple(max(found[: i + 1]) for i in range(len(found)))
