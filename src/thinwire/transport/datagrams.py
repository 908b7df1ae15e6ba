"""Trains and bursts of datagrams between hosts, for measuring: what was lost, how long the rest took, how fast it came.

Everybody sends small datagrams to each partner at a steady rate. Each says when it left, on its sender's clock, and
gives back the newest such time of the other side with how long it was held here; so both sides see round trips without
a common clock (as in RFC 5357), and one-way delays up to a constant.

A burst is large datagrams, back to back: how far apart they arrive tells how fast the slowest wire is (packet trains:
Jain and Routhier 1986; Dovrolis, Ramanathan and Moore 2001). The first is short; those after it are as long as the
rate that the partner saw, and gives back too, allows within ``burst_s``. Hosts take turns, so that each sends one
burst and receives one at a time.

Arrival is when the kernel got a datagram, where it tells, and not when this thread was awake to read it.

Not here: streams (``bulk``), and what is concluded (``probe``).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thinwire.clock import Clock, wall_time_s
from thinwire.transport.addresses import family_of, local_addresses

BURST_BYTES = 1400  # a datagram of a burst: with every header it fits the frames of nearly any network
FIRST_BURST = 6
LONGEST_BURST = 400
NUM_BURSTS = 4
# From one burst to the next at most: a short one may pass faster than the wire is in the long run.
_GROWTH = 4

# token, experiment, sender, burst, number, sent at, the partner's time given back, held for, its bursts' rate
_LAYOUT = struct.Struct("<16sIHHIdddf")
_LAST = 0xFFFFFFFF  # the number of datagrams that only say that no more will come
_FAREWELLS = 3
_RECEIVE_BUFFER_BYTES = _SEND_BUFFER_BYTES = 4 << 20
_DATAGRAM_BYTES = 2048
_READS_A_TURN = 64
_SO_TIMESTAMPNS = 35  # of Linux; Python has no name for it
_STAMP = struct.Struct("=qq")
_STAMP_BYTES = socket.CMSG_SPACE(_STAMP.size) if hasattr(socket, "CMSG_SPACE") else 0
_LARGEST_LAG_S = 1.0  # beyond it a clock was set

Address = tuple[str, int]


@dataclass(slots=True)
class Train:
    """What one side has seen of one partner.

    Attributes:
        num_sent: datagrams sent, without those of bursts.
        num_received: different datagrams that arrived.
        num_expected: how many the other side had sent from the first of these to the last.
        span_s: the time from the first of these to the last.
        delays_s: their one-way delays, plus a constant that depends on the two clocks.
        rtts_s: round trips.
        bursts: of each burst that came: when its datagrams arrived, and when they had left, each on its own clock.
        burst_datagrams_sent: datagrams sent in bursts.
    """

    num_sent: int = 0
    num_received: int = 0
    num_expected: int = 0
    span_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    rtts_s: list[float] = field(default_factory=list)
    bursts: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    burst_datagrams_sent: int = 0


def burst_rate(arrivals_s: Sequence[float]) -> float:
    """Bytes a second that a burst arrived at; 0 if it was too short to tell.

    The second half counts, as with streams: a wire may let the first few pass faster than it does in the long run.

    >>> burst_rate([0.0, 0.0, 0.0, 0.001, 0.002, 0.003, 0.004, 0.005])
    1400000.0
    """
    middle = len(arrivals_s) // 2
    if len(arrivals_s) < FIRST_BURST - 2 or arrivals_s[-1] <= arrivals_s[middle]:
        return 0.0
    num_bytes = (len(arrivals_s) - 1 - middle) * BURST_BYTES
    return num_bytes / (arrivals_s[-1] - arrivals_s[middle])


class _Partner:
    """The other side of one exchange."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.train = Train()
        self.seen: set[int] = set()
        self.given_s = self.received_s = 0.0  # its newest time, and when that came
        self.sees_rate = 0.0  # of our bursts there
        self.rate = 0.0  # of its newest burst here
        self.first_s = 0.0
        self.is_done = False

    def told(self) -> Train:
        """The train, with what can only be said at its end."""
        if self.seen:
            self.train.num_received = len(self.seen)
            self.train.num_expected = max(self.seen) - min(self.seen) + 1
            self.train.span_s = self.received_s - self.first_s
        return self.train


