"""How fast this rank's links are, from what the kernel counted while the gradients passed: nobody else is asked.

A bucket may be late because the wire is slow, because a codec is, or because another process has the core. Only the
first of these can be helped by sending less, and only the kernel can tell it from the others: it acknowledges what
arrived without waiting for any process. It tells two things of each link:

- how many bytes were acknowledged in a step, and how long any were not yet. Their quotient is what the wire carries at
  least. It carries more where a sender was held up between two pieces, or an acknowledgement was waited for; but in the
  best of several steps such things take ``BESIDE_S`` and a few latencies at most. So the wire carries no more than the
  bytes over the time without these.
- the pace at which the last bytes were delivered, where more was waiting to leave. If the wire is what limits, it is
  never far above that quotient. If processes are, it is, again and again: by ten or a hundred times. A shaper lets
  a burst pass now and then, so it takes a quarter of the paces to say that the wire is not the limit; and then their
  median is what it carries at least. Where there is a pace and it is not beyond, the wire was the limit.

What was believed before stays, as long as it lies between the two bounds. So steps that send much say within a few per
cent how fast the wire is, and those that send little do not make it slower: 115 KB at 100 Mbit/s are 9 ms, and may well
take 20.

So a wire is believed to have become slower at once where it was the limit, and otherwise only if nothing better was
seen for longer.

Links are used together, so the slowest says how fast this rank sends to all.

Told counters and times; no clock, no network. Not here: when to look (``link``), and what to do about it (``planner``).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from thinwire.forecast import Traffic

MEMORY_S, LONG_MEMORY_S = 1.0, 4.0  # of steps, where the wire was the limit, and where that is not known
ENOUGH_S = 0.3  # of waiting for the wire in one step, beside which the steps before say nothing
_LEAST_BYTES = 16 << 10  # in a step, on all links: less says nothing
_TICK_S = 0.004  # of the kernel's clock for the time in which something was on its way
_BEST_OF = 2  # steps tell how fast the wire is at least
_SEVERAL = 3  # and so many, that it is slower
BESIDE_S, _LATENCIES_BESIDE = 0.008, 4  # of that time not on the wire, at most, in the best of several steps
_BEYOND = 2.0  # times what the links carried together: a pace of one link that this wire would not allow
_SHARE_BEYOND = 0.25
_NUM_PACES = 5  # of a link, without which some that are beyond and some that are not decide nothing
_LEAST_OF_BUSY = 0.25  # of the time on the wire that is not latency, however far the peer is


class _Passage(NamedTuple):
    """What went over one link in one step."""

    num_bytes: int
    busy_s: float
    pace_bytes_per_s: float | None


class _Step(NamedTuple):
    """What went over all links in one step, by peer."""

    end_s: float
    passages: Mapping[int, _Passage]

    @property
    def longest_s(self) -> float:
        return max(each.busy_s for each in self.passages.values())


class WireMeter:
    """Learns from one look at the links' counters a step. Not thread-safe.

    Args:
        latency_s: of a collective of no size, in which nothing is wrong with the bandwidth.
        guess_bytes_per_s: what to believe of the wire where the first steps leave it open; 0: nothing. A guess alone is
            no ground for a plan: it may tell of busy cores.

    Attributes:
        is_counted: whether there is a kernel that counts.

    >>> meter = WireMeter(latency_s=0.0)
    >>> for step in range(3):
    ...     meter.look(float(step), {1: Traffic(delivered_bytes=step * 10**6, unacknowledged_s=step * 0.5)})
    >>> meter.bytes_per_s
    2000000.0
    """

    def __init__(self, latency_s: float, guess_bytes_per_s: float = 0.0) -> None:
        self._latency_s = latency_s
        self._before: Mapping[int, Traffic] = {}
        self._steps: deque[_Step] = deque()
        self._guess_bytes_per_s = guess_bytes_per_s
        self._bytes_per_s = 0.0
        self.is_counted = False

    @property
    def bytes_per_s(self) -> float:
        """That this rank can send with, to all others together; 0: not known yet."""
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
        step = _Step(now_s, passages)
        self.is_counted |= step.longest_s > 0 or any(each.pace_bytes_per_s for each in passages.values())
        if not self.is_counted:
            return
        self._steps.append(step)
        while self._steps[0].end_s <= now_s - LONG_MEMORY_S:
            self._steps.popleft()
        self._conclude(now_s)

    def _conclude(self, now_s: float) -> None:
        recent = [step for step in self._steps if step.end_s > now_s - MEMORY_S]
        if self._is_limit(recent[-1]) and recent[-1].longest_s >= ENOUGH_S:
            recent = recent[-1:]
        steps = recent if any(map(self._is_limit, recent)) else list(self._steps)
        paces = self._paces(steps)
        if paces is None:
            return  # wait and see
        best = sorted(steps, key=lambda step: _rate([step], self._latency_s, paces))[-_BEST_OF:]
        believed = self._bytes_per_s or self._guess_bytes_per_s
        if not believed:
            self._bytes_per_s = _rate(best[-1:], self._latency_s, paces)
            return
        if len(steps) >= _SEVERAL or steps[-1].longest_s >= ENOUGH_S:
            beside_s = BESIDE_S + _LATENCIES_BESIDE * self._latency_s
            believed = min(believed, max(_rate([step], beside_s, paces) for step in steps))
        self._bytes_per_s = max(believed, _rate(best, -_TICK_S / len(best), paces))

    def _paces(self, steps: Sequence[_Step]) -> dict[int, float] | None:
        """What the links carry at least of which the wire is not the limit, by peer; None where that is open."""
        carried = max(map(self._carried, steps))
        paces: dict[int, float] = {}
        for peer in steps[-1].passages:
            seen = [pace for step in steps if (pace := _pace(step, peer)) is not None]
            beyond = [pace for pace in seen if pace > _BEYOND * carried]
            if beyond and len(seen) < _NUM_PACES:
                return None
            if beyond and len(beyond) >= _SHARE_BEYOND * len(seen):
                paces[peer] = statistics.median(beyond)
        return paces

    def _carried(self, step: _Step) -> float:
        return _rate([step], self._latency_s, {})

    def _is_limit(self, step: _Step) -> bool:
        """Whether the wire was: bytes were waiting, and none went faster than all together."""
        paces = [pace for peer in step.passages if (pace := _pace(step, peer)) is not None]
        return bool(paces) and max(paces) <= _BEYOND * self._carried(step)


def _rate(steps: Sequence[_Step], beside_s: float, paces: Mapping[int, float]) -> float:
    """Of a wire that took each step as long as anything was on its way, but for ``beside_s``; or at these ``paces``.

    Several steps together are less at the mercy of the kernel's ticks than one.
    """
    wire_s = 0.0
    for step in steps:
        longest_s = 0.0
        for peer, passage in step.passages.items():
            busy_s = max(passage.busy_s - beside_s, _LEAST_OF_BUSY * passage.busy_s, _TICK_S / 2)
            paced_s = passage.num_bytes / paces[peer] if peer in paces else busy_s
            longest_s = max(longest_s, min(busy_s, paced_s))
        wire_s += longest_s
    num_bytes = sum(each.num_bytes for step in steps for each in step.passages.values())
    return num_bytes / max(wire_s, 1e-6)


def _pace(step: _Step, peer: int) -> float | None:
    passage = step.passages.get(peer)
    return None if passage is None else passage.pace_bytes_per_s


def _passage(before: Traffic, after: Traffic) -> _Passage:
    num_bytes = after.delivered_bytes - before.delivered_bytes
    is_new = after.pace_bytes_per_s != before.pace_bytes_per_s  # the kernel keeps the last one
    return _Passage(
        num_bytes,
        max(0.0, after.unacknowledged_s - before.unacknowledged_s),
        after.pace_bytes_per_s if is_new and num_bytes >= _LEAST_BYTES else None,
    )
