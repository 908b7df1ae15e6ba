"""Top-k: exactly the largest, however the threshold was guessed; nothing lost under error feedback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.codec.oracles import largest
from thinwire.codec.base import Floats
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.top_k import TopK
from thinwire.errors import CodecError, UsageError

GOLDEN = "7000000000c40080abc3000058430080ab43"

ANY_FLOATS = hnp.arrays(
    np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)
FEW_MAGNITUDES = hnp.arrays(np.float32, st.integers(0, 300), elements=st.sampled_from([-2.0, -1, 0, 1, 2]))


def kept_places(codec: TopK, values: Floats) -> list[int]:
    """By the oracle, block by block."""
    block = codec.block or max(1, values.size)
    places = []
    for start in range(0, values.size, block):
        own = values[start : start + block]
        count = codec.kept(own.shape).total if codec.block else codec.kept(values.shape).total
        if codec.block and own.size < block:
            count = codec.kept(values.shape).kept_in_rest
        places += [start + i for i in largest(own, count)]
    return places


@settings(max_examples=150, deadline=None)
@given(
    ANY_FLOATS | FEW_MAGNITUDES,
    st.sampled_from([1, 3, 17, 0.01, 0.3, 0.9]),
    st.sampled_from([0, 20, 64, 100]),
)
def test_what_is_kept_is_exactly_the_largest(values: Floats, k: float, block: int) -> None:
    codec = TopK(k, block)
    payload, _ = codec.encode(values)
    expected = np.zeros_like(values)
    places = kept_places(codec, values)
    expected[places] = values[places]
    decoded = codec.decode(payload, values.shape)
    np.testing.assert_array_equal(decoded, expected)
    assert payload.size <= codec.payload_bound(values.shape)


def tricky(name: str) -> Floats:
    """200 000 values for which the guess of the threshold is wrong, or useless."""
    values = np.random.default_rng(3).standard_normal(200_000, dtype=np.float32)
    stride = values.size // 4096
    if name == "sample too large":
        values[np.arange(values.size) % stride < 16] *= 1e6
    elif name == "sample too small":
        values[np.arange(values.size) % stride < 16] *= 1e-6
    elif name == "ascending":
        values = np.sort(np.abs(values))
    elif name == "equal":
        values[:] = -3
    elif name == "blocks fade":
        values *= np.repeat(np.float32(0.1) ** np.arange(20, dtype=np.float32), 10_000)
    elif name == "NaNs":
        values[::3] = np.nan
    return values


@pytest.mark.parametrize("codec", [TopK(0.01), TopK(5000), TopK(30, block=1000)], ids=str)
@pytest.mark.parametrize(
    "name",
    ["normal", "sample too large", "sample too small", "ascending", "equal", "blocks fade", "NaNs"],
)
def test_a_wrong_guess_costs_time_only(name: str, codec: TopK) -> None:
    values = tricky(name)
    decoded = codec.decode(codec.encode(values).payload, values.shape)
    magnitudes = (values.view(np.int32) & 0x7FFFFFFF).reshape(-1, codec.block or values.size)
    order = np.argsort(-magnitudes.astype(np.int64), axis=1, kind="stable")[
        :, : codec.kept((values.size,)).kept
    ]
    expected = np.zeros_like(values).reshape(magnitudes.shape)
    np.put_along_axis(expected, order, np.take_along_axis(values.reshape(magnitudes.shape), order, 1), 1)
    np.testing.assert_array_equal(decoded, expected.reshape(-1))


@pytest.mark.parametrize("codec", [TopK(0.02), TopK(5, block=97)], ids=str)
@pytest.mark.parametrize("size", [0, 1, 1000, 150_000])
def test_feedback_in_one_pass_is_feedback_in_two(codec: TopK, size: int) -> None:
    rng = np.random.default_rng(size)
    values, residual = rng.standard_normal((2, size), dtype=np.float32)
    together, in_one = values + residual, residual.copy()
    payload = np.zeros(codec.payload_bound(values.shape), np.uint8)
    num_bytes = codec.encode_with_residual(values, in_one, (), 0, payload, ())
    assert payload[:num_bytes].tobytes() == codec.encode(together).payload.tobytes()
    sent = codec.decode(payload[:num_bytes], values.shape)
    assert (in_one + sent == together).all()
    assert not in_one[sent != 0].any()


def test_coded_values_leave_their_error_in_the_residual() -> None:
    codec = TopK(0.1, values=Homomorphic(bits=8, num_contributions=1, stochastic=False))
    values = np.random.default_rng(1).standard_normal(5000, dtype=np.float32)
    residual = np.zeros_like(values)
    payload = np.zeros(codec.payload_bound(values.shape), np.uint8)
    state = codec.initial_state(values.shape)
    num_bytes = codec.encode_with_residual(values, residual, state, 0, payload, state)
    sent = codec.decode(payload[:num_bytes], values.shape)
    np.testing.assert_allclose(residual + sent, values, rtol=1e-6)
    assert np.linalg.norm(residual) <= codec.error_bound(values.shape) * np.linalg.norm(values)


def test_what_is_not_finite_is_sent_and_not_owed() -> None:
    values = np.array([1, np.nan, 2, np.inf, -3], np.float32)
    residual = np.zeros_like(values)
    codec = TopK(2)
    codec.encode_with_residual(values, residual, (), 0, np.zeros(codec.payload_bound((5,)), np.uint8), ())
    assert residual.tolist() == [1, 0, 2, 0, -3]


@pytest.mark.parametrize("k", [0, -1, 1.5, float("nan"), float("inf")])
def test_a_k_that_makes_no_sense(k: float) -> None:
    with pytest.raises((UsageError, OverflowError)):
        TopK(k)


def test_a_block_that_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="block"):
        TopK(5, block=-1)
    with pytest.raises(UsageError, match="at most the block's"):
        TopK(5, block=4)


def test_the_rest_of_the_blocks_keeps_the_same_share() -> None:
    kept = TopK(64, block=4096).kept((3 * 4096 + 100,))
    assert (kept.kept, kept.kept_in_rest, kept.total) == (64, 2, 194)


def test_golden() -> None:
    values = np.arange(-8, 8, dtype=np.float32) ** 3
    assert TopK(2, block=8).encode(values).payload.tobytes().hex() == GOLDEN


def test_a_payload_that_is_too_long() -> None:
    codec = TopK(2)
    payload = codec.encode(np.ones(20, np.float32)).payload
    with pytest.raises(CodecError):
        codec.decode(np.concatenate([payload, payload]), (20,))
