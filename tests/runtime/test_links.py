"""What a running group learns of its links, in virtual time and over real sockets."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.runtime.communicator import Communicator
from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.link_watch import LinkWatch
from thinwire.runtime.reduction import DTYPES, ReduceOp
from thinwire.sim.cluster import SimulatedCluster
from thinwire.sim.network import LinkProfile

FLOAT32 = DTYPES["float32"]


def train(cluster: SimulatedCluster, members: list[Communicator], until_s: float) -> None:
    """All-reduce 1 MiB again and again until the clock shows that time."""
    arrays = [np.zeros(1 << 18, np.float32) for _ in members]
    while cluster.network.clock.now_s() < until_s:
        cluster.run(
            [
                member.all_reduce(array, ReduceOp.SUM, FLOAT32)
                for member, array in zip(members, arrays, strict=True)
            ]
        )


def test_a_group_learns_the_bandwidth_and_the_round_trip_of_each_link_and_when_they_change() -> None:
    cluster = SimulatedCluster(
        3, np.random.default_rng(0), LinkProfile(latency_s=0.002, bandwidth_bytes_per_s=1e7)
    )
    cluster.network.shape(0, 2, LinkProfile(latency_s=0.002, bandwidth_bytes_per_s=4e6))
    members = cluster.group(range(3))
    cluster.watch()
    train(cluster, members, 30.0)
    for rank, peers in enumerate((members[0].links(), members[1].links(), members[2].links())):
        for peer, found in peers.items():
            assert found.incoming_bytes_per_s is not None
            truth = 4e6 if (peer, rank) == (0, 2) else 1e7
            assert found.incoming_bytes_per_s.value == pytest.approx(truth, rel=0.01)
            assert found.rtt_s is not None
            assert found.rtt_s.value == pytest.approx(0.004)
            assert found.num_changes == 0
    for wire in cluster.network.carrier._wires.values():
        wire.profile = LinkProfile(latency_s=0.002, bandwidth_bytes_per_s=2e6)
    train(cluster, members, 60.0)
    found = members[0].links()[1]
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(2e6, rel=0.01)
    assert found.num_changes == 1


def test_a_link_that_is_gone_is_forgotten_and_without_links_there_is_nothing_to_look_at() -> None:
    watch = LinkWatch()
    assert watch.poll(0.0, {}) == float("inf")
    cluster = SimulatedCluster(2, np.random.default_rng(0), config=RuntimeConfig())
    members = cluster.group(range(2))
    cluster.run([member.all_reduce(np.zeros(4, np.float32), ReduceOp.SUM, FLOAT32) for member in members])
    cluster.endpoints[0].poll(1.0)
    assert list(members[0].links()) == [1]
    cluster.endpoints[1].close()
    cluster.network.run(until=lambda: not cluster.endpoints[0].links(), limit_s=60)
