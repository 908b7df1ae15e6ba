"""A UDP socket that sends trains of datagrams back to back, and knows when the kernel got what arrives.

How far apart the datagrams of a train arrive tells how fast the slowest wire on their way is (packet trains: Jain and
Routhier 1986; Dovrolis, Ramanathan and Moore 2001). So they have to leave faster than that: where the kernel can cut
one long datagram into many (``UDP_SEGMENT``, Linux 4.18), eight at a time do. Arrival is the kernel's time stamp
(``SO_TIMESTAMPNS``), and not when a thread was awake to read.

Not here: what the datagrams say and what is concluded from them (``probe``).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from thinwire.clock import Clock, wall_time_s
from thinwire.transport.addresses import family_of, local_addresses

Address = tuple[str, int]

_BUFFER_BYTES = 4 << 20
_LONGEST_BYTES = 2048
_READS_A_TURN = 256
_SEGMENTS = 8  # at a time: fast enough for 5 Gbit/s from Python, and no lump for the wire
_SOL_UDP, _UDP_SEGMENT, _SO_TIMESTAMPNS = 17, 103, 35  # of Linux; Python has no names for them
_STAMP = struct.Struct("=qq")
STAMP_BYTES = socket.CMSG_SPACE(_STAMP.size) if hasattr(socket, "CMSG_SPACE") else 0
_LARGEST_LAG_S = 1.0  # beyond it a clock was set


class Arrived(NamedTuple):
    """A datagram that came, when (on the clock of the port), and where from."""

    at_s: float
    data: bytes
    source: Address


class TrainPort:
    """Args:
        interface: network interface or address to bind to; None: all.
        clock: tells when datagrams arrive.

    Raises:
        UsageError: no such interface.
    """

    def __init__(self, interface: str | None, clock: Clock) -> None:
        self._clock = clock
        self._socket = bound(interface)
        self._socket.setblocking(False)
        ask_for_stamps(self._socket)
        self._can_segment = True
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def send(self, address: Address, train: Sequence[bytes]) -> None:
        """Send datagrams of equal lengths back to back. What the system refuses to send is lost."""
        to = as_wanted_by(self._socket, address)
        for first in range(0, len(train), _SEGMENTS):
            few = train[first : first + _SEGMENTS]
            if not (len(few) > 1 and self._send_segmented(to, few)):
                for datagram in few:
                    with contextlib.suppress(OSError):
                        self._socket.sendto(datagram, to)

    def receive(self, timeout_s: float) -> list[Arrived]:
        """What came, as soon as something has."""
        found: list[Arrived] = []
        if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
            return found
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while len(found) < _READS_A_TURN:
                data, said, _, source = self._socket.recvmsg(_LONGEST_BYTES, STAMP_BYTES)
                at_s = self._clock.now_s() - lag_s(said)
                ip = str(source[0]).removeprefix("::ffff:")
                found.append(Arrived(at_s, data, (ip, int(source[1]))))
        return found

    def _send_segmented(self, to: Address, few: Sequence[bytes]) -> bool:
        """False if that cannot be done here."""
        if not self._can_segment:
            return False
        cut = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", len(few[0])))]
        try:
            self._socket.sendmsg(few, cut, 0, to)
        except BlockingIOError:
            return True  # the queue is full: lost
        except OSError:
            self._can_segment = False
            return False
        return True


def ask_for_stamps(port: socket.socket) -> None:
    """Let the kernel note when it gets a datagram, and keep many."""
    for option, value in (
        (socket.SO_RCVBUF, _BUFFER_BYTES),
        (socket.SO_SNDBUF, _BUFFER_BYTES),
        (_SO_TIMESTAMPNS, 1),
    ):
        with contextlib.suppress(OSError):
            port.setsockopt(socket.SOL_SOCKET, option, value)


def lag_s(said: Sequence[tuple[int, int, bytes]]) -> float:
    """How long a datagram has waited in the kernel; 0 if that does not tell."""
    for level, kind, data in said:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _STAMP.size:
            seconds, nanoseconds = _STAMP.unpack_from(data)
            waited_s = wall_time_s() - (seconds + nanoseconds * 1e-9)
            return waited_s if 0 < waited_s < _LARGEST_LAG_S else 0.0
    return 0.0


def as_wanted_by(port: socket.socket, address: Address) -> Address:
    """An IPv4 address as a socket of both families wants it."""
    ip, number = address
    is_mapped = port.family == socket.AF_INET6 and family_of(ip) == socket.AF_INET
    return (f"::ffff:{ip}" if is_mapped else ip), number


def bound(interface: str | None) -> socket.socket:
    """A UDP socket on that interface or address; None: on all, of both families where there are two.

    Raises:
        UsageError: no such interface.
    """
    if interface is not None:
        ip = local_addresses(interface)[0]
        one = socket.socket(family_of(ip), socket.SOCK_DGRAM)
        one.bind((ip, 0))
        return one
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.bind(("::", 0))
            return both
    only = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    only.bind(("0.0.0.0", 0))
    return only
