"""What ranks tell each other, and what the autopilot makes of it."""

from __future__ import annotations

import msgspec
import pytest

from tests.planner.codecs import FORMS
from tests.planner.test_decision import MBIT
from thinwire.errors import ProtocolError
from thinwire.planner.forms import Budget, ladder
from thinwire.planner.pilot import PATIENCE_WITH_EXACT
from thinwire.training.agreement import Message, Plan, heard
from thinwire.training.autopilot import Autopilot, Remembered, joined
from thinwire.training.meter import Measurement

RUNGS = ladder(FORMS, Budget())
PLAN = Plan(number=7, forms=("exact", "4 bits"), reason="because")


def said(number: int, steps_to_next: int = 1) -> bytes:
    return Message(measured=measured(MBIT), plan=number, steps_to_next=steps_to_next).encode()


def test_all_hear_the_same_and_rank_0_says_when_to_meet_again() -> None:
    heard_here = heard([said(7, 3), said(7, 5)])
    assert heard_here.measured == (measured(MBIT), measured(MBIT))
    assert heard_here.steps_to_next == 3


def test_ranks_that_are_out_of_step_are_found_out() -> None:
    with pytest.raises(ProtocolError, match=r"plans \[7, 8\].*every rank must take every step"):
        heard([said(7), said(8)])


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"\x80", msgspec.msgpack.encode({"measured": 3})])
def test_garbage_is_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        heard([garbage])


def test_buckets_beyond_the_plan_travel_like_the_last() -> None:
    assert [PLAN.form_of(bucket) for bucket in range(4)] == ["exact", "4 bits", "4 bits", "4 bits"]


def measured(bandwidth: float, late_s: float = 0.0) -> Measurement:
    return Measurement(
        sizes=(1_000_000, 660_000),
        ready_s=(0.0, 0.025 + late_s),
        step_s=0.059,
        bandwidth_bytes_per_s=bandwidth,
    )


def autopilot() -> Autopilot:
    return Autopilot(RUNGS, target=0.03, latency_s=0.001, codec_contention=1.0)


def test_the_slowest_rank_decides() -> None:
    workload = joined([measured(1.0), measured(1.0, late_s=0.1)])
    assert workload is not None
    assert workload.backward_s == 0.125
    exact = Plan(number=0, forms=("exact",))
    slow = autopilot().consider([measured(1000 * MBIT)] * 3 + [measured(100 * MBIT)], exact)
    patient = autopilot()
    *_, fast = (patient.consider([measured(1000 * MBIT)] * 4, exact) for _ in range(PATIENCE_WITH_EXACT))
    assert slow is not None
    assert fast is not None
    assert slow.reason.startswith("100 Mbit/s")
    assert fast.exposed_s < slow.exposed_s


def test_nothing_is_proposed_before_all_have_measured() -> None:
    exact = Plan(number=0, forms=("exact",))
    assert autopilot().consider([measured(MBIT), Measurement()], exact) is None
    other = msgspec.structs.replace(measured(MBIT), sizes=(1, 2))
    assert autopilot().consider([measured(MBIT), other], exact) is None


def test_what_an_autopilot_remembers_survives_a_checkpoint() -> None:
    exact = Plan(number=0, forms=("exact",))
    before, after = autopilot(), autopilot()
    plan = before.consider([measured(100 * MBIT)] * 4, exact)
    assert plan is not None
    after.recall(msgspec.json.decode(msgspec.json.encode(before.remember()), type=Remembered))
    assert after.remember() == before.remember()
    assert after.consider([measured(100 * MBIT)] * 4, plan) is None


def test_a_form_that_makes_steps_no_shorter_is_taken_back() -> None:
    pilot, plan, plans = autopilot(), Plan(number=0, forms=("exact",)), []
    slow = msgspec.structs.replace(measured(100 * MBIT), exposed_s=0.1)
    for _ in range(12):
        plan = pilot.consider([slow] * 4, plan) or plan
        plans.append(plan)
    assert plans[0].forms != ("exact",)
    assert set(plans[-1].forms) == {"exact"}
    assert "steps took 159 ms, and 159 ms before" in plans[-1].reason


def test_the_guard_forbids_what_hurts_at_once() -> None:
    pilot, in_force = autopilot(), Plan(number=0, forms=("exact",))
    in_force = pilot.consider([measured(20 * MBIT)] * 4, in_force) or in_force
    hurt = msgspec.structs.replace(measured(20 * MBIT), residual_ratio=100.0, cosine=0.01)
    plans = [pilot.consider([hurt] * 4, in_force) for _ in range(3)]
    assert plans[-1] is not None
    assert "the residual is" in plans[-1].reason
    names = [rung.name for rung in RUNGS]
    assert max(map(names.index, plans[-1].forms)) < max(map(names.index, in_force.forms))
