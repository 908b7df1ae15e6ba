"""What is owed to a parameter follows it from bucket to bucket, and nothing is lost on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import UsageError
from thinwire.training.residuals import Layout, Residuals

SIZES = {"a": 3, "b": 1, "c": 4, "d": 2}


def layout_of(names: str) -> Layout:
    return [(name, SIZES[name]) for name in names]


def cut(names: list[str], marks: set[int]) -> list[str]:
    """``names`` in buckets, beginning a new one at each mark."""
    starts = sorted({0, *(mark for mark in marks if mark < len(names))})
    return ["".join(names[start:end]) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


layouts = st.builds(cut, st.permutations(list(SIZES)), st.sets(st.integers(1, 3)))


@given(st.lists(layouts, min_size=1, max_size=5))
def test_what_is_owed_follows_the_parameter(layouts: list[list[str]]) -> None:
    residuals, generator = Residuals(), np.random.default_rng(0)
    owed = {name: np.zeros(size, np.float32) for name, size in SIZES.items()}
    for buckets in layouts:
        for bucket in buckets:
            residual = residuals.of_bucket(layout_of(bucket)).residual
            assert residual.tobytes() == np.concatenate([owed[name] for name in bucket]).tobytes()
            residual[:] = generator.standard_normal(residual.size)
            ends = np.cumsum([SIZES[name] for name in bucket])
            owed |= dict(zip(bucket, (part.copy() for part in np.split(residual, ends[:-1])), strict=True))


def test_what_was_taken_is_owed_no_longer() -> None:
    residuals = Residuals()
    residuals.of_bucket(layout_of("ab")).residual[:] = [1, 2, 3, 4]
    taken = residuals.take(layout_of("bd"))
    assert taken is not None
    assert taken.tolist() == [4, 0, 0]
    assert residuals.take(layout_of("bd")) is None
    assert residuals.of_bucket(layout_of("ab")).residual.tolist() == [1, 2, 3, 0]


def test_a_bucket_keeps_its_memory() -> None:
    residuals = Residuals()
    memory = residuals.of_bucket(layout_of("abc"))
    assert residuals.of_bucket(layout_of("abc")) is memory


def test_saved_and_loaded_into_another_layout() -> None:
    before, after, file = Residuals(), Residuals(), io.BytesIO()
    before.of_bucket(layout_of("ab")).residual[:] = [1, 2, 3, 4]
    before.of_bucket(layout_of("c")).residual[:] = [5, 6, 7, 8]
    torch.save(before.state_dict(), file)
    file.seek(0)
    after.load_state_dict(torch.load(file, weights_only=True))
    assert after.of_bucket(layout_of("ca")).residual.tolist() == [5, 6, 7, 8, 1, 2, 3]
    assert after.of_bucket(layout_of("b")).residual.tolist() == [4]


@pytest.mark.parametrize("garbage", [{}, {"memory": {}}, {"memory": {"x": 1}, "layouts": {}, "places": {}}])
def test_garbage_is_refused(garbage: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Residuals().load_state_dict(garbage)
