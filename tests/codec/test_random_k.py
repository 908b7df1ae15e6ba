"""Random-k: the same places for the same seed, no bias, no indices."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.codec.random_k import RandomK
from thinwire.errors import CodecError, UsageError

GOLDEN = [15, 27, 57, 77]


def test_one_of_each_part() -> None:
    codec = RandomK(10, unbiased=False)
    for seed in (0, 1, 2**64 - 1):
        decoded = codec.decode(codec.encode(np.ones(1003, np.float32), seed=seed).payload, (1003,))
        assert np.flatnonzero(decoded).size == 10
        bounds = np.arange(11) * 1003 // 10
        assert [int(part.sum()) for part in np.split(decoded, bounds[1:-1])] == [1] * 10


def test_ranks_with_one_seed_keep_the_same_places() -> None:
    codec = RandomK(0.1)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 500), dtype=np.float32)
    each = [codec.decode(codec.encode(own, seed=7).payload, (500,)) for own in values]
    together = codec.decode(codec.encode(values.sum(0), seed=7).payload, (500,))
    np.testing.assert_allclose(sum(each), together, rtol=1e-4, atol=1e-5)
    other = codec.decode(codec.encode(values[0], seed=8).payload, (500,))
    assert ((other != 0) != (each[0] != 0)).any()


def test_unbiased_though_the_parts_differ_in_length() -> None:
    codec = RandomK(4)
    values = np.arange(1, 12, dtype=np.float32)
    mean = np.mean([codec.decode(codec.encode(values, seed=seed).payload, (11,)) for seed in range(20000)], 0)
    deviation = values * np.sqrt(3 - 1) / np.sqrt(20000)
    assert (np.abs(mean - values) < 5 * deviation).all()
    assert codec.is_unbiased
    assert not RandomK(4, unbiased=False).is_unbiased


def test_exact_size_and_everything_where_k_is_large() -> None:
    codec = RandomK(100)
    values = np.random.default_rng(0).standard_normal(60, dtype=np.float32)
    payload, _ = codec.encode(values)
    assert payload.size == codec.payload_bytes((60,)) == 8 + 240
    np.testing.assert_array_equal(codec.decode(payload, (60,)), values)
    total = values.copy()
    codec.add_decoded(payload, total)
    np.testing.assert_array_equal(total, 2 * values)
    assert codec.error_bound((60,)) == 0


def test_a_payload_without_a_seed() -> None:
    with pytest.raises(CodecError, match="a seed of 8 bytes"):
        RandomK(1).decode(np.zeros(7, np.uint8), (5,))
    with pytest.raises(UsageError, match="random_k"):
        RandomK(0)


def test_golden() -> None:
    """The places that a seed stands for never change."""
    payload = RandomK(4, unbiased=False).encode(np.arange(100, dtype=np.float32), seed=2024).payload
    assert payload[8:].view(np.float32).tolist() == GOLDEN
