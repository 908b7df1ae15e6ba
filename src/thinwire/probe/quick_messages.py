"""The datagrams of the quick form, as values and as bytes. Pure.

Each begins with the key of the host it is for, which is in that host's card: who does not know it is not heard. A
*parcel* (the plan, a report, the result) travels in as many datagrams as it takes.

Not here: who says what when (``quick_member``, ``quick_exchange``).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import msgspec

from thinwire.probe.train_rate import DATAGRAM_BYTES

KEY_BYTES = 16
PART_BYTES = 1200

_HEAD = struct.Struct(f"<{KEY_BYTES}sBH")
_PART = struct.Struct("<BHH")
_PING = struct.Struct("<IdddfBf")
_TRAIN = struct.Struct("<BH")
_PAIR = struct.Struct("<HBBHHH7f")


class Kind(IntEnum):
    """What a datagram is."""

    PART, PING, TRAIN = 1, 2, 3


class Topic(IntEnum):
    """What a parcel is."""

    PLAN, REPORT, RESULT, DONE = 1, 2, 3, 4


class QuickCard(msgspec.Struct, frozen=True, array_like=True):
    """Where a host is found.

    Attributes:
        host: the machine's name. host_key: equal for processes that share a kernel and its network.
        addresses: of its port, with the name of the interface that has each. key: what datagrams to it begin with.
    """

    host: str
    host_key: str
    addresses: tuple[tuple[str, str], ...]
    key: bytes


class Part(NamedTuple):
    """One of the ``num_parts`` datagrams of a parcel; ``place`` from 0 up."""

    topic: Topic
    place: int
    num_parts: int
    data: bytes


class Ping(NamedTuple):
    """Small, and regular.

    Attributes:
        number, sent_s: on its sender's clock.
        given_s, held_s: the newest such time of the receiver's own, given back, and how long it was held.
        rate: of the receiver's first train, as it came; 0 if it has not.
        left, left_at: its sender's newest train, and the rate at which that left.
    """

    number: int
    sent_s: float
    given_s: float
    held_s: float
    rate: float
    left: int
    left_at: float


class Car(NamedTuple):
    """One datagram of a train."""

    train: int
    number: int


class Pair(NamedTuple):
    """What one host saw of another; NaN where it saw nothing.

    Attributes:
        peer: the other. place: of the address at which it was reached. has_jumped: a clock did.
        num_sent, num_received, num_expected: small datagrams, see ``TrainReport``.
        rtt_min_s, rtt_median_s, rtt_p99_s: there and back. jitter_s: of the way from there.
        rate, low, high: of trains from there, and the interval.
    """

    peer: int
    place: int
    has_jumped: int
    num_sent: int
    num_received: int
    num_expected: int
    rtt_min_s: float
    rtt_median_s: float
    rtt_p99_s: float
    jitter_s: float
    rate: float
    low: float
    high: float


Message = Part | Ping | Car


def pack(key: bytes, sender: int, message: Message) -> bytes:
    """A datagram from ``sender``; a car is filled up to its full length."""
    if isinstance(message, Part):
        head = _HEAD.pack(key, Kind.PART, sender)
        return head + _PART.pack(message.topic, message.place, message.num_parts) + message.data
    if isinstance(message, Ping):
        return _HEAD.pack(key, Kind.PING, sender) + _PING.pack(*message)
    car = _HEAD.pack(key, Kind.TRAIN, sender) + _TRAIN.pack(*message)
    return car.ljust(DATAGRAM_BYTES, b"\0")


def unpack(key: bytes, data: bytes) -> tuple[int, Message] | None:
    """Who says what; None if it is nothing that was meant for the owner of ``key``.

    >>> key = bytes(KEY_BYTES)
    >>> unpack(key, pack(key, 3, Car(1, 2)))
    (3, Car(train=1, number=2))
    """
    if len(data) < _HEAD.size or data[:KEY_BYTES] != key:
        return None
    _, kind, sender = _HEAD.unpack_from(data)
    try:
        if kind == Kind.PART:
            topic, place, num_parts = _PART.unpack_from(data, _HEAD.size)
            return sender, Part(Topic(topic), place, num_parts, data[_HEAD.size + _PART.size :])
        if kind == Kind.PING:
            return sender, Ping(*_PING.unpack_from(data, _HEAD.size))
        if kind == Kind.TRAIN:
            return sender, Car(*_TRAIN.unpack_from(data, _HEAD.size))
    except (struct.error, ValueError):
        pass
    return None


def parcel(topic: Topic, data: bytes) -> tuple[Part, ...]:
    """Cut into parts."""
    cuts = range(0, max(1, len(data)), PART_BYTES)
    return tuple(Part(topic, place, len(cuts), data[at : at + PART_BYTES]) for place, at in enumerate(cuts))


class Inbox:
    """Puts parcels together again: one of each topic from each sender."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, Topic], dict[int, bytes]] = {}

    def take(self, sender: int, part: Part) -> bytes | None:
        """The whole parcel, once all its parts have come."""
        parts = self._parts.setdefault((sender, part.topic), {})
        if part.place < part.num_parts:
            parts[part.place] = part.data
        if len(parts) < part.num_parts:
            return None
        return b"".join(parts[place] for place in range(part.num_parts) if place in parts)


def pack_report(pairs: list[Pair]) -> bytes:
    """What one host saw of all others, as bytes."""
    return b"".join(_PAIR.pack(*pair) for pair in pairs)


def unpack_report(data: bytes) -> list[Pair]:
    """What ``pack_report`` made.

    Raises:
        struct.error: it is none.
    """
    return [Pair(*row) for row in _PAIR.iter_unpack(data)]
