"""A rank that leaves after its last collective takes nothing away from those that are still busy with it."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.runtime.flight import Flight
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster


def test_a_rank_may_leave_while_another_is_just_beginning_the_same_barrier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 1's part came early, and rank 1 is gone before rank 0 has looked at it."""
    cluster = SimulatedCluster(2, np.random.default_rng(0), LinkProfile(latency_s=0.001))
    first, second = cluster.group([0, 1])
    early = second.barrier()
    cluster.network.run(until=lambda: cluster.network.num_events(0) > 0)
    assert not early.done()
    start = Flight.start

    def start_and_be_overtaken(flight: Flight) -> None:
        start(flight)
        cluster.run([early])
        so_far = cluster.network.num_events(0)
        cluster.endpoints[1].close()
        cluster.network.run(until=lambda: cluster.network.num_events(0) > so_far)

    monkeypatch.setattr(Flight, "start", start_and_be_overtaken)
    late = first.barrier()
    late.wait()
