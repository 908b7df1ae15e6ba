"""How long at least one of several was busy: the lanes of a link, for the time that traffic took.

Not here: what they were busy with.
"""

from __future__ import annotations

import threading

from thinwire.clock import Clock


class BusyTime:
    """A stopwatch that runs while it was begun more often than ended. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._num_busy = 0
        self._since_s = 0.0
        self._total_s = 0.0

    def begin(self) -> float:
        """One more is busy. Returns the time."""
        with self._lock:
            now_s = self._clock.now_s()
            if self._num_busy == 0:
                self._since_s = now_s
            self._num_busy += 1
            return now_s

    def end(self) -> float:
        """One less is busy. Returns the time."""
        with self._lock:
            now_s = self._clock.now_s()
            self._num_busy -= 1
            if self._num_busy == 0:
                self._total_s += now_s - self._since_s
            return now_s

    def total_s(self) -> float:
        """The time until now."""
        with self._lock:
            running_s = self._clock.now_s() - self._since_s if self._num_busy else 0.0
            return self._total_s + running_s
