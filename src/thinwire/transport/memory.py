"""Endpoints that live in one process: frames pass from one to the other by copying. No sockets.

``MemoryNetwork`` is the world: it makes one ``MemoryTransport`` an endpoint and knows who is connected to
whom. A frame travels as it would over a socket: its header as 40 packed bytes, its payload copied into the
views that the receiver names. *When* it travels is the business of a ``Carrier``: ``ThreadCarrier`` delivers
at once from a few threads, so that ranks can be threads; the one in ``thinwire.sim`` delivers at a virtual
time in the calling thread.

Not here: faults, delays and virtual time (``sim``); the handshake, since all endpoints are one process.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import LinkError, ProtocolError
from thinwire.forecast import Traffic
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.transport.base import Contact, LinkStatistics, OnSent, Receiver

logger = logging.getLogger(__name__)


class Outgoing(NamedTuple):
    """A frame in the queue of its link. Tuples compare by the first two fields: the order of leaving."""

    urgency: float
    sequence: int
    header: Header
    payload: Sequence[memoryview]
    on_sent: OnSent | None

    def sent(self, error: BaseException | None = None) -> None:
        if self.on_sent is not None:
            self.on_sent(error)


class Carrier(Protocol):
    """Decides when the frames of a link travel."""

    def ready(self, link: MemoryLink) -> None:
        """``link`` has frames again: ``take`` and ``deliver`` until ``take`` gives none. Must not block."""

    def after(self, link: MemoryLink, function: Callable[[], None]) -> None:
        """Call ``function``, from elsewhere and soon, once what is under way on ``link`` has arrived."""

    def wait(self, done: threading.Event, timeout_s: float) -> None:
        """Let the network run until ``done``."""

    def close(self) -> None: ...


class MemoryNetwork:
    """A set of endpoints that can reach each other.

    Args:
        carrier: when frames travel; by default at once, in threads of its own.
        clock: what the statistics of the links read.
    """

    def __init__(self, carrier: Carrier | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.carrier = carrier if carrier is not None else ThreadCarrier()
        self.clock = clock
        self.endpoints: list[MemoryTransport] = []
        self._lock = threading.Lock()

    def transport(self, host: str = "memory") -> MemoryTransport:
        """A new endpoint, to be started by its owner."""
        with self._lock:
            endpoint = MemoryTransport(self, len(self.endpoints), host)
            self.endpoints.append(endpoint)
        return endpoint

    def kill(self, endpoint: int) -> None:
        """End an endpoint as if its process had died: it hears nothing more, its peers lose their links."""
        dead = self.endpoints[endpoint]
        dead.alive = False
        for link in dead.links():
            link.shut("this process has died")
            self.carrier.after(link, partial(link.reverse.lose, "connection reset: its process has ended"))

    def close(self) -> None:
        """Stop carrying frames. Endpoints that are still open are left as they are."""
        self.carrier.close()

    def connect(self, source: MemoryTransport, contact: Contact) -> MemoryLink:
        with self._lock:
            link = source.links_by_peer.get(contact.endpoint)
            if link is not None:
                return link
            target = self.endpoints[int(contact.addresses["memory"])]
            link, reverse = MemoryLink(source, target, self), MemoryLink(target, source, self)
            link.reverse, reverse.reverse = reverse, link
            source.links_by_peer[link.peer] = link
            target.links_by_peer[reverse.peer] = reverse
        if not target.alive:
            self.carrier.after(link, partial(link.lose, "connection refused: nobody listens there"))
        return link


class MemoryTransport:
    """One endpoint of a ``MemoryNetwork``; a ``Transport``.

    Attributes:
        index: the number of the endpoint in its network, in order of making.
        alive: it has been started, and neither closed nor killed.
    """

    receiver: Receiver

    def __init__(self, network: MemoryNetwork, index: int, host: str) -> None:
        self.network = network
        self.index = index
        self.alive = False
        self.links_by_peer: dict[str, MemoryLink] = {}
        self.contact = Contact(
            endpoint=f"{index:032x}", host=host, host_key=f"memory-{index}", addresses={"memory": str(index)}
        )

    def start(self, receiver: Receiver) -> Contact:
        self.receiver = receiver
        self.alive = True
        return self.contact

    def link(self, contact: Contact) -> MemoryLink:
        return self.network.connect(self, contact)

    def links(self) -> list[MemoryLink]:
        return list(self.links_by_peer.values())

    def close(self, linger_s: float = 5.0) -> None:
        """As ``Transport.close``; does nothing the second time."""
        if not self.alive:
            return
        said, all_said = itertools.count(1), threading.Event()
        links = self.links()

        def on_said(_: BaseException | None) -> None:
            if next(said) == len(links):
                all_said.set()

        for link in links:
            link.send(Header(Kind.GOODBYE), priority=_LAST, on_sent=on_said)
        if links:
            self.network.carrier.wait(all_said, linger_s)
        self.alive = False
        for link in links:
            link.shut("this endpoint is closed")


_LAST = -(1 << 62)


class MemoryLink:
    """The way from one endpoint to another; a ``Link``. ``reverse`` is the way back."""

    reverse: MemoryLink

    def __init__(self, source: MemoryTransport, target: MemoryTransport, network: MemoryNetwork) -> None:
        self.source = source
        self.target = target
        self.peer = target.contact.endpoint
        self._network = network
        self._lock = threading.Lock()
        self._queue: list[Outgoing] = []
        self._sequence = itertools.count()
        self._counter = 0
        self._is_busy = False
        self._closed_because = ""
        self._bytes_received = self._frames_received = self._bytes_sent = self._frames_sent = 0
        self._last_received_s = self._last_sent_s = network.clock.now_s()
        self._traffic = Traffic()

    def send(
        self,
        header: Header,
        payload: Sequence[memoryview] = (),
        *,
        priority: int = 0,
        on_sent: OnSent | None = None,
    ) -> None:
        assert sum(view.nbytes for view in payload) == header.length, "the header tells another length"
        frame = Outgoing(-priority, next(self._sequence), header, payload, on_sent)
        with self._lock:
            is_open = not self._closed_because
            becomes_busy = is_open and not self._is_busy
            if is_open:
                heapq.heappush(self._queue, frame)
                self._is_busy = True
        if not is_open:
            frame.sent(self._error())
        if becomes_busy:
            self._network.carrier.ready(self)

    def statistics(self) -> LinkStatistics:
        with self._lock:
            return LinkStatistics(
                transport="memory",
                lanes=1,
                bytes_sent=self._bytes_sent,
                bytes_received=self._bytes_received,
                frames_sent=self._frames_sent,
                frames_received=self._frames_received,
                last_received_s=self._last_received_s,
                last_sent_s=self._last_sent_s,
            )

    def traffic(self) -> Traffic:
        with self._lock:
            return self._traffic

    def acknowledge(self) -> None:
        """Nobody here waits for that."""

    def count_travel(self, num_bytes: int, travel_s: float, rtt_s: float) -> None:
        """For a carrier that knows: a frame of this size came in, after that time on its way."""
        with self._lock:
            self._traffic = Traffic(
                timed_bytes=self._traffic.timed_bytes + num_bytes,
                receiving_s=self._traffic.receiving_s + travel_s,
                rtt_s=rtt_s,
            )

    def take(self) -> Outgoing | None:
        """For the carrier: the next frame to leave. None ends its turn, until it is told ``ready`` again."""
        with self._lock:
            if not self._queue:
                self._is_busy = False
                return None
            frame = heapq.heappop(self._queue)
            self._bytes_sent += HEADER_BYTES + frame.header.length
            self._frames_sent += 1
            self._last_sent_s = self._network.clock.now_s()
            return frame

    def deliver(self, header: Header, payload: Sequence[memoryview]) -> None:
        """For the carrier: hand one frame to the receiver, which is told as if it had come over a socket."""
        reverse = self.reverse
        if not self.target.alive or reverse._closed_because:
            return
        receiver, peer = self.target.receiver, self.source.contact.endpoint
        try:
            header = Header.parse(header.pack(self._counter), self._counter)
            self._counter = (self._counter + 1) % (1 << 32)
            views = receiver.on_header(peer, header) if header.length else ()
            _copy(payload, views)
            reverse._count_received(header)
            if header.kind is Kind.GOODBYE:
                reverse.shut(f"{self.source.contact.host} has left")
            receiver.on_frame(peer, header, views)
        except ProtocolError as error:
            self.sever(f"protocol error: {error}")

    def sever(self, reason: str) -> None:
        """Break the connection: both ends lose their link."""
        self.lose(reason)
        self.reverse.lose(reason)

    def lose(self, reason: str) -> None:
        """Shut this direction and tell its owner, unless it is shut already."""
        if self.shut(reason) and self.source.alive:
            self.source.receiver.on_lost(self.peer, reason)

    def shut(self, reason: str) -> bool:
        """Send nothing more. Returns whether the link was open before."""
        with self._lock:
            if self._closed_because:
                return False
            self._closed_because = reason
            dropped, self._queue = self._queue, []
        if self.source.alive:
            for frame in sorted(dropped):
                frame.sent(self._error())
        return True

    def _error(self) -> LinkError:
        return LinkError(f"no way to {self.target.contact.host}: {self._closed_because}")

    def _count_received(self, header: Header) -> None:
        with self._lock:
            self._bytes_received += HEADER_BYTES + header.length
            self._frames_received += 1
            self._last_received_s = self._network.clock.now_s()


class ThreadCarrier:
    """Delivers at once, from a few threads; frames of one link never overtake each other.

    Args:
        num_threads: how many links can be served at the same time.
    """

    def __init__(self, num_threads: int = 4) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"thinwire-memory-{index}", daemon=True)
            for index in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def ready(self, link: MemoryLink) -> None:
        self._jobs.put(partial(self._carry, link))

    def after(self, link: MemoryLink, function: Callable[[], None]) -> None:
        self._jobs.put(function)

    def wait(self, done: threading.Event, timeout_s: float) -> None:
        done.wait(timeout_s)

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _carry(self, link: MemoryLink) -> None:
        frame = link.take()
        if frame is None:
            return
        try:
            link.deliver(frame.header, frame.payload)
            frame.sent()
        except Exception as error:
            logger.exception("a receiver failed")
            link.sever(f"its owner failed: {error!r}")
        self._jobs.put(partial(self._carry, link))  # behind the other links, so that all get their turn


def _copy(sources: Sequence[memoryview], targets: Sequence[memoryview]) -> None:
    """Copy bytes between two lists of byte views of the same total length, however each is cut."""
    pending = iter(sources)
    source = memoryview(b"")
    for target in targets:
        start = 0
        while start < len(target):
            if not source:
                source = next(pending)
            count = min(len(source), len(target) - start)
            target[start : start + count] = source[:count]
            source = source[count:]
            start += count
