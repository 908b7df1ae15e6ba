"""Accepting connections: whoever connects has to prove that it knows the secret before anything else is read.

At most ``unauthenticated_max`` connections are in that state at one time; further ones wait in the kernel, so
strangers can delay a rank but not exhaust it.

Not here: connecting to others (``connecting``), and which connections a link takes (``link``).
"""

from __future__ import annotations

import errno
import logging
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Sequence

from thinwire.errors import AbortedError, AuthenticationError, ProtocolError
from thinwire.protocol.handshake import NONCE_BYTES, Acceptor, Introduction, Verdict
from thinwire.transport import tcp, unix
from thinwire.transport.addresses import join_address
from thinwire.transport.admission import Deadline, HungUp, accept, settle_cross_memory
from thinwire.transport.crew import Setting
from thinwire.transport.forks import close_in_children
from thinwire.transport.lane import Lane
from thinwire.transport.link import SocketLink

_LOG = logging.getLogger("thinwire.transport")
_PAUSE_S = 0.5  # when the process has no file descriptor left for another connection


class Doorman:
    """Accepts connections on listening sockets, which it then owns.

    Args:
        endpoint: who is looked for here.
        listeners: where.
        link_of: the link to an endpoint that has proved itself; ``AbortedError`` when there shall be no more.
        serve: reads a lane until it ends.
    """

    def __init__(
        self,
        endpoint: str,
        listeners: Sequence[socket.socket],
        setting: Setting,
        link_of: Callable[[str], SocketLink],
        serve: Callable[[SocketLink, Lane], None],
    ) -> None:
        self._endpoint = endpoint
        self._listeners = listeners
        for listener in listeners:
            close_in_children(listener)
        self._setting = setting
        self._link_of = link_of
        self._serve = serve
        self._unproved = threading.Semaphore(setting.options.unauthenticated_max)
        self._waking, self._woken = socket.socketpair()
        self._closing = False

    def accept_forever(self) -> None:
        """Until ``close``, which may be called from any thread."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ, listener)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                for key, _ in selector.select():
                    if key.data is not None:
                        self._accept(key.data)
        for listener in self._listeners:
            unix.remove_name(listener)
            listener.close()
        self._waking.close()
        self._woken.close()

    def close(self) -> None:
        """Let ``accept_forever`` end, and accept nothing more."""
        self._closing = True
        self._waking.send(b"\0")
        self._unproved.release()

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection, as soon as fewer than the limit are unproved."""
        self._unproved.acquire()
        try:
            connection, _ = listener.accept()
        except OSError as error:
            self._unproved.release()
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                _LOG.warning("cannot accept connections for the moment: %s", error.strerror)
                self._setting.crew.dismissed.wait(_PAUSE_S)
            return
        if self._closing:
            connection.close()
        else:
            self._setting.crew.spawn("admit", self._admit, connection)

    def _admit(self, connection: socket.socket) -> None:
        """Take one connection through its admission; then read the lane that it has become."""
        setting, source = self._setting, _name_of(connection)
        link = lane = None
        try:
            setting.crew.hold(connection, None)
            if connection.family != socket.AF_UNIX:
                tcp.tune(connection, setting.options)
            deadline = Deadline(setting.clock, setting.options.handshake_timeout_s)
            acceptor = Acceptor(setting.secret, secrets.token_bytes(NONCE_BYTES))
            introduction = accept(connection, acceptor, deadline)
            verdict, link = self._judge(introduction)
            connection.sendall(acceptor.answer(verdict))
            if link is not None:
                setting.crew.hold(connection, link)
                cross_memory = settle_cross_memory(
                    connection, acceptor, deadline, wanted=setting.options.cross_memory
                )
                lane = link.attach(introduction.lane, connection, cross_memory)
            elif verdict is Verdict.STRANGER or verdict is Verdict.DUPLICATE:
                setting.refusals.count(verdict.name.lower(), source, f"endpoint {introduction.dialer}")
        except (ProtocolError, OSError, HungUp) as error:
            reason = _reason_for(error)
            if reason is not None:
                setting.refusals.count(reason, source, str(error))
            if link is not None:
                link.end(f"its connection broke before the first frame: {error}")
        finally:
            self._unproved.release()
            setting.crew.let_go(connection, close=lane is None)
        if link is not None and lane is not None:
            self._serve(link, lane)

    def _judge(self, introduction: Introduction) -> tuple[Verdict, SocketLink | None]:
        """What to answer to an endpoint that has proved itself, and the link if it is welcome."""
        if introduction.acceptor != self._endpoint:
            return Verdict.STRANGER, None
        try:
            link = self._link_of(introduction.dialer)
        except AbortedError:
            return Verdict.LEAVING, None
        verdict = link.admit(introduction)
        return verdict, link if verdict is Verdict.WELCOME else None


def _name_of(connection: socket.socket) -> str:
    if connection.family == socket.AF_UNIX:
        return "a process of this host"
    try:
        ip, port = connection.getpeername()[:2]
    except OSError:
        return "a connection that is gone"
    return join_address(ip, port)


def _reason_for(error: Exception) -> str | None:
    """The name under which a failed admission is counted; None for connections that broke, which harm nobody."""
    if isinstance(error, AuthenticationError):
        return "secret"
    if isinstance(error, TimeoutError):
        return "deadline"
    if isinstance(error, ProtocolError) or (isinstance(error, HungUp) and error.received):
        return "handshake"
    return None
