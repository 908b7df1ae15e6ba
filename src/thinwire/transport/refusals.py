"""Counts and logs what was refused: connections and bytes that break the rules.

Whoever can reach a port can send garbage for ever, so the log is rate-limited: one line a second for each
reason, which says how many others it stands for.
"""

from __future__ import annotations

import logging
import threading

from thinwire.clock import Clock

_LOG = logging.getLogger("thinwire.transport")
_INTERVAL_S = 1.0


class Refusals:
    """Thread-safe counters by reason.

    >>> from thinwire.clock import SYSTEM_CLOCK
    >>> refusals = Refusals(SYSTEM_CLOCK)
    >>> refusals.count("frame", "peer 0a", "unknown frame kind 31")
    >>> refusals.counts()
    {'frame': 1}
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._logged: dict[str, tuple[int, float]] = {}  # reason -> count and time at its last line

    def count(self, reason: str, source: str, detail: str) -> None:
        """One more refusal: its kind in a word, where it came from, and what was wrong in words."""
        now_s = self._clock.now_s()
        with self._lock:
            count = self._counts[reason] = self._counts.get(reason, 0) + 1
            last_count, last_s = self._logged.get(reason, (0, now_s - _INTERVAL_S))
            if now_s - last_s < _INTERVAL_S:
                return
            self._logged[reason] = (count, now_s)
        silent = count - last_count - 1
        _LOG.warning(
            "refused %s (%s): %s%s", source, reason, detail, f"; {silent} more since" if silent else ""
        )

    def counts(self) -> dict[str, int]:
        """Reason -> how often, since the transport was made."""
        with self._lock:
            return dict(self._counts)
