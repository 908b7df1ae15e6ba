"""From scenarios to networks: which pipes a packet passes, and what each pipe is."""

from __future__ import annotations

import math

from thinwire.lab import load
from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Access, Between, BurstLoss, HostAccess, Scenario, Site, Trace, Wire


def names(scenario: Scenario, source: int, destination: int) -> list[str]:
    network = network_of(scenario)
    return [network.pipes[pipe].name for pipe in network.path(source, destination)]


def test_directions_and_hosts_override_what_is_said_of_all() -> None:
    access = Access(rate_mbit=100, delay_ms=4, up=Wire(rate_mbit=20), down=Wire(delay_ms=1))
    scenario = Scenario(summary="", hosts=2, access=access, host=[HostAccess(names=["host1"], rate_mbit=8)])
    pipes = {pipe.name: (pipe.rate_bytes_per_s, pipe.delay_s) for pipe in network_of(scenario).pipes}
    assert pipes == {
        "host0.up": (2.5e6, 0.004),
        "host1.up": (1e6, 0.004),
        "host0.down": (12.5e6, 0.001),
        "host1.down": (1e6, 0.001),
    }


def test_a_path_passes_the_link_of_the_pair_and_the_pipes_between_the_sites() -> None:
    scenario = Scenario(
        summary="a chain of three sites",
        hosts=4,
        site=[
            Site(name="a", hosts=["host0", "host1"]),
            Site(name="b", hosts=["host2"]),
            Site(name="c", hosts=["host3"]),
        ],
        pipe=[Between(between=["a", "b"], rate_mbit=10), Between(between=["b", "c"])],
        link=[Between(between=["host0", "host1"], there=Wire(rate_mbit=1))],
    )
    assert names(scenario, 0, 1) == ["host0.up", "host0>host1", "host1.down"]
    assert names(scenario, 3, 0) == ["host3.up", "c>b", "b>a", "host0.down"]
    pipes = {pipe.name: pipe for pipe in network_of(scenario).pipes}
    assert pipes["host0>host1"].rate_bytes_per_s == 125_000
    assert pipes["host1>host0"].rate_bytes_per_s == math.inf


def test_queues_hold_fifty_milliseconds_unless_told_otherwise() -> None:
    access = Access(rate_mbit=100, up=Wire(queue_kb=64), down=Wire(rate_mbit=1))
    pipes = network_of(Scenario(summary="", hosts=1, access=access)).pipes
    assert [pipe.queue_bytes for pipe in pipes] == [64_000, 32_000]
    assert network_of(load("office-100m")).pipes[0].queue_bytes == 625_000


def test_the_kernel_alone_makes_what_only_has_rates_and_cuts() -> None:
    with_kernel = {"lan-1g", "office-100m", "ten-megabit", "one-slow-link", "fading", "flapping"}
    with_relay = {"wan-1g-100ms", "wan-100m-50ms", "home", "mobile", "two-sites"}
    assert {name for name in with_kernel | with_relay if network_of(load(name)).needs_relay} == with_relay


def test_only_hosts_whose_frames_can_be_lost_send_single_frames() -> None:
    lossy = HostAccess(names=["host2"], down=Wire(burst_loss=BurstLoss(share=0.1, packets=5)))
    network = network_of(Scenario(summary="", hosts=3, host=[lossy]))
    assert [network.can_lose(host) for host in range(3)] == [True, True, False]


def test_a_trace_prepares_its_pipes_for_what_comes() -> None:
    traces = [
        Trace(on=["host0.up"], at_s=[5, 9], rate_mbit=[8, 80]),
        Trace(on=["host1.*"], at_s=[5], loss=[0.1]),
        Trace(on=["host0.down"], at_s=[5], delay_ms=[0]),
    ]
    pipes = {pipe.name: pipe for pipe in network_of(Scenario(summary="", hosts=2, trace=traces)).pipes}
    assert pipes["host0.up"].is_limited
    assert pipes["host0.up"].queue_bytes == 500_000
    assert pipes["host1.down"].is_lossy
    assert not pipes["host0.down"].needs_relay
