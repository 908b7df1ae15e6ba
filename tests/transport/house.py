"""Transports of ours for one test: started, waited for, and closed at its end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from tests.transport.strangers import PATIENCE_S, SECRET, Listener
from thinwire.testing.transports import Owner
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

OVER_TCP = {"prefer": "tcp", "interface": "127.0.0.1"}


class House:
    """Transports of ours, closed at the end, and a way to wait for what they tell."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.news = threading.Condition()

    def owner(self, secret: bytes = SECRET, **options: object) -> Owner:
        transport = SocketTransport(secret, SocketOptions(**(OVER_TCP | options)))  # type: ignore[arg-type]
        self._stack.callback(transport.close, linger_s=0.0)
        return Owner(transport, self.news)

    def listener(self, beside: Owner) -> Listener:
        """A stranger on the host of this owner."""
        listener = Listener(beside.contact.host_key)
        self._stack.enter_context(listener.socket)
        return listener

    def keep(self, connection: socket.socket) -> socket.socket:
        return self._stack.enter_context(connection)

    def wait_until(self, condition: Callable[[], object]) -> None:
        with self.news:
            assert self.news.wait_for(condition, PATIENCE_S)

    def wait_for_loss(self, owner: Owner) -> str:
        self.wait_until(lambda: owner.losses)
        [(_, reason)] = owner.losses
        return reason


def refused(owner: Owner) -> dict[str, int]:
    transport = owner.transport
    assert isinstance(transport, SocketTransport)
    return transport.statistics().refused
