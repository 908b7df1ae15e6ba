"""What a user may choose about socket transports: one frozen value, checked when it is made.

Not here: heartbeats, which belong to the runtime.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from thinwire.errors import UsageError
from thinwire.protocol.handshake import LANES_MAX


class SocketOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a ``SocketTransport``.

    Attributes:
        lanes: sockets to each peer (1..64); the side that dials decides. More than one helps where a single TCP
            connection cannot fill the path; each costs two threads.
        interface: name (``"eth0"``) or address (``"10.0.0.1"``) to listen on and to dial from. None listens on
            all, publishes every address a peer could use, and lets the route to the peer decide.
        prefer: ``"tcp"`` or ``"unix"`` to use that and nothing else. None takes Unix sockets within a host and TCP
            between hosts.
        congestion_control: the kernel's name of it (``"cubic"``, ``"bbr"``); None takes CUBIC
            to near peers and leaves the system's default to far ones.
        cross_memory: read large payloads straight from the memory of a peer on the same host, where the kernel
            permits it. Turning it off costs about two thirds of the throughput there.
        unsent_bytes: how much the kernel takes of a TCP lane before it has sent the rest (TCP_NOTSENT_LOWAT). Small
            keeps urgent frames from waiting behind bytes that have not left; too small costs throughput.
        connect_timeout_s: how long a connection is tried for before the peer counts as lost. Long, because
            ranks do not start at the same moment.
        handshake_timeout_s: how long a new connection may take to prove that it knows the secret.
        unauthenticated_max: connections that may be unproved at one time; further ones wait in the kernel's backlog.

    Raises:
        UsageError: a value out of its range.

    >>> SocketOptions(lanes=3).lanes
    3
    """

    lanes: int = 1
    interface: str | None = None
    prefer: Literal["tcp", "unix"] | None = None
    congestion_control: str | None = None
    cross_memory: bool = True
    unsent_bytes: int = 256 << 10
    connect_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    unauthenticated_max: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= LANES_MAX:
            raise UsageError(f"lanes is {self.lanes}: use 1 to {LANES_MAX}")
        if self.prefer not in (None, "tcp", "unix"):
            raise UsageError(f"prefer is {self.prefer!r}: use 'tcp', 'unix' or nothing")
        for name in ("unsent_bytes", "connect_timeout_s", "handshake_timeout_s", "unauthenticated_max"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}: use more than 0")


DEFAULT_OPTIONS = SocketOptions()
