"""Connecting to a peer: its addresses in turn, again and again, until one lets us in or time is up.

Not here: waiting for others to connect (``accepting``), and which side's connection counts when both do (``link``).
"""

from __future__ import annotations

import secrets
import socket

from thinwire.errors import LinkError, ProtocolError, UsageError
from thinwire.protocol.handshake import NONCE_BYTES, Dialer, Introduction, Verdict
from thinwire.transport import tcp, unix
from thinwire.transport.addresses import by_route, family_of, split_address
from thinwire.transport.admission import Deadline, HungUp, dial, settle_cross_memory
from thinwire.transport.base import Contact
from thinwire.transport.crew import Setting
from thinwire.transport.lane import Lane
from thinwire.transport.link import SocketLink

_ATTEMPT_S = 5.0  # for one address, so that a dead one does not hide the next
_REFUSED_S = 0.5  # an endpoint listens before anybody knows its address: who refuses for this long is gone
_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.01, 0.5  # between rounds of attempts, doubling

Route = tuple[socket.AddressFamily, str]


class Connector:
    """Makes lanes by connecting, for the endpoint whose own ``contact`` it is given."""

    def __init__(self, contact: Contact, setting: Setting) -> None:
        self._contact = contact
        self._setting = setting

    def connect(self, link: SocketLink, peer: Contact, index: int) -> Lane | None:
        """One lane of ``link``. None if there will be none: the link has ended, or uses the peer's own connections.

        A link that cannot be made is ended, with the reason.
        """
        deadline = Deadline(self._setting.clock, self._setting.options.connect_timeout_s)
        refused_deadline = Deadline(self._setting.clock, _REFUSED_S)
        pause_s = _PAUSE_FIRST_S
        while link.wants_connection():
            failures = []
            hopeless = True
            for route in self.routes(peer):
                try:
                    return self._attempt(link, peer, index, route, deadline)
                except (OSError, HungUp, _NotNow) as error:
                    is_gone = isinstance(error, ConnectionRefusedError) and not refused_deadline.remaining_s()
                    hopeless = hopeless and is_gone
                    failures.append(f"{route[1]}: {getattr(error, 'strerror', None) or error}")
                except (LinkError, ProtocolError, UsageError) as error:
                    failures.append(f"{route[1]}: {error}")
                if not link.wants_connection():
                    return None
            if hopeless or deadline.remaining_s() < pause_s:
                link.end(self._failure(peer, failures))
                return None
            self._setting.crew.dismissed.wait(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        return None

    def routes(self, peer: Contact) -> list[Route]:
        """The ways to a peer, best first: a Unix socket within a host, otherwise TCP."""
        here, there = self._contact.addresses, peer.addresses
        same_host = self._contact.host_key == peer.host_key
        if same_host and "unix" in here and "unix" in there:
            return [(socket.AF_UNIX, there["unix"])]
        if "tcp" in here and "tcp" in there:
            addresses = by_route(there["tcp"].split(","), same_host=same_host)
            return [(family_of(split_address(address)[0]), address) for address in addresses]
        return []

    def _attempt(self, link: SocketLink, peer: Contact, index: int, route: Route, deadline: Deadline) -> Lane:
        """Try once.

        Raises:
            _NotNow: it may work another time, or the peer takes care of it.
            OSError, HungUp: the connection could not be made, or broke.
            ProtocolError: the other side is not an endpoint of this job.
            LinkError: it is, and refuses.
        """
        family, address = route
        connection = socket.socket(family, socket.SOCK_STREAM)
        lane = None
        try:
            self._setting.crew.hold(connection, link)
            Deadline(self._setting.clock, min(_ATTEMPT_S, deadline.remaining_s())).limit(connection)
            if family == socket.AF_UNIX:
                unix.connect(connection, address)
            else:
                tcp.connect(connection, address, self._setting.options)
                tcp.tune(connection, self._setting.options)
            handshake_deadline = Deadline(self._setting.clock, self._setting.options.handshake_timeout_s)
            dialer = self._shake_hands(link, peer, index, connection, handshake_deadline)
            cross_memory = settle_cross_memory(
                connection, dialer, handshake_deadline, wanted=self._setting.options.cross_memory
            )
            lane = link.attach(index, connection, cross_memory)
        finally:
            self._setting.crew.let_go(connection, close=lane is None)
        if lane is None:
            raise _NotNow("the link has ended meanwhile")
        return lane

    def _shake_hands(
        self, link: SocketLink, peer: Contact, index: int, connection: socket.socket, deadline: Deadline
    ) -> Dialer:
        introduction = Introduction(self._contact.endpoint, peer.endpoint, index, self._setting.options.lanes)
        dialer = Dialer(self._setting.secret, introduction, secrets.token_bytes(NONCE_BYTES))
        if not link.begin_handshake():
            raise _NotNow("the peer's own connection is used")
        verdict = None
        try:
            verdict = dial(connection, dialer, deadline)
        finally:
            link.end_handshake(verdict, self._setting.options.lanes)
        if verdict is Verdict.YIELD or verdict is Verdict.STRANGER:
            raise _NotNow(f"it answered {verdict.name}")
        if verdict is not Verdict.WELCOME:
            raise LinkError(f"it answered {verdict.name}")
        return dialer

    def _failure(self, peer: Contact, failures: list[str]) -> str:
        if not failures:
            return (
                f"no way to {peer.host}: it listens on {peer.addresses or 'nothing'}, this endpoint uses "
                f"{' and '.join(self._contact.addresses)}: choose interfaces that reach each other and one `prefer`"
            )
        return (
            f"no connection to {peer.host} ({'; '.join(failures)}): check that its process runs, that both "
            "sides have the same secret, and that no firewall is in between"
        )


class _NotNow(Exception):
    """This attempt is over, and nobody is to blame."""
