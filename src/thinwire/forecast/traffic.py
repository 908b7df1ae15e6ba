"""Learning for free: what a job's own traffic says about the link to a peer, in both directions.

Only moments that say something count. What arrives is timed from the first byte of a frame on, so that a sender with
nothing to send says nothing. What leaves is judged by the kernel's counters: between two moments in which something
waited to be sent, and was all the time, it is the network's limit, and a lower bound elsewhere. The bandwidth is that
of the link in the company it has: where a host sends to three peers at once, each gets a third of its wire (``wire``
has the sum).

Not here: counting (``Link.traffic`` of a transport), and how often to ask (the runtime's).
"""

from __future__ import annotations

import msgspec

from thinwire.forecast.forecaster import Forecast, Forecaster
from thinwire.forecast.rate import Rate

LEAST_S, LEAST_BYTES = 0.02, 64 << 10  # that a bandwidth is concluded from
STALE_S = 5.0  # over which they are gathered at most
BUSY = 0.9  # of the time: what counts as all of it
_HELD_WEIGHT = 0.1  # of the newest interval


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a link has counted since it was made.

    Attributes:
        timed_bytes, receiving_s: what arrived while frames were coming in, and how long they were.
        all_receiving_s: how long frames were coming in from any peer; None where nobody knows.
        delivered_bytes, sending_s: what the peer's kernel has acknowledged, and how long something was waiting to be.
        hindered_s: how much of that a buffer was the reason: nobody read at the peer, or the own one was too small.
        sent_bytes, retransmitted_bytes: what the kernel has sent, and what of that again.
        unacknowledged_s: how long something that the kernel had was not yet acknowledged, though the peer did read.
        pace_bytes_per_s: at which the kernel saw the last bytes delivered, if it had more to send meanwhile; else None.
        unsent_bytes: what waits in the kernel now and has not been sent once; None where nobody knows.
        rtt_s, rtt_min_s: the round trip of late, and the least of it; None where nobody knows.
    """

    timed_bytes: int = 0
    receiving_s: float = 0.0
    all_receiving_s: float | None = None
    delivered_bytes: int = 0
    sending_s: float = 0.0
    hindered_s: float = 0.0
    sent_bytes: int = 0
    retransmitted_bytes: int = 0
    unacknowledged_s: float = 0.0
    pace_bytes_per_s: float | None = None
    unsent_bytes: int | None = None
    rtt_s: float | None = None
    rtt_min_s: float | None = None


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What left on one link between two moments.

    Attributes:
        num_bytes: delivered. busy_s: how long something was waiting to be. hindered_s: see ``Traffic``.
        interval_s: between the moments.
        num_waiting: at how many of the two moments something waited that had not been sent once.
    """

    num_bytes: int
    busy_s: float
    hindered_s: float
    interval_s: float
    num_waiting: int

    @classmethod
    def between(cls, interval_s: float, before: Traffic, now: Traffic) -> Sending:
        return cls(
            num_bytes=now.delivered_bytes - before.delivered_bytes,
            busy_s=min(max(0.0, now.sending_s - before.sending_s), interval_s),
            hindered_s=now.hindered_s - before.hindered_s,
            interval_s=interval_s,
            num_waiting=bool(before.unsent_bytes) + bool(now.unsent_bytes),
        )

    @property
    def is_held(self) -> bool:
        """The network was the limit, as far as one can tell, all the time."""
        return self.num_waiting == 2 and self.busy_s - self.hindered_s >= BUSY * self.interval_s

    @property
    def held_share(self) -> float:
        """For how much of the time the network was the limit. Waiting for a last acknowledgement is nobody's limit."""
        return max(0.0, self.busy_s - self.hindered_s) / self.interval_s if self.num_waiting else 0.0


class LinkEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What to expect of the link to one peer; None where traffic said nothing yet.

    Attributes:
        outgoing_bytes_per_s, incoming_bytes_per_s: bandwidths. What comes in is timed well also between pauses, but
            only a sender can know whether it could have sent more.
        outgoing_is_limit: the network held back what ``outgoing_bytes_per_s`` was last learnt from; otherwise the link
            carries at least that.
        held_share: for how much of the last seconds the network held back what was waiting to be sent: about 1 where
            the wire is what the job waits for, about 0 where it waits for something else.
        rtt_s: the round trip, with the queues that the traffic makes. rtt_min_s: the least of late, nearly without.
        retransmitted: the fraction of bytes that had to be sent again: about the loss, where there is any.
        num_changes: how often a bandwidth has become another one for good: compare with what it was when you looked.
        changed_s: when it last did, on the clock that the learner is told; None: never.
    """

    outgoing_bytes_per_s: Forecast | None = None
    incoming_bytes_per_s: Forecast | None = None
    outgoing_is_limit: bool = False
    held_share: float | None = None
    rtt_s: Forecast | None = None
    rtt_min_s: float | None = None
    retransmitted: float | None = None
    num_changes: int = 0
    changed_s: float | None = None


class LinkLearner:
    """Learns about the link to one peer. Tell it at regular intervals, a quarter of a second apart or so.

    Attributes:
        sending: what left between the last two moments; None before there were two.

    >>> learner = LinkLearner()
    >>> for second in range(4):
    ...     learner.observe(second, Traffic(timed_bytes=second * 10**6, receiving_s=second * 0.1, rtt_s=0.02))
    >>> estimate = learner.estimate()
    >>> round(estimate.incoming_bytes_per_s.value), estimate.outgoing_bytes_per_s
    (10000000, None)
    """

    def __init__(self) -> None:
        self.sending: Sending | None = None
        self._incoming, self._outgoing, self._rtt = Incoming(), Rate(), Forecaster()
        self._before: tuple[float, Traffic] | None = None
        self._held_share: float | None = None
        self._num_changes = 0
        self._changed_s: float | None = None
        self._traffic = Traffic()

    def observe(self, now_s: float, traffic: Traffic) -> None:
        """Take what was counted until now."""
        before, self._before, self._traffic = self._before, (now_s, traffic), traffic
        has_changed = self._incoming.observe(now_s, traffic.timed_bytes, traffic.receiving_s)
        if before is None:
            return
        sending = self.sending = Sending.between(now_s - before[0], before[1], traffic)
        has_changed |= observe_sending(self._outgoing, now_s, sending)
        if has_changed:
            self._num_changes += 1
            self._changed_s = now_s
        if traffic.unsent_bytes is not None:
            self._held_share = smoothed(self._held_share, sending.held_share)
        moved = traffic.sent_bytes > before[1].sent_bytes or traffic.timed_bytes > before[1].timed_bytes
        if moved and traffic.rtt_s:  # silence says nothing new
            self._rtt.observe(traffic.rtt_s)

    def estimate(self) -> LinkEstimate:
        """What is known by now."""
        sent = self._traffic.sent_bytes
        return LinkEstimate(
            outgoing_bytes_per_s=self._outgoing.forecast(),
            incoming_bytes_per_s=self._incoming.forecast(),
            outgoing_is_limit=self._outgoing.is_limit,
            held_share=self._held_share,
            rtt_s=self._rtt.forecast() if self._rtt.num_observed else None,
            rtt_min_s=self._traffic.rtt_min_s,
            retransmitted=self._traffic.retransmitted_bytes / sent if sent else None,
            num_changes=self._num_changes,
            changed_s=self._changed_s,
        )


class Incoming:
    """Learns a bandwidth from what arrives while something does."""

    def __init__(self) -> None:
        self._forecaster = Forecaster()
        self._since: tuple[float, int, float] | None = None  # what is concluded next is concluded since then

    def observe(self, now_s: float, num_bytes: int, receiving_s: float) -> bool:
        """Take what was counted until now. Says whether the level has changed."""
        if self._since is None:
            self._since = now_s, num_bytes, receiving_s
            return False
        since_s, bytes_before, receiving_before_s = self._since
        came, took_s = num_bytes - bytes_before, receiving_s - receiving_before_s
        is_enough = came >= LEAST_BYTES and took_s >= LEAST_S
        if is_enough or now_s - since_s > STALE_S:
            self._since = now_s, num_bytes, receiving_s
        return is_enough and self._forecaster.observe(came / took_s)

    def forecast(self) -> Forecast | None:
        """What to expect next; None if nothing is known."""
        return self._forecaster.forecast() if self._forecaster.num_observed else None


def observe_sending(rate: Rate, now_s: float, sending: Sending) -> bool:
    """Tell ``rate`` what was sent, if that says something. Says whether the level has changed."""
    if sending.num_bytes < LEAST_BYTES or sending.busy_s < LEAST_S:
        return False
    took_s = sending.interval_s if sending.is_held else sending.busy_s
    return rate.observe(now_s, sending.num_bytes / took_s, is_limit=sending.is_held)


def smoothed(before: float | None, value: float) -> float:
    """An exponential average of the last seconds."""
    return value if before is None else before + _HELD_WEIGHT * (value - before)
