"""Every generator, for any number of ranks, weights and sizes, proves its collective and agrees with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.collective import Algorithm, CollectiveKind, Schedule, algorithms, prove
from thinwire.collective.algorithms.hierarchical import Groups
from thinwire.testing.algorithms import check_schedule

RANKS = st.one_of(st.integers(1, 17), st.sampled_from([23, 24, 31, 32]))


def draw_weights(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    weights = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    return tuple(weights) if sum(weights) else (1,) * count


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    algorithm: Algorithm = draw(st.sampled_from(algorithms()))
    num_ranks = 2 if algorithm.kind is CollectiveKind.SEND_RECV else draw(RANKS)
    num_owners = num_ranks
    params: dict[str, Any] = {}
    if "groups" in algorithm.parameters:
        numbers = st.lists(st.integers(0, 3), min_size=num_ranks, max_size=num_ranks)
        params["groups"] = tuple(draw(numbers))
        num_owners = len(Groups(num_ranks, params["groups"], None).owners)
    if "rows" in algorithm.parameters:
        params["rows"] = draw(st.sampled_from([d for d in range(1, num_ranks + 1) if num_ranks % d == 0]))
    if "weights" in algorithm.parameters:
        params["weights"] = draw_weights(draw, num_owners)
    if "wide" in algorithm.parameters:
        params["wide"] = draw(st.booleans())
    if "hub" in algorithm.parameters:
        params["hub"] = draw(st.integers(0, num_ranks - 1))
    if algorithm.is_rooted:
        params["root"] = draw(st.integers(0, num_ranks - 1))
    return algorithm.generate(num_ranks, **params)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(schedules(), st.integers(0, 120), st.integers(0, 2**32 - 1))
def test_every_schedule_keeps_its_promise(schedule: Schedule, num_elements: int, seed: int) -> None:
    check_schedule(schedule, np.random.default_rng(seed), num_elements=num_elements)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(schedules())
def test_a_proof_for_one_window_holds_for_larger_ones(schedule: Schedule) -> None:
    proofs = [prove(schedule, window=window) for window in (1, 2, None)]
    assert len({proof.steps for proof in proofs}) == 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["ring", "direct"])
def test_64_ranks_are_proved(name: str) -> None:
    (algorithm,) = (known for known in algorithms() if (known.name, known.kind) == (name, "all_reduce"))
    proof = prove(algorithm.generate(64), window=4)
    assert proof.steps == algorithm.steps(64)
    assert set(proof.messages_sent) == {126}
