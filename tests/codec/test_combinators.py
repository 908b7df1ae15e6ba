"""Chain, warm-up, choice per tensor, momentum: whose state is whose, and what is decoded by whom."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.codec.base import Codec, Floats, State
from thinwire.codec.chain import Chain
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.low_rank import LowRank
from thinwire.codec.momentum import Momentum
from thinwire.codec.per_tensor import PerTensor
from thinwire.codec.plain import Plain
from thinwire.codec.random_k import RandomK
from thinwire.codec.rans import Rans
from thinwire.codec.top_k import TopK
from thinwire.codec.warm_up import WarmUp
from thinwire.errors import CodecError, UsageError


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def sequence(codec: Codec, values: Floats, count: int) -> list[Floats]:
    """What successive encodes of the same values are decoded to."""
    state: State | None = None
    decoded = []
    for seed in range(count):
        payload, state = codec.encode(values, state, seed)
        assert payload.size <= codec.payload_bound(values.shape)
        decoded.append(codec.decode(payload, values.shape))
    return decoded


def test_a_chain_sends_what_is_left() -> None:
    values = normal(50, 60)
    first, second = TopK(0.1), LowRank(3)
    codec = Chain((first, second))
    (decoded,) = sequence(codec, values, 1)
    of_first = first.decode(first.encode(values).payload, values.shape)
    error = np.linalg.norm(values - decoded)
    assert error < np.linalg.norm(values - of_first)
    assert error <= codec.error_bound(values.shape) * np.linalg.norm(values)


def test_a_chain_of_three_with_states_and_unknown_lengths() -> None:
    values = normal(40, 40)
    codec = Chain((LowRank(2), Rans(Homomorphic()), TopK(0.5)))
    assert len(codec.initial_state(values.shape)) == 2
    decoded = sequence(codec, values, 3)
    errors = [np.linalg.norm(values - own) for own in decoded]
    assert max(errors) < 0.06 * np.linalg.norm(values)
    residual, state = np.zeros_like(values), codec.initial_state(values.shape)
    payload = np.empty(codec.payload_bound(values.shape), np.uint8)
    num_bytes = codec.encode_with_residual(values, residual, state, 0, payload, state)
    total = residual.copy()
    codec.add_decoded(payload[:num_bytes], total)
    np.testing.assert_allclose(total, values, atol=1e-5)


def test_the_last_of_a_chain_decides_about_bias() -> None:
    values = normal(30)
    codec = Chain((TopK(3), RandomK(10)))
    assert codec.is_unbiased
    assert not Chain((RandomK(10), TopK(3))).is_unbiased
    mean = np.mean([codec.decode(codec.encode(values, seed=seed).payload, (30,)) for seed in range(8000)], 0)
    assert np.abs(mean - values).max() < 5 * np.abs(values).max() * 1.5 / 8000**0.5


def test_a_chain_cut_off_or_empty() -> None:
    codec = Chain((TopK(3), Plain()))
    payload, _ = codec.encode(normal(30))
    for length in (0, 7, 12, payload.size - 1):
        with pytest.raises(CodecError):
            codec.decode(payload[:length], (30,))
    with pytest.raises(UsageError, match="one codec or more"):
        Chain(())
    assert Chain((Plain(), Plain())).payload_bytes((5,)) == 40


def test_warm_up_changes_after_its_encodes_and_keeps_both_states() -> None:
    values = normal(20, 20)
    codec = WarmUp(LowRank(1), Momentum(TopK(2)), num_encodes=2)
    state = codec.initial_state(values.shape)
    kinds = []
    for seed in range(4):
        payload, after = codec.encode(values, state, seed)
        kinds.append(int(payload[0]))
        momentum_moved, basis_moved = after[2].any(), not np.array_equal(state[1], after[1])
        assert momentum_moved == (seed >= 2)
        assert basis_moved == (seed < 2)
        state = after
    assert kinds == [0, 0, 1, 1]
    assert state[0] == 4


def test_warm_up_in_place_and_with_a_residual() -> None:
    values = normal(20, 20)
    codec = WarmUp(Plain(), TopK(0.1), num_encodes=1)
    state, residual = codec.initial_state(values.shape), np.zeros_like(values)
    payload = np.empty(codec.payload_bound(values.shape), np.uint8)
    codec.encode_with_residual(values, residual, state, 0, payload, state)
    assert not residual.any()
    num_bytes = codec.encode_with_residual(values, residual, state, 0, payload, state)
    total = residual.copy()
    codec.add_decoded(payload[:num_bytes], total)
    np.testing.assert_array_equal(total, values)
    assert codec.payload_bytes((5,)) is None
    assert WarmUp(Plain(), Plain(), 1).payload_bytes((5,)) == 21
    assert WarmUp(Plain(), Plain(), 1).is_lossless


def test_warm_up_with_a_first_byte_that_names_nothing() -> None:
    codec = WarmUp(Plain(), TopK(1), num_encodes=1)
    for payload in (np.zeros(0, np.uint8), np.full(9, 2, np.uint8)):
        with pytest.raises(CodecError, match="first byte"):
            codec.decode(payload, (2,))
    with pytest.raises(UsageError, match="num_encodes"):
        WarmUp(Plain(), Plain(), -1)


def test_per_tensor_chooses_by_the_shape() -> None:
    codec = PerTensor(matrices=LowRank(2), vectors=TopK(0.1), small_values=100)
    assert codec.choice((200, 3)) == LowRank(2)
    assert codec.choice((500,)) == TopK(0.1)
    assert codec.choice((10, 10)) == codec.choice((3,)) == codec.choice(()) == Plain()
    assert not codec.is_unbiased
    assert not codec.is_lossless
    for shape in [(200, 3), (500,), (4,)]:
        values = normal(*shape)
        chosen = codec.choice(shape)
        assert codec.encode(values).payload.tobytes() == chosen.encode(values).payload.tobytes()
        assert codec.payload_bytes(shape) == chosen.payload_bytes(shape)
        assert codec.error_bound(shape) == chosen.error_bound(shape)
    with pytest.raises(UsageError, match="small_values"):
        PerTensor(Plain(), Plain(), small_values=-1)


def test_momentum_is_that_of_the_paper() -> None:
    """Against the algorithm as it is written there, with a top-1 whose choice is plain to see."""
    gradients = normal(6, 4, seed=5)
    codec, state = Momentum(TopK(1), momentum=0.9), None
    u, v = np.zeros(4), np.zeros(4)
    for gradient in gradients:
        payload, state = codec.encode(gradient, state)
        u = 0.9 * u + gradient
        v = v + u
        mask = np.arange(4) == np.argmax(np.abs(v))
        np.testing.assert_allclose(codec.decode(payload, (4,)), v * mask, rtol=1e-5)
        u, v = u * ~mask, v * ~mask
        np.testing.assert_allclose(state[0], u, rtol=1e-5)
        np.testing.assert_allclose(state[1], v, rtol=1e-5)


def test_without_momentum_it_is_feedback() -> None:
    values = normal(100)
    decoded = sequence(Momentum(TopK(0.2), momentum=0.0), values, 40)
    np.testing.assert_allclose(np.mean(decoded, 0), values, atol=0.15 * np.abs(values).max())
    with pytest.raises(UsageError, match="momentum"):
        Momentum(Plain(), momentum=1.0)
