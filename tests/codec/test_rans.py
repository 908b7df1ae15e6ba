"""The entropy coder: the oracle's bytes, close to the entropy, and no bytes that break it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec.oracles import entropy_bits, rans_decode, rans_encode
from thinwire.codec.base import Payload
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.kernels.rans import count_symbols, scale_counts
from thinwire.codec.plain import Plain
from thinwire.codec.rans import Rans, compress, decompress
from thinwire.errors import CodecError

GOLDEN = (
    "01840000000060c60ee905f402f402000ce905008ccfb4cef0f5a90b0071cd0b001927c9f043cb0a00"
    "f4553fdea7ec23dbcaa60a00c0683e7c5cc308da3de65e4c498e1ea20f0aa49699e2af97"
)


def compressed(symbols: Payload) -> Payload:
    out = np.full(symbols.size + 1, 0xAA, np.uint8)
    return out[: compress(symbols, out)]


def frequencies_of(symbols: Payload) -> list[int]:
    counts, frequencies = np.empty(256, np.int64), np.empty(256, np.uint32)
    count_symbols(symbols, counts)
    scale_counts(counts, frequencies)
    return [int(frequency) for frequency in frequencies]


def skewed(size: int, seed: int, spread: float) -> Payload:
    drawn = np.random.default_rng(seed).standard_normal(size) * spread
    return (np.round(drawn).astype(np.int64) % 256).astype(np.uint8)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | st.text("ab", min_size=100, max_size=600).map(str.encode))
def test_round_trip_and_never_more_than_a_byte_longer(data: bytes) -> None:
    symbols = np.frombuffer(data, np.uint8)
    payload = compressed(symbols)
    assert payload.size <= symbols.size + 1
    assert decompress(payload, symbols.size).tobytes() == data


@pytest.mark.parametrize("size", [200, 1001, 1007, 4096])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_the_words_are_the_oracle_s(size: int, spread: float) -> None:
    symbols = skewed(size, size, spread)
    payload, frequencies = compressed(symbols), frequencies_of(symbols)
    states, words = rans_encode(symbols.tolist(), frequencies)
    assert payload[0] == 1
    tail = np.array(states, "<u4").tobytes() + np.array(words, "<u2").tobytes()
    assert payload.tobytes().endswith(tail)
    assert rans_decode(states, words, frequencies, size) == symbols.tolist()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 255), st.integers(1, 10**6), min_size=1))
def test_frequencies_sum_up_and_leave_no_symbol_out(occurrences: dict[int, int]) -> None:
    counts, frequencies = np.zeros(256, np.int64), np.empty(256, np.uint32)
    for symbol, count in occurrences.items():
        counts[symbol] = count
    scale_counts(counts, frequencies)
    assert frequencies.sum() == 4096
    assert ((frequencies > 0) == (counts > 0)).all()


@pytest.mark.parametrize("spread", [0.7, 2.0, 10.0, 60.0])
def test_within_one_percent_of_the_entropy(spread: float) -> None:
    symbols = skewed(1 << 20, 1, spread)
    assert 8 * compressed(symbols).size <= 1.01 * entropy_bits(symbols)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2000))
def test_any_bytes_are_symbols_or_an_error(data: bytes, most: int) -> None:
    try:
        symbols = decompress(np.frombuffer(b"\x01" + data, np.uint8), most)
    except CodecError:
        return
    assert symbols.size <= most


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_changed_or_cut_payload_does_no_harm(place: int, change: int, is_cut: bool) -> None:
    symbols = skewed(2000, 7, 1.5)
    payload = compressed(symbols).copy()
    place %= payload.size
    if is_cut:
        payload = payload[:place]
    else:
        payload[place] ^= change
    try:
        found = decompress(payload, symbols.size)
    except CodecError:
        return
    assert not is_cut
    assert found.size <= payload.size or found.size == symbols.size


def test_a_payload_that_claims_more_than_was_announced() -> None:
    payload = compressed(skewed(2000, 7, 1.5))
    with pytest.raises(CodecError, match="1 to 1999 symbols"):
        decompress(payload, 1999)


def test_values_error_and_residual_are_the_inner_codec_s() -> None:
    inner = Homomorphic(bits=16, num_contributions=1)
    codec = Rans(inner)
    values = np.random.default_rng(0).standard_normal((30, 40), dtype=np.float32)
    payload, _ = codec.encode(values, seed=3)
    plain, _ = inner.encode(values, seed=3)
    assert (codec.decode(payload, values.shape) == inner.decode(plain, values.shape)).all()
    residual = np.zeros_like(values)
    state = codec.initial_state(values.shape)
    out = np.empty(codec.payload_bound(values.shape), np.uint8)
    num_bytes = codec.encode_with_residual(values, residual, state, 3, out, state)
    assert out[:num_bytes].tobytes() == payload.tobytes()
    total = np.ones_like(values)
    codec.add_decoded(payload, total)
    np.testing.assert_allclose(total + residual, values + 1, atol=1e-6)
    assert Rans(Plain()).is_lossless
    assert codec.is_unbiased
    assert codec.error_bound(values.shape) == inner.error_bound(values.shape)


def test_golden() -> None:
    symbols = np.frombuffer(b"abracadabra" * 12, np.uint8)
    assert compressed(symbols).tobytes().hex() == GOLDEN
