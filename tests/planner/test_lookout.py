"""When more is sent than the gradients, and how much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.planner.test_decision import CNN, MBIT, RUNGS, bandwidths, wire, workloads
from thinwire.planner.forms import EXACT, Form
from thinwire.planner.lookout import EVERY, FILLED, MOST_BYTES, Lookout, watch_for_more
from thinwire.planner.workload import Workload

SMALL = [RUNGS[5]] * 2  # 311 KB of this CNN in a step, for all peers together


def looks(mbits: list[float], forms: list[Form], workload: Workload = CNN) -> list[int]:
    lookout, found = Lookout(), []
    for mbit in mbits:
        lookout = watch_for_more(lookout, workload, forms, wire(mbit * MBIT, workload.num_ranks))
        found.append(lookout.num_bytes)
    return found


def test_where_gradients_tell_enough_nobody_looks() -> None:
    assert not any(looks([100.0] * 20, [RUNGS[2]] * 2))  # 100 ms of the wire
    assert not any(looks([140.0, 130.0, 150.0, 132.0] * 5, SMALL))  # 17 to 19 ms, read with noise


def test_where_they_do_not_somebody_looks_every_few_rounds() -> None:
    found = looks([200.0] * 4 * EVERY, SMALL)
    assert [bool(each) for each in found] == ([False] * (EVERY - 1) + [True]) * 4


def test_while_a_belief_rises_it_looks_again_and_then_stops() -> None:
    found = looks([50.0, 50.0, 70.0, 90.0, 92.0, 94.0], SMALL)
    assert [bool(each) for each in found] == [False, False, True, True, False, False]
    assert found[3] > found[2]  # the wire carries more in the time that is free


def test_where_all_is_exact_more_of_a_wire_would_change_nothing() -> None:
    assert not any(looks([10_000.0] * 20, [EXACT] * 2))


@given(workloads(), bandwidths, st.integers(1, 5), st.integers(0, 2 * EVERY))
def test_on_the_wire_that_is_believed_in_a_look_is_over_before_the_next_backward_pass(
    workload: Workload, bandwidth: float, rung: int, waited: int
) -> None:
    forms, believed = [RUNGS[rung]] * len(workload.buckets), wire(bandwidth, workload.num_ranks)
    lookout = watch_for_more(Lookout(waited=waited), workload, forms, believed)
    to_all = lookout.num_bytes * (workload.num_ranks - 1)
    assert to_all <= MOST_BYTES
    idle_s = workload.step_s - workload.backward_s
    assert believed.transfer_s(lookout.num_bytes) <= FILLED * idle_s * (1 + 1e-9)
