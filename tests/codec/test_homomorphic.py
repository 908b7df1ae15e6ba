"""Integers of one scale: the sum of payloads is the payload of the sum, and nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codec.base import State
from thinwire.codec.homomorphic import Homomorphic
from thinwire.errors import CodecError, UsageError

GOLDEN = "0000803f01000000551556d5ab0a"


def agreed(largest: float) -> State:
    return (np.array([largest], np.float32),)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([8, 16, 32]), st.integers(1, 9), st.integers(0, 2**64 - 1), st.booleans())
def test_the_sum_of_payloads_is_the_sum_of_what_they_stand_for(
    bits: int, num_ranks: int, seed: int, stochastic: bool
) -> None:
    codec = Homomorphic(bits, num_ranks, stochastic)
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (num_ranks, 5, 7)).astype(np.float32)
    values[:, 0, 0] = 1  # all at the limit
    payloads = [codec.encode(own, agreed(1), seed).payload for own in values]
    total = codec.decode(codec.sum_payloads(payloads, (5, 7)), (5, 7))
    apart = sum(codec.decode(payload, (5, 7)).astype(np.float64) for payload in payloads)
    np.testing.assert_allclose(total, apart, rtol=1e-6, atol=1e-6)
    assert total[0, 0] == pytest.approx(num_ranks)
    assert np.abs(total - values.sum(0)).max() <= num_ranks * (1 / codec.limit + 1e-6)


def test_sums_of_sums() -> None:
    codec = Homomorphic(bits=16, num_contributions=4)
    payloads = [codec.encode(np.full(3, x, np.float32), agreed(4), seed=1).payload for x in (1, 2, 3, 4)]
    halves = [codec.sum_payloads(payloads[:2], (3,)), codec.sum_payloads(payloads[2:], (3,))]
    assert codec.sum_payloads(halves, (3,)).tobytes() == codec.sum_payloads(payloads, (3,)).tobytes()


def test_more_contributions_than_there_is_room_for() -> None:
    codec = Homomorphic(num_contributions=2)
    payload = codec.encode(np.ones(3, np.float32), agreed(1)).payload
    both = codec.sum_payloads([payload, payload], (3,))
    for payloads in ([both, payload], [payload] * 3, []):
        with pytest.raises(CodecError, match="1 to 2 contributions"):
            codec.sum_payloads(payloads, (3,))


def test_different_scales_are_not_summed() -> None:
    codec = Homomorphic()
    payloads = [codec.encode(np.ones(3, np.float32), agreed(largest)).payload for largest in (1, 2)]
    with pytest.raises(CodecError, match="one scale"):
        codec.sum_payloads(payloads, (3,))


def test_unbiased() -> None:
    codec = Homomorphic(bits=8, num_contributions=30)
    values = np.linspace(-1, 1, 21, dtype=np.float32)
    mean = np.mean([codec.decode(codec.encode(values, seed=seed).payload, (21,)) for seed in range(4000)], 0)
    step = 1 / codec.limit
    assert np.abs(mean - values).max() < 5 * step * 0.5 / 4000**0.5


def test_what_exceeds_the_agreed_magnitude_is_cut_off() -> None:
    codec = Homomorphic(bits=8, num_contributions=1)
    payload, state = codec.encode(np.array([5, -5, np.nan, np.inf], np.float32), agreed(1))
    np.testing.assert_allclose(codec.decode(payload, (4,)), [1, -1, 0, 1])
    assert state[0] == 1


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1.0, 3e38])
def test_every_magnitude(scale: float) -> None:
    values = np.array([scale, -scale, 0], np.float32)
    codec = Homomorphic(bits=16, num_contributions=1)
    np.testing.assert_allclose(codec.decode(codec.encode(values).payload, (3,)), values, rtol=1e-6)


def test_a_payload_that_no_encode_gives() -> None:
    codec = Homomorphic(bits=8, num_contributions=4)
    good = codec.encode(np.ones(3, np.float32)).payload
    for place, byte, message in [(8, 127, "integers up to 31"), (3, 0x7F, "finite"), (4, 5, "contributions")]:
        bad = good.copy()
        bad[place] = byte
        if place == 3:
            bad[2] = 0x80
        with pytest.raises(CodecError, match=message):
            codec.decode(bad, (3,))
        with pytest.raises(CodecError, match=message):
            codec.sum_payloads([bad], (3,))
    with pytest.raises(CodecError, match="has 11 bytes, found 10"):
        codec.decode(good[:-1], (3,))


@pytest.mark.parametrize(("bits", "count"), [(4, 1), (8, 0), (8, 128), (64, 1)])
def test_numbers_that_make_no_sense(bits: int, count: int) -> None:
    with pytest.raises(UsageError):
        Homomorphic(bits, count)


def test_golden() -> None:
    payload = Homomorphic(bits=16, num_contributions=3).encode(np.float32([0.5, -1, 0.25]), seed=1).payload
    assert payload.tobytes().hex() == GOLDEN
