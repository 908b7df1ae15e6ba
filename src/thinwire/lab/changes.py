"""Makes the changes of a timeline, on the parts that a running lab is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thinwire.lab.build import Fabric
from thinwire.lab.scenario import Scenario
from thinwire.lab.timeline import Change, pairs_cut, timeline

if TYPE_CHECKING:
    from thinwire.lab.relay import Relay


class Changes:
    """The changes of a lab that is up.

    Args:
        relay: None if the network has no delays and losses; then nothing changes them.
    """

    def __init__(self, scenario: Scenario, fabric: Fabric, relay: Relay | None) -> None:
        self._scenario = scenario
        self._fabric = fabric
        self._relay = relay
        self._coming = timeline(scenario, fabric.network)
        self._next = next(self._coming, None)
        self._cuts: set[int] = set()
        self._unreachable: set[tuple[int, int]] = set()

    def make_until(self, now_s: float) -> float | None:
        """Make every change that is due ``now_s`` seconds after the lab came up.

        Returns:
            When the next one is due; None if there is none.
        """
        while self._next is not None and self._next.at_s <= now_s:
            self._make(self._next)
            self._next = next(self._coming, None)
        return None if self._next is None else self._next.at_s

    def _make(self, change: Change) -> None:
        if change.what == "cut":
            self._cuts.symmetric_difference_update([change.number])
            unreachable = {
                pair
                for cut in self._cuts
                for pair in pairs_cut(self._scenario.cut[cut], self._fabric.network)
            }
            self._fabric.set_reachable(unreachable - self._unreachable, False)
            self._fabric.set_reachable(self._unreachable - unreachable, True)
            self._unreachable = unreachable
        elif change.what == "rate_bytes_per_s":
            self._fabric.set_rate(change.number, change.value)
        elif self._relay is not None:
            self._relay.set(change.number, change.what, change.value)
