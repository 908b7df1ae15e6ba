"""Trains of datagrams between two hosts, for measuring: what was lost, how long the rest took, how evenly it came.

Both sides send at a steady rate. Each datagram says when it left, on its sender's clock, and gives back the newest such
time of the other side with how long it was held here; so both sides see round trips without a common clock (as
in RFC 5357), and one-way delays up to a constant.

Not here: streams (``bulk``), and what is concluded (``probe``).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from dataclasses import dataclass, field

from thinwire.clock import Clock
from thinwire.transport.addresses import family_of, local_addresses

_LAYOUT = struct.Struct(
    "<16sIIddd"
)  # token, experiment, number, sent at, the peer's time given back, held for
_LAST = 0xFFFFFFFF  # the number of datagrams that only say that no more will come
_FAREWELLS = 3
_RECEIVE_BUFFER_BYTES = 4 << 20
_DATAGRAM_BYTES = 2048


@dataclass(slots=True)
class Train:
    """What one side has seen.

    Attributes:
        num_sent: datagrams sent.
        num_received: different datagrams that arrived.
        delays_s: their one-way delays, plus a constant that depends on the two clocks.
        rtts_s: round trips.
    """

    num_sent: int = 0
    num_received: int = 0
    delays_s: list[float] = field(default_factory=list)
    rtts_s: list[float] = field(default_factory=list)


class DatagramPort:
    """A UDP socket that exchanges trains with one peer at a time.

    Args:
        token: what datagrams have to begin with; others are ignored.
        interface: network interface or address to bind to; None: all.
        clock: tells when datagrams leave and arrive.

    Raises:
        UsageError: no such interface.
    """

    def __init__(self, token: bytes, interface: str | None, clock: Clock) -> None:
        self._token, self._clock = token, clock
        self._socket = _bound(interface)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def exchange(
        self,
        peer: tuple[str, int],
        experiment: int,
        *,
        interval_s: float,
        duration_s: float,
        linger_s: float,
        size_bytes: int,
    ) -> Train:
        """Send a datagram every ``interval_s`` for ``duration_s`` and note what the peer sends meanwhile.

        Listens on until the peer has said that it is done, at most ``linger_s`` after this side is done.
        A datagram that the system refuses to send (no route, a full queue) counts as lost.
        """
        train = Train()
        seen: set[int] = set()
        given_s, received_s = 0.0, 0.0  # the newest time of the peer's, and when it came
        address = self._address(peer)
        began_s = self._clock.now_s()
        end_s, last_end_s = began_s + duration_s, began_s + duration_s + linger_s
        padding = bytes(max(0, size_bytes - _LAYOUT.size))
        peer_is_done = is_done = False

        def send(number: int) -> None:
            now_s = self._clock.now_s()
            held_s = now_s - received_s if received_s else 0.0
            with contextlib.suppress(OSError):
                self._socket.sendto(
                    _LAYOUT.pack(self._token, experiment, number, now_s, given_s, held_s) + padding, address
                )

        while (now_s := self._clock.now_s()) < last_end_s and not (is_done and peer_is_done):
            while not is_done and now_s >= began_s + train.num_sent * interval_s and now_s < end_s:
                send(train.num_sent)
                train.num_sent += 1
            if not is_done and now_s >= end_s:
                is_done = True
                for _ in range(_FAREWELLS):
                    send(_LAST)
            due_s = last_end_s if is_done else min(end_s, began_s + train.num_sent * interval_s)
            if not select.select([self._socket], [], [], max(0.0, due_s - self._clock.now_s()))[0]:
                continue
            for data, now_s in self._waiting():
                token, number_experiment, number, sent_s, echoed_s, held_s = _LAYOUT.unpack_from(data)
                if token != self._token or number_experiment != experiment:
                    continue
                if number == _LAST:
                    peer_is_done = True
                elif number not in seen:
                    seen.add(number)
                    given_s, received_s = sent_s, now_s
                    train.delays_s.append(now_s - sent_s)
                    if echoed_s:
                        train.rtts_s.append(now_s - echoed_s - held_s)
        train.num_received = len(seen)
        return train

    def _waiting(self) -> list[tuple[bytes, float]]:
        """What the kernel holds for this socket now, and when each was read."""
        found = []
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                data = self._socket.recv(_DATAGRAM_BYTES)
                if len(data) >= _LAYOUT.size:
                    found.append((data, self._clock.now_s()))
        return found

    def _address(self, peer: tuple[str, int]) -> tuple[str, int]:
        """An IPv4 address as a socket of both families wants it."""
        ip, port = peer
        is_mapped = self._socket.family == socket.AF_INET6 and family_of(ip) == socket.AF_INET
        return (f"::ffff:{ip}" if is_mapped else ip), port


def _bound(interface: str | None) -> socket.socket:
    if interface is not None:
        ip = local_addresses(interface)[0]
        bound = socket.socket(family_of(ip), socket.SOCK_DGRAM)
        bound.bind((ip, 0))
        return bound
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.bind(("::", 0))
            return both
    only = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    only.bind(("0.0.0.0", 0))
    return only
