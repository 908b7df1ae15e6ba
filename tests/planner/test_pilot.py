"""The pilot holds still under noise and follows changes; the guard takes bits back; both in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.codecs import FORMS
from tests.planner.test_decision import CNN, MBIT, RUNGS, wire, workloads
from thinwire.planner.cost import exposed_s
from thinwire.planner.decision import decide
from thinwire.planner.forms import FEEDBACK_STEPS, Budget, ladder
from thinwire.planner.guard import HOLD, PATIENCE, Evidence, Guard, watch
from thinwire.planner.pilot import PATIENCE_WITH_EXACT, Pilot, advance
from thinwire.planner.workload import Workload


@given(workloads(), st.floats(1e5, 1e9), st.lists(st.floats(0.9, 1.1), min_size=1, max_size=20))
def test_ten_percent_of_noise_never_changes_a_plan(
    workload: Workload, bandwidth: float, noise: list[float]
) -> None:
    pilot = Pilot()
    on_target = decide(workload, RUNGS, wire(0.65 * bandwidth, workload.num_ranks)).is_on_target
    for factor in noise:
        pilot, _ = advance(pilot, workload, RUNGS, wire(bandwidth * factor, workload.num_ranks))
    assert pilot.number == 1 or not on_target


def test_more_loss_comes_at_once_less_loss_after_patience() -> None:
    pilot, _ = advance(Pilot(), CNN, RUNGS, wire(1000 * MBIT))
    pilot, slower = advance(pilot, CNN, RUNGS, wire(50 * MBIT))
    assert slower is not None
    assert pilot.number == 2
    pilot, faster = advance(pilot, CNN, RUNGS, wire(1000 * MBIT))
    assert faster is None
    pilot, faster = advance(pilot, CNN, RUNGS, wire(1000 * MBIT))
    assert faster is not None
    assert faster.chosen.step < slower.chosen.step


@pytest.mark.parametrize(
    "pilot",
    [advance(Pilot(), CNN, RUNGS, wire(100_000 * MBIT))[0], Pilot(number=1)],
    ids=["exact for these buckets", "exact for others"],
)
def test_exact_is_left_for_a_little_only_when_it_is_asked_for_again_and_again(pilot: Pilot) -> None:
    for _ in range(PATIENCE_WITH_EXACT - 1):
        pilot, decision = advance(pilot, CNN, RUNGS, wire(1800 * MBIT), is_exact=True)
        assert decision is None
    pilot, decision = advance(pilot, CNN, RUNGS, wire(1800 * MBIT), is_exact=True)
    assert decision is not None
    assert decision.chosen.step > 0


def test_an_observation_in_between_that_keeps_exact_begins_the_count_anew() -> None:
    pilot, _ = advance(Pilot(), CNN, RUNGS, wire(100_000 * MBIT))
    for mbit in (*[1800] * (PATIENCE_WITH_EXACT - 1), 100_000, *[1800] * (PATIENCE_WITH_EXACT - 1)):
        pilot, decision = advance(pilot, CNN, RUNGS, wire(mbit * MBIT), is_exact=True)
        assert decision is None


def test_exact_is_left_at_once_where_it_exposes_a_whole_step() -> None:
    pilot, _ = advance(Pilot(), CNN, RUNGS, wire(100_000 * MBIT))
    pilot, decision = advance(pilot, CNN, RUNGS, wire(100 * MBIT), is_exact=True)
    assert decision is not None
    assert decision.chosen.step > 0


def test_one_good_observation_among_bad_ones_changes_nothing() -> None:
    pilot, _ = advance(Pilot(), CNN, RUNGS, wire(50 * MBIT))
    for mbit in (1000, 50, 1000, 50):
        pilot, decision = advance(pilot, CNN, RUNGS, wire(mbit * MBIT))
        assert decision is None


def test_another_number_of_buckets_is_a_new_plan() -> None:
    pilot, _ = advance(Pilot(), CNN, RUNGS, wire(50 * MBIT))
    one = Workload(buckets=CNN.buckets[1:], backward_s=0.035, step_s=0.059, num_ranks=4)
    pilot, decision = advance(pilot, one, RUNGS, wire(50 * MBIT))
    assert decision is not None
    assert len(decision.chosen.forms) == 1


FADING = [
    (0, 1000),
    (15, 550),
    (18, 300),
    (21, 165),
    (24, 90),
    (27, 50),
    (40, 90),
    (43, 165),
    (46, 300),
    (49, 550),
    (52, 1000),
]
ROUND_S = 0.4  # between two observations, as in training.agreement
ROUNDS_TO_APPLY = 2  # one to propose, one to vote


def rate_at(now_s: float) -> float:
    return [mbit * MBIT for at_s, mbit in FADING if at_s <= now_s][-1]


def simulate(seed: int, noise: float) -> Iterator[tuple[float, float, int, int]]:
    """Train on the fading network in virtual time: (time, step time against compute alone, plan number, stair step).

    What is observed of the wire is the mean of the last round, with noise, and a plan takes two rounds to apply.
    """
    generator = np.random.default_rng(seed)
    pilot, applied, proposals = Pilot(), (RUNGS[0],) * 2, []
    now_s = round_due_s = 0.0
    seen: list[float] = []
    while now_s < 60:
        bandwidth = rate_at(now_s)
        took_s = CNN.step_s + exposed_s(CNN, applied, wire(bandwidth))
        now_s += took_s
        seen.append(bandwidth)
        if now_s >= round_due_s:
            round_due_s = now_s + ROUND_S
            if proposals and proposals[0][0] <= 0:
                applied = proposals.pop(0)[1]
            proposals = [(rounds - 1, forms) for rounds, forms in proposals]
            measured = float(np.mean(seen)) * generator.uniform(1 - noise, 1 + noise)
            seen.clear()
            pilot, decision = advance(pilot, CNN, RUNGS, wire(measured))
            if decision is not None:
                proposals.append((ROUNDS_TO_APPLY - 1, decision.chosen.forms))
        yield now_s, took_s / CNN.step_s, pilot.number, [RUNGS.index(form) for form in applied][-1]


@pytest.mark.parametrize("seed", range(5))
def test_a_fading_network_has_a_new_plan_within_three_seconds_of_each_change(seed: int) -> None:
    rows = list(simulate(seed, noise=0.1))
    for (at_s, _), (until_s, _) in zip(FADING, [*FADING[1:], (60, 0)], strict=True):
        settled = [row for row in rows if at_s + 3 <= row[0] < until_s]
        right = decide(CNN, RUNGS, wire(rate_at(at_s))).chosen.exposed_s
        for _, ratio, _, _ in settled:
            assert ratio <= 1 + 1.4 * max(0.03, right / CNN.step_s) + 0.03, f"{at_s} s: {ratio}"
    assert rows[-1][2] <= 3 * len(FADING)


def test_the_same_observations_give_the_same_plans() -> None:
    assert list(simulate(0, 0.1)) == list(simulate(0, 0.1))


def test_what_a_smaller_form_left_behind_is_not_held_against_the_next() -> None:
    """At 10 Mbit/s: 4 columns owed a lot, and then 8 and 16 were taken back too, one after the other."""
    guard, owing = Guard(), Evidence(residual_ratio=18.0, cosine=0.05)
    for _ in range(PATIENCE):
        guard = watch(guard, owing, RUNGS[4], rung=4, num_ranks=4)
    assert guard.floor == 3
    for _ in range(FEEDBACK_STEPS):
        guard = watch(guard, owing, RUNGS[3], rung=3, num_ranks=4)
    assert guard.floor == 3
    for _ in range(PATIENCE):
        guard = watch(guard, owing, RUNGS[3], rung=3, num_ranks=4)
    assert guard.floor == 2


def test_the_guard_takes_a_rung_back_and_gives_it_back_later() -> None:
    guard, form = Guard(), RUNGS[4]
    for _ in range(PATIENCE):
        assert guard.floor is None
        guard = watch(guard, Evidence(cosine=0.05), form, rung=4, num_ranks=4)
    assert guard.floor == 3
    assert "cosine" in guard.complaint
    good = Evidence(cosine=0.99, residual_ratio=0.1)
    for _ in range(HOLD - 1):
        guard = watch(guard, good, RUNGS[3], rung=3, num_ranks=4)
    assert guard.floor == 3
    guard = watch(guard, good, RUNGS[3], rung=3, num_ranks=4)
    assert guard.floor is None
    for _ in range(PATIENCE):
        guard = watch(guard, Evidence(residual_ratio=float("nan")), form, rung=4, num_ranks=4)
    assert guard.held == 2 * HOLD


def test_a_rising_loss_takes_bits_back_and_a_noisy_one_does_not() -> None:
    generator = np.random.default_rng(0)
    guard = Guard()
    for step in range(500):
        loss = 2.0 * 0.99**step + 0.1 + 0.05 * generator.standard_normal()
        guard = watch(
            guard, Evidence(loss=loss, residual_ratio=0.3, cosine=0.9), RUNGS[4], rung=4, num_ranks=4
        )
    assert guard.floor is None
    for step in range(100):
        guard = watch(guard, Evidence(loss=0.1 + 0.05 * step), RUNGS[4], rung=4, num_ranks=4)
    assert guard.floor == 3
    assert "loss has risen" in guard.complaint


def test_exact_is_never_blamed() -> None:
    guard = Guard()
    for step in range(100):
        guard = watch(guard, Evidence(loss=float(step), residual_ratio=9.0), RUNGS[0], rung=0, num_ranks=4)
    assert guard.floor is None


def test_a_floor_holds_in_the_plan() -> None:
    _, decision = advance(Pilot(), CNN, ladder(FORMS, Budget()), wire(10 * MBIT), floor=3)
    assert decision is not None
    assert all(RUNGS.index(form) <= 3 for form in decision.chosen.forms)
