"""Threads that do one thing after another, and the completion of what is handed to them.

Not here: operations on the network, which run on the executor's threads; lanes only do what must not hold those
up, because it is slow (copying a tensor) or may block (callbacks of a user).
"""

from __future__ import annotations

import queue
import threading
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
