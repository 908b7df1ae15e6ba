"""Learning for free: what a job's own traffic says about the link to a peer, in both directions.

Only moments that say something count. What arrives is timed from the first byte of a frame on, so that a sender with
nothing to send says nothing; what leaves counts where the kernel was never without something to send. The bandwidth is
that of the link in the company it has: where a host sends to three peers at once, each gets a third of its wire.

Not here: counting (``Link.traffic`` of a transport), and how often to ask (the runtime's).
"""

from __future__ import annotations

import msgspec

from thinwire.forecast.forecaster import Forecast, Forecaster

_LEAST_S, _LEAST_BYTES = 0.02, 64 << 10  # that a bandwidth is concluded from
_STALE_S = 5.0  # over which they are gathered at most
_BUSY = 0.9  # of the time: what counts as all of it


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a link has counted since it was made.

    Attributes:
        timed_bytes, receiving_s: what arrived while frames were coming in, and how long they were.
        delivered_bytes, sending_s: what the peer's kernel has acknowledged, and how long something was waiting to be.
        sent_bytes, retransmitted_bytes: what the kernel has sent, and what of that again.
        unacknowledged_s: how long something that the kernel had was not yet acknowledged, though the peer did read.
        pace_bytes_per_s: at which the kernel saw the last bytes delivered, if it had more to send meanwhile; else None.
        rtt_s: the round trip of late; None where nobody knows.
    """

    timed_bytes: int = 0
    receiving_s: float = 0.0
    delivered_bytes: int = 0
    sending_s: float = 0.0
    sent_bytes: int = 0
    retransmitted_bytes: int = 0
    unacknowledged_s: float = 0.0
    pace_bytes_per_s: float | None = None
    rtt_s: float | None = None


class LinkEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What to expect of the link to one peer; None where traffic said nothing yet.

    Attributes:
        outgoing_bytes_per_s, incoming_bytes_per_s: bandwidths. Traffic of a job is usually timed best where it
            arrives: what one rank does not know of its outgoing links, their other ends know of their incoming ones.
        rtt_s: the round trip, with the queues that the traffic makes.
        retransmitted: the fraction of bytes that had to be sent again: about the loss, where there is any.
        num_changes: how often a bandwidth has become another one for good: compare with what it was when you looked.
        changed_s: when it last did, on the clock that the learner is told; None: never.
    """

    outgoing_bytes_per_s: Forecast | None = None
    incoming_bytes_per_s: Forecast | None = None
    rtt_s: Forecast | None = None
    retransmitted: float | None = None
    num_changes: int = 0
    changed_s: float | None = None


class LinkLearner:
    """Learns about the link to one peer. Tell it at regular intervals, half a second apart or so.

    >>> learner = LinkLearner()
    >>> for second in range(4):
    ...     learner.observe(second, Traffic(timed_bytes=second * 10**6, receiving_s=second * 0.1, rtt_s=0.02))
    >>> estimate = learner.estimate()
    >>> round(estimate.incoming_bytes_per_s.value), estimate.outgoing_bytes_per_s
    (10000000, None)
    """

    def __init__(self) -> None:
        self._incoming, self._outgoing, self._rtt = Forecaster(), Forecaster(), Forecaster()
        # What is concluded next is concluded since then.
        self._gathered_from: tuple[float, Traffic] | None = None
        self._before: tuple[float, Traffic] | None = None
        self._num_changes = 0
        self._changed_s: float | None = None
        self._traffic = Traffic()

    def observe(self, now_s: float, traffic: Traffic) -> None:
        """Take what was counted until now."""
        if self._before is None or self._gathered_from is None:
            self._before = self._gathered_from = now_s, traffic
            self._traffic = traffic
            return
        before_s, before = self._before
        self._before = now_s, traffic
        self._traffic = traffic
        has_changed = self._observe_incoming(now_s, traffic)
        has_changed |= self._observe_outgoing(now_s - before_s, before, traffic)
        if has_changed:
            self._num_changes += 1
            self._changed_s = now_s
        moved = traffic.sent_bytes > before.sent_bytes or traffic.timed_bytes > before.timed_bytes
        if moved and traffic.rtt_s:  # silence says nothing new
            self._rtt.observe(traffic.rtt_s)

    def estimate(self) -> LinkEstimate:
        """What is known by now."""
        sent = self._traffic.sent_bytes
        return LinkEstimate(
            outgoing_bytes_per_s=_forecast(self._outgoing),
            incoming_bytes_per_s=_forecast(self._incoming),
            rtt_s=_forecast(self._rtt),
            retransmitted=self._traffic.retransmitted_bytes / sent if sent else None,
            num_changes=self._num_changes,
            changed_s=self._changed_s,
        )

    def _observe_incoming(self, now_s: float, traffic: Traffic) -> bool:
        assert self._gathered_from is not None
        since_s, since = self._gathered_from
        num_bytes, took_s = traffic.timed_bytes - since.timed_bytes, traffic.receiving_s - since.receiving_s
        is_enough = num_bytes >= _LEAST_BYTES and took_s >= _LEAST_S
        if is_enough or now_s - since_s > _STALE_S:
            self._gathered_from = now_s, traffic
        return is_enough and self._incoming.observe(num_bytes / took_s)

    def _observe_outgoing(self, interval_s: float, before: Traffic, traffic: Traffic) -> bool:
        num_bytes = traffic.delivered_bytes - before.delivered_bytes
        if num_bytes < _LEAST_BYTES or traffic.sending_s - before.sending_s < _BUSY * interval_s:
            return False
        return self._outgoing.observe(num_bytes / interval_s)


def _forecast(forecaster: Forecaster) -> Forecast | None:
    return forecaster.forecast() if forecaster.num_observed else None
