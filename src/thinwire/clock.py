"""The only place that reads the time.

``Clock`` is what everything else is handed, so that a simulation can hand over virtual time instead.
Not here: sleeping and waiting, which belong to whoever owns the thread.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Something that tells the time in seconds, monotonic, from an arbitrary origin."""

    def now_s(self) -> float: ...


class SystemClock:
    """The machine's monotonic clock.

    >>> clock = SystemClock()
    >>> clock.now_s() <= clock.now_s()
    True
    """

    __slots__ = ()

    now_s = staticmethod(time.monotonic)  # called several times a frame: nothing of ours around it


SYSTEM_CLOCK = SystemClock()


def wall_time_s() -> float:
    """Seconds since the Unix epoch: for putting traces of several processes on one axis, never for timeouts."""
    return time.time()
