"""What a decision promises, over all workloads and wires."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.codecs import FORMS, form
from thinwire.errors import UsageError
from thinwire.planner.cost import exposed_s
from thinwire.planner.decision import PRICE_OF_LEAVING_EXACT, PRICE_OF_LOSS, decide, stair
from thinwire.planner.forms import EXACT, FEEDBACK_STEPS, Budget, Form, ladder, residual_ratio
from thinwire.planner.workload import Bucket, Wire, Workload

MBIT = 125e3
RUNGS = ladder(FORMS, Budget())
CNN = Workload(
    buckets=(Bucket(num_values=1_000_000, ready_s=0.01), Bucket(num_values=660_000, ready_s=0.035)),
    backward_s=0.035,
    step_s=0.059,
    num_ranks=4,
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    sizes = draw(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=6))
    ready = sorted(draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes))))
    backward_s = ready[-1] + draw(st.floats(0, 0.1))
    return Workload(
        buckets=tuple(Bucket(num_values=size, ready_s=at_s) for size, at_s in zip(sizes, ready, strict=True)),
        backward_s=backward_s,
        step_s=backward_s + draw(st.floats(0.001, 1)),
        num_ranks=draw(st.integers(2, 9)),
        codec_contention=draw(st.floats(0, 1)),
    )


bandwidths = st.floats(1e4, 1e10)
targets = st.floats(0, 0.5)


def wire(bandwidth: float, num_ranks: int = 4, rtt_s: float = 0.001) -> Wire:
    return Wire(rank_bytes_per_s=(bandwidth,) * num_ranks, rtt_s=rtt_s)


@given(workloads(), bandwidths, st.floats(1, 100), st.integers(0, 5))
def test_a_faster_wire_never_exposes_more(
    workload: Workload, bandwidth: float, faster: float, rung: int
) -> None:
    forms = [RUNGS[rung]] * len(workload.buckets)
    slow = wire(bandwidth, workload.num_ranks)
    assert exposed_s(workload, forms, slow.scaled(faster)) <= exposed_s(workload, forms, slow) * (1 + 1e-9)


@given(workloads(), bandwidths, st.floats(1, 100), targets)
def test_a_faster_wire_never_loses_more(
    workload: Workload, bandwidth: float, faster: float, target: float
) -> None:
    slow = decide(workload, RUNGS, wire(bandwidth, workload.num_ranks), target=target)
    fast = decide(workload, RUNGS, wire(bandwidth * faster, workload.num_ranks), target=target)
    if slow.is_on_target:
        assert fast.chosen.step <= slow.chosen.step


@given(workloads(), bandwidths, targets)
def test_nothing_down_to_the_target_is_a_better_bargain_than_what_is_chosen(
    workload: Workload, bandwidth: float, target: float
) -> None:
    between = wire(bandwidth, workload.num_ranks)
    decision = decide(workload, RUNGS, between, target=target)
    limit_s = target * workload.step_s
    assert decision.chosen.exposed_s == exposed_s(workload, decision.chosen.forms, between)
    assert decision.is_on_target == (decision.chosen.exposed_s <= limit_s)

    def price(shown_s: float, error: float) -> float:
        leaves_exact_s = PRICE_OF_LEAVING_EXACT * workload.step_s if error else 0.0
        return (workload.step_s + max(shown_s, limit_s)) * (1 + PRICE_OF_LOSS * error**2) + leaves_exact_s

    for rung in RUNGS:
        shown_s = exposed_s(workload, [rung] * len(workload.buckets), between)
        least = price(decision.chosen.exposed_s, decision.chosen.error_corrected)
        assert least <= price(shown_s, rung.error_corrected) * (1 + target + 1e-9)
        if shown_s <= limit_s:
            break
    if exposed_s(workload, [EXACT] * len(workload.buckets), between) <= limit_s:
        assert set(decision.chosen.names) == {"exact"}


@given(workloads(), bandwidths, targets)
def test_exact_is_not_left_for_a_gain_within_the_error_of_its_prediction(
    workload: Workload, bandwidth: float, target: float
) -> None:
    between = wire(bandwidth, workload.num_ranks)
    decision = decide(workload, RUNGS, between, target=target)
    exact_s = workload.step_s + exposed_s(workload, [EXACT] * len(workload.buckets), between)
    if decision.chosen.step % max(1, len(workload.buckets)) == 0 and decision.chosen.step:
        assert (
            decision.chosen.exposed_s + PRICE_OF_LEAVING_EXACT * workload.step_s < exact_s - workload.step_s
        )


@given(workloads(), bandwidths, st.floats(0, 0.5), st.sets(st.sampled_from([form.name for form in FORMS])))
def test_never_outside_the_budget(
    workload: Workload, bandwidth: float, max_error: float, allowed: set[str]
) -> None:
    budget = Budget(max_error=max_error, allowed=tuple(allowed))
    decision = decide(workload, ladder(FORMS, budget), wire(bandwidth, workload.num_ranks))
    for used in decision.chosen.forms:
        assert used.is_exact or (used.name in allowed and used.error_corrected <= max_error)


@given(workloads(), bandwidths, st.integers(0, 6))
def test_never_below_the_floor(workload: Workload, bandwidth: float, floor: int) -> None:
    decision = decide(workload, RUNGS, wire(bandwidth, workload.num_ranks), floor=floor)
    assert all(RUNGS.index(used) <= floor for used in decision.chosen.forms)


@given(st.integers(1, 5), st.integers(1, 6))
def test_each_step_down_moves_one_bucket_one_rung(num_buckets: int, num_rungs: int) -> None:
    rungs = RUNGS[:num_rungs]
    for step in range((num_rungs - 1) * num_buckets):
        above, below = stair(rungs, num_buckets, step), stair(rungs, num_buckets, step + 1)
        moved = [rungs.index(b) - rungs.index(a) for a, b in zip(above, below, strict=True)]
        assert sorted(moved) == [0] * (num_buckets - 1) + [1]


def test_each_network_gets_its_form_and_the_reason() -> None:
    """From exact where the wire is fast, down to what does not lose more than it saves; with the reason."""
    chosen = [decide(CNN, RUNGS, wire(mbit * MBIT)) for mbit in (100_000, 1000, 100, 10)]
    assert str(chosen[0].chosen) == "exact"
    steps = [decision.chosen.step for decision in chosen]
    assert steps == sorted(steps)
    assert chosen[-1].chosen.names == ("4 bits", "4 bits")
    assert chosen[0].reason == "100 Gbit/s: exact hides all but 1.32 ms a step"
    assert "would expose" in chosen[2].reason
    assert "corrected by feedback" in chosen[2].reason
    assert "less would lose more than it saves" in chosen[3].reason
    assert all(option.step != chosen[2].chosen.step for option in chosen[2].runners_up)


def test_a_codec_that_costs_more_than_it_saves_is_not_chosen() -> None:
    slow_codec = (form(8, 0.007, ns_per_value=1000),)
    decision = decide(CNN, ladder(slow_codec, Budget()), wire(1000 * MBIT))
    assert decision.chosen.names == ("exact", "exact")
    assert decision.reason.endswith("nothing that is allowed would help")


def test_the_slowest_rank_counts() -> None:
    forms = [EXACT, EXACT]
    even = exposed_s(CNN, forms, wire(100 * MBIT))
    one_slow = Wire(rank_bytes_per_s=(100 * MBIT, 100 * MBIT, 10 * MBIT, 100 * MBIT), rtt_s=0.001)
    assert exposed_s(CNN, forms, one_slow) > 9 * even


def test_one_rank_and_no_buckets_expose_nothing() -> None:
    alone = Workload(buckets=CNN.buckets, backward_s=0.035, step_s=0.06, num_ranks=1)
    assert decide(alone, RUNGS, wire(1.0, num_ranks=1)).chosen.exposed_s == 0
    empty = Workload(buckets=(), backward_s=0.035, step_s=0.06, num_ranks=4)
    assert decide(empty, RUNGS, wire(1.0)).chosen.forms == ()


def test_the_ladder_goes_by_size_and_leaves_out_what_is_no_smaller() -> None:
    names = [rung.name for rung in ladder([*reversed(FORMS), form(16, 0.5)], Budget())]
    assert names == ["exact", "16 bits", "8 bits", "4 bits", "2 bits", "1 bits", "0.25 bits"]


def test_error_after_feedback_is_what_a_simulation_of_feedback_finds() -> None:
    """Orthogonal gradients of norm 1, an encoder that keeps all but ``error``, orthogonally to everything."""
    error, squared = 0.34, 0.0
    for _ in range(200):
        squared = error**2 * (squared + 1)
    assert squared**0.5 == pytest.approx(residual_ratio(error))
    assert Form(name="2 bits", error=error).error_corrected == pytest.approx(
        (squared / FEEDBACK_STEPS) ** 0.5
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Form(name="bad", error=float("nan")),
        lambda: Budget(max_error=-1),
        lambda: Budget(max_error=float("nan")),
        lambda: Wire(rank_bytes_per_s=(1.0, 0.0)),
        lambda: Wire(rank_bytes_per_s=()),
        lambda: decide(CNN, [], wire(1.0)),
        lambda: decide(CNN, RUNGS, wire(1.0), target=float("nan")),
        lambda: Workload(
            buckets=(Bucket(num_values=1, ready_s=2.0),), backward_s=1.0, step_s=1.0, num_ranks=2
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError):
        make()
