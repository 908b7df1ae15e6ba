"""How much of this machine other programs took while something ran here: what a measurement of time is worth."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path


class Disturbance:
    """Begins when it is made. Counts time in user mode, because the kernel's work for a network is nobody's own.

    >>> 0 <= Disturbance().share() <= 1
    True
    """

    def __init__(self) -> None:
        self._begun_s, self._others_before_s = time.monotonic(), _others_s()

    def share(self) -> float:
        """Of all cores, since the beginning, 0 to 1. Children count as ours once they have been waited for."""
        cores_s = (time.monotonic() - self._begun_s) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, _others_s() - self._others_before_s) / max(cores_s, 1e-9))


def _others_s() -> float:
    """User time of everybody but this process and its children, since the machine was started."""
    user, nice = Path("/proc/stat").read_text().split()[1:3]
    own = (resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (int(user) + int(nice)) / os.sysconf("SC_CLK_TCK") - sum(own)
