"""What the ranks find out together before the first step: how fast their group is, what codecs cost, and a first plan.

All ranks end up with the same. Nothing is known of the compute yet, so the first plan is the least lossy one that is
exposed for half a second a step at most. Not here: what comes after (``link``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch

from thinwire.clock import Clock
from thinwire.planner.decision import decide
from thinwire.planner.forms import Budget, Form, ladder
from thinwire.planner.workload import Bucket, Wire, Workload
from thinwire.runtime.communicator import Communicator
from thinwire.training.agreement import Plan
from thinwire.training.calibration import calibrated
from thinwire.training.fidelity import candidates
from thinwire.training.group_speed import Speed, speed_of
from thinwire.training.rounds import Rounds

FIRST_STEP_S = 0.5
_FRAME_BYTES = 1 << 16


class Opening(NamedTuple):
    """What was found out.

    Attributes:
        rungs: the forms that all ranks have, least lossy first, each as slow and as lossy as on the worst of them.
        speed: of the group.
        plan: for the first steps.
    """

    rungs: tuple[Form, ...]
    speed: Speed
    plan: Plan


def open_auto(communicator: Communicator, num_values: int, budget: Budget, clock: Clock) -> Opening:
    """Find it out; every rank calls it.

    Args:
        communicator: for these calls only.
        num_values: in all gradients together.

    Raises:
        UsageError: the budget names a codec that there is not.
    """
    speed = speed_of(communicator, clock)
    mine = ladder(calibrated(candidates(budget.allowed), clock), budget)
    rungs = ladder(_common(mine, Rounds(communicator)), budget)
    num_ranks = communicator.num_ranks
    first = Workload(
        buckets=(Bucket(num_values=num_values, ready_s=0.0),),
        backward_s=0.0,
        step_s=FIRST_STEP_S,
        num_ranks=num_ranks,
    )
    wire = Wire(rank_bytes_per_s=(speed.bandwidth_bytes_per_s,) * num_ranks, rtt_s=speed.latency_s)
    decision = decide(first, rungs, wire, target=1.0)
    reason = f"the first steps: {decision.reason}"
    plan = Plan(number=1, forms=decision.chosen.names, reason=reason, exposed_s=decision.chosen.exposed_s)
    return Opening(rungs, speed, plan)


def contention() -> float:
    """How much of a codec's time the training loses: all of it, if torch's threads use every core of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1.0 if torch.get_num_threads() >= cores else 0.0


def _common(mine: Sequence[Form], rounds: Rounds) -> list[Form]:
    costs = {form.name: (form.error, form.encode_s_per_value, form.decode_s_per_value) for form in mine}
    everyones = [json.loads(text) for text in rounds.exchange(json.dumps(costs).encode(), _FRAME_BYTES)]
    common = []
    for form in mine:
        if all(form.name in theirs for theirs in everyones):
            error, encode_s, decode_s = map(
                max, zip(*(theirs[form.name] for theirs in everyones), strict=True)
            )
            common.append(
                Form(
                    name=form.name,
                    codec=form.codec,
                    error=error,
                    encode_s_per_value=encode_s,
                    decode_s_per_value=decode_s,
                )
            )
    return common
