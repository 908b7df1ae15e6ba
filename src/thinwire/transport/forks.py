"""A forked child lets go of its parent's sockets.

A connection ends when its last copy is closed. A child that was forked from a training process, as PyTorch's data
loaders are, holds copies of all its sockets: if the training process died, its peers would not notice while the
child lives, and its listening address would still take connections that nobody serves.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import weakref

_kept: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def close_in_children(connection: socket.socket) -> None:
    """Close the copies of this socket that processes forked from now on would hold."""
    _register()
    _kept.add(connection)


@functools.cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    """In the child: its copies only. What the parent sends and receives is not touched."""
    for connection in tuple(_kept):
        with contextlib.suppress(OSError):
            connection.close()
