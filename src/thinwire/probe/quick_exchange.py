"""What one host sends and notes in the quick form: small datagrams to all, and trains in three rounds.

The first trains are short and go to all peers at once, so that what a wire lets pass after a pause is soon used up. How
fast they came travels back in the small datagrams, and tells how long the others may be. Those leave in two windows in
which every pair has a slot of its own: with few hosts no two trains are on their way at one time; with many they
overlap, each to another host. Hosts begin when they hear of it, and then set their clocks by the round trip to the
first one. Round trips count while no train is on its way. All trains of a host take its wire ``WIRE_S`` at most.

Told the time and what arrives, it says what to send. Not here: sockets, and the plan before it (``quick_member``).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from thinwire.probe.quick_messages import Car, Message, Pair, Ping
from thinwire.probe.train_rate import DATAGRAM_BYTES, LEAST, Rate, agreed, rate_of_train
from thinwire.transport.trains import Address

LASTS_S = 0.5
WIRE_S = 0.075
PINGS_S = 0.42  # what leaves later would not be answered in time
_PING_S, _MANY_HOSTS = 0.01, 8  # with more hosts, half as often
_FIRST_S = 0.005
_FIRST_TAKES_S = 0.045  # at 10 Mbit/s
_ROUNDS_S = ((0.21, 0.31), (0.31, 0.41))
_FIRST_TRAINS, _FIRST_LEAST, _FIRST_MOST = 30, 6, 16  # datagrams: of all first trains, and of one
_TRAIN_S = 0.008
_SHORT = 10  # datagrams
_FASTEST = 2e9  # bytes a second, that a train can be seen to come at
_JITTERS = 4  # that a train should be longer than
_GROWTH = 25
_LONGEST_RTT_S = 10.0  # what seems longer is a clock that was set
_JUMP_S = 1.0  # a delay does not vary so much within half a second
_QUIET_LEAST = 4
_SPREAD = 3  # of usual distances between the shortest and the longest of a dozen


class Send(NamedTuple):
    """Datagrams for one peer, back to back."""

    peer: int
    address: Address
    messages: Sequence[Message]


class _Peer:
    """What is known of one other host."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.addresses = addresses
        self.heard_from: Address | None = None
        self.num_sent = 0
        self.seen: set[int] = set()
        self.given_s = self.received_s = 0.0
        self.delays_s: list[tuple[float, float]] = []  # when it came, and how long it took
        self.rtts_s: list[tuple[float, float]] = []
        self.trains: dict[int, list[float]] = {}  # when their datagrams came
        self.sees_rate = 0.0  # of our first train
        self.left: tuple[int, float] = (0, math.inf)  # the newest train to there, and its rate
        self.leaves_at: dict[int, float] = {}  # train from there -> the rate at which it left

    def address(self, turn: int) -> Address:
        """Where it was heard from; before that, each of its addresses in turn."""
        return self.heard_from or self.addresses[turn % len(self.addresses)]

    @property
    def rtt_min_s(self) -> float | None:
        return min((rtt_s for _, rtt_s in self.rtts_s if 0 < rtt_s < _LONGEST_RTT_S), default=None)

    def in_quiet(self, samples: Sequence[tuple[float, float]], begin_s: float) -> list[float]:
        """Those that came between the first trains and the others; all, if they are too few."""
        # The first host's trains are half a round trip early, and those of the others reach it as late.
        from_s = begin_s + _FIRST_S + _FIRST_TAKES_S + (self.rtt_min_s or 0.0)
        to_s = begin_s + _ROUNDS_S[0][0]
        quiet = [value_s for at_s, value_s in samples if from_s <= at_s <= to_s]
        return quiet if len(quiet) >= _QUIET_LEAST else [value_s for _, value_s in samples]

    def jitter_s(self, begin_s: float) -> float:
        """How much delays vary usually; also slowly, as their spread shows but for the longest, which may have waited
        for a core.
        """
        delays_s = sorted(self.in_quiet(self.delays_s, begin_s))
        if len(delays_s) < _QUIET_LEAST:
            return 0.0
        middle_s = statistics.median(delays_s)
        one_by_one_s = statistics.median(abs(delay_s - middle_s) for delay_s in delays_s)
        return max(one_by_one_s, (delays_s[-2] - delays_s[0]) / _SPREAD)


