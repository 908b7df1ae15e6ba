"""How much of its time the thread that trains waits for a core: whether a codec takes cores that the training needs.

Linux counts for every thread how long it ran, and how long it could have run but another had the core
(``/proc/thread-self/schedstat``). A thread that hardly ever waits leaves cores free: a codec works beside it for
nothing. Where threads take turns, each second that a codec computes comes back as a second of training, and as two
where each thread has but half a core, because the other ranks' codecs are in the way too.

Where nothing is counted, the threads of torch decide: if there are as many as cores, none is free.

Not here: what follows (``planner.cost``).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

_STEPS = 16
_CROWDED = 0.25  # of its time that a thread waits where no core is free
_LONGEST = 0.8
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Counted(NamedTuple):
    """Of one thread, since it began, in nanoseconds."""

    ran_ns: int
    waited_ns: int


def counted() -> Counted | None:
    """Of the thread that calls; None where the kernel does not count.

    >>> found = counted()
    >>> found is None or found.waited_ns >= 0
    True
    """
    try:
        ran_ns, waited_ns, _ = _SCHEDSTAT.read_text().split()
    except (OSError, ValueError):
        return None
    return Counted(int(ran_ns), int(waited_ns))


class CoreWait:
    """Looks once a step, from the thread that trains. Not thread-safe.

    >>> times = iter([Counted(0, 0), Counted(50, 50), Counted(100, 100)])
    >>> watch = CoreWait(lambda: next(times))
    >>> for _ in range(3):
    ...     watch.look()
    >>> watch.contention
    2.0
    """

    def __init__(self, count: Callable[[], Counted | None] = counted) -> None:
        self._count = count
        self._looks: deque[Counted] = deque(maxlen=_STEPS + 1)

    def look(self) -> None:
        """A step is over."""
        now = self._count()
        if now is None:
            return
        if self._looks and (now.ran_ns < self._looks[-1].ran_ns or now.waited_ns < self._looks[-1].waited_ns):
            self._looks.clear()  # another thread
        self._looks.append(now)

    @property
    def contention(self) -> float:
        """Seconds by which training becomes longer for each that a codec computes on every rank."""
        if len(self._looks) < 2:
            return _contention_of_threads()
        ran_ns, waited_ns = (
            last - first for first, last in zip(self._looks[0], self._looks[-1], strict=True)
        )
        waits = min(waited_ns / max(1, ran_ns + waited_ns), _LONGEST)
        return max(_contention_of_threads(), min(1.0, waits / _CROWDED) / (1 - waits))


def _contention_of_threads() -> float:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1.0 if torch.get_num_threads() >= cores else 0.0
