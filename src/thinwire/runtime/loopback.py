"""Messages of a rank to itself: torch allows them where send and receive do not block, and networks know no such link.

Not here: everything else that torch calls point to point.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque

from thinwire.errors import MismatchError
from thinwire.runtime.lanes import Completion
from thinwire.runtime.reduction import Array


class Loopback:
    """Matches sends and receives of one rank by tag, in the order of the calls. Thread-safe.

    >>> import numpy as np
    >>> loopback, data = Loopback(rank=0), np.zeros(2)
    >>> received = loopback.recv(data, tag=7)
    >>> loopback.send(np.ones(2), tag=7).wait()
    >>> received.wait()
    >>> data
    array([1., 1.])
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._lock = threading.Lock()
        self._sends: defaultdict[int, deque[tuple[Array, Completion]]] = defaultdict(deque)
        self._receives: defaultdict[int, deque[tuple[Array, Completion]]] = defaultdict(deque)

    def send(self, data: Array, tag: int) -> Completion:
        """Ends when a receive has taken ``data``."""
        return self._put(self._sends, data, tag)

    def recv(self, data: Array, tag: int) -> Completion:
        """Ends when ``data`` holds what was sent."""
        end = self._put(self._receives, data, tag)
        end.source = self._rank
        return end

    def _put(
        self, queues: defaultdict[int, deque[tuple[Array, Completion]]], data: Array, tag: int
    ) -> Completion:
        end = Completion()
        with self._lock:
            queues[tag].append((data, end))
            if not self._sends[tag] or not self._receives[tag]:
                return end
            sent, received = self._sends[tag].popleft(), self._receives[tag].popleft()
        _transfer(*sent, *received)
        return end


def _transfer(source: Array, sent: Completion, target: Array, received: Completion) -> None:
    if source.nbytes == target.nbytes:
        target[:] = source.view(target.dtype)
        sent.set_result(None)
        received.set_result(None)
        return
    error = MismatchError(f"a rank sent {source.nbytes} bytes to itself and received {target.nbytes}")
    sent.set_exception(error)
    received.set_exception(error)
