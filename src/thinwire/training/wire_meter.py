"""How fast this rank's links are, from what the kernel counted while the gradients passed: nobody else is asked.

A bucket may be late because the wire is slow, because a codec is, or because another process has the core. Only the
first of these can be helped by sending less, and only the kernel can tell it from the others: it acknowledges what
arrived without waiting for any process. So two of its figures are taken of each link, and both are too low at worst:

- the bytes acknowledged in a step, over the time in which any were not yet: too low where a sender was held up between
  two pieces while the first was on its way;
- the pace at which the last bytes were delivered while more was waiting to leave: too low where the kernel itself had
  to wait for a core, and now and then far too high, where a shaper let a burst pass; so the median of several counts.

The better one of each link, and of the last steps the best, are believed: those of a second, or fewer if the wire was
busy for ``ENOUGH_S`` in them. The links are used together, so the slowest says how fast this rank sends to all.

Told counters and times; no clock, no network. Not here: when to look (``link``), and what to do about it (``planner``).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from thinwire.forecast import Traffic

MEMORY_S, ENOUGH_S = 1.0, 0.3
_LEAST_BYTES = 16 << 10  # in a step, on all links: less says nothing
_TICK_S = 0.004  # of the kernel's clock for the time in which something was on its way
_LEAST_OF_BUSY = 0.25  # of the time on the wire that is not latency, however far the peer is


class _Passage(NamedTuple):
    """What went over one link in one step."""

    num_bytes: int
    busy_s: float
    pace_bytes_per_s: float | None


class WireMeter:
    """Learns from one look at the links' counters a step. Not thread-safe.

    Args:
        latency_s: of a collective of no size, in which nothing is wrong with the bandwidth.

    >>> meter = WireMeter(latency_s=0.0)
    >>> for step in range(3):
    ...     meter.look(float(step), {1: Traffic(delivered_bytes=step * 10**6, unacknowledged_s=step * 0.5)})
    >>> meter.bytes_per_s
    2000000.0
    """

    def __init__(self, latency_s: float, bytes_per_s: float = 0.0) -> None:
        self._latency_s = latency_s
        self._before: Mapping[int, Traffic] = {}
        self._steps: deque[tuple[float, dict[int, _Passage]]] = deque()
        self._bytes_per_s = bytes_per_s

    @property
    def bytes_per_s(self) -> float:
        """That this rank can send with, to all others together; 0: nothing seen yet."""
        return self._bytes_per_s

    def look(self, now_s: float, traffic: Mapping[int, Traffic]) -> None:
        """A step is over, and until now the links have counted that."""
        passages = {
            peer: _passage(before, after)
            for peer, after in traffic.items()
            if (before := self._before.get(peer)) is not None
        }
        self._before = traffic
        if sum(each.num_bytes for each in passages.values()) < _LEAST_BYTES:
            return
        if not any(each.busy_s or each.pace_bytes_per_s for each in passages.values()):
            return  # a transport that does not count
        self._steps.append((now_s, passages))
        while self._steps[0][0] <= now_s - MEMORY_S or self._is_enough_without_the_first():
            self._steps.popleft()
        self._bytes_per_s = self._concluded()

    def _is_enough_without_the_first(self) -> bool:
        rest = [passages for _, passages in list(self._steps)[1:]]
        return sum(max(each.busy_s for each in step.values()) for step in rest) >= ENOUGH_S

    def _concluded(self) -> float:
        steps = [passages for _, passages in self._steps]
        paces = {
            peer: statistics.median_low(seen)
            for peer in steps[-1]
            if (seen := [pace for step in steps if peer in step and (pace := step[peer].pace_bytes_per_s)])
        }
        return max(self._rate(step, paces) for step in steps)

    def _rate(self, step: Mapping[int, _Passage], paces: Mapping[int, float]) -> float:
        wire_s = 0.0
        for peer, passage in step.items():
            busy_s = max(passage.busy_s - self._latency_s, _LEAST_OF_BUSY * passage.busy_s, _TICK_S)
            paced_s = passage.num_bytes / paces[peer] if peer in paces else busy_s
            wire_s = max(wire_s, min(busy_s, paced_s))
        return sum(each.num_bytes for each in step.values()) / wire_s


def _passage(before: Traffic, after: Traffic) -> _Passage:
    num_bytes = after.delivered_bytes - before.delivered_bytes
    return _Passage(
        num_bytes,
        max(0.0, after.unacknowledged_s - before.unacknowledged_s),
        after.pace_bytes_per_s if num_bytes >= _LEAST_BYTES else None,
    )
