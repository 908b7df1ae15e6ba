"""A network in virtual time: the memory transport, carried by a clock instead of threads.

Everything runs in the thread that calls ``run``, in an order determined by the inputs and the generator: same seed,
same run. How frames travel is in ``carrier``, what can befall them in ``faults``.

Not here: the time that computing takes (it takes none), and endpoints' timers, which are whatever their owners put on
``clock``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from thinwire.errors import StalledError
from thinwire.sim.carrier import LinkProfile, VirtualCarrier
from thinwire.sim.clock import VirtualClock
from thinwire.sim.faults import Rule
from thinwire.transport.memory import MemoryNetwork

__all__ = ["Guard", "LinkProfile", "SimulatedNetwork"]


class SimulatedNetwork(MemoryNetwork):
    """Endpoints that meet in virtual time.

    Args:
        rng: for jitter and the choice of lanes.
        profile: of every link that ``shape`` does not say otherwise of.

    >>> network = SimulatedNetwork(np.random.default_rng(0), LinkProfile(latency_s=0.010))
    >>> network.run(until=lambda: True)
    """

    clock: VirtualClock
    carrier: VirtualCarrier

    def __init__(self, rng: np.random.Generator, profile: LinkProfile | None = None) -> None:
        clock = VirtualClock()
        super().__init__(VirtualCarrier(self, clock, rng, profile or LinkProfile()), clock)

    def shape(self, source: int, target: int, profile: LinkProfile) -> None:
        """Give the link from ``source`` to ``target`` its own profile, before it is first used."""
        self.carrier.profiles[source, target] = profile

    def install(self, rule: Rule) -> Guard:
        """Let ``rule`` judge from now on."""
        self.carrier.rules.append(rule)
        return Guard(self.carrier, rule)

    def num_events(self, endpoint: int) -> int:
        """How many frames the endpoint has sent and received."""
        return self.carrier.num_events[endpoint]

    def stop(self, endpoint: int) -> None:
        """Stop an endpoint's process: it sends nothing, and what arrives waits."""
        self.carrier.stopped.setdefault(endpoint, [])

    def is_stopped(self, endpoint: int) -> bool:
        """Whether the endpoint's process stands still, by ``stop`` or by a rule."""
        return endpoint in self.carrier.stopped

    def resume(self, endpoint: int) -> None:
        """Let a stopped endpoint go on, with what has arrived meanwhile."""
        self.carrier.resume(endpoint)

    def run(self, until: Callable[[], bool], limit_s: float = math.inf) -> None:
        """Let time pass until ``until()`` holds.

        Raises:
            StalledError: nothing is left to happen, or the virtual time ``limit_s`` has come, before.
        """
        while not until():
            next_s = self.clock.next_s()
            if next_s is None or next_s > limit_s:
                raise StalledError(self.carrier.describe_stall(limit_s if next_s is not None else None))
            self.clock.step()


class Guard:
    """The presence of a rule in a network: it goes with ``remove``, or at the end of a ``with`` block."""

    def __init__(self, carrier: VirtualCarrier, rule: Rule) -> None:
        self._carrier = carrier
        self._rule = rule

    def remove(self) -> None:
        """Take the rule away: frames that are held are judged again."""
        self._carrier.remove(self._rule)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
