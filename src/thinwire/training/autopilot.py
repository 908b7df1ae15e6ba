"""From what all ranks measured to the next plan. Pure but for what it remembers, and the same on every rank.

Joins the ranks' measurements into one workload (every bucket is as late as on the latest rank) and one wire, asks
the guard, the trial and the pilot, and wraps a new decision as a numbered plan.

Not here: messages (``agreement``), and the threads and clocks around it (``link``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from thinwire.codec.base import Shape
from thinwire.planner.decision import Decision
from thinwire.planner.forms import Form
from thinwire.planner.guard import Evidence, Guard, watch
from thinwire.planner.lookout import Lookout, watch_for_more
from thinwire.planner.pilot import Pilot, advance
from thinwire.planner.trial import Trial, observe
from thinwire.planner.workload import Bucket, Wire, Workload
from thinwire.training.agreement import Plan
from thinwire.training.meter import Measurement

Layouts = Mapping[tuple[int, ...], tuple[tuple[Shape, ...], ...]]
NO_LAYOUTS: Layouts = {}


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint keeps of an autopilot."""

    pilot: Pilot
    guard: Guard
    trial: Trial
    lookout: Lookout


class Autopilot:
    """Makes plans.

    Args:
        rungs: what may be used, least lossy first; the first is exact.
        target: how much of a step may be exposed communication.
        latency_s: of a collective of no size.
        codec_contention: see ``planner.workload.Workload``.

    Attributes:
        last: the last decision that became a plan.
    """

    def __init__(
        self, rungs: Sequence[Form], *, target: float, latency_s: float, codec_contention: float
    ) -> None:
        self._rungs = tuple(rungs)
        self._target = target
        self._latency_s = latency_s
        self._codec_contention = codec_contention
        self._pilot = Pilot(number=1)  # the plan of the first steps, which was made without it
        self._guard = Guard()
        self._trial = Trial()
        self._lookout = Lookout()
        self.last: Decision | None = None

    @property
    def complaint(self) -> str:
        """Why bits were taken back; empty if they were not."""
        return "; ".join(filter(None, (self._guard.complaint, self._trial.complaint)))

    @property
    def look_bytes(self) -> int:
        """That each rank is to send to each other one after this step, to see what the wire carries."""
        return self._lookout.num_bytes

    def consider(
        self, measured: Sequence[Measurement], in_force: Plan, layouts: Layouts = NO_LAYOUTS
    ) -> Plan | None:
        """The next plan, if there is reason for one.

        Args:
            measured: by rank.
            layouts: what tensors the buckets hold, by the buckets' sizes.
        """
        self._lookout = replace(self._lookout, num_bytes=0)
        workload = joined(measured, self._codec_contention, layouts)
        if workload is None:
            return None
        rungs = self._rungs
        by_name = {rung.name: rung for rung in rungs}
        lossiest = max((i for i, rung in enumerate(rungs) if rung.name in in_force.forms), default=0)
        self._guard = watch(self._guard, evidence_of(measured), rungs[lossiest], lossiest, len(measured))
        wire = Wire(
            rank_bytes_per_s=tuple(each.bandwidth_bytes_per_s for each in measured), rtt_s=self._latency_s
        )
        used = [by_name[in_force.form_of(index)] for index in range(len(workload.buckets))]
        self._lookout = watch_for_more(self._lookout, workload, used, wire)
        self._trial = observe(
            self._trial, rungs[lossiest].name, lossiest, workload.shown_s, wire.bottleneck_bytes_per_s
        )
        floors = [floor for floor in (self._guard.floor, self._trial.floor) if floor is not None]
        floor, pilot = min(floors, default=None), self._pilot
        if floor is not None and lossiest > floor:
            pilot = replace(pilot, num_buckets=0)  # the next choice takes the place of what it holds
        self._pilot, decision = advance(
            pilot, workload, rungs, wire, target=self._target, floor=floor, is_exact=not lossiest
        )
        if decision is None:
            return None
        if decision.chosen.names == tuple(map(in_force.form_of, range(len(workload.buckets)))):
            return None
        self.last = decision
        reason = decision.reason if floor is None else f"{decision.reason}; {self.complaint}"
        return Plan(
            number=self._pilot.number,
            forms=decision.chosen.names,
            reason=reason,
            exposed_s=decision.chosen.exposed_s,
        )

    def remember(self) -> Remembered:
        """What ``recall`` needs to go on as if nothing had happened."""
        return Remembered(pilot=self._pilot, guard=self._guard, trial=self._trial, lookout=self._lookout)

    def recall(self, remembered: Remembered) -> None:
        """Go on from there."""
        self._pilot, self._guard, self._trial = remembered.pilot, remembered.guard, remembered.trial
        self._lookout = remembered.lookout


def joined(
    measured: Sequence[Measurement], codec_contention: float = 1.0, layouts: Layouts = NO_LAYOUTS
) -> Workload | None:
    """One workload from what all ranks measured; None while a rank has not seen two whole steps of one layout.

    Its backward pass begins when the first bucket is ready: what is before that hides nothing.

    >>> fast, slow = (Measurement(sizes=(8,), ready_s=(t,), step_s=1.0, bandwidth_bytes_per_s=1.0) for t in (0.1, 0.2))
    >>> joined([fast, slow]).buckets[0].ready_s
    0.2
    """
    if len({each.sizes for each in measured}) != 1 or not measured[0].sizes:
        return None
    if not all(each.step_s and each.bandwidth_bytes_per_s for each in measured):
        return None
    shapes = layouts.get(measured[0].sizes) or ((),) * len(measured[0].sizes)
    ready = [max(times) for times in zip(*(each.ready_s for each in measured), strict=True)]
    return Workload(
        buckets=tuple(
            Bucket(num_values=size, ready_s=at_s, shapes=of_bucket)
            for size, at_s, of_bucket in zip(measured[0].sizes, ready, shapes, strict=True)
        ),
        backward_s=ready[-1],
        step_s=max(each.step_s for each in measured),
        num_ranks=len(measured),
        codec_contention=codec_contention,
        shown_s=max(each.step_s + each.exposed_s for each in measured),
    )


def evidence_of(measured: Sequence[Measurement]) -> Evidence:
    """The worst of all ranks' residuals and cosines, and the mean of their losses."""
    ratios = [each.residual_ratio for each in measured if each.residual_ratio is not None]
    cosines = [each.cosine for each in measured if each.cosine is not None]
    losses = [each.loss for each in measured if each.loss is not None]
    return Evidence(
        residual_ratio=max(ratios, default=None),
        cosine=min(cosines, default=None),
        loss=sum(losses) / len(losses) if losses else None,
    )