class Exchange:
    """One host's part.

    Args:
        number: this host's. addresses: of each other host that takes part.
        num_hosts: all of them.
        begin_s: on this host's clock.
        first_host: whose clock the rounds go by.
    """

    def __init__(
        self,
        number: int,
        addresses: Mapping[int, Sequence[Address]],
        num_hosts: int,
        begin_s: float,
        first_host: int = 0,
    ) -> None:
        self._number, self._num_hosts, self._begin_s = number, num_hosts, begin_s
        self._first_host = first_host
        self._peers = {peer: _Peer(known) for peer, known in addresses.items() if known}
        self._ping_s = _PING_S if num_hosts <= _MANY_HOSTS else 2 * _PING_S
        self._num_pings = self._number_of_ping = 0  # which is due, and how many left
        self._train_until_s = begin_s
        self._leaving = (0, 0)
        self._turns = list(self._slots())
        self.ends_s = begin_s + LASTS_S

    def due_s(self) -> float:
        """When there is something to send."""
        due_s = self._ping_due_s()
        if due_s >= self._begin_s + PINGS_S:
            due_s = self.ends_s
        return min(due_s, self._turn_s()) if self._turns else due_s

    def poll(self, now_s: float) -> Iterator[Send]:
        """What is to be sent now."""
        while self._turns and self._turn_s() <= now_s:
            _, train, peer = self._turns.pop(0)
            yield self._train(now_s, train, peer)
        if self._ping_due_s() <= now_s < self._begin_s + PINGS_S:
            # After a pause it goes on from now: many at once would be a train.
            self._num_pings = int((now_s - self._begin_s) / self._ping_s) + 1
            self._number_of_ping += 1
            for to, known in self._peers.items():
                held_s = now_s - known.received_s if known.received_s else 0.0
                rate = rate_of_train(known.trains.get(0, ()))
                seen = (rate.value or min(rate.high, known.leaves_at.get(0, _FASTEST))) if rate else 0.0
                ping = Ping(self._number_of_ping, now_s, known.given_s, held_s, seen, *known.left)
                known.num_sent += 1
                yield Send(to, known.address(self._num_pings), (ping,))

    def take(self, at_s: float, sender: int, message: Ping | Car, source: Address) -> None:
        """Something came."""
        peer = self._peers.get(sender)
        if peer is None:
            return
        peer.heard_from = peer.heard_from or source
        if isinstance(message, Car):
            peer.trains.setdefault(message.train, []).append(at_s)
        elif message.number not in peer.seen:
            peer.seen.add(message.number)
            peer.given_s, peer.received_s = message.sent_s, at_s
            peer.sees_rate = message.rate or peer.sees_rate
            peer.leaves_at[message.left] = message.left_at
            peer.delays_s.append((at_s, at_s - message.sent_s))
            if message.given_s:
                peer.rtts_s.append((at_s, at_s - message.given_s - message.held_s))

    def longest_rtt_s(self) -> float:
        """To anybody."""
        return max((peer.rtt_min_s or 0.0 for peer in self._peers.values()), default=0.0)

    def heard_from(self, peer: int) -> Address | None:
        """The address at which it was heard; None if it was not."""
        return self._peers[peer].heard_from if peer in self._peers else None

    def has_sent(self, num_bytes: int, took_s: float) -> None:
        """The newest train has left, and how long that took."""
        peer, train = self._leaving
        self._peers[peer].left = train, num_bytes / max(took_s, 1e-9)

    def pairs(self) -> list[Pair]:
        """What was seen of everybody."""
        return [self._pair(number, peer) for number, peer in self._peers.items()]

    def _slots(self) -> Iterator[tuple[float, int, int]]:
        """(since the beginning, train, to whom): first to all at once, then one after the other."""
        turns = [(self._number + step) % self._num_hosts for step in range(1, self._num_hosts)]
        yield from ((_FIRST_S, 0, peer) for peer in turns if peer in self._peers)
        for train, (from_s, to_s) in enumerate(_ROUNDS_S, start=1):
            step_s = (to_s - from_s) / max(1, self._num_hosts - 1)
            for step, peer in enumerate(turns):
                if peer in self._peers:
                    yield from_s + (step + self._number / self._num_hosts) * step_s, train, peer

    def _ping_due_s(self) -> float:
        """When the next small ones leave: not in the middle of a train, which they would make longer."""
        places = self._num_pings + self._number / self._num_hosts  # all at one time would be a train too
        return max(self._begin_s + places * self._ping_s, self._train_until_s)

    def _turn_s(self) -> float:
        """When the next train leaves. After the first round, by the clock of the first host."""
        at_s, train, _ = self._turns[0]
        first = self._peers.get(self._first_host)
        late_s = (first.rtt_min_s or 0.0) / 2 if first and train else 0.0
        return self._begin_s + at_s - late_s

    def _train(self, now_s: float, train: int, number: int) -> Send:
        peer = self._peers[number]
        length = self._length(train, peer)
        cars = [Car(train, place) for place in range(length)]
        self._leaving = number, train
        if peer.sees_rate:
            self._train_until_s = now_s + length * DATAGRAM_BYTES / peer.sees_rate
        return Send(number, peer.address(self._num_pings), cars)

    def _length(self, train: int, peer: _Peer) -> int:
        others = max(1, self._num_hosts - 1)
        first = min(_FIRST_MOST, max(_FIRST_LEAST, _FIRST_TRAINS // others))
        if not train:
            return first
        if not peer.sees_rate:
            return first  # nothing was heard of the first one: a longer one might be too long
        rates = [known.sees_rate for known in self._peers.values() if known.sees_rate]
        wire = min(peer.sees_rate, 2 * statistics.median_low(rates))  # a bucket may have made it look fast
        mine = WIRE_S * wire / DATAGRAM_BYTES / others - first
        if mine >= len(_ROUNDS_S) * _SHORT:
            mine /= len(_ROUNDS_S)
        elif train > 1:
            return 0  # one that tells something is better than two that do not
        lasts_s = max(_TRAIN_S, _JITTERS * peer.jitter_s(self._begin_s))
        enough = max(_SHORT, wire * lasts_s / DATAGRAM_BYTES)
        return int(min(_GROWTH * first, max(LEAST, mine), enough))

    def _pair(self, number: int, peer: _Peer) -> Pair:
        known_s = [(at_s, rtt_s) for at_s, rtt_s in peer.rtts_s if 0 < rtt_s < _LONGEST_RTT_S]
        rtts = np.array(peer.in_quiet(known_s, self._begin_s))
        delays = np.array(peer.in_quiet(peer.delays_s, self._begin_s))
        has_jumped = _has_jumped([delay_s for _, delay_s in peer.delays_s])
        rate = None if has_jumped else self._rate(number, peer)
        place = peer.addresses.index(peer.heard_from) if peer.heard_from in peer.addresses else 0
        return Pair(
            peer=number,
            place=place,
            has_jumped=has_jumped,
            num_sent=peer.num_sent,
            num_received=len(peer.seen),
            num_expected=max(peer.seen) - min(peer.seen) + 1 if peer.seen else 0,
            rtt_min_s=float(rtts.min()) if rtts.size else math.nan,
            rtt_median_s=float(np.median(rtts)) if rtts.size else math.nan,
            rtt_p99_s=float(np.quantile(rtts, 0.99)) if rtts.size else math.nan,
            jitter_s=math.nan if has_jumped or not delays.size else float(delays.std()),
            rate=math.nan if rate is None or rate.value is None else rate.value,
            low=rate.low if rate else math.nan,
            high=rate.high if rate else math.nan,
        )

    def _rate(self, number: int, peer: _Peer) -> Rate | None:
        others_s = sorted(
            came_s
            for other, known in self._peers.items()
            if other != number
            for train in known.trains.values()
            for came_s in train
        )
        return agreed(
            rate_of_train(
                sorted(train),
                jitter_s=peer.jitter_s(self._begin_s),
                others_s=others_s,
                left_bytes_per_s=peer.leaves_at.get(number_of_train, math.inf),
            )
            for number_of_train, train in peer.trains.items()
            if number_of_train  # the first may have passed a bucket as a whole
        )


def _has_jumped(delays_s: Sequence[float]) -> bool:
    """A clock was set meanwhile, here or there."""
    return bool(delays_s) and max(delays_s) - min(delays_s) > _JUMP_S
