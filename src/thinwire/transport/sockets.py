"""The transport of real runs: links over Unix sockets within a host and over TCP between hosts.

Threads, all daemons: one that accepts; one for each new connection, which takes it through admission and then becomes
its lane's reader; one writer a lane. Whoever waits, waits in the kernel.

Not here: how a connection is made (``connecting``, ``accepting``), and what links and lanes do once they stand
(``link``, ``lane``).
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading

import msgspec

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import AbortedError, UsageError
from thinwire.protocol.handshake import check_secret
from thinwire.transport import tcp, unix
from thinwire.transport.accepting import Doorman
from thinwire.transport.addresses import host_key
from thinwire.transport.admission import Deadline
from thinwire.transport.base import Contact, LinkStatistics, Receiver
from thinwire.transport.busy import BusyTime
from thinwire.transport.connecting import Connector
from thinwire.transport.crew import Crew, Setting
from thinwire.transport.lane import Lane
from thinwire.transport.link import SocketLink
from thinwire.transport.options import DEFAULT_OPTIONS, SocketOptions
from thinwire.transport.refusals import Refusals

_LOG = logging.getLogger("thinwire.transport")
_STOP_S = 5.0  # for threads to end once their sockets are gone; only a stuck callback takes longer


class TransportStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a whole transport.

    Attributes:
        refused: reason -> how many connections were refused or broken off for it: ``secret``, ``handshake``,
            ``deadline``, ``stranger``, ``duplicate`` before the first frame; ``frame``, ``truncated`` after it.
        links: endpoint -> the counters of the link to it.
    """

    refused: dict[str, int]
    links: dict[str, LinkStatistics]


class SocketTransport:
    """Implements ``thinwire.transport.base.Transport``.

    Args:
        secret: shared by the endpoints of a job and by nobody else; at least 16 random bytes.
        options: see ``SocketOptions``.
        clock: tells the deadlines, and the times in the statistics.

    Raises:
        UsageError: the secret is too short; from ``start``: no such interface or congestion control.
    """

    def __init__(
        self, secret: bytes, options: SocketOptions = DEFAULT_OPTIONS, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._setting = Setting(check_secret(secret), options, clock, Crew(), Refusals(clock))
        self._lock = threading.Lock()
        self._receiving = BusyTime(clock)
        self._links: dict[str, SocketLink] = {}
        self._doorman: Doorman | None = None
        self._closing = False

    def start(self, receiver: Receiver) -> Contact:
        """See ``thinwire.transport.base.Transport.start``."""
        self._receiver = receiver
        endpoint = secrets.token_hex(16)
        listeners: list[socket.socket] = []
        addresses: dict[str, str] = {}
        if self._setting.options.prefer != "unix":
            listeners, published = tcp.listen(self._setting.options)
            addresses["tcp"] = ",".join(published)
        if self._setting.options.prefer != "tcp":
            listeners.append(unix.listen(endpoint))
            addresses["unix"] = unix.address_of(listeners[-1])
        self._contact = Contact(
            endpoint=endpoint, host=socket.gethostname(), host_key=host_key(), addresses=addresses
        )
        self._connector = Connector(self._contact, self._setting)
        self._doorman = Doorman(
            endpoint, listeners, self._setting, lambda peer: self._link_to(peer)[0], self._serve
        )
        self._setting.crew.spawn("accept", self._doorman.accept_forever)
        return self._contact

    def link(self, contact: Contact) -> SocketLink:
        """See ``thinwire.transport.base.Transport.link``.

        Raises:
            UsageError: the contact is this endpoint's own.
            AbortedError: the transport is closed.
        """
        if contact.endpoint == self._contact.endpoint:
            raise UsageError("an endpoint needs no link to itself: move the bytes in memory")
        link, is_new = self._link_to(contact.endpoint)
        if is_new:
            for index in range(self._setting.options.lanes):
                self._setting.crew.spawn(f"lane-{index}-{link.peer[:8]}", self._connect, link, contact, index)
        return link

    def statistics(self) -> TransportStatistics:
        """The counters so far."""
        with self._lock:
            links = dict(self._links)
        return TransportStatistics(
            refused=self._setting.refusals.counts(),
            links={peer: link.statistics() for peer, link in links.items()},
        )

    def close(self, linger_s: float = 5.0) -> None:
        """See ``thinwire.transport.base.Transport.close``. No thread and no socket is left.

        Does nothing the second time, or before ``start``.
        """
        crew, clock = self._setting.crew, self._setting.clock
        deadline = Deadline(clock, linger_s)
        with self._lock:
            if self._closing or self._doorman is None:
                return
            self._closing = True
            links = list(self._links.values())
        self._doorman.close()
        for link in links:
            link.leave("this endpoint is closing")
        crew.cut(lambda link: link is None or link.ended)
        crew.join(deadline)
        crew.dismissed.set()
        for link in links:
            link.end(f"not everything could be sent in the {linger_s} s that closing may take")
            link.abort()
        crew.cut(lambda link: True)
        stuck = crew.join(Deadline(clock, _STOP_S))
        if stuck:
            _LOG.error("still running after close, stuck in a callback: %s", ", ".join(stuck))

    def _link_to(self, peer: str) -> tuple[SocketLink, bool]:
        """The link to that endpoint, and whether it was made just now."""
        with self._lock:
            found = self._links.get(peer)
            if found is not None:
                return found, False
            if self._closing:
                raise AbortedError("the transport is closed: make another one")
            setting = self._setting
            made = self._links[peer] = SocketLink(
                peer, self._receiver, setting.clock, setting.refusals, self._receiving
            )
            return made, True

    def _connect(self, link: SocketLink, contact: Contact, index: int) -> None:
        lane = self._connector.connect(link, contact, index)
        if lane is not None:
            self._serve(link, lane)

    def _serve(self, link: SocketLink, lane: Lane) -> None:
        """Be the lane's reader."""
        self._setting.crew.spawn(f"write-{lane.index}-{link.peer[:8]}", lane.write_forever)
        lane.read_forever()
