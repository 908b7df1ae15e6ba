"""Learning for free: what a job's own traffic and the kernel's connection statistics say about its links.

Told regularly what the transport counts anyway, the learner keeps a ``Forecaster`` of the bandwidth and the round trip
of each peer. Only moments that say something count: a bandwidth where the sender always had something to send.

    learner.observe(peer, link.tcp_infos())  # of a SocketLink, a few times a second

Not here: who asks the transport, and how often (the runtime's).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from thinwire.probe.forecast import Forecast, Forecaster
from thinwire.transport.tcp_info import TcpInfo


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the way to one peer; None where traffic said nothing yet.

    Attributes:
        bandwidth_bytes_per_s, rtt_s: what to expect next.
        retransmitted: the fraction of bytes sent again since the learner began: an upper bound of the loss.
    """

    bandwidth_bytes_per_s: Forecast | None
    rtt_s: Forecast | None
    retransmitted: float | None


class PassiveLearner:
    """Learns about the way to each peer.

    >>> learner = PassiveLearner()
    >>> learner.observe("host1", [])
    False
    >>> learner.learned("host1").rtt_s is None
    True
    """

    def __init__(self) -> None:
        self._ways: dict[str, _Way] = {}

    def observe(self, peer: str, lanes: Sequence[TcpInfo]) -> bool:
        """Take what the kernel says of every connection to a peer, at regular intervals.

        Returns:
            Whether the bandwidth or the round trip has changed for good since the last change.
        """
        return self._ways.setdefault(peer, _Way()).observe(lanes)

    def learned(self, peer: str) -> Learned:
        """What is known of the way to a peer."""
        return self._ways.get(peer, _Way()).learned()


class _Way:
    def __init__(self) -> None:
        self._bandwidth, self._rtt = Forecaster(), Forecaster()
        self._num_bandwidths = self._num_rtts = 0
        self._first: tuple[int, int] | None = None
        self._sent = self._retransmitted = 0

    def observe(self, lanes: Sequence[TcpInfo]) -> bool:
        if not lanes:
            return False
        before = self._sent
        self._sent = sum(lane.bytes_sent for lane in lanes)
        self._retransmitted = sum(lane.bytes_retransmitted for lane in lanes)
        if self._first is None:
            self._first = self._sent, self._retransmitted
        changed = False
        if self._sent > before:  # silence says nothing new
            self._num_rtts += 1
            changed |= self._rtt.observe(min(lane.rtt_s for lane in lanes))
        busy = [lane for lane in lanes if lane.delivery_rate_bytes_per_s and not lane.is_app_limited]
        if self._sent > before and len(busy) == len(lanes):
            self._num_bandwidths += 1
            changed |= self._bandwidth.observe(sum(lane.delivery_rate_bytes_per_s for lane in lanes))
        return changed

    def learned(self) -> Learned:
        sent, retransmitted = self._first or (0, 0)
        since = self._sent - sent
        return Learned(
            bandwidth_bytes_per_s=self._bandwidth.forecast() if self._num_bandwidths else None,
            rtt_s=self._rtt.forecast() if self._num_rtts else None,
            retransmitted=(self._retransmitted - retransmitted) / since if since > 0 else None,
        )
