"""A host's wire, from the links that share it: when the sum is its limit, and when it is only a lower bound."""

from __future__ import annotations

import pytest

from thinwire.forecast import Traffic, WireEstimate, WireLearner
from thinwire.forecast.traffic import Sending

INTERVAL_S = 0.25


def learn(one: Sending, other: Sending) -> WireEstimate:
    learner = WireLearner()
    for number in range(20):
        traffic = Traffic(timed_bytes=number * 10**6, all_receiving_s=number * 0.1, unsent_bytes=1)
        learner.observe(number * INTERVAL_S, {"one": traffic, "other": traffic}, {"one": one, "other": other})
    return learner.estimate()


def sent(num_bytes: int, busy: float, *, waits: bool = True) -> Sending:
    return Sending(
        num_bytes=num_bytes,
        busy_s=busy * INTERVAL_S,
        hindered_s=0.0,
        interval_s=INTERVAL_S,
        num_waiting=2 * waits,
    )


def test_links_that_are_all_held_back_at_once_tell_the_wire() -> None:
    found = learn(sent(1_000_000, 1.0), sent(2_000_000, 1.0))
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(12e6)
    assert found.outgoing_is_limit
    assert found.held_share == pytest.approx(1.0)
    assert found.incoming_bytes_per_s is not None
    assert found.incoming_bytes_per_s.value == pytest.approx(2e7)


def test_one_link_that_is_held_back_tells_a_lower_bound() -> None:
    found = learn(sent(1_000_000, 1.0), sent(100_000, 0.1, waits=False))
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(4.4e6)
    assert not found.outgoing_is_limit


def test_links_that_may_have_been_busy_in_turn_are_not_added_up() -> None:
    found = learn(sent(1_000_000, 0.4), sent(1_000_000, 0.4))
    assert found.outgoing_bytes_per_s is not None
    assert found.outgoing_bytes_per_s.value == pytest.approx(10e6)  # of 0.8 of the time, not of 0.4
    assert not found.outgoing_is_limit


def test_a_job_of_one_host_knows_nothing() -> None:
    learner = WireLearner()
    learner.observe(0.0, {}, {})
    assert learner.estimate() == WireEstimate()