class DatagramPort:
    """A UDP socket that exchanges trains with partners.

    Args:
        token: what datagrams have to begin with; others are ignored.
        number: this host's, which tells partners who sent a datagram.
        interface: network interface or address to bind to; None: all.
        clock: tells when datagrams leave and arrive.

    Raises:
        UsageError: no such interface.
    """

    def __init__(self, token: bytes, number: int, interface: str | None, clock: Clock) -> None:
        self._token, self._number, self._clock = token, number, clock
        self._socket = _bound(interface)
        self._socket.setblocking(False)
        for option, value in (
            (socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES),
            (socket.SO_SNDBUF, _SEND_BUFFER_BYTES),
            (_SO_TIMESTAMPNS, 1),
        ):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def exchange(
        self,
        partners: Mapping[int, Address],
        experiment: int,
        *,
        interval_s: float,
        duration_s: float,
        linger_s: float,
        size_bytes: int = 0,
        burst_s: float = 0.0,
        num_hosts: int = 0,
    ) -> dict[int, Train]:
        """Send each partner a datagram every ``interval_s`` for ``duration_s``, and bursts, and note what comes.

        Listens on until all partners have said that they are done, at most ``linger_s`` after this side is done.
        A datagram that the system refuses to send (no route, a full queue) counts as lost.

        Args:
            partners: number -> address of the host's port.
            experiment: its number: datagrams of others are ignored.
            size_bytes: of a datagram, if that is more than it has to say.
            burst_s: how long a burst may take; 0: there are none.
            num_hosts: that send bursts, whose numbers are below this.
        """
        found = {number: _Partner(self._address(address)) for number, address in partners.items()}
        began_s = self._clock.now_s()
        end_s, last_end_s = began_s + duration_s, began_s + duration_s + linger_s
        turns = _turns(self._number, partners, num_hosts, began_s, duration_s) if burst_s else []
        padding = bytes(max(0, size_bytes - _LAYOUT.size))
        num_rounds = 0
        is_done = False
        while (now_s := self._clock.now_s()) < last_end_s:
            if is_done and all(partner.is_done for partner in found.values()):
                break
            while not is_done and began_s + num_rounds * interval_s <= now_s < end_s:
                for partner in found.values():
                    self._send(partner, experiment, 0, num_rounds, padding)
                    partner.train.num_sent += 1
                num_rounds += 1
            while turns and turns[0][0] <= now_s:
                _, burst, number = turns.pop(0)
                self._send_burst(found[number], experiment, burst, burst_s)
            if not is_done and now_s >= end_s:
                is_done = True
                for partner in list(found.values()) * _FAREWELLS:
                    self._send(partner, experiment, 0, _LAST, b"")
            due_s = last_end_s if is_done else min(end_s, began_s + num_rounds * interval_s)
            if turns:
                due_s = min(due_s, turns[0][0])
            if select.select([self._socket], [], [], max(0.0, due_s - self._clock.now_s()))[0]:
                self._read(found, experiment)
        return {number: partner.told() for number, partner in found.items()}

    def _send(self, partner: _Partner, experiment: int, burst: int, number: int, padding: bytes) -> None:
        now_s = self._clock.now_s()
        held_s = now_s - partner.received_s if partner.received_s else 0.0
        says = (experiment, self._number, burst, number, now_s, partner.given_s, held_s, partner.rate)
        with contextlib.suppress(OSError):
            self._socket.sendto(_LAYOUT.pack(self._token, *says) + padding, partner.address)

    def _send_burst(self, partner: _Partner, experiment: int, burst: int, burst_s: float) -> None:
        fitting = int(partner.sees_rate * burst_s / BURST_BYTES)
        length = min(LONGEST_BURST, FIRST_BURST * _GROWTH ** (burst - 1), max(FIRST_BURST, fitting))
        padding = bytes(BURST_BYTES - _LAYOUT.size)
        for number in range(length):
            self._send(partner, experiment, burst, number, padding)
        partner.train.burst_datagrams_sent += length

    def _read(self, partners: Mapping[int, _Partner], experiment: int) -> None:
        """Take in what the kernel holds for this socket now, or the first part of it."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(_READS_A_TURN):
                data, said, _, _ = self._socket.recvmsg(_DATAGRAM_BYTES, _STAMP_BYTES)
                lag_s = _lag_s(said)
                now_s = self._clock.now_s() - lag_s
                if len(data) < _LAYOUT.size:
                    continue
                token, about, sender, burst, number, sent_s, echoed_s, held_s, rate = _LAYOUT.unpack_from(
                    data
                )
                partner = partners.get(sender)
                if token != self._token or about != experiment or partner is None:
                    continue
                train = partner.train
                if burst:
                    train.bursts.setdefault(burst, []).append((now_s, sent_s))
                    partner.rate = burst_rate([at_s for at_s, _ in train.bursts[burst]]) or partner.rate
                elif number == _LAST:
                    partner.is_done = True
                elif number not in partner.seen:
                    partner.first_s = partner.first_s or now_s
                    partner.seen.add(number)
                    partner.given_s, partner.received_s = sent_s, now_s
                    partner.sees_rate = rate
                    train.delays_s.append(now_s - sent_s)
                    if echoed_s:
                        train.rtts_s.append(now_s - echoed_s - held_s)

    def _address(self, peer: Address) -> Address:
        """An IPv4 address as a socket of both families wants it."""
        ip, port = peer
        is_mapped = self._socket.family == socket.AF_INET6 and family_of(ip) == socket.AF_INET
        return (f"::ffff:{ip}" if is_mapped else ip), port


def _turns(
    own: int, partners: Mapping[int, Address], num_hosts: int, began_s: float, duration_s: float
) -> list[tuple[float, int, int]]:
    """When this host sends which burst to whom: in turn ``k`` to the host ``k`` places on, so that nobody gets two."""
    turn_s = duration_s / (NUM_BURSTS * max(1, num_hosts - 1))
    turns = []
    for burst in range(NUM_BURSTS):
        for step in range(1, num_hosts):
            partner = (own + step) % num_hosts
            if partner in partners:
                at_s = began_s + (burst * (num_hosts - 1) + step - 0.5) * turn_s
                turns.append((at_s, burst + 1, partner))
    return turns


def _lag_s(said: list[tuple[int, int, bytes]]) -> float:
    """How long a datagram has waited in the kernel; 0 if that does not tell."""
    for level, kind, data in said:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _STAMP.size:
            seconds, nanoseconds = _STAMP.unpack_from(data)
            lag_s = wall_time_s() - (seconds + nanoseconds * 1e-9)
            return lag_s if 0 < lag_s < _LARGEST_LAG_S else 0.0
    return 0.0


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
