"""The other kernels against their NumPy twins, and both against other people's."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codec import cast, rotate
from thinwire.codec.base import Array
from thinwire.codec.cast import Cast
from thinwire.codec.kernels import floats_numpy, hadamard_numpy, levels
from thinwire.codec.quantize import Quantize
from thinwire.codec.rotate import Rotate

BITS = st.lists(st.integers(0, 2**32 - 1), max_size=400).map(
    lambda bits: np.array(bits, np.uint32).view(np.float32)
)


def _same(left: Array, right: Array) -> None:
    np.testing.assert_array_equal(np.isnan(left), np.isnan(right))
    np.testing.assert_array_equal(np.nan_to_num(left).view(np.uint32), np.nan_to_num(right).view(np.uint32))


@settings(max_examples=150, deadline=None)
@given(BITS, st.sampled_from(["float16", "bfloat16", "float8_e4m3", "float8_e5m2"]), st.sampled_from([8, 32]))
def test_casts_are_their_numpy_twins(values: Array, to: str, block: int) -> None:
    codec = Cast(to, block)  # type: ignore[arg-type]
    payloads, added = [], []
    for kernels in (cast._kernels(), floats_numpy):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cast, "_kernels", lambda kernels=kernels: kernels)
            payloads.append(codec.encode(values).payload)
            added.append(np.ones(values.size, np.float32))
            codec.add_decoded(payloads[-1], added[-1])
    np.testing.assert_array_equal(*payloads)
    _same(*added)


@given(BITS)
def test_16_bits_are_those_of_torch_up_to_its_infinities(values: Array) -> None:
    for to, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        ours = Cast(to).decode(Cast(to).encode(values).payload, values.shape)  # type: ignore[arg-type]
        theirs = torch.from_numpy(values.copy()).to(kind).float().numpy()
        theirs = np.where(
            np.isinf(theirs) & np.isfinite(values), np.sign(theirs) * torch.finfo(kind).max, theirs
        )
        _same(ours, theirs.astype(np.float32))


@pytest.mark.parametrize(
    ("form", "kind"),
    [(floats_numpy.FLOAT8_E4M3, torch.float8_e4m3fn), (floats_numpy.FLOAT8_E5M2, torch.float8_e5m2)],
)
def test_8_bits_are_those_of_torch(form: floats_numpy.Format, kind: torch.dtype) -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(kind).float().numpy()
    _same(form.values(), np.where(np.isinf(theirs), np.float32(np.nan), theirs))


@settings(max_examples=60, deadline=None)
@given(BITS, st.sampled_from([2, 16, 256]), st.integers(0, 2**64 - 1))
def test_rotations_are_their_numpy_twins(values: Array, width: int, seed: int) -> None:
    codec = Rotate(Cast("bfloat16"), width)
    results = []
    for kernels in (rotate._kernels(), hadamard_numpy):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rotate, "_kernels", lambda kernels=kernels: kernels)
            turned = values.copy()
            codec._turn("rotate", turned, seed)
            back = turned.copy()
            codec._turn("rotate_back", back, seed)
            results.append((turned, back))
    for ours, twin in zip(*results, strict=True):
        _same(ours, twin)


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_rotations_keep_lengths_and_are_undone(size: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    codec = Rotate(Cast("bfloat16"), 1024)
    turned = values.copy()
    codec._turn("rotate", turned, seed)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values) * hadamard_numpy.SHRINK, rel=1e-5)
    codec._turn("rotate_back", turned, seed)
    np.testing.assert_allclose(turned, values, atol=1e-5)


@pytest.mark.parametrize("bits", levels.BITS)
def test_lloyd_max_levels_are_the_means_of_their_cells(bits: int) -> None:
    normal = NormalDist()
    positive = levels.lloyd_max(bits)[1 << bits >> 1 :] / levels.UNITS
    borders = [0, *((positive[1:] + positive[:-1]) / 2), 40]
    means = [
        (normal.pdf(low) - normal.pdf(high)) / (normal.cdf(high) - normal.cdf(low))
        for low, high in pairwise(borders)
    ]
    np.testing.assert_allclose(positive, means, atol=0.012)


def test_the_unbiased_scale_makes_rotated_values_unbiased() -> None:
    codec = Rotate(Quantize(bits=1, block=512, scale="unbiased"), 512)
    values = np.random.default_rng(0).exponential(size=512).astype(np.float32)
    errors = np.array(
        [codec.decode(codec.encode(values, seed=s).payload, (512,)) - values for s in range(512)]
    )
    ratio = np.square(errors.mean(axis=0)).sum() * 512 / np.square(errors).sum(axis=1).mean()
    assert ratio < 1.5
