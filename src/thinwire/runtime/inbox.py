"""What came too early, and the allowances that bound it.

A rank may send small messages before the receiver has started the operation. What it may have outstanding is bounded:
each endpoint starts with an allowance of ``ALLOWANCE_BYTES`` at each peer, spends it on eager frames, and gets it
back by CREDIT frames as they are consumed. So nobody can be made to hold more than ``ALLOWANCE_BYTES`` for a peer,
and a peer that sends more breaks the protocol.

Not here: large transfers, which wait for a GRANT and need no allowance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from thinwire.errors import ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.runtime.flight import Key

ALLOWANCE_BYTES = 256 << 10


def eager_cost(num_bytes: int, num_frames: int = 1) -> int:
    """What eager frames take of the allowance: their payload, and something for being there at all."""
    return num_bytes + num_frames * HEADER_BYTES


class Early(NamedTuple):
    """A frame that came before its operation was started here, and its payload."""

    peer: str
    header: Header
    payload: list[memoryview]


class Allowances:
    """The sender's side: how much may still be sent eagerly to each peer. Thread-safe."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, peer: str, amount: int) -> bool:
        with self._lock:
            left = self._left.get(peer, ALLOWANCE_BYTES)
            if amount > left:
                return False
            self._left[peer] = left - amount
            return True

    def left(self, peer: str) -> int:
        """What may be sent to the peer now."""
        with self._lock:
            return self._left.get(peer, ALLOWANCE_BYTES)

    def restore(self, peer: str, amount: int) -> None:
        """A CREDIT frame came. Raises ProtocolError if it gives back more than was spent."""
        with self._lock:
            left = self._left.get(peer, ALLOWANCE_BYTES) + amount
            if left > ALLOWANCE_BYTES:
                raise ProtocolError(f"credit of {amount} bytes for more than was ever sent")
            self._left[peer] = left


class Credits:
    """The receiver's side: counts what was consumed and tells the sender now and then. Thread-safe."""

    def __init__(self, send_credit: Callable[[str, int], None]) -> None:
        self._send_credit = send_credit
        self._owed: dict[str, int] = {}
        self._lock = threading.Lock()

    def consumed(self, peer: str, amount: int) -> None:
        with self._lock:
            owed = self._owed.get(peer, 0) + amount
            tell = owed >= ALLOWANCE_BYTES // 2
            self._owed[peer] = 0 if tell else owed
        if tell:
            self._send_credit(peer, owed)


class Inbox:
    """Frames of operations that have not been started here. The caller holds its own lock."""

    def __init__(self) -> None:
        self._early: dict[Key, list[Early]] = {}
        self._held_bytes: dict[str, int] = {}

    def check_room(self, peer: str, num_bytes: int) -> None:
        """Raises ProtocolError if ``peer`` sends more ahead than it was ever allowed to."""
        if self._held_bytes.get(peer, 0) + num_bytes > ALLOWANCE_BYTES:
            raise ProtocolError(
                f"more than {ALLOWANCE_BYTES} bytes sent ahead of the operations they belong to"
            )

    def put(self, key: Key, early: Early) -> None:
        self._early.setdefault(key, []).append(early)
        self._held_bytes[early.peer] = self._held_bytes.get(early.peer, 0) + early.header.length

    def take(self, key: Key) -> list[Early]:
        """Everything that came for this tile, in order of arrival."""
        found = self._early.pop(key, [])
        for early in found:
            self._held_bytes[early.peer] -= early.header.length
        return found

    def take_group(self, group: int) -> list[Early]:
        """Everything for a group that is gone."""
        keys = [key for key in self._early if key[0] == group]
        return [early for key in keys for early in self.take(key)]

    def has_arrived(self, group: int, operation: int) -> bool:
        """Whether the sender of a point-to-point operation has made itself known."""
        early = self._early.get((group, operation, 0), ())
        return any(item.header.kind in (Kind.DATA, Kind.ANNOUNCE) for item in early)
