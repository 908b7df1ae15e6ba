"""Campaigns against computed networks: what is measured is what the scenario says, and what stands out is named."""

from __future__ import annotations

import pytest

from tests.probe.fluid import FluidNetwork
from thinwire.errors import UsageError
from thinwire.lab import library
from thinwire.lab.scenario import Access, Between, HostAccess, Scenario, Site, Wire
from thinwire.probe.campaign import full_form
from thinwire.topology import Topology

MBIT = 1e6 / 8


def probe(network: FluidNetwork, **options: float) -> Topology:
    return network.run(full_form(network.cards(), now=lambda: "now", **options))


def two_islands(num_hosts: int, pipe_mbit: float = 100) -> Scenario:
    names = [f"host{number}" for number in range(num_hosts)]
    half = num_hosts // 2
    return Scenario(
        summary="",
        hosts=num_hosts,
        access=Access(rate_mbit=1000),
        site=[Site(name="east", hosts=names[:half]), Site(name="west", hosts=names[half:])],
        pipe=[Between(between=["east", "west"], rate_mbit=pipe_mbit, delay_ms=1)],
    )


@pytest.mark.parametrize("name", library.shipped())
def test_every_link_of_every_scenario_is_measured_as_it_is(name: str) -> None:
    network = FluidNetwork(library.load(name))
    topology = probe(network)
    assert not topology.gaps
    assert len(topology.links) == 12
    hosts = network.network.hosts
    for link in topology.links:
        source, destination = hosts.index(link.source), hosts.index(link.destination)
        pipes = [network.network.pipes[pipe] for pipe in network.network.path(source, destination)]
        assert link.bandwidth_bytes_per_s == pytest.approx(min(pipe.rate_bytes_per_s for pipe in pipes))
        rtt_s = network.delay_s(source, destination) + network.delay_s(destination, source)
        assert link.rtt_median_s == pytest.approx(rtt_s)
        assert link.loss == pytest.approx(network.loss(source, destination), abs=1e-3)
        assert link.queue_s == pytest.approx(0.2)


def test_two_sites_share_one_pipe_in_each_direction() -> None:
    topology = probe(FluidNetwork(library.load("two-sites")))
    assert [bottleneck.links for bottleneck in topology.bottlenecks] == [
        tuple((east, west) for east in ("host0", "host1") for west in ("host2", "host3")),
        tuple((west, east) for west in ("host2", "host3") for east in ("host0", "host1")),
    ]
    assert all(
        bottleneck.bandwidth_bytes_per_s == pytest.approx(100 * MBIT) for bottleneck in topology.bottlenecks
    )
    assert (
        "the 4 links from host0 and host1 to host2 and host3 share 100 Mbit/s: send what both sides need across it once"
        in topology.findings
    )


def test_homes_receive_faster_than_they_send() -> None:
    topology = probe(FluidNetwork(library.load("home")))
    assert {round(host.uplink_bytes_per_s or 0) for host in topology.hosts} == {2_500_000}
    assert {round(host.downlink_bytes_per_s or 0) for host in topology.hosts} == {7_500_000}  # three uplinks
    assert topology.findings[0] == (
        "all hosts receive 60 Mbit/s or more but send 20 Mbit/s: the uplink is what to save"
    )
    assert not topology.bottlenecks


def test_one_slow_link_is_named_with_what_follows() -> None:
    assert probe(FluidNetwork(library.load("one-slow-link"))).findings[0] == (
        "host3's uplink and downlink are 20 Mbit/s, a fifth of the others': "
        "an all-reduce with equal shards would run at its speed"
    )


def test_a_slow_way_back_between_two_hosts_is_named() -> None:
    scenario = Scenario(
        summary="",
        hosts=4,
        access=Access(rate_mbit=100),
        link=[Between(between=["host0", "host1"], there=Wire(rate_mbit=90), back=Wire(rate_mbit=10))],
    )
    topology = probe(FluidNetwork(scenario))
    assert (
        "host0 -> host1 carries 90 Mbit/s, the way back 10 Mbit/s: a ring should run the faster way"
        in topology.findings
    )
    assert not topology.bottlenecks


