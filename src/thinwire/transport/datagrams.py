"""Trains of small datagrams between hosts, for measuring: what was lost, and how long the rest took.

Everybody sends small datagrams to each partner at a steady rate. Each says when it left, on its sender's clock, and
gives back the newest such time of the other side with how long it was held here; so both sides see round trips without
a common clock (as in RFC 5357), and one-way delays up to a constant.

Arrival is when the kernel got a datagram, where it tells, and not when this thread was awake to read it.

Not here: streams (``bulk``), trains that fill a wire (``trains``), and what is concluded (``probe``).
"""

from __future__ import annotations

import contextlib
import select
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from thinwire.clock import Clock
from thinwire.transport.trains import STAMP_BYTES, Address, as_wanted_by, ask_for_stamps, bound, lag_s

# token, experiment, sender, number, sent at, the partner's time given back, held for
_LAYOUT = struct.Struct("<16sIHIddd")
_LAST = 0xFFFFFFFF  # the number of datagrams that only say that no more will come
_FAREWELLS = 3
_DATAGRAM_BYTES = 2048
_READS_A_TURN = 64


@dataclass(slots=True)
class Train:
    """What one side has seen of one partner.

    Attributes:
        num_sent: datagrams sent.
        num_received: different datagrams that arrived.
        num_expected: how many the other side had sent from the first of these to the last.
        span_s: the time from the first of these to the last.
        delays_s: their one-way delays, plus a constant that depends on the two clocks.
        rtts_s: round trips.
    """

    num_sent: int = 0
    num_received: int = 0
    num_expected: int = 0
    span_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    rtts_s: list[float] = field(default_factory=list)


class _Partner:
    """The other side of one exchange."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.train = Train()
        self.seen: set[int] = set()
        self.given_s = self.received_s = 0.0  # its newest time, and when that came
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
        self._socket = bound(interface)
        self._socket.setblocking(False)
        ask_for_stamps(self._socket)
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
    ) -> dict[int, Train]:
        """Send each partner a datagram every ``interval_s`` for ``duration_s``, and note what comes.

        Listens on until all partners have said that they are done, at most ``linger_s`` after this side is done.
        A datagram that the system refuses to send (no route, a full queue) counts as lost.

        Args:
            partners: number -> address of the host's port.
            experiment: its number: datagrams of others are ignored.
            size_bytes: of a datagram, if that is more than it has to say.
        """
        found = {
            number: _Partner(as_wanted_by(self._socket, address)) for number, address in partners.items()
        }
        began_s = self._clock.now_s()
        end_s, last_end_s = began_s + duration_s, began_s + duration_s + linger_s
        padding = bytes(max(0, size_bytes - _LAYOUT.size))
        num_rounds = 0
        is_done = False
        while (now_s := self._clock.now_s()) < last_end_s:
            if is_done and all(partner.is_done for partner in found.values()):
                break
            while not is_done and began_s + num_rounds * interval_s <= now_s < end_s:
                for partner in found.values():
                    self._send(partner, experiment, num_rounds, padding)
                    partner.train.num_sent += 1
                num_rounds += 1
            if not is_done and now_s >= end_s:
                is_done = True
                for partner in list(found.values()) * _FAREWELLS:
                    self._send(partner, experiment, _LAST, b"")
            due_s = last_end_s if is_done else min(end_s, began_s + num_rounds * interval_s)
            if select.select([self._socket], [], [], max(0.0, due_s - self._clock.now_s()))[0]:
                self._read(found, experiment)
        return {number: partner.told() for number, partner in found.items()}

    def _send(self, partner: _Partner, experiment: int, number: int, padding: bytes) -> None:
        now_s = self._clock.now_s()
        held_s = now_s - partner.received_s if partner.received_s else 0.0
        says = (experiment, self._number, number, now_s, partner.given_s, held_s)
        with contextlib.suppress(OSError):
            self._socket.sendto(_LAYOUT.pack(self._token, *says) + padding, partner.address)

    def _read(self, partners: Mapping[int, _Partner], experiment: int) -> None:
        """Take in what the kernel holds for this socket now, or the first part of it."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(_READS_A_TURN):
                data, said, _, _ = self._socket.recvmsg(_DATAGRAM_BYTES, STAMP_BYTES)
                now_s = self._clock.now_s() - lag_s(said)
                if len(data) < _LAYOUT.size:
                    continue
                token, about, sender, number, sent_s, echoed_s, held_s = _LAYOUT.unpack_from(data)
                partner = partners.get(sender)
                if token != self._token or about != experiment or partner is None:
                    continue
                train = partner.train
                if number == _LAST:
                    partner.is_done = True
                elif number not in partner.seen:
                    partner.first_s = partner.first_s or now_s
                    partner.seen.add(number)
                    partner.given_s, partner.received_s = sent_s, now_s
                    train.delays_s.append(now_s - sent_s)
                    if echoed_s:
                        # The kernel's times and the clock's differ by a microsecond now and then.
                        train.rtts_s.append(max(0.0, now_s - echoed_s - held_s))
