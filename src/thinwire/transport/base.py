"""What a transport is: it carries frames between endpoints, and knows nothing of collectives.

An ``Endpoint`` owner (the runtime) gives the transport a ``Receiver`` and gets ``Link`` objects, one a peer. A link
is one or more lanes (sockets); a frame takes the first lane that is free. Frames on different lanes overtake
each other; frames describe themselves, so nobody minds.

Not here: reconnection (a lost link is a lost peer), and encryption, whose seam is the handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from thinwire.forecast import Traffic
from thinwire.protocol.frame import Header

OnSent = Callable[[BaseException | None], None]


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach an endpoint: published by each rank, read by the others.

    Attributes:
        endpoint: 16 random bytes, hex: who this is, whatever its rank in whatever group.
        host: host name, for messages.
        host_key: equal for two endpoints that can use Unix sockets with each other (same kernel, same network
            namespace).
        addresses: transport name -> address, e.g. ``{"tcp": "10.0.0.1:4000", "unix": "@thinwire-..."}``.
    """

    endpoint: str
    host: str
    host_key: str
    addresses: dict[str, str]


class Receiver(Protocol):
    """What a transport tells its owner. Called from the transport's threads; different links at once."""

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        """Where the payload of this frame goes: writable byte views with ``header.length`` bytes in all.

        Called only for frames with a payload, before it is read. ``ProtocolError`` closes the link.
        """

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        """The frame is complete; ``payload`` are the views that ``on_header`` returned (empty if no payload)."""

    def on_lost(self, peer: str, reason: str) -> None:
        """The link is gone, once per link. ``reason`` is words; a peer that said GOODBYE is not lost."""


class Link(Protocol):
    """The way to one peer. All methods are thread-safe and none blocks."""

    peer: str

    def send(
        self,
        header: Header,
        payload: Sequence[memoryview] = (),
        *,
        priority: int = 0,
        on_sent: OnSent | None = None,
    ) -> None:
        """Queue one frame. Larger ``priority`` leaves first; equal ones leave in order.

        The payload's memory must stay as it is until ``on_sent(None)`` is called (from any thread, possibly before
        ``send`` returns), or ``on_sent(error)`` if the link broke first.
        """

    def statistics(self) -> LinkStatistics: ...

    def traffic(self) -> Traffic:
        """What forecasts of the link are made from; what this transport cannot count stays 0 or None."""

    def acknowledge(self) -> None:
        """Nothing is about to be sent that could tell the peer what has come: let the transport tell it now."""


class LinkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one link since it was made, and when (seconds, the transport's clock) bytes last moved."""

    transport: str
    lanes: int
    bytes_sent: int
    bytes_received: int
    frames_sent: int
    frames_received: int
    last_received_s: float
    last_sent_s: float


class Transport(Protocol):
    """Makes links. One transport per endpoint."""

    def start(self, receiver: Receiver) -> Contact:
        """Begin to listen. Frames may arrive as soon as this returns."""

    def link(self, contact: Contact) -> Link:
        """The link to that endpoint: made now, in the background, if there is none yet.

        Frames sent before the connection stands are queued. If it cannot be made, ``on_lost`` says why.
        """

    def close(self, linger_s: float = 5.0) -> None:
        """Send what is queued and a GOODBYE on every link, wait for the peers to read it (at most ``linger_s``)."""
