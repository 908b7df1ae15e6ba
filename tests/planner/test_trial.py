"""A plan that loses more and gains nothing is taken back; one that gains is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thinwire.planner.trial import HOLD, ROUNDS, Trial, observe


def after(trial: Trial, rounds: int, rung: int, step_s: float, bytes_per_s: float = 1e8) -> Trial:
    for _ in range(rounds):
        trial = observe(trial, f"rung {rung}", rung, step_s, bytes_per_s)
    return trial


def test_what_made_steps_longer_is_forbidden_for_a_while() -> None:
    trial = after(after(Trial(), 5, 1, 0.13), ROUNDS, 2, 0.168)
    assert trial.floor is None
    trial = after(trial, 1, 2, 0.168)
    assert trial.floor == 1
    trial = after(trial, HOLD - 1, 1, 0.13)
    assert trial.floor == 1
    assert after(trial, 1, 1, 0.13).floor is None


@given(st.integers(0, 5), st.integers(1, 5), st.floats(0.01, 1), st.floats(0.1, 0.96))
def test_what_made_steps_shorter_stays(rung: int, lower: int, step_s: float, gain: float) -> None:
    trial = after(after(Trial(), 3, rung, step_s), 20, rung + lower, step_s * gain)
    assert trial.floor is None


def test_a_trial_goes_on_when_the_plan_moves_within_it() -> None:
    """As seen in the lab: exact, then a sparse plan for two rounds, then 8 bits, and steps as long as at first."""
    trial = after(after(Trial(), 3, 0, 0.124), 1, 7, 0.3)
    trial = after(trial, ROUNDS + 1, 1, 0.126)
    assert trial.floor == 0
    trial = after(after(after(Trial(), 3, 0, 0.124), 1, 1, 0.126), ROUNDS + 1, 2, 0.127)
    assert trial.floor == 0


def test_the_first_plan_and_a_step_back_are_not_on_trial() -> None:
    assert after(Trial(), 20, 3, 1.0).floor is None
    assert after(after(Trial(), 3, 3, 0.1), 20, 1, 1.0).floor is None


def test_where_the_wire_became_slower_the_steps_before_say_nothing() -> None:
    trial = after(after(Trial(), 3, 1, 0.13, bytes_per_s=1e8), 1, 1, 0.13, bytes_per_s=5e7)
    assert after(trial, 20, 2, 0.14, bytes_per_s=5e7).floor is None


def test_one_slow_step_among_those_before_does_not_make_a_plan_look_good() -> None:
    """As the first steps of a job are."""
    trial = after(after(after(Trial(), 2, 0, 0.21), 1, 0, 0.4), ROUNDS + 1, 1, 0.22)
    assert trial.floor == 0


def test_what_did_not_help_may_be_tried_again_where_the_wire_has_become_slower() -> None:
    trial = after(after(Trial(), 3, 1, 0.13), ROUNDS + 1, 2, 0.168)
    assert after(trial, 1, 1, 0.13, bytes_per_s=9e7).floor == 1
    assert after(trial, 1, 1, 0.5, bytes_per_s=5e7).floor is None
