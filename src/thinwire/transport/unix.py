"""Unix sockets between endpoints that share a kernel and a network namespace.

On Linux the name is abstract: it lives in the network namespace, leaves no file behind and disappears with the process.
Elsewhere it is a file in a fresh temporary directory.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile

_BACKLOG = 1024


def listen(endpoint: str) -> socket.socket:
    """A listening socket whose ``address_of`` can be published."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        listener.bind(f"\0thinwire-{endpoint}")
    else:
        listener.bind(os.path.join(tempfile.mkdtemp(prefix="thinwire-"), "socket"))
    listener.listen(_BACKLOG)
    return listener


def address_of(listener: socket.socket) -> str:
    """What to publish: ``@name`` for an abstract name, else the path."""
    name = listener.getsockname()
    return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)


def connect(connection: socket.socket, address: str) -> None:
    """Connect an ``AF_UNIX`` socket to a published address. Raises ``OSError``."""
    connection.connect("\0" + address[1:] if address.startswith("@") else address)


def remove_name(listener: socket.socket) -> None:
    """Remove what a listener left in the file system: nothing, unless it is a Unix socket with a file's name."""
    if listener.family == socket.AF_UNIX and not address_of(listener).startswith("@"):
        os.unlink(address_of(listener))
        os.rmdir(os.path.dirname(address_of(listener)))
