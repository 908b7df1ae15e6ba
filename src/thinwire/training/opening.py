"""What the ranks find out together before the first step: how fast their group is, what codecs cost, and a first plan.

All ranks end up with the same. Nothing is known of the compute yet, so the first plan is the one for a step of
``FIRST_STEP_S`` that may take twice as long. Not here: what comes after (``link``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from thinwire.clock import Clock
from thinwire.codec.base import Codec, Shape
from thinwire.codec.low_rank import LowRank
from thinwire.planner.decision import decide
from thinwire.planner.forms import Budget, Form, ladder
from thinwire.planner.workload import Bucket, Wire, Workload
from thinwire.runtime.coding import compile_codec
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
        rungs: the forms that all ranks have, largest first, each as slow and as lossy as on the worst of them.
        speed: of the group.
        plan: for the first steps.
        codec_contention: on the rank where it is the worst; see ``planner.workload.Workload``.
    """

    rungs: tuple[Form, ...]
    speed: Speed
    plan: Plan
    codec_contention: float


def open_auto(communicator: Communicator, shapes: Sequence[Shape], budget: Budget, clock: Clock) -> Opening:
    """Find it out; every rank calls it.

    Args:
        communicator: for these calls only.
        shapes: of all parameters that get gradients.

    Raises:
        UsageError: the budget names a codec that there is not.
    """
    speed = speed_of(communicator, clock)
    usable = candidates(budget.allowed, has_matrices=any(len(shape) > 1 for shape in shapes))
    mine = ladder(calibrated(usable, clock), budget)
    common, codec_contention = _common(mine, Rounds(communicator))
    rungs = ladder(common, budget)
    for rung in rungs:
        if rung.codec is not None:
            _compile(rung.codec)
    num_ranks = communicator.num_ranks
    first = Workload(
        buckets=(Bucket(num_values=sum(map(prod, shapes)), ready_s=0.0, shapes=tuple(shapes)),),
        backward_s=0.0,
        step_s=FIRST_STEP_S,
        num_ranks=num_ranks,
    )
    wire = Wire(rank_bytes_per_s=(speed.bandwidth_bytes_per_s,) * num_ranks, rtt_s=speed.latency_s)
    decision = decide(first, rungs, wire, target=1.0)
    reason = f"the first steps: {decision.reason}"
    plan = Plan(number=1, forms=decision.chosen.names, reason=reason, exposed_s=decision.chosen.exposed_s)
    return Opening(rungs, speed, plan, codec_contention)


def _compile(codec: Codec) -> None:
    """Use it once, so that no step has to wait for its kernels."""
    compile_codec(codec)
    if isinstance(codec, LowRank):
        matrix = np.eye(2 * codec.low_rank_dim + 2, dtype=np.float32)
        codec.add_decoded(codec.encode(matrix).payload, matrix)


def _contention() -> float:
    """How much of a codec's time the training loses: all of it, if torch's threads use every core of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1.0 if torch.get_num_threads() >= cores else 0.0


def _common(mine: Sequence[Form], rounds: Rounds) -> tuple[list[Form], float]:
    """The forms that all ranks have, each as it is where it is worst; and the worst contention."""
    costs = {form.name: (form.error, form.encode_s_per_value, form.decode_s_per_value) for form in mine}
    said = rounds.exchange(json.dumps([costs, _contention()]).encode(), _FRAME_BYTES)
    everyones, contentions = zip(*map(json.loads, said), strict=True)
    common = []
    for form in mine:
        if all(form.name in theirs for theirs in everyones):
            worst = [max(column) for column in zip(*(theirs[form.name] for theirs in everyones), strict=True)]
            common.append(
                replace(form, error=worst[0], encode_s_per_value=worst[1], decode_s_per_value=worst[2])
            )
    return common, max(contentions)
