"""Learns what a job's links carry while it runs: asks each link four times a second what it has counted.

Not here: counting (``transport``), and concluding (``forecast``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from thinwire.forecast import LinkEstimate, LinkLearner, WireEstimate, WireLearner
from thinwire.runtime.runs import Pace
from thinwire.transport.base import Link

INTERVAL_S = 0.25
UNKNOWN = Pace()


class LinkWatch:
    """Keeps a learner for each peer, and one for all of them together. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._learners: dict[str, LinkLearner] = {}
        self._paces: dict[str, Pace] = {}
        self._wire = WireLearner()
        self._due_s = float("-inf")

    def poll(self, now_s: float, links: Mapping[str, Link]) -> float:
        """Look at every link, if it is time. Returns when it is time again."""
        if not links:
            return float("inf")
        if now_s >= self._due_s:
            self._due_s = now_s + INTERVAL_S
            traffics = {peer: link.traffic() for peer, link in list(links.items())}
            with self._lock:
                for peer, traffic in traffics.items():
                    learner = self._learners.setdefault(peer, LinkLearner())
                    learner.observe(now_s, traffic)
                    self._paces[peer] = _pace(learner.estimate())
                sendings = {
                    peer: sending
                    for peer in traffics
                    if (sending := self._learners[peer].sending) is not None
                }
                self._wire.observe(now_s, traffics, sendings)
        return self._due_s

    def forget(self, peer: str) -> None:
        """The link is gone."""
        with self._lock:
            self._learners.pop(peer, None)
            self._paces.pop(peer, None)

    def estimates(self) -> dict[str, LinkEstimate]:
        """What is known of each link."""
        with self._lock:
            return {peer: learner.estimate() for peer, learner in self._learners.items()}

    def pace(self, peer: str) -> Pace:
        """How fast the link to a peer was at the last look. Asked for each frame."""
        return self._paces.get(peer, UNKNOWN)

    def wire(self) -> WireEstimate:
        """What is known of all links together."""
        with self._lock:
            return self._wire.estimate()


def _pace(estimate: LinkEstimate) -> Pace:
    outgoing, held_share = estimate.outgoing_bytes_per_s, estimate.held_share
    if outgoing is None:
        return UNKNOWN
    return Pace(outgoing.value, 1.0 if held_share is None else held_share)
