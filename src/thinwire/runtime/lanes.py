"""Threads that do one thing after another, and the completion of what is handed to them.

Not here: operations on the network, which run on the executor's threads; lanes only do what must not hold those
up, because it is slow (copying a tensor) or may block (callbacks of a user).
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from thinwire.errors import CollectiveTimeoutError
from thinwire.runtime.job import Job


class Completion(Future[None]):
    """The end of something that is more than one ``Job``; waited for in the same way.

    Attributes:
        source: as ``Job.source``.
    """

    source: int = -1

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when it has ended, or raise its error.

        Raises:
            CollectiveTimeoutError: it has not ended after ``timeout_s``; it goes on all the same.
        """
        try:
            self.result(timeout_s)
        except TimeoutError:
            if self.done():
                raise
            raise CollectiveTimeoutError(f"the operation did not end within {timeout_s:g} s") from None

    def end_after(self, job: Job | Completion, then: Callable[[], object] = lambda: None) -> None:
        """End now: with the error of ``job``, which has ended, or after doing ``then``."""
        self.source = job.source
        try:
            job.wait()
            then()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(None)


class Lane:
    """A thread that does what is submitted, in that order. It starts with the first and keeps no process alive."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, do: Callable[[], object]) -> None:
        """Have ``do`` called, after everything submitted before. It must not raise."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="thinwire lane", daemon=True)
                self._thread.start()
            self._queue.put(do)

    def close(self) -> None:
        """Let the thread end after what was submitted. A later ``submit`` starts another."""
        with self._lock:
            if self._thread is not None:
                self._queue.put(None)
                self._thread = None

    def _run(self) -> None:
        while (do := self._queue.get()) is not None:
            do()


class InOrder:
    """A lane on which each thing is done after something of its own has ended, in the order of ``after``.

    The thread wakes when it has something to do: it does not wait beside those who wait for the same end.
    """

    def __init__(self) -> None:
        self._lane = Lane()
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def after(self, end: Job | Completion, do: Callable[[], object]) -> None:
        """Have ``do`` called once ``end`` has ended and what was given before has been done. It must not raise."""
        waiting = _Waiting(do)
        with self._lock:
            self._waiting.append(waiting)

        def on_end(_: object) -> None:
            with self._lock:
                waiting.has_ended = True
                is_next = self._waiting[0].has_ended
            if is_next:
                self._lane.submit(self._drain)

        end.add_done_callback(on_end)

    def close(self) -> None:
        """Let the thread end after what may be done by now. Whatever ends later starts another."""
        self._lane.close()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or not self._waiting[0].has_ended:
                    return
                waiting = self._waiting.popleft()
            waiting.do()


class _Waiting:
    __slots__ = ("do", "has_ended")

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do
        self.has_ended = False


def all_of(jobs: Sequence[Job | Completion]) -> Completion:
    """Ends when all have ended, with the error of the first in the list that failed."""
    together = Completion()
    lock = threading.Lock()
    remaining = len(jobs)

    def count_down() -> None:
        nonlocal remaining
        with lock:
            remaining -= 1
            if remaining:
                return
        failed = [job for job in jobs if job.exception() is not None]
        together.end_after((failed or jobs)[0])

    if not jobs:
        together.set_result(None)
    for job in jobs:
        job.add_done_callback(lambda _: count_down())
    return together
