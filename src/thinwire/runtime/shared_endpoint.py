"""The endpoint that all groups of a process share: opened for the first, closed after the last.

When the interpreter ends with groups still open, their endpoints take leave in good order, so that peers which are
a moment behind see a departure and not a crash. A forked child forgets its parent's endpoints and never closes them.

Not here: what an endpoint is (``endpoint``), and groups with an endpoint of their own.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass

from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.endpoint import Endpoint


@dataclass
class _Shared:
    endpoint: Endpoint
    holders: int = 0


_lock = threading.Lock()
_open: dict[bytes, _Shared] = {}


def acquire(secret: bytes) -> Endpoint:
    """The process's endpoint for the job with this secret; each call needs one ``release``."""
    with _lock:
        shared = _open.get(secret)
        if shared is None:
            shared = _open[secret] = _Shared(Endpoint.open(secret, RuntimeConfig.from_environment()))
        shared.holders += 1
        return shared.endpoint


def release(endpoint: Endpoint) -> None:
    """Give back what ``acquire`` returned; the last one closes the endpoint."""
    with _lock:
        secret = next((secret for secret, shared in _open.items() if shared.endpoint is endpoint), None)
        if secret is None:  # forgotten by a forked child, or closed as the interpreter ended
            return
        _open[secret].holders -= 1
        if _open[secret].holders:
            return
        del _open[secret]
    endpoint.close()


def _close_all() -> None:
    while _open:
        _open.popitem()[1].endpoint.close()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _open.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
