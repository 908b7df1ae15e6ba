"""Quantisation: the compiled kernels against their NumPy twin, and how the bytes lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codec import quantize
from thinwire.codec.base import Array
from thinwire.codec.feedback import ErrorFeedback
from thinwire.codec.kernels import quantize_numpy
from thinwire.codec.quantize import Quantize
from thinwire.errors import CodecError, UsageError

LEVELS = st.sampled_from(
    [(None, "nearest"), ("lloyd_max", "nearest"), ("uniform", "nearest"), (None, "stochastic")]
)
SPECIAL = np.array([0, -0.0, 1e-45, -1e-38, 1e-31, 3.4e38, -3.4e38, np.inf, np.nan, 1, -1, 7.5], np.float32)


@st.composite
def codecs(draw: st.DrawFn) -> Quantize:
    levels, rounding = draw(LEVELS)
    bits = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    is_uniform = levels == "uniform" or rounding == "stochastic" or (levels is None and bits > 4)
    scale = "least_squares" if is_uniform else draw(st.sampled_from(["least_squares", "unbiased"]))
    return Quantize(bits, 8 * draw(st.integers(1, 80)), levels, rounding, scale)  # type: ignore[arg-type]


@st.composite
def tensors(draw: st.DrawFn) -> Array:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(0, 2000))
    values = random.standard_t(draw(st.sampled_from([1, 3, 100])), size).astype(np.float32)
    values *= np.float32(10.0 ** draw(st.integers(-35, 35)))
    if size:
        for place in random.integers(0, size, draw(st.integers(0, 4))):
            values[place] = random.choice(SPECIAL)
    return values


@settings(max_examples=300, deadline=None)
@given(codecs(), tensors(), st.integers(0, 2**64 - 1))
def test_the_kernels_are_their_numpy_twins(codec: Quantize, values: Array, seed: int) -> None:
    combined = ErrorFeedback(codec)
    state = combined.encode(values, seed=seed).state
    results = []
    for kernels in (quantize._kernels(), quantize_numpy):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantize, "_kernels", lambda kernels=kernels: kernels)
            plain = codec.encode(values, seed=seed).payload
            payload, after = combined.encode(values, state, seed)
            added = values.copy()
            codec.add_decoded(payload, added)
            results.append([plain, payload, after[0], codec.decode(payload, values.shape), added])
    for ours, twin in zip(*results, strict=True):
        np.testing.assert_array_equal(_bits(ours), _bits(twin))


def _bits(array: Array) -> Array:
    return np.nan_to_num(array, nan=12345.0).view(np.uint8)


def test_a_block_that_is_not_finite_is_decoded_as_nan_and_leaves_its_residual() -> None:
    codec = ErrorFeedback(Quantize(bits=2, block=8))
    state = codec.encode(np.linspace(-1, 2, 16, dtype=np.float32)).state
    values = np.ones(16, np.float32)
    values[3] = np.inf
    payload, after = codec.encode(values, state)
    decoded = codec.decode(payload, (16,))
    assert np.isnan(decoded[:8]).all()
    assert np.isfinite(decoded[8:]).all()
    np.testing.assert_array_equal(after[0][:8], state[0][:8])


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 5},
        {"block": 12},
        {"block": 0},
        {"block": 1 << 17},
        {"rounding": "stochastic", "levels": "lloyd_max"},
        {"bits": 8, "scale": "unbiased"},
    ],
)
def test_parameters_that_make_no_codec_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Quantize(**{"bits": 4, **wrong})


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 255, 256, 257])
def test_a_payload_of_another_length_is_refused(size: int) -> None:
    codec = Quantize(bits=3)
    payload = codec.encode(np.ones(size, np.float32)).payload
    with pytest.raises(CodecError, match="has"):
        codec.decode(np.append(payload, np.uint8(0)), (size,))
    if size:
        with pytest.raises(CodecError, match="has"):
            codec.decode(payload[:-1], (size,))