def test_islands_of_four_share_one_pipe_in_each_direction() -> None:
    topology = probe(FluidNetwork(two_islands(8, pipe_mbit=300)))
    assert [len(bottleneck.links) for bottleneck in topology.bottlenecks] == [16, 16]
    for link in topology.links:
        is_inside = (link.source < "host4") == (link.destination < "host4")
        assert link.bandwidth_bytes_per_s == pytest.approx((1000 if is_inside else 300) * MBIT)


def test_a_pipe_that_makes_everybody_equally_slow_is_found() -> None:
    network = FluidNetwork(Scenario(summary="", hosts=4, access=Access(rate_mbit=1000)))
    network.rate_of_all = 100 * MBIT
    [bottleneck] = probe(network).bottlenecks
    assert len(bottleneck.links) == 12
    assert bottleneck.bandwidth_bytes_per_s == pytest.approx(100 * MBIT)


def test_sixteen_hosts_take_less_than_fifteen_seconds() -> None:
    for scenario in (Scenario(summary="", hosts=16, access=Access(rate_mbit=100)), two_islands(16)):
        network = FluidNetwork(scenario)
        assert not probe(network).gaps
        assert network.seconds + 0.02 * network.num_experiments < 15


def test_a_wrong_interface_is_named() -> None:
    network = FluidNetwork(library.load("office-100m"))
    network.second_address_rate = {2: 1000 * MBIT}
    assert (
        "host2 is reached at 10.0.0.2 with 100 Mbit/s, but at 10.9.0.2 with 1 Gbit/s: "
        "choose that interface there (THINWIRE_INTERFACE=10.9.0.2)" in probe(network).findings
    )


@pytest.mark.parametrize("step", [0, 1, 5, 9, 15])
def test_a_host_that_falls_silent_leaves_a_topology_of_the_others(step: int) -> None:
    topology = probe(FluidNetwork(library.load("office-100m"), silent_from={2: step}))
    assert ("host2", "it is silent") in [(gap.what, gap.reason) for gap in topology.gaps]
    for source in ("host0", "host1", "host3"):
        for destination in {"host0", "host1", "host3"} - {source}:
            assert topology.link(source, destination).rtt_median_s
            assert topology.link(source, destination).bandwidth_bytes_per_s == pytest.approx(100 * MBIT)


def test_a_host_that_never_came_and_a_firewall_are_gaps() -> None:
    network = FluidNetwork(library.load("office-100m"))
    network.unreachable = {(0, 1)}
    cards = network.cards()
    cards[3] = "it did not come"
    topology = network.run(full_form(cards, now=lambda: ""))
    assert [(gap.what, gap.reason) for gap in topology.gaps] == [
        ("rank3", "it did not come"),
        ("host0 -> host1", "a firewall"),
    ]
    assert topology.link("host1", "host0").bandwidth_bytes_per_s == pytest.approx(100 * MBIT)
    assert topology.link("host1", "host0").rtt_min_s is None


def test_a_network_without_udp_still_has_bandwidths() -> None:
    network = FluidNetwork(library.load("office-100m"))
    network.has_udp = False
    topology = probe(network)
    assert len(topology.gaps) == 6
    assert all("may drop UDP" in gap.reason for gap in topology.gaps)
    assert all(link.loss is None and link.bandwidth_bytes_per_s for link in topology.links)


def test_a_lonely_host_and_an_odd_number_are_fine() -> None:
    assert probe(FluidNetwork(Scenario(summary="", hosts=1))).links == ()
    assert len(probe(FluidNetwork(Scenario(summary="", hosts=5, access=Access(rate_mbit=10)))).links) == 20


def test_a_budget_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="too little"):
        probe(FluidNetwork(library.load("lan-1g")), budget_s=0.1)


def test_loss_is_named() -> None:
    scenario = Scenario(summary="", hosts=3, host=[HostAccess(names=["host1"], loss=0.02)])
    [sentence] = [found for found in probe(FluidNetwork(scenario)).findings if "lost" in found]
    assert sentence.startswith(
        "packets are lost, up to 2.0 % (host0 -> host1, host1 -> host0, host1 -> host2"
    )
