"""Matchings and estimates: the small pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.probe.estimate import flow_report, longer_train, steady_rate, together, train_report
from thinwire.probe.matchings import rounds, teams
from thinwire.transport.bulk import Progress
from thinwire.transport.datagrams import Train


@given(st.integers(1, 40))
def test_rounds_meet_every_pair_once_and_nobody_twice_at_a_time(num_hosts: int) -> None:
    found = rounds(num_hosts)
    pairs = [pair for matching in found for pair in matching]
    assert sorted(pairs) == [(a, b) for a in range(num_hosts) for b in range(a + 1, num_hosts)]
    assert all(len({host for pair in matching for host in pair}) == 2 * len(matching) for matching in found)
    assert len(found) <= max(1, num_hosts)


@given(st.integers(0, 40))
def test_teams_are_a_partition_into_three_or_more(num_hosts: int) -> None:
    found = teams(range(num_hosts))
    assert sorted(host for team in found for host in team) == list(range(num_hosts))
    assert num_hosts < 3 or all(len(team) >= 3 for team in found)


def test_a_rate_leaves_out_the_start_and_needs_enough_samples() -> None:
    times_s = [number * 0.01 for number in range(101)]
    slow_start = [min(number, 20) ** 2 * 25 + max(0, number - 20) * 1000 for number in range(101)]
    assert steady_rate(times_s, slow_start) == pytest.approx(100_000)
    assert steady_rate(times_s[:4], slow_start[:4]) is None
    assert steady_rate([], []) is None
    assert steady_rate(times_s, [5] * 101) is None


def test_the_phases_of_a_flow_are_told_apart() -> None:
    progress = Progress()
    for number in range(201):
        joined = number > 100
        progress.note(number * 0.01, number * 1000 + max(0, number - 100) * 1000, is_joined=joined)
    report = flow_report(progress, retransmitted=0.25)
    assert report is not None
    assert report.one_stream_bytes_per_s == pytest.approx(100_000, rel=0.02)
    assert report.several_streams_bytes_per_s == pytest.approx(200_000, rel=0.02)
    assert report.retransmitted == 0.25
    assert flow_report(Progress()) is None


def test_a_train_is_summed_up_and_impossible_round_trips_left_out() -> None:
    report = train_report(Train(10, 4, delays_s=[5.0, 5.1, 5.2, 5.3], rtts_s=[0.1, 0.2, -3.0, 0.3]))
    assert (report.num_sent, report.num_received) == (10, 4)
    assert (report.delay_min_s, report.delay_median_s) == pytest.approx((5.0, 5.15))
    assert (report.rtt_min_s, report.rtt_median_s) == pytest.approx((0.1, 0.2))
    assert train_report(Train(10, 0)).rtt_min_s is None


def test_a_clock_that_jumps_spoils_delays_one_way_and_nothing_else() -> None:
    delays = [0.01] * 50 + [1000.01] * 50
    report = train_report(Train(100, 100, delays_s=delays, rtts_s=[0.02] * 49 + [1000.02] + [0.02] * 50))
    assert report.has_jumped
    assert (report.jitter_s, report.delay_min_s, report.delay_median_s) == (None, None, None)
    assert (report.rtt_median_s, report.rtt_p99_s) == pytest.approx((0.02, 0.02))
    assert not train_report(Train(9, 9, delays_s=[0.01, 3.0], rtts_s=[0.02, 3.0])).has_jumped  # a long queue


def test_a_longer_train_counts_more_and_keeps_the_delays() -> None:
    first = train_report(Train(100, 98, 100, delays_s=[0.5], rtts_s=[0.1]))
    both = longer_train(first, train_report(Train(50, 40, 50, delays_s=[0.9], rtts_s=[0.3])))
    assert (both.num_received, both.num_expected, both.rtt_median_s) == (138, 150, 0.1)


def flow(begin_s: float, end_s: float, rate: float) -> Progress:
    progress = Progress()
    for number in range(101):
        at_s = begin_s + (end_s - begin_s) * number / 100
        progress.note(at_s, round((at_s - begin_s) * rate), is_joined=False)
    return progress


def test_rates_are_added_up_only_for_the_time_that_flows_were_together() -> None:
    found = together({0: flow(0, 1, 1e6), 4: flow(0.4, 1.4, 2e6), 5: flow(0.75, 1.7, 1)}, 1.0)
    assert found is not None
    assert found.places == (0, 4)
    assert found.bytes_per_s == pytest.approx(3e6, rel=0.01)
    assert together({0: flow(0, 1, 1e6), 1: flow(0.8, 1.8, 2e6)}, 1.0) is None
    assert together({0: flow(0, 1, 1e6)}, 1.0) is None
    starved = flow(0, 0.01, 1e6)
    found = together({0: flow(0, 1, 1e6), 1: starved}, 1.0)
    assert found is not None
    assert (found.places, found.bytes_per_s) == ((0, 1), pytest.approx(1e6, rel=0.01))
