"""Splitting over threads: who counts as free, and that it does not show in the bytes."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from thinwire.codec import parallel
from thinwire.codec.feedback import ErrorFeedback
from thinwire.codec.text import parse


@pytest.mark.parametrize(
    ("cores", "ranks", "omp_threads", "torch_threads", "free"),
    [
        (16, None, "4", None, 12),
        (16, "2", "4", None, 4),
        (16, "16", "1", None, 0),
        (16, None, None, None, 0),
        (16, None, "4", 6, 10),
        (2, "4", "1", None, 0),
        (4, "x", "0", None, 0),
    ],
)
def test_free_cores_are_those_that_training_leaves(
    cores: int,
    ranks: str | None,
    omp_threads: str | None,
    torch_threads: int | None,
    free: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    for name, value in (("LOCAL_WORLD_SIZE", ranks), ("OMP_NUM_THREADS", omp_threads)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    torch = None if torch_threads is None else SimpleNamespace(get_num_threads=lambda: torch_threads)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert parallel.free_cores() == free


@pytest.mark.parametrize(
    "inner",
    [
        "quantize(bits=3)",
        "quantize(bits=4, rounding=stochastic)",
        "cast(to=bfloat16)",
        "rotate(quantize(bits=4))",
    ],
)
def test_threads_do_not_show_in_the_bytes(inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = ErrorFeedback(parse(inner))
    values = np.random.default_rng(0).standard_normal(40_001).astype(np.float32)
    results = []
    for free in (0, 3):
        monkeypatch.setattr(parallel, "free_cores", lambda free=free: free)
        monkeypatch.setattr(parallel, "_LEAST_VALUES_A_THREAD", 1 << 10)
        payload, state = codec.encode(values, seed=2)
        results.append((payload, state[0], codec.decode(payload, values.shape)))
    for alone, together in zip(*results, strict=True):
        np.testing.assert_array_equal(alone, together)


def test_parts_cover_all_blocks_and_a_failure_in_any_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "free_cores", lambda: 3)
    seen: list[int] = []

    def work(first: int, end: int) -> None:
        seen.extend(range(first, end))

    parallel.in_parts(10, 1 << 22, work)
    assert sorted(seen) == list(range(10))
    with pytest.raises(ZeroDivisionError):
        parallel.in_parts(10, 1 << 22, lambda first, end: 1 // (10 - end))
