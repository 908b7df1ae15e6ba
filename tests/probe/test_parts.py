"""Matchings, estimates and passive learning: the small pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.probe.estimate import flow_report, steady_rate, train_report
from thinwire.probe.matchings import rounds, teams
from thinwire.probe.passive import PassiveLearner
from thinwire.transport.bulk import Progress
from thinwire.transport.datagrams import Train
from thinwire.transport.tcp_info import TcpInfo


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
    report = train_report(Train(10, 4, [5.0, 5.1, 5.2, 5.3], [0.1, 0.2, -3.0, 0.3]))
    assert (report.num_sent, report.num_received) == (10, 4)
    assert (report.delay_min_s, report.delay_median_s) == pytest.approx((5.0, 5.15))
    assert (report.rtt_min_s, report.rtt_median_s) == pytest.approx((0.1, 0.2))
    assert train_report(Train(10, 0)).rtt_min_s is None


def lane(
    sent: int, rate: float = 1e6, *, rtt_s: float = 0.01, app_limited: bool = False, again: int = 0
) -> TcpInfo:
    return TcpInfo(
        rtt_s=rtt_s,
        min_rtt_s=rtt_s,
        delivery_rate_bytes_per_s=rate,
        is_app_limited=app_limited,
        bytes_sent=sent,
        bytes_retransmitted=again,
        bytes_delivered=sent,
    )


def test_traffic_teaches_bandwidth_and_round_trip_and_silence_nothing() -> None:
    learner = PassiveLearner()
    for step in range(1, 11):
        assert not learner.observe("peer", [lane(1000 * step), lane(1000 * step, again=step)])
        assert not learner.observe("peer", [lane(1000 * step, rate=5), lane(1000 * step, rate=5, again=step)])
    learned = learner.learned("peer")
    assert learned.bandwidth_bytes_per_s is not None
    assert learned.bandwidth_bytes_per_s.value == pytest.approx(2e6)
    assert learned.rtt_s is not None
    assert learned.rtt_s.value == pytest.approx(0.01)
    assert learned.retransmitted == pytest.approx(9 / 18_000)


def test_a_sender_with_nothing_to_send_says_nothing_of_bandwidth() -> None:
    learner = PassiveLearner()
    learner.observe("peer", [lane(1000, app_limited=True)])
    assert learner.learned("peer").bandwidth_bytes_per_s is None
    assert learner.learned("peer").rtt_s is not None


def test_a_link_that_halves_is_noticed() -> None:
    learner = PassiveLearner()
    changes = [
        learner.observe("peer", [lane(1000 * step, 1e6 if step < 20 else 4e5)]) for step in range(1, 30)
    ]
    assert changes.index(True) in (20, 21, 22, 23)
