"""Virtual time: a clock that moves only from one timer to the next, and never waits.

Timers due at the same time run in the order in which they were set, so a run is determined by its inputs.
Everything happens in the thread that calls ``step``.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class Timer:
    """A function to be called at a time; ``cancel`` before then and it is not."""

    when_s: float
    sequence: int
    function: Callable[[], None] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.is_cancelled = True


class VirtualClock:
    """A ``Clock`` with timers.

    >>> clock = VirtualClock()
    >>> _ = clock.call_later(2.5, lambda: print("now it is", clock.now_s()))
    >>> clock.step()
    now it is 2.5
    True
    >>> clock.step()
    False
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._timers: list[Timer] = []
        self._sequence = itertools.count()

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, when_s: float, function: Callable[[], None]) -> Timer:
        """Call ``function`` at ``when_s``, or at once (but not before this returns) if that is past."""
        timer = Timer(max(when_s, self._now_s), next(self._sequence), function)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        return self.call_at(self._now_s + delay_s, function)

    def next_s(self) -> float | None:
        """When the next timer is due; None if there is none."""
        while self._timers and self._timers[0].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].when_s if self._timers else None

    def step(self) -> bool:
        """Go to the next timer and call it. False if there was none."""
        if self.next_s() is None:
            return False
        timer = heapq.heappop(self._timers)
        self._now_s = timer.when_s
        timer.function()
        return True
