"""Learning from counters: what counts, and what says nothing."""

from __future__ import annotations

import pytest

from thinwire.forecast import LinkEstimate, LinkLearner, Traffic
from thinwire.forecast.rate import Rate

INTERVAL_S = 0.5


def learn(*traffics: Traffic) -> LinkEstimate:
    learner = LinkLearner()
    for number, traffic in enumerate(traffics):
        learner.observe(number * INTERVAL_S, traffic)
    return learner.estimate()


def busy(number: int, rate: float, share: float) -> Traffic:
    """After ``number`` intervals in which a link of that rate was busy for that share of the time, both ways."""
    busy_s = number * INTERVAL_S * share
    num_bytes = round(rate * busy_s)
    return Traffic(
        timed_bytes=num_bytes,
        receiving_s=busy_s,
        delivered_bytes=num_bytes,
        sending_s=busy_s,
        unsent_bytes=num_bytes * (share == 1.0),
        sent_bytes=num_bytes,
        retransmitted_bytes=num_bytes // 100,
        rtt_s=0.01,
    )


def test_a_link_that_is_always_busy_is_known_in_both_directions() -> None:
    found = learn(*(busy(number, 1e7, 1.0) for number in range(10)))
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(1e7)
    assert found.outgoing_is_limit
    assert found.held_share is not None
    assert found.held_share > 0.8
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(1e7)
    assert found.rtt_s is not None
    assert found.rtt_s.value == pytest.approx(0.01)
    assert found.retransmitted == pytest.approx(0.01)
    assert (found.num_changes, found.changed_s) == (0, None)


def test_a_sender_with_pauses_tells_what_it_reached_between_them_where_it_arrives_and_a_lower_bound_here() -> (
    None
):
    found = learn(*(busy(number, 1e7, 0.2) for number in range(10)))
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(1e7)
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(1e7)
    assert not found.outgoing_is_limit
    assert found.held_share == 0


def test_many_small_messages_over_a_long_way_are_no_limit() -> None:
    def chatter(
        number: int,
    ) -> Traffic:  # always something that was not acknowledged yet, never anything unsent
        return Traffic(
            delivered_bytes=number * 100_000, sending_s=number * INTERVAL_S, unsent_bytes=0, rtt_s=0.1
        )

    found = learn(*map(chatter, range(20)))
    assert not found.outgoing_is_limit
    assert found.held_share == 0


def test_a_peer_that_does_not_read_is_no_limit_of_the_network_and_makes_no_link_faster() -> None:
    def hindered(number: int) -> Traffic:
        passed_s = number * INTERVAL_S
        return Traffic(
            delivered_bytes=round(1e6 * passed_s),
            sending_s=passed_s,
            hindered_s=0.8 * passed_s,
            unsent_bytes=1,
        )

    found = learn(*map(hindered, range(20)))
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(1e6)
    assert not found.outgoing_is_limit


def test_a_lower_bound_does_not_pull_down_a_limit_that_is_fresh_and_may_raise_it() -> None:
    rate = Rate()
    for second in range(5):
        rate.observe(second, 1e7, is_limit=True)
    rate.observe(5, 1e6, is_limit=False)
    assert (rate.is_limit, round(expected(rate))) == (True, 10_000_000)
    rate.observe(6, 5e7, is_limit=False)  # by chance
    assert round(expected(rate)) == 10_000_000
    for second in range(6, 12):
        rate.observe(second, 3e7, is_limit=False)
    assert expected(rate) == pytest.approx(3e7, rel=0.1)
    for second in range(30, 60):
        rate.observe(second, 1e6, is_limit=False)
    assert (rate.is_limit, round(expected(rate) / 1e6)) == (False, 1)


def expected(rate: Rate) -> float:
    forecast = rate.forecast()
    assert forecast is not None
    return forecast.value


def test_silence_and_little_words_say_nothing() -> None:
    assert learn() == learn(Traffic()) == LinkEstimate()
    found = learn(*(Traffic(timed_bytes=100 * number, receiving_s=1e-5 * number) for number in range(50)))
    assert found == LinkEstimate()


def test_a_little_now_and_then_is_gathered_until_it_says_something() -> None:
    found = learn(*(busy(number, 1e6, 0.05) for number in range(10)))  # 25 kB in each interval
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(1e6)


def test_a_link_that_halves_has_changed_within_three_seconds() -> None:
    before = [busy(number, 1e7, 1.0) for number in range(21)]
    after = [busy(number, 4e6, 1.0) for number in range(1, 20)]
    shifted = [
        Traffic(
            timed_bytes=before[-1].timed_bytes + traffic.timed_bytes,
            receiving_s=before[-1].receiving_s + traffic.receiving_s,
        )
        for traffic in after
    ]
    found = learn(*before, *shifted)
    assert found.num_changes == 1
    assert found.changed_s is not None
    assert 10 < found.changed_s <= 13
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(4e6, rel=0.1)
