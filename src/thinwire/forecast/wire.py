"""What a host's own wire carries: the traffic of all its links together.

A link that runs beside two others gets a third of the wire they leave by, so that what a link reaches tells little of
the wire; the sum does. It is the network's limit where all links that carry much were held back at once; if only some
were, the wires of their peers may have been the reason.

Not here: single links (``traffic``). Other processes of the same host, which share its wire, are not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from thinwire.forecast.forecaster import Forecast
from thinwire.forecast.rate import Rate
from thinwire.forecast.traffic import BUSY, Incoming, Sending, Traffic, observe_sending, smoothed

_BEST_OF = 3
_MUCH = 4  # times less than the busiest link carries a link that counts, at least


class WireEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What to expect of a host's wire, all peers together; None where traffic said nothing yet.

    Attributes:
        outgoing_bytes_per_s, incoming_bytes_per_s: what left, or came, for all peers at one time.
        outgoing_is_limit: the network held back what ``outgoing_bytes_per_s`` was last learnt from; otherwise it
            carries at least that. What comes in is always only a lower bound: the senders' wires may be slower.
        held_share: for how much of the last seconds the network held something back: about 1 where the job waits for
            the network, about 0 where it waits for something else.
    """

    outgoing_bytes_per_s: Forecast | None = None
    incoming_bytes_per_s: Forecast | None = None
    outgoing_is_limit: bool = False
    held_share: float | None = None


class WireLearner:
    """Learns about the wire that all links of a host share. Tell it at regular intervals.

    >>> learner = WireLearner()
    >>> for second in range(4):
    ...     sent = Sending(num_bytes=10**6, busy_s=1.0, hindered_s=0.0, interval_s=1.0, num_waiting=2)
    ...     learner.observe(second, {"one": Traffic(), "other": Traffic()}, {"one": sent, "other": sent})
    >>> estimate = learner.estimate()
    >>> round(estimate.outgoing_bytes_per_s.value), estimate.outgoing_is_limit
    (2000000, True)
    """

    def __init__(self) -> None:
        self._outgoing, self._incoming = Rate(_BEST_OF), Incoming()
        self._held_share: float | None = None

    def observe(self, now_s: float, traffics: Mapping[str, Traffic], sendings: Mapping[str, Sending]) -> None:
        """Take what was counted on each link until now, and what left on it since the last time."""
        all_receiving_s = max((each.all_receiving_s or 0.0 for each in traffics.values()), default=0.0)
        self._incoming.observe(
            now_s, sum(traffic.timed_bytes for traffic in traffics.values()), all_receiving_s
        )
        if sendings:
            most = max(traffic.delivered_bytes for traffic in traffics.values())
            much = {peer for peer, traffic in traffics.items() if _MUCH * traffic.delivered_bytes >= most}
            all_held = all(sending.is_held for peer, sending in sendings.items() if peer in much)
            observe_sending(self._outgoing, now_s, _together(list(sendings.values()), all_held=all_held))
            if any(traffic.unsent_bytes is not None for traffic in traffics.values()):
                self._held_share = smoothed(
                    self._held_share, max(sending.held_share for sending in sendings.values())
                )

    def estimate(self) -> WireEstimate:
        """What is known by now."""
        return WireEstimate(
            outgoing_bytes_per_s=self._outgoing.forecast(),
            incoming_bytes_per_s=self._incoming.forecast(),
            outgoing_is_limit=self._outgoing.is_limit,
            held_share=self._held_share,
        )


def _together(sendings: Sequence[Sending], *, all_held: bool) -> Sending:
    """All links as one. When links were busy is not known, only how long: if none was all the time, then perhaps one
    after the other."""
    interval_s = sendings[0].interval_s
    longest_s = max(sending.busy_s for sending in sendings)
    is_always = longest_s >= BUSY * interval_s
    return Sending(
        num_bytes=sum(sending.num_bytes for sending in sendings),
        busy_s=longest_s if is_always else min(interval_s, sum(sending.busy_s for sending in sendings)),
        hindered_s=0.0,
        interval_s=interval_s,
        num_waiting=2 if all_held else 0,
    )
