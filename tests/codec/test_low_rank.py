"""Low rank, against the singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.codec.base import Floats, State
from thinwire.codec.low_rank import LowRank
from thinwire.errors import CodecError, UsageError

GOLDEN = "0000984188f9c53d1534a43ee4740b3fbdcf443fa5617a3f07da883f3c83943f722ca03fa6d5ab3f"


def decaying(num_rows: int, num_columns: int, power: float, seed: int = 0) -> Floats:
    """A matrix whose i-th singular value is about i to the minus ``power``."""
    rng = np.random.default_rng(seed)
    rank = min(num_rows, num_columns)
    left = np.linalg.qr(rng.standard_normal((num_rows, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((num_columns, rank)))[0]
    return ((left * np.arange(1, rank + 1) ** -power) @ right.T).astype(np.float32)


def error_against_svd(codec: LowRank, matrix: Floats, num_encodes: int) -> float:
    singular = np.linalg.svd(matrix.reshape(matrix.shape[0], -1), compute_uv=False)
    state: State | None = None
    for seed in range(num_encodes):
        payload, state = codec.encode(matrix, state, seed)
    error = np.linalg.norm(codec.decode(payload, matrix.shape) - matrix)
    return float(error / np.linalg.norm(singular[codec.low_rank_dim :]))


@pytest.mark.parametrize("low_rank_dim", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(60, 80), (200, 33), (17, 300)])
def test_close_to_the_best_at_once_and_closer_later(shape: tuple[int, int], low_rank_dim: int) -> None:
    matrix = decaying(*shape, power=1.0)
    assert error_against_svd(LowRank(low_rank_dim), matrix, 1) < 1.25
    assert error_against_svd(LowRank(low_rank_dim), matrix, 10) < 1.02


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("low_rank_dim", [3, 5])
def test_a_matrix_of_that_rank_is_sent_whole(scale: float, low_rank_dim: int) -> None:
    rng = np.random.default_rng(1)
    matrix = (scale * (rng.standard_normal((40, 3)) @ rng.standard_normal((3, 50)))).astype(np.float32)
    codec = LowRank(low_rank_dim)
    state: State | None = None
    for seed in range(3):
        payload, state = codec.encode(matrix, state, seed)
        decoded = codec.decode(payload, matrix.shape)
        assert np.linalg.norm((decoded - matrix) / scale) < 1e-5 * np.linalg.norm(matrix / scale)


def test_many_matrices_of_one_shape_do_not_share_a_scale() -> None:
    """64 matrices of rank 1 whose scales differ by ten thousand: with feedback all of each is sent."""
    rng = np.random.default_rng(2)
    codec = LowRank(1)
    for scale in np.geomspace(1e-4, 1, 64):
        gradient = (scale * np.outer(rng.standard_normal(32), rng.standard_normal(32))).astype(np.float32)
        residual, state = np.zeros_like(gradient), codec.initial_state(gradient.shape)
        payload = np.empty(codec.payload_bound(gradient.shape), np.uint8)
        for seed in range(5):
            codec.encode_with_residual(gradient, residual, state, seed, payload, state)
        assert np.linalg.norm(residual) < 1e-4 * np.linalg.norm(gradient)


def test_never_longer_than_the_matrix_was() -> None:
    matrix = np.random.default_rng(3).standard_normal((50, 50), dtype=np.float32)
    codec = LowRank(4)
    decoded = codec.decode(codec.encode(matrix).payload, matrix.shape)
    rest = matrix - decoded
    assert abs(np.vdot(decoded, rest)) < 1e-4 * np.vdot(matrix, matrix)
    assert np.linalg.norm(rest) < np.linalg.norm(matrix)


def test_zeros_and_what_comes_after_them() -> None:
    codec, zeros = LowRank(2), np.zeros((30, 30), np.float32)
    payload, state = codec.encode(zeros)
    assert not codec.decode(payload, zeros.shape).any()
    assert not state[0].any()
    matrix = decaying(30, 30, power=2.0)
    payload, _ = codec.encode(matrix, state, seed=9)
    assert np.linalg.norm(codec.decode(payload, matrix.shape) - matrix) < 0.2 * np.linalg.norm(matrix)


def test_any_shape() -> None:
    rng = np.random.default_rng(4)
    for shape in [(), (0,), (7,), (0, 5), (1, 9), (2, 2), (16, 3, 5, 5), (64, 1, 20)]:
        values = rng.standard_normal(shape).astype(np.float32)
        codec = LowRank(1)
        payload, _ = codec.encode(values)
        assert payload.size == codec.payload_bytes(shape)
        decoded = codec.decode(payload, shape)
        error = np.linalg.norm(decoded - values)
        assert error <= codec.error_bound(shape) * np.linalg.norm(values)
        twice = decoded.copy()
        codec.add_decoded(payload, twice)
        np.testing.assert_array_equal(twice, decoded + decoded)


def test_a_payload_of_another_size() -> None:
    codec = LowRank(1)
    payload = codec.encode(np.ones((20, 20), np.float32)).payload
    with pytest.raises(CodecError, match="has 164 bytes, found 163"):
        codec.decode(payload[:-1], (20, 20))


def test_at_least_one_vector() -> None:
    with pytest.raises(UsageError, match="low_rank_dim"):
        LowRank(0)


def test_golden() -> None:
    """The same bits on every machine."""
    matrix = np.arange(20, dtype=np.float32).reshape(4, 5)
    payload = LowRank(1).encode(matrix, seed=5).payload
    assert payload.tobytes().hex() == GOLDEN
