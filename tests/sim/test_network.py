"""The simulated network: when frames arrive, what rules do to them, and that a seed determines all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import StalledError
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.sim import LinkProfile, SimulatedNetwork
from thinwire.sim.faults import (
    Delay,
    Kill,
    Partition,
    PartitionOneWay,
    Reset,
    Silence,
    random_fault,
)
from thinwire.transport.memory import MemoryTransport


class Endpoint:
    """A transport with a receiver that notes when it heard what, and answers pings if told to."""

    def __init__(self, network: SimulatedNetwork, *, answers: bool = False) -> None:
        self.heard: list[tuple[float, int]] = []
        self.losses: list[tuple[float, str]] = []
        self.transport: MemoryTransport = network.transport()
        self._network = network
        self._answers = answers
        self.transport.start(self)

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        return [memoryview(bytearray(header.length))]

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        self.heard.append((round(self._network.clock.now_s(), 9), header.operation))
        if self._answers and header.kind is Kind.DATA:
            self.transport.links_by_peer[peer].send(Header(Kind.GRANT))

    def on_lost(self, peer: str, reason: str) -> None:
        self.losses.append((self._network.clock.now_s(), reason))

    def send(self, other: Endpoint, operation: int, payload_bytes: int = 0, priority: int = 0) -> None:
        header = Header(Kind.DATA, operation=operation, length=payload_bytes)
        self.transport.link(other.transport.contact).send(
            header, [memoryview(bytes(payload_bytes))], priority=priority
        )


def make(
    num_endpoints: int, profile: LinkProfile | None = None, seed: int = 0
) -> tuple[SimulatedNetwork, list[Endpoint]]:
    network = SimulatedNetwork(np.random.default_rng(seed), profile)
    return network, [Endpoint(network) for _ in range(num_endpoints)]


def drain(network: SimulatedNetwork) -> None:
    while network.clock.step():
        pass


def test_a_frame_takes_its_size_over_the_bandwidth_plus_the_latency() -> None:
    network, (a, b) = make(2, LinkProfile(latency_s=0.5, bandwidth_bytes_per_s=100.0))
    a.send(b, 1, payload_bytes=160)
    a.send(b, 2, payload_bytes=60)
    drain(network)
    assert b.heard == [(2.5, 1), (3.5, 2)]


def test_links_have_their_own_profiles() -> None:
    network, (a, b, c) = make(3, LinkProfile(latency_s=1.0))
    network.shape(0, 2, LinkProfile(latency_s=3.0))
    a.send(b, 1)
    a.send(c, 2)
    drain(network)
    assert (b.heard, c.heard) == ([(1.0, 1)], [(3.0, 2)])


def test_the_urgent_leave_first_and_equals_in_order() -> None:
    network, (a, b) = make(2, LinkProfile(bandwidth_bytes_per_s=float(HEADER_BYTES)))
    for operation, priority in ((1, 0), (2, 0), (3, 5), (4, 5)):
        a.send(b, operation, priority=priority)
    drain(network)
    assert b.heard == [(1.0, 3), (2.0, 4), (3.0, 1), (4.0, 2)]


def test_one_lane_keeps_the_order_and_several_do_not() -> None:
    orders = []
    for lanes in (1, 4):
        network, (a, b) = make(2, LinkProfile(jitter_s=1.0, lanes=lanes))
        for operation in range(50):
            a.send(b, operation)
        drain(network)
        orders.append([operation for _, operation in b.heard])
    assert orders[0] == list(range(50))
    assert sorted(orders[1]) == orders[0] != orders[1]


def test_goodbye_overtakes_nothing() -> None:
    for seed in range(20):
        network, (a, b) = make(2, LinkProfile(jitter_s=1.0, lanes=4), seed)
        for operation in range(1, 20):
            a.send(b, operation)
        a.transport.close()
        drain(network)
        assert len(b.heard) == 20
        assert b.heard[-1][1] == 0
        assert not b.losses


def test_a_killed_endpoint_hears_nothing_and_what_it_had_sent_arrives_before_the_news() -> None:
    network, (a, b) = make(2, LinkProfile(latency_s=1.0))
    guard = network.install(Kill(endpoint=0, event=3))
    for operation in (1, 2, 3):
        a.send(b, operation)
    b.send(a, 9)
    drain(network)
    assert b.heard == [(1.0, 1), (1.0, 2)]
    assert b.losses == [(1.0, "connection reset: its process has ended")]
    assert (a.heard, a.losses) == ([], [])
    guard.remove()


def test_nobody_listens_at_a_dead_endpoint() -> None:
    network, (a, _) = make(2, LinkProfile(latency_s=1.0))
    network.kill(1)
    a.transport.link(network.endpoints[1].contact)
    drain(network)
    assert a.losses == [(1.0, "connection refused: nobody listens there")]


def test_a_silent_endpoint_gets_everything_when_it_resumes() -> None:
    network, (a, b) = make(2)
    network.install(Silence(endpoint=1, event=2))
    for operation in (1, 2, 3):
        a.send(b, operation)
    drain(network)
    b.send(a, 8)
    drain(network)
    assert (b.heard, a.heard, b.losses, a.losses) == ([(0.0, 1)], [], [], [])
    network.clock.call_later(7.0, lambda: network.resume(1))
    drain(network)
    assert b.heard == [(0.0, 1), (7.0, 2), (7.0, 3)]
    assert a.heard == [(7.0, 8)]


def test_stop_and_resume_by_hand() -> None:
    network, (a, b) = make(2)
    network.stop(0)
    a.send(b, 1)
    drain(network)
    assert b.heard == []
    network.resume(0)
    drain(network)
    assert b.heard == [(0.0, 1)]


def test_a_partition_holds_frames_until_it_is_healed() -> None:
    network, (a, b, c) = make(3)
    with network.install(Partition([0], [1])):
        a.send(b, 1)
        b.send(a, 2)
        a.send(c, 3)
        drain(network)
        assert (a.heard, b.heard, c.heard) == ([], [], [(0.0, 3)])
    drain(network)
    assert (a.heard, b.heard) == ([(0.0, 2)], [(0.0, 1)])


def test_a_one_way_partition_lets_the_answers_pass() -> None:
    network, (a, b) = make(2)
    network.install(PartitionOneWay([0], [1]))
    a.send(b, 1)
    b.send(a, 2)
    drain(network)
    assert (a.heard, b.heard) == ([(0.0, 2)], [])


def test_a_death_behind_a_partition_is_not_heard_of() -> None:
    network, (a, b) = make(2)
    a.send(b, 1)
    drain(network)
    guard = network.install(Partition([0], [1]))
    network.kill(0)
    drain(network)
    assert b.losses == []
    guard.remove()
    drain(network)
    assert len(b.losses) == 1


def test_delay_adds_to_the_latency_of_one_link() -> None:
    network, (a, b) = make(2, LinkProfile(latency_s=1.0))
    network.install(Delay(0, 1, 10.0))
    a.send(b, 1)
    b.send(a, 2)
    drain(network)
    assert (a.heard, b.heard) == ([(1.0, 2)], [(11.0, 1)])


def test_the_first_rule_that_objects_has_its_way() -> None:
    network, (a, b) = make(2)
    network.install(Delay(1, 0, 1.0))
    network.install(Delay(0, 1, 2.0))
    network.install(Delay(0, 1, 3.0))
    a.send(b, 1)
    drain(network)
    assert b.heard == [(2.0, 1)]


def test_a_reset_loses_what_is_under_way_and_tells_both() -> None:
    network, (a, b) = make(2, LinkProfile(latency_s=1.0))
    network.install(Reset(source=0, event=2))
    for operation in (1, 2, 3):
        a.send(b, operation)
    drain(network)
    assert b.heard == []
    assert (a.losses, b.losses) == ([(0.0, "connection reset")], [(0.0, "connection reset")])


def test_run_stops_when_it_has_what_it_waits_for() -> None:
    network, (a, b) = make(2, LinkProfile(latency_s=1.0))
    a.send(b, 1)
    a.send(b, 2)
    network.run(until=lambda: bool(b.heard))
    assert b.heard == [(1.0, 1)]


def test_a_run_that_dries_up_is_an_error_that_says_who_waits() -> None:
    network, (a, b) = make(2)
    a.send(b, 1)
    drain(network)
    network.install(Partition([0], [1]))
    network.stop(1)
    a.send(b, 2)
    with pytest.raises(StalledError) as caught:
        network.run(until=lambda: len(b.heard) == 2)
    message = str(caught.value)
    assert "nothing is left to happen" in message
    assert "held frames: 1 from 0 to 1" in message
    assert "stopped endpoints: 1" in message
    assert "from 0 to 1: Header(kind=<Kind.DATA: 3>" in message


def test_a_run_that_takes_too_long_is_an_error() -> None:
    network, _ = make(1)

    def tick() -> None:
        network.clock.call_later(1.0, tick)

    tick()
    with pytest.raises(StalledError, match=r"the time limit of 5.0 s has come"):
        network.run(until=lambda: False, limit_s=5.0)


def ping_all(seed: int, fault_seed: int) -> list[list[tuple[float, int]]]:
    network = SimulatedNetwork(np.random.default_rng(seed), LinkProfile(jitter_s=0.1, lanes=2))
    endpoints = [Endpoint(network, answers=True) for _ in range(4)]
    network.install(random_fault(np.random.default_rng(fault_seed), 4, 12))
    for source in endpoints:
        for target in endpoints:
            if source is not target:
                source.send(target, source.transport.index, payload_bytes=8)
    drain(network)
    return [endpoint.heard for endpoint in endpoints]


@given(seed=st.integers(0, 2**32), fault_seed=st.integers(0, 2**32))
def test_a_seed_determines_the_run(seed: int, fault_seed: int) -> None:
    assert ping_all(seed, fault_seed) == ping_all(seed, fault_seed)


def test_another_seed_is_another_run() -> None:
    assert len({str(ping_all(seed, 0)) for seed in range(10)}) == 10


def test_events_are_counted() -> None:
    network = SimulatedNetwork(np.random.default_rng(0))
    a, b = Endpoint(network), Endpoint(network, answers=True)
    a.send(b, 1)
    drain(network)
    assert (network.num_events(0), network.num_events(1)) == (2, 2)
