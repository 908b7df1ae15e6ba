"""The Recorder: appends a tuple a span, and leaves everything else until somebody asks for the trace.

Appending to a list is atomic, so threads record without a lock. Memory is bounded: a full recorder counts what it
drops. Measured: 0.4 us and 350 bytes a span with four arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from thinwire.clock import SYSTEM_CLOCK, Clock, wall_time_s
from thinwire.trace.model import Anchor, Argument, RankTrace, Span

CAPACITY = 1 << 17  # 44 MiB when full; at a thousand collectives a second, two minutes


class Recorder:
    """Collects the spans of one process.

    Args:
        clock: the clock that the times given to ``span`` were read off.
        wall_s: tells the time since the Unix epoch.
        capacity: how many spans are kept.

    >>> recorder = Recorder()
    >>> recorder.span("all_reduce", 1.0, 1.5, "group 0", bytes=4096)
    >>> recorder.trace(rank=0, host="a").spans[0].arguments
    {'bytes': 4096}
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        wall_s: Callable[[], float] = wall_time_s,
        capacity: int = CAPACITY,
    ) -> None:
        self._anchor = Anchor(clock_s=clock.now_s(), wall_s=wall_s())
        self._capacity = capacity
        self._spans: list[tuple[str, float, float, str, dict[str, Argument]]] = []
        self._num_dropped = 0
        self._overflow_lock = threading.Lock()

    def span(self, name: str, start_s: float, end_s: float, track: str, /, **arguments: Argument) -> None:
        """Record that ``name`` ran from ``start_s`` to ``end_s``. From any thread, at any time after its end."""
        if len(self._spans) < self._capacity:
            self._spans.append((name, start_s, end_s, track, arguments))
        else:
            with self._overflow_lock:
                self._num_dropped += 1

    def trace(self, rank: int, host: str) -> RankTrace:
        """What has been recorded so far, as a value."""
        return RankTrace(
            rank=rank,
            host=host,
            anchor=self._anchor,
            spans=tuple(
                Span(name=name, start_s=start_s, end_s=end_s, track=track, arguments=arguments)
                for name, start_s, end_s, track, arguments in tuple(self._spans)
            ),
            num_dropped=self._num_dropped,
        )
