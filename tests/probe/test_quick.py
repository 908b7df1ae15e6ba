"""The quick form in virtual time: within its deadline on every network, and never a wrong number stated as a fact."""

from __future__ import annotations

import math

import pytest

from tests.probe.datagram_network import FRAME_OF_TRAIN, DatagramNetwork
from thinwire.probe.quick_messages import Pair, unpack_report
from thinwire.probe.train_rate import DATAGRAM_BYTES, STREAM_SHARE

MBIT = 1e6 / 8
# Ten seconds of a wire, of which a probe may take one in a hundred.
BETWEEN_PROBES_S = 10.0


def pairs_of(found: dict[int, bytes] | None) -> dict[tuple[int, int], Pair]:
    """(source, destination) -> what the destination saw."""
    assert found is not None
    return {(pair.peer, host): pair for host, report in found.items() for pair in unpack_report(report)}


def stream_rate(frames_bytes_per_s: float) -> float:
    return frames_bytes_per_s * DATAGRAM_BYTES / FRAME_OF_TRAIN * STREAM_SHARE


def check(network: DatagramNetwork, *, within: float) -> dict[tuple[int, int], Pair]:
    """Everybody has the same result in time, without taking the wires for long; what is stated is true."""
    results = network.run()
    assert all(result == results[0] for result in results.values())
    assert max(network.seconds.values()) < 0.9
    for wire in network.up:
        assert wire.num_bytes < 0.01 * BETWEEN_PROBES_S * wire.bytes_per_s
    pairs = pairs_of(results[0])
    for (source, destination), pair in pairs.items():
        truth = stream_rate(min(network.up[source].bytes_per_s, network.down[destination].bytes_per_s))
        assert pair.low <= 1.02 * truth
        assert pair.high >= 0.98 * (1 - 1.5 * network.loss) * truth
        if not math.isnan(pair.rate):
            assert pair.rate == pytest.approx(truth, rel=within)
    return pairs


@pytest.mark.parametrize("mbit", [10, 20, 50, 100, 300, 1000])
@pytest.mark.parametrize("rtt_ms", [0.2, 20, 50, 100])
def test_every_pair_is_measured_in_time_whatever_the_rate_and_the_round_trip(
    mbit: float, rtt_ms: float
) -> None:
    rates = [mbit * MBIT] * 4
    pairs = check(DatagramNetwork(rates, rates, delay_s=rtt_ms / 2e3), within=0.1)
    assert len(pairs) == 12
    assert not any(math.isnan(pair.rate) for pair in pairs.values())
    assert all(pair.rtt_median_s == pytest.approx(rtt_ms / 1e3, abs=2e-3) for pair in pairs.values())


def test_homes_and_one_slow_host_are_told_apart() -> None:
    up, down = [20 * MBIT] * 4, [100 * MBIT] * 4
    check(DatagramNetwork(up, down, delay_s=0.0075), within=0.1)
    up = [100 * MBIT, 100 * MBIT, 100 * MBIT, 20 * MBIT]
    check(DatagramNetwork(up, up), within=0.1)


def test_sixteen_hosts_take_no_longer() -> None:
    rates = [100 * MBIT] * 16
    pairs = check(DatagramNetwork(rates, rates), within=0.1)
    assert sum(not math.isnan(pair.rate) for pair in pairs.values()) > 200


@pytest.mark.parametrize("loss", [0.02, 0.06])
def test_lost_datagrams_are_said_again_and_make_no_rate_wrong(loss: float) -> None:
    rates = [100 * MBIT] * 3
    network = DatagramNetwork(rates, rates, delay_s=0.004, loss=loss)
    pairs = check(network, within=0.1 + loss)
    received = sum(pair.num_received for pair in pairs.values())
    expected = sum(pair.num_expected for pair in pairs.values())
    assert 0 < 1 - received / expected < 3 * loss


def test_where_delays_vary_more_than_a_train_is_long_only_an_interval_is_told() -> None:
    rates = [10 * MBIT] * 4
    pairs = pairs_of(DatagramNetwork(rates, rates, delay_s=0.025, jitter_s=0.01).run()[0])
    for pair in pairs.values():
        assert math.isnan(pair.low) or pair.low <= stream_rate(rates[0]) <= pair.high
        assert math.isnan(pair.rate) or pair.rate == pytest.approx(stream_rate(rates[0]), rel=0.5)


def test_a_round_trip_of_half_a_second_is_more_than_there_is_time_for_and_said_so() -> None:
    rates = [100 * MBIT] * 3
    network = DatagramNetwork(rates, rates, delay_s=0.25)
    results = network.run()
    assert network.seconds[0] < 0.9
    assert set(pairs_of(results[0])) == {(1, 0), (2, 0)}  # the others' reports came too late
    assert all(math.isnan(pair.rate) for pair in pairs_of(results[0]).values())


@pytest.mark.parametrize("dies_s", [0.0, 0.05, 0.2, 0.45])
def test_a_host_that_is_killed_costs_the_others_nothing_but_what_it_would_have_said(dies_s: float) -> None:
    rates = [100 * MBIT] * 4
    network = DatagramNetwork(rates, rates)
    network.dies_s = {2: dies_s}
    results = network.run()
    found = pairs_of(results[0])
    assert results[1] == results[3] == results[0]
    assert {host for _, host in found} == {0, 1, 3}
    assert max(network.seconds.values()) < 0.9
    for ends in ((0, 1), (1, 3), (3, 0)):
        assert found[ends].rate == pytest.approx(stream_rate(rates[0]), rel=0.1)


def test_when_the_first_host_is_killed_nobody_has_a_result() -> None:
    rates = [100 * MBIT] * 3
    network = DatagramNetwork(rates, rates)
    network.dies_s = {0: 0.3}
    assert set(network.run().values()) == {None}


def test_a_firewall_between_two_hosts_is_seen_by_both() -> None:
    rates = [100 * MBIT] * 4
    network = DatagramNetwork(rates, rates)
    network.is_cut = lambda source, destination: {source, destination} == {1, 2}
    found = pairs_of(network.run()[3])
    assert (found[1, 2].num_received, found[2, 1].num_received) == (0, 0)
    assert found[1, 3].rate == pytest.approx(stream_rate(rates[0]), rel=0.1)


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_makes_what_it_told_unknown_and_holds_nobody_up(by_s: float) -> None:
    rates = [100 * MBIT] * 3
    network = DatagramNetwork(rates, rates)
    network.jumps = {1: (0.2, by_s)}
    results = network.run()
    assert network.seconds[0] < 0.9
    found = pairs_of(results[0])
    assert found[0, 2].rate == pytest.approx(stream_rate(rates[0]), rel=0.1)
    assert all(math.isnan(pair.rate) for ends, pair in found.items() if 1 in ends and pair.has_jumped)
    for ends, pair in found.items():
        if 1 in ends and not pair.has_jumped and not math.isnan(pair.rate):
            assert pair.rate == pytest.approx(stream_rate(rates[0]), rel=0.1)
