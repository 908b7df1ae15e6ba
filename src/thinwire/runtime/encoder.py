"""The thread that encodes what is ready when an operation starts, so that neither its caller nor a reader has to.

A call would else hold up the training thread for as long as encoding the whole tensor takes, and the next tile the
reader that finished the last one. All other coding is done a segment at a time by the thread that received what
makes it possible, while the segment is hot, as reductions are.

One thread: it encodes faster than any network takes what it encodes, and leaves the other cores to the training.
Not here: what is done (``flight``).
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

Do = Callable[[], object]
Submit = Callable[[int, Do], None]
"""(priority, what to do): larger priorities first, equal ones in order. What is done must not raise."""


class Encoder:
    """Does what is submitted, one after the other. Its thread starts with the first and keeps no process alive."""

    def __init__(self) -> None:
        self._queue: queue.PriorityQueue[tuple[float, int, Do | None]] = queue.PriorityQueue()
        self._sequence = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, priority: int, do: Do) -> None:
        """Have ``do`` done. Thread-safe."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="thinwire encoder", daemon=True)
                self._thread.start()
        self._queue.put((-priority, next(self._sequence), do))

    def close(self) -> None:
        """Let the thread end, and wait until it has. What it has not begun is not done."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put((float("-inf"), -1, None))
            if threading.current_thread() is not thread:
                thread.join()

    def _run(self) -> None:
        while (do := self._queue.get()[2]) is not None:
            do()


def at_once(priority: int, do: Do) -> None:
    """An encoder without a thread, for simulations, in which computing takes no time."""
    do()
