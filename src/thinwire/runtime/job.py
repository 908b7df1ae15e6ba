"""A Job is one operation in flight, as its caller sees it: wait for it, ask it, or be called when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

from thinwire.errors import CollectiveTimeoutError


class Job:
    """One operation. Thread-safe.

    Attributes:
        description: the call in words, for messages and traces.
        source: for a receive from any source, the rank it came from once it has ended; else -1.
    """

    __slots__ = ("_callbacks", "_ended", "_error", "_lock", "_signal", "description", "source")

    def __init__(self, description: str) -> None:
        self.description = description
        self.source = -1
        self._error: BaseException | None = None
        self._ended = False
        self._callbacks: list[Callable[[Job], None]] = []
        self._lock = threading.Lock()
        self._signal = threading.Lock()  # held until the job ends: cheaper to make and wait for than an Event
        self._signal.acquire()

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until the job ends.

        Raises:
            CollectiveTimeoutError: ``timeout_s`` passed first; the job goes on.
            ThinwireError: the job failed; see ``errors``.
        """
        if not self._ended:
            if not self._signal.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
                raise CollectiveTimeoutError(
                    f"{self.description} did not end within {timeout_s:g} s; it goes on"
                )
            self._signal.release()
        if self._error is not None:
            raise self._error

    def done(self) -> bool:
        return self._ended

    def exception(self) -> BaseException | None:
        """Why the job failed; None while it runs and when it succeeded."""
        return self._error

    def add_done_callback(self, callback: Callable[[Job], None]) -> None:
        """Call ``callback(job)`` once the job has ended: on the thread that ends it, or now if it has."""
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
                return
        callback(self)

    def finish(self, error: BaseException | None = None) -> bool:
        """End the job; only the first call counts. For whoever runs it. Says whether this call ended it."""
        with self._lock:
            if self._ended:
                return False
            self._error = error
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
        self._signal.release()
        for callback in callbacks:
            callback(self)
        return True
