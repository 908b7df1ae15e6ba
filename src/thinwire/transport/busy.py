"""How long at least one of several was busy: the lanes of a link, or all links, for the time that traffic took.

Not here: what they were busy with.
"""

from __future__ import annotations

import threading

from thinwire.clock import Clock


class BusyTime:
    """A stopwatch that runs while it was begun more often than ended. Thread-safe.

    Args:
        clock: tells the time.
        whole: runs as long as any stopwatch that is part of it.
    """

    def __init__(self, clock: Clock, whole: BusyTime | None = None) -> None:
        self._clock = clock
        self.whole = whole
        self._lock = threading.Lock()
        self._num_busy = 0
        self._since_s = 0.0
        self._total_s = 0.0

    def begin(self) -> float:
        """One more is busy. Returns the time."""
        with self._lock:
            now_s = self._clock.now_s()
            has_begun = self._num_busy == 0
            if has_begun:
                self._since_s = now_s
            self._num_busy += 1
        if has_begun and self.whole is not None:
            self.whole.begin()
        return now_s

    def end(self) -> float:
        """One less is busy. Returns the time."""
        with self._lock:
            now_s = self._clock.now_s()
            self._num_busy -= 1
            has_ended = self._num_busy == 0
            if has_ended:
                self._total_s += now_s - self._since_s
        if has_ended and self.whole is not None:
            self.whole.end()
        return now_s

    def total_s(self) -> float:
        """The time until now."""
        with self._lock:
            running_s = self._clock.now_s() - self._since_s if self._num_busy else 0.0
            return self._total_s + running_s
