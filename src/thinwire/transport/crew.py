"""What a socket transport has running, so that closing can end it: its threads, and its fresh connections.

A connection is *fresh* until it is a lane: somebody connects it, or takes it through its admission, and closes it
himself. To end it from outside it is shut down, never closed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

from thinwire.clock import Clock
from thinwire.transport.admission import Deadline
from thinwire.transport.forks import close_in_children
from thinwire.transport.link import SocketLink
from thinwire.transport.options import SocketOptions
from thinwire.transport.refusals import Refusals


class Crew:
    """Thread-safe."""

    def __init__(self) -> None:
        self.dismissed = threading.Event()  # no thread should begin anything, or pause
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._fresh: dict[socket.socket, SocketLink | None] = {}

    def spawn(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        """Do the work in a daemon thread."""
        thread = threading.Thread(
            target=self._run, args=(work, arguments), name=f"thinwire-{name}", daemon=True
        )
        with self._lock:
            self._threads.add(thread)
            thread.start()

    def join(self, deadline: Deadline) -> list[str]:
        """Wait for all threads but this one to end; the names of those that did not."""
        while True:
            with self._lock:
                others = self._threads - {threading.current_thread()}
            if not others or not deadline.remaining_s():
                return sorted(thread.name for thread in others)
            others.pop().join(deadline.remaining_s())

    def hold(self, connection: socket.socket, link: SocketLink | None) -> None:
        """This connection is fresh, and may become a lane of ``link``.

        Raises:
            ConnectionAbortedError: the crew is dismissed.
        """
        with self._lock:
            if self.dismissed.is_set():
                raise ConnectionAbortedError("the transport is closed")
            self._fresh[connection] = link
        close_in_children(connection)

    def let_go(self, connection: socket.socket, *, close: bool) -> None:
        """This connection is a lane now, or shall be closed."""
        with self._lock:
            self._fresh.pop(connection, None)
            if close:
                connection.close()

    def cut(self, which: Callable[[SocketLink | None], bool]) -> None:
        """Shut down the fresh connections of some links, or of none yet."""
        with self._lock:
            for connection, link in self._fresh.items():
                if which(link):
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def _run(self, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        try:
            work(*arguments)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


class Setting(NamedTuple):
    """What all parts of one socket transport share."""

    secret: bytes
    options: SocketOptions
    clock: Clock
    crew: Crew
    refusals: Refusals
