"""What trains of datagrams say of the way they came, and what they do not say."""

from __future__ import annotations

import math

import pytest

from thinwire.probe.train_rate import DATAGRAM_BYTES, STREAM_SHARE, Rate, agreed, rate_of_train

EVERY_S = 1e-4
TRUTH = DATAGRAM_BYTES / EVERY_S * STREAM_SHARE


def train(length: int = 40, *, lump: int = 1, at_once: int = 0) -> list[float]:
    """Datagrams that came ``lump`` at a time, after the first few had passed a bucket."""
    return [max(0, place - at_once) // lump * lump * EVERY_S + place * 1e-9 for place in range(length)]


def rate(found: Rate | None) -> Rate:
    assert found is not None
    return found


def test_an_even_train_tells_its_rate_within_a_narrow_interval() -> None:
    found = rate(rate_of_train(train()))
    assert found.value == pytest.approx(TRUTH, rel=0.001)
    assert 0.93 * TRUTH < found.low <= TRUTH <= found.high < 1.07 * TRUTH


def test_lumps_and_a_bucket_at_the_beginning_do_not_count() -> None:
    assert rate(rate_of_train(train(lump=8))).value == pytest.approx(TRUTH, rel=0.001)
    assert rate(rate_of_train(train(at_once=15))).value == pytest.approx(TRUTH, rel=0.001)


@pytest.mark.parametrize("at_once", range(16, 33))
def test_a_bucket_that_reaches_into_the_second_half_leaves_no_wrong_number(at_once: int) -> None:
    found = rate(rate_of_train(train(at_once=at_once)))
    assert found.value is None or found.value == pytest.approx(TRUTH, rel=0.1)
    assert found.low <= 1.001 * TRUTH
    assert found.high >= 0.999 * TRUTH


def test_a_train_that_came_as_fast_as_it_left_says_nothing_of_the_way() -> None:
    found = rate(rate_of_train(train(), left_bytes_per_s=1.05 * TRUTH))
    assert (found.value, found.low, found.high) == (None, 0.0, math.inf)


def test_where_delays_vary_as_long_as_the_train_is_nothing_is_stated() -> None:
    found = rate(rate_of_train(train(), jitter_s=0.001))
    assert (found.value, found.high) == (None, math.inf)
    assert found.low < 0.5 * TRUTH


def test_in_a_crowd_the_wire_may_be_faster_than_the_train() -> None:
    mixed = [2 * place * EVERY_S for place in range(40)]
    others_s = [(2 * place + 1) * EVERY_S for place in range(40)]
    found = rate(rate_of_train(mixed, others_s=others_s))
    assert found.is_crowded
    assert found.value is None
    assert found.low <= TRUTH / 2 < TRUTH <= found.high


@pytest.mark.parametrize("came", [[], train(3), [1.0] * 20])
def test_too_little_says_nothing(came: list[float]) -> None:
    assert rate_of_train(came) is None


def test_trains_that_agree_say_the_fastest_and_trains_that_do_not_say_all() -> None:
    fast, slow = Rate(1e7, 9.9e6, 1.01e7, 0.01), Rate(9e6, 8.9e6, 9.1e6, 0.01)
    assert agreed([slow, None, fast]) == fast
    half = Rate(5e6, 4.9e6, 5.1e6, 0.01)
    assert agreed([half, fast]) == Rate(None, 4.9e6, 1.01e7, 0.01)
    assert agreed([fast, Rate(3e7, 2e7, 4e7, 0.001)]) == fast  # much shorter
    assert agreed([fast, half._replace(is_crowded=True)]) == fast
    assert agreed([None]) is None
    bound = Rate(None, 1e7, math.inf, 0.01)
    assert agreed([bound, bound._replace(low=2e7)]) == bound._replace(low=2e7)
