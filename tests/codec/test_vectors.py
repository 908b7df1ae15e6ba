"""Vectors in kernels against NumPy's arrays of the same elements."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from thinwire.codec.base import Array
from thinwire.codec.kernels.vectors import (
    LANES,
    choose,
    converted,
    is_at_least,
    lanes,
    larger,
    largest_of,
    load,
    mask_of,
    products,
    seen_as,
    smaller,
    splat,
    store,
    sum_of,
    swapped,
)

RANDOM = np.random.default_rng(0)
FLOATS = RANDOM.standard_normal(2 * LANES).astype(np.float32)
WORDS = RANDOM.integers(-32768, 32767, 2 * LANES).astype(np.int16)


@numba.njit
def _computed(floats: Array, words: Array, out: Array, out_words: Array) -> Any:
    x, y = load(floats, 0), load(floats, LANES)
    v, w = load(words, 0), load(words, LANES)
    store(out, 0, x * y + np.float32(2) - swapped(x, 4))
    store(out, LANES, choose(is_at_least(x, y), larger(x, np.float32(0.5)), smaller(x, y)))
    store(out, 2 * LANES, converted(converted(x * np.float32(100), np.int32), np.float32))
    store(out_words, 0, (v ^ (w >> 3)) & np.int16(0xFFF) | splat(np.int16(4096)))
    store(out_words, LANES, converted(lanes(np.int32) << 2, np.int16))
    return (
        sum_of(x),
        sum_of(v),
        sum_of(products(v, w)),
        mask_of(is_at_least(x, np.float32(0))),
        largest_of(seen_as(x, np.uint32) & np.uint32(0x7FFFFFFF)),
    )


def test_vectors_are_arrays_of_32_elements() -> None:
    out, out_words = np.empty(3 * LANES, np.float32), np.empty(2 * LANES, np.int16)
    x, y = np.split(FLOATS, 2)
    v, w = np.split(WORDS, 2)
    found = _computed(FLOATS, WORDS, out, out_words)
    chosen = np.where(x >= y, np.maximum(x, np.float32(0.5)), np.minimum(x, y))
    whole = np.trunc(x * np.float32(100))
    np.testing.assert_array_equal(out, [*(x * y + 2 - x[np.arange(LANES) ^ 4]), *chosen, *whole])
    np.testing.assert_array_equal(out_words, [*((v ^ (w >> 3)) & 0xFFF | 4096), *(4 * np.arange(LANES))])
    halves = x
    while halves.size > 1:
        halves = np.add(*np.split(halves, 2))
    assert found == (
        halves[0],
        v.sum(dtype=np.int64),
        (v.astype(np.int64) * w).sum(),
        sum(1 << i for i in range(LANES) if x[i] >= 0),
        np.abs(x).max().view(np.uint32),
    )
