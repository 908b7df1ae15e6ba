"""The link test against a computed network, and its recommendations."""

from __future__ import annotations

import pytest

from tests.probe.fluid import FluidNetwork
from thinwire.errors import LinkError
from thinwire.lab.scenario import Access, Scenario
from thinwire.probe.link_test import LinkTest, Way, WayResult, link_test, recommend

MBIT = 1e6 / 8


def result(streams: int, mbit: float, rtt_ms: float = 1, control: str = "cubic") -> WayResult:
    way = Way(protocol="tcp", congestion_control=control, num_streams=streams)
    return WayResult(way=way, bytes_per_s=mbit * MBIT, rtt_median_s=rtt_ms / 1e3)


def drive(network: FluidNetwork) -> LinkTest:
    campaign = link_test(network.cards(), congestion_controls=["bbr", "cubic"], way_s=1.0)
    experiment = next(campaign)
    try:
        while True:
            experiment = campaign.send(network.answer(experiment))
    except StopIteration as end:
        found: LinkTest = end.value
        return found


def test_every_way_is_tried_once() -> None:
    test = drive(FluidNetwork(Scenario(summary="", hosts=2, access=Access(rate_mbit=100, loss=0.01))))
    assert [str(found.way) for found in test.results] == [
        "nothing else",
        *(
            f"TCP {name}, {streams} stream{'s' if streams > 1 else ''}"
            for name in ("bbr", "cubic")
            for streams in (1, 2, 4, 8)
        ),
        "UDP datagrams",
    ]
    assert test.results[1].bytes_per_s == pytest.approx(100 * MBIT)
    assert test.results[-1].error_rate == pytest.approx(0.02, rel=0.1)
    assert test.settings == {
        "THINWIRE_TRANSPORT": "tcp",
        "THINWIRE_LANES": "1",
        "THINWIRE_CONGESTION_CONTROL": "bbr",
    }


def test_long_round_trips_take_longer() -> None:
    network = FluidNetwork(Scenario(summary="", hosts=2, access=Access(rate_mbit=100, delay_ms=50)))
    campaign = link_test(network.cards(), congestion_controls=["bbr"], way_s=1.0)
    outcome = network.answer(next(campaign))
    assert campaign.send(outcome).train_s == pytest.approx(30 * 0.2, rel=0.01)


def test_more_streams_are_recommended_only_if_they_are_faster() -> None:
    way, reason = recommend([result(1, 94), result(4, 96)])
    assert way.num_streams == 1
    assert reason == "TCP cubic, 1 stream reaches 94 Mbit/s; more streams add less than 5 %"
    way, reason = recommend([result(1, 40), result(4, 94), result(8, 95)])
    assert way.num_streams == 4
    assert reason == "TCP cubic, 4 streams reaches 94 Mbit/s; one stream reaches 40 Mbit/s at most"


def test_among_equals_the_one_that_others_wait_less_for() -> None:
    way, reason = recommend([result(1, 95, rtt_ms=60), result(1, 95, rtt_ms=5, control="bbr")])
    assert way.congestion_control == "bbr"
    assert reason.endswith("beside TCP cubic, 1 stream other messages take 60 ms, beside this 5 ms")


def test_a_link_that_nothing_passes_is_an_error_with_the_reasons() -> None:
    with pytest.raises(LinkError, match="a firewall"):
        recommend([WayResult(way=Way(protocol="tcp", num_streams=1), failure="a firewall")])
    network = FluidNetwork(Scenario(summary="", hosts=2))
    network.unreachable = {(0, 1)}
    with pytest.raises(LinkError, match="host0 -> host1: a firewall"):
        drive(network)
