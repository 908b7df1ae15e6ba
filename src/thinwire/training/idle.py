"""How idle the cores of this machine are: where none is, it is not the wire that training waits for.

Not here: what follows (``autopilot``).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE, _IOWAIT = 3, 4  # places in the line of proc_stat(5)


class Idleness:
    """Tells how much of the machine's time nobody used since it was last asked. Linux only.

    >>> idleness = Idleness(Path("/no/such/file"))
    >>> idleness.since_last() is None
    True
    """

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._before = self._read()

    def since_last(self) -> float | None:
        """From 0, all cores busy, to 1; None where it cannot be known, or no time has passed."""
        before, self._before = self._before, self._read()
        if before is None or self._before is None:
            return None
        idle, total = (now - then for now, then in zip(self._before, before, strict=True))
        return min(1.0, max(0.0, idle / total)) if total > 0 else None

    def _read(self) -> tuple[int, int] | None:
        """Idle and all ticks since the machine started."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            with self._stat.open() as file:
                ticks = [int(word) for word in file.readline().split()[1:9]]
            return ticks[_IDLE] + ticks[_IOWAIT], sum(ticks)
        return None
