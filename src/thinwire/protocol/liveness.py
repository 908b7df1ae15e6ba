"""Who is still there: heartbeats, and peers that have fallen silent. Sans-IO: it is told the time and what happened.

Every peer should hear from us at least once an ``interval_s``, so that one that hears nothing for ``limit_s`` knows
that we are gone, or that nothing gets through. Any word counts, not only heartbeats.

If we ourselves were stopped or starved, our own ``poll`` comes late, and everybody seems silent. The time by which it
was late is not held against the peers: their words may be waiting in the sockets.

Not here: sending, sleeping, and what it means to lose a peer. Calls may come from several threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

INTERVALS_PER_LIMIT = 4  # so three heartbeats in a row must be late before a live peer is given up


class Due(NamedTuple):
    """What ``Liveness.poll`` asks for.

    Attributes:
        heartbeats: peers to send a heartbeat to now.
        silent: peers given up, with the seconds for which they said nothing. They are no longer watched.
        wake_s: when to poll again; infinity if nobody is watched.
    """

    heartbeats: list[str]
    silent: list[tuple[str, float]]
    wake_s: float


class Liveness:
    """Watches peers.

    Args:
        limit_s: silence after which a peer is given up.

    >>> liveness = Liveness(limit_s=10.0)
    >>> liveness.watch("b", now_s=0.0)
    >>> liveness.poll(now_s=2.5)
    Due(heartbeats=['b'], silent=[], wake_s=5.0)
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.interval_s = limit_s / INTERVALS_PER_LIMIT
        self._peers: dict[str, _Peer] = {}
        self._wake_s = math.inf

    def watch(self, peer: str, now_s: float) -> None:
        """Begin to watch a peer, as if both sides had just spoken."""
        self._peers[peer] = _Peer(now_s)

    def forget(self, peer: str) -> None:
        """Watch a peer no longer; one that is not watched is fine."""
        self._peers.pop(peer, None)

    def on_received(self, peer: str, when_s: float) -> None:
        """Something came from the peer at ``when_s``."""
        if (state := self._peers.get(peer)) is not None:
            state.received_s = max(state.received_s, when_s)

    def on_sent(self, peer: str, when_s: float) -> None:
        """Something was sent to the peer at ``when_s``."""
        if (state := self._peers.get(peer)) is not None:
            state.sent_s = max(state.sent_s, when_s)

    def poll(self, now_s: float) -> Due:
        """What is due. Call it when the last answer's ``wake_s`` has come, and after ``watch``."""
        late_s = now_s - self._wake_s
        heartbeats: list[str] = []
        silent: list[tuple[str, float]] = []
        wake_s = math.inf
        for peer, state in list(self._peers.items()):
            if late_s > self.interval_s:
                state.received_s = min(now_s, state.received_s + late_s)
            if now_s >= state.received_s + self.limit_s:
                silent.append((peer, now_s - state.received_s))
                self.forget(peer)
                continue
            if now_s >= state.sent_s + self.interval_s:
                heartbeats.append(peer)
                state.sent_s = now_s
            wake_s = min(wake_s, state.sent_s + self.interval_s, state.received_s + self.limit_s)
        self._wake_s = wake_s
        return Due(heartbeats, silent, wake_s)


class _Peer:
    """When a peer last spoke to us, and we to it."""

    __slots__ = ("received_s", "sent_s")

    def __init__(self, now_s: float) -> None:
        self.received_s = now_s
        self.sent_s = now_s
