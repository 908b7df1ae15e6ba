"""A network of datagrams in virtual time: wires with a rate, a token bucket, a delay and losses; clocks that differ.

What the members of a quick probe send passes its host's uplink, the way, and the downlink of the other. No time passes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from thinwire.probe.quick_member import Member
from thinwire.probe.quick_messages import KEY_BYTES, QuickCard
from thinwire.transport.trains import Address

HEADERS_BYTES = 42
FRAME_OF_TRAIN = 1442
SENDING_S = 4e-6  # a datagram takes the sender


class Wire:
    """Frames one after the other; ``bucket_bytes`` after a pause at once."""

    def __init__(self, bytes_per_s: float, bucket_s: float = 0.001) -> None:
        self.bytes_per_s, self.bucket_s = bytes_per_s, bucket_s
        self.free_s = float("-inf")
        self.num_bytes = 0

    def passes_at(self, now_s: float, num_bytes: int) -> float:
        self.num_bytes += num_bytes
        self.free_s = max(self.free_s, now_s - self.bucket_s) + num_bytes / self.bytes_per_s
        return max(now_s, self.free_s)


class DatagramNetwork:
    """Args:
    up, down: bytes a second, by host. delay_s: one way, between any two. loss: of each datagram.
    jitter_s: how much delays vary. generator: of losses and jitter.
    """

    def __init__(
        self,
        up: list[float],
        down: list[float],
        *,
        delay_s: float = 0.0001,
        loss: float = 0.0,
        jitter_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.up, self.down = [Wire(rate) for rate in up], [Wire(rate) for rate in down]
        self.delay_s, self.loss, self.jitter_s = delay_s, loss, jitter_s
        self.generator = np.random.default_rng(seed)
        self.is_cut: Callable[[int, int], bool] = lambda source, destination: False
        self.dies_s: Mapping[int, float] = {}
        self.jumps: Mapping[int, tuple[float, float]] = {}  # when, and by how much
        self.seconds: dict[int, float] = {}  # host -> when it was over

    def cards(self) -> list[QuickCard | None]:
        return [
            QuickCard(
                host=f"host{number}",
                host_key=str(number),
                addresses=((f"10.0.0.{number}:1", "eth0"),),
                key=bytes([number]) * KEY_BYTES,
            )
            for number in range(len(self.up))
        ]

    def clock_s(self, host: int, now_s: float) -> float:
        """A host's clock: an hour from everybody else's."""
        at_s, by_s = self.jumps.get(host, (float("inf"), 0.0))
        return now_s + 3600.0 * host + by_s * (now_s >= at_s)

    def run(self, until_s: float = 3.0) -> dict[int, dict[int, bytes] | None]:
        """Everybody's result."""
        cards = self.cards()
        members = {
            number: Member(
                number,
                bytes([number]) * KEY_BYTES,
                lambda card: [(card.addresses[0][0].partition(":")[0], 1)],
                self.clock_s(number, 0.0),
                cards if number == 0 else None,
                msgspec.msgpack.encode,
            )
            for number in range(len(cards))
        }
        order = itertools.count()
        # (when, number, whether it has passed the downlink, destination, datagram, source)
        arrivals: list[tuple[float, int, bool, int, bytes, Address]] = []

        def send(now_s: float, source: int, address: Address, datagrams: list[bytes]) -> None:
            destination = int(address[0].rpartition(".")[2])
            for place, datagram in enumerate(datagrams):
                size = len(datagram) + HEADERS_BYTES
                left_s = self.up[source].passes_at(now_s + place * SENDING_S, size)
                if self.is_cut(source, destination) or self.generator.random() < self.loss:
                    continue
                way_s = self.delay_s + abs(self.generator.normal(0, self.jitter_s))
                entry = (left_s + way_s, next(order), False, destination, datagram, (f"10.0.0.{source}", 1))
                heapq.heappush(arrivals, entry)

        now_s = 0.0
        while now_s < until_s:
            for number, member in members.items():
                if now_s >= self.dies_s.get(number, float("inf")) or number in self.seconds:
                    continue
                own_s = self.clock_s(number, now_s)
                for address, datagrams in member.poll(own_s):
                    send(now_s, number, address, datagrams)
                    member.has_sent(datagrams, SENDING_S * len(datagrams))
                if member.is_over(own_s):
                    self.seconds[number] = now_s
            dues_s = [
                now_s + member.due_s(own_s) - own_s
                for number, member in members.items()
                if number not in self.seconds and now_s < self.dies_s.get(number, float("inf"))
                for own_s in [self.clock_s(number, now_s)]
            ]
            next_s = min([*dues_s, arrivals[0][0] if arrivals else until_s, until_s])
            now_s = max(next_s, now_s + 1e-6)
            while arrivals and arrivals[0][0] <= now_s:
                at_s, _, has_passed, destination, datagram, source = heapq.heappop(arrivals)
                if not has_passed:
                    at_s = self.down[destination].passes_at(at_s, len(datagram) + HEADERS_BYTES)
                    heapq.heappush(arrivals, (at_s, next(order), True, destination, datagram, source))
                elif at_s < self.dies_s.get(destination, float("inf")) and destination not in self.seconds:
                    own_s = self.clock_s(destination, at_s)
                    for address, datagrams in members[destination].take(own_s, datagram, source):
                        send(now_s, destination, address, datagrams)
        return {
            number: msgspec.msgpack.decode(member.result, type=dict[int, bytes]) if member.result else None
            for number, member in members.items()
        }
