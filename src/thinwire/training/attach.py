"""``attach``: gradients of a DistributedDataParallel model travel in the form that hides, chosen while training runs.

A communication hook sends each bucket in the form that the plan in force gives it, and tells the meter. At step
boundaries, which are the first bucket of each backward pass, ranks exchange what they measured (``agreement``), rank 0
asks the autopilot, and a new plan begins on all ranks at once. Everything works on gradients alone: accumulation
(``no_sync``), clipping, unused parameters and rebuilt buckets need nothing of the training script.

A gradient that is not finite is sent beside the coded one, as a flag: every rank then gets NaN in that bucket, so that
GradScaler skips the step everywhere, and no residual keeps it.

Not here: the decision (``planner``), and FSDP.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.codec.base import Codec, Floats
from thinwire.collective.selection import Place
from thinwire.errors import UsageError
from thinwire.planner.decision import decide
from thinwire.planner.forms import EXACT, EXACT_NAME, Budget, Form, ladder
from thinwire.planner.guard import Evidence
from thinwire.planner.workload import Bucket, Wire, Workload
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.training.agreement import Agreement, Plan
from thinwire.training.autopilot import Autopilot, Remembered
from thinwire.training.calibration import calibrated
from thinwire.training.fidelity import candidates, codec_of
from thinwire.training.figures import Figures, Report, Switch
from thinwire.training.idle import Idleness
from thinwire.training.live import Display
from thinwire.training.meter import Measurement, Meter
from thinwire.training.quick_probe import speed_of
from thinwire.training.residuals import Layout, Residuals
from thinwire.training.rounds import Rounds
from thinwire.training.sample import Sample

ROUND_S = 0.4  # between two rounds of agreement; a plan takes two rounds to come into force
FIGURES_S = 0.25
FIRST_STEP_S = 0.5  # what the first step may be exposed, when nothing is known of its compute yet

OnFigures = Callable[[Figures], None]


def attach(
    model: DistributedDataParallel,
    fidelity: str | Codec = "auto",
    *,
    target: float = 0.03,
    budget: float | Sequence[str] | Budget | None = None,
    quiet: bool = False,
    on_figures: OnFigures | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> GradientLink:
    """Let thinwire choose how the gradients of ``model`` travel. Every rank calls it, before the first step.

    Args:
        model: over a thinwire process group, without a communication hook of its own.
        fidelity: ``"auto"``: the most faithful form that hides behind the compute; ``"exact"``; or a codec, such as
            ``"quantize(bits=4)"``, always with error feedback.
        target: of ``"auto"``: how much of a step may be communication that is not hidden, a fraction.
        budget: of ``"auto"``: a bound on the relative error after feedback (``planner.forms``), or the names of the
            codecs that may be used.
        quiet: no live line, even on a terminal.
        on_figures: called on this rank with the figures of the last steps, a few times a second, from the thread that
            runs the backward pass: for TensorBoard and the like.

    Raises:
        UsageError: the model's group is not thinwire's, it has a hook already, or the fidelity cannot be read.
    """
    group = getattr(model, "process_group", None)
    if not isinstance(model, DistributedDataParallel) or not isinstance(group, ThinwireProcessGroup):
        raise UsageError(
            "attach needs a DistributedDataParallel model over a thinwire group: "
            f"call init_process_group('thinwire') first; found {type(model).__name__} over {type(group).__name__}"
        )
    if not target >= 0:
        raise UsageError(f"the target is {target}: use a fraction of the step from 0 up")
    link = GradientLink(model, group, fidelity, target, _budget_of(budget), quiet, on_figures, clock)
    try:
        # Without annotations, because torch compares them and does not take those that are text.
        model.register_comm_hook(link, lambda link, bucket: link._send(bucket))
    except RuntimeError as error:
        raise UsageError(f"the model has a communication hook already: {error}") from None
    return link


class GradientLink:
    """How one model's gradients travel, on one rank. Made by ``attach``.

    Attributes:
        plan: in force.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        group: ThinwireProcessGroup,
        fidelity: str | Codec,
        target: float,
        budget: Budget,
        quiet: bool,
        on_figures: OnFigures | None,
        clock: Clock,
    ) -> None:
        self._fidelity = str(fidelity)
        self._group = group
        self._control = group.communicator("autopilot")
        self._rounds = Rounds(self._control)
        self._idleness = Idleness()
        self._everyone: tuple[Measurement, ...] | None = None
        self._clock = clock
        self._on_figures = on_figures
        self._names = {id(each): name for name, each in model.module.named_parameters()}
        self._message_bytes = 4096 + 32 * len(self._names)
        self._rank, self._num_ranks = group.rank(), group.size()
        self._agreement = Agreement(self._why_not)
        self._residuals = Residuals()
        self._autopilot: Autopilot | None = None
        self._forms: dict[str, Form] = {EXACT_NAME: EXACT}
        self._is_on_wire = self._num_ranks > 1 and self._control.place is Place.NETWORK
        num_values = sum(each.numel() for each in model.parameters() if each.requires_grad)
        if fidelity == "auto":
            self._meter, self.plan = self._begin_auto(num_values, target, budget)
        else:
            codec = codec_of(fidelity)
            form = calibrated([codec], clock)[0] if codec else EXACT
            self._forms[form.name] = form
            self._meter, self.plan = Meter(0.0), Plan(number=1, forms=(form.name,), reason="as asked for")
        self._display = Display(is_shown=self._rank == 0 and not quiet)
        self._step = 0
        self._round_step, self._next_round_step = 0, 2
        self._sampled_bucket = -1
        self._loss: float | None = None
        self._evidence = Evidence()
        self._sent: dict[str, tuple[int, int]] = {}
        self._sent_in_step: dict[str, int] = {}
        self._bytes_saved = 0
        self._switches: list[Switch] = []
        self._vetoes: dict[int, str] = {}
        self._figures: Figures | None = None
        self._figures_due_s = clock.now_s() + FIGURES_S
        self._switch_to(self.plan, from_step=1)
        weakref.finalize(self, self._display.close)

    # For users ------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What was sent, how, why, what it cost and saved. Printable."""
        last = self._autopilot.last if self._autopilot else None
        return Report(
            fidelity=self._fidelity,
            figures=self._figures,
            sent=dict(self._sent),
            exposed_s=self._meter.total_exposed_s,
            switches=tuple(self._switches),
            runners_up=tuple(f"{each}, {each.exposed_s * 1e3:.3g} ms exposed" for each in last.runners_up)
            if last
            else (),
            error_corrected=max(self._forms[name].error_corrected for name in self.plan.forms),
            residual_ratio=self._evidence.residual_ratio,
            cosine=self._evidence.cosine,
            complaint=self._autopilot.complaint if self._autopilot else "",
            vetoes=dict(self._vetoes),
        )

    def observe_loss(self, loss: float) -> None:
        """Tell the guard the loss of this step: it takes bits back when the loss rises."""
        self._loss = float(loss)

    def state_dict(self) -> dict[str, Any]:
        """This rank's state, residuals included, for ``torch.save``; every rank calls it and saves its own.

        Raises:
            UsageError: in the middle of a backward pass.
        """
        self._finish_round(from_step=self._step + 1)
        remembered = self._autopilot.remember() if self._autopilot else None
        pending = self._agreement.pending
        return {
            "fidelity": self._fidelity,
            "plan": msgspec.json.encode(self.plan).decode(),
            "pending": msgspec.json.encode(pending).decode() if pending else "",
            "autopilot": msgspec.json.encode(remembered).decode() if remembered else "",
            "steps_to_round": self._next_round_step - self._step,
            "residuals": self._residuals.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state: all ranks, each from its own.

        Raises:
            UsageError: it was saved with another fidelity, or is no such state.
        """
        if state_dict.get("fidelity") != self._fidelity:
            raise UsageError(
                f"this state was saved with fidelity {state_dict.get('fidelity')!r}, and here it is {self._fidelity!r}"
            )
        self._finish_round(from_step=self._step + 1)
        try:
            plan = msgspec.json.decode(state_dict["plan"], type=Plan)
            if self._autopilot is not None:
                self._autopilot.recall(msgspec.json.decode(state_dict["autopilot"], type=Remembered))
            pending = state_dict["pending"] and msgspec.json.decode(state_dict["pending"], type=Plan)
            self._next_round_step = self._step + int(state_dict["steps_to_round"])
            self._residuals.load_state_dict(state_dict["residuals"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is not the state of a link: {type(error).__name__}: {error}") from None
        self._agreement = Agreement(self._why_not, pending or None)
        self._switch_to(plan, from_step=self._step + 1)

    def close(self) -> None:
        """Leave the terminal as it was; the gradients go on as they do."""
        self._display.close()

    # The beginning --------------------------------------------------------------------------------------------

    def _begin_auto(self, num_values: int, target: float, budget: Budget) -> tuple[Meter, Plan]:
        """Measure codecs and wire, and make the first plan; all ranks end up with the same."""
        if not self._is_on_wire:
            return Meter(0.0), Plan(number=1, forms=(EXACT_NAME,), reason="all ranks are on one host: exact")
        speed = speed_of(self._control, self._clock)
        rungs = self._agree_on_rungs(
            ladder(calibrated(candidates(budget.allowed), self._clock), budget), budget
        )
        self._forms |= {rung.name: rung for rung in rungs}
        self._autopilot = Autopilot(
            rungs,
            target=target,
            latency_s=speed.latency_s,
            codec_contention=_contention(),
        )
        first = Workload(
            buckets=(Bucket(num_values=num_values, ready_s=0.0),),
            backward_s=0.0,
            step_s=FIRST_STEP_S,
            num_ranks=self._num_ranks,
        )
        wire = Wire(rank_bytes_per_s=(speed.bandwidth_bytes_per_s,) * self._num_ranks, rtt_s=speed.latency_s)
        decision = decide(first, rungs, wire, target=1.0)
        reason = f"the first steps: {decision.reason}"
        return Meter(speed.latency_s), Plan(number=1, forms=decision.chosen.names, reason=reason)

    def _agree_on_rungs(self, rungs: Sequence[Form], budget: Budget) -> tuple[Form, ...]:
        """What all ranks have, each as slow and as lossy as on the worst of them."""
        mine = {each.name: [each.error, each.encode_s_per_value, each.decode_s_per_value] for each in rungs}
        everyones = [json.loads(text) for text in self._rounds.exchange(json.dumps(mine).encode(), 1 << 16)]
        agreed = []
        for rung in rungs:
            if all(rung.name in theirs for theirs in everyones):
                error, encode_s, decode_s = (
                    max(column) for column in zip(*(each[rung.name] for each in everyones), strict=True)
                )
                agreed.append(
                    Form(
                        name=rung.name,
                        codec=rung.codec,
                        error=error,
                        encode_s_per_value=encode_s,
                        decode_s_per_value=decode_s,
                    )
                )
        return ladder(agreed, budget)

    # A step ---------------------------------------------------------------------------------------------------

    def _send(self, bucket: GradBucket) -> Future[Tensor]:
        """DistributedDataParallel's hook: a bucket is ready; the future holds the average over all ranks."""
        now_s = self._clock.now_s()
        if bucket.index() == 0:
            self._begin_step(now_s)
        form = self._forms[self.plan.form_of(bucket.index())]
        values = bucket.buffer()
        layout = [(self._names[id(each)], each.numel()) for each in bucket.parameters()]
        num_values, num_ranks = values.numel(), self._num_ranks
        num_bytes = 2 * (num_ranks - 1) * form.payload_bytes(-(-num_values // num_ranks))
        codec_s = num_values * (form.encode_s_per_value + 2 * form.decode_s_per_value)
        self._count(form.name, num_values, num_bytes)
        transfer = self._meter.begin_transfer(num_values, now_s, num_bytes, codec_s)
        if form.codec is None:
            future = self._send_exact(values, layout)
        else:
            future = self._send_coded(
                values, layout, form.codec, is_sampled=bucket.index() == self._sampled_bucket
            )

        def arrived(done: Future[Any]) -> Tensor:
            self._meter.end_transfer(transfer, self._clock.now_s())
            value: list[Tensor] = done.value()
            return value[0]

        return future.then(arrived)

    def _send_exact(self, values: Tensor, layout: Layout) -> Future[Any]:
        """As DistributedDataParallel does without a hook, bit for bit; and what was still owed is paid."""
        owed = self._residuals.take(layout)
        if owed is not None:
            values.add_(torch.from_numpy(owed).to(values))
        values.mul_(1.0 / self._num_ranks)
        future: Future[Any] = self._group.allreduce([values]).get_future()
        return future

    def _send_coded(self, values: Tensor, layout: Layout, codec: Codec, *, is_sampled: bool) -> Future[Any]:
        memory = self._residuals.of_bucket(layout)
        flag = torch.zeros(1, dtype=torch.float32)
        if not bool(torch.isfinite(values.sum(dtype=torch.float32))):
            flag.fill_(torch.nan)
            values.zero_()
        sample = Sample(_on_host(values), memory.residual) if is_sampled else None
        options = CallOptions(codec=codec, memory=memory)
        work = self._group.all_reduce_apart("coded gradients", values, options, average=True)
        flagged = self._group.allreduce([flag])

        def arrived(done: Future[Any]) -> list[Tensor]:
            result: list[Tensor] = done.value()
            if sample is not None:
                self._evidence = sample.evidence(memory.residual)
            flagged.wait()
            if torch.isnan(flag).any():
                result[0].fill_(torch.nan)
            return result

        future: Future[list[Tensor]] = work.get_future().then(arrived)
        return future

    def _begin_step(self, now_s: float) -> None:
        self._meter.begin_step(now_s)
        self._step += 1
        self._sampled_bucket = -1
        if self._autopilot is not None:
            self._finish_round(from_step=self._step)
            if self._step >= self._next_round_step:
                self._begin_round()
        if now_s >= self._figures_due_s:
            self._show_figures(now_s)
        self._sent_in_step = {}

    # Agreeing -------------------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        measured = self._measurement()
        proposal, steps_to_next = None, 1
        if self._rank == 0 and self._everyone is not None and self._agreement.pending is None:
            assert self._autopilot is not None
            proposal = self._autopilot.consider(self._everyone, self.plan)
        if proposal is None and self._agreement.pending is None and measured.step_s:
            steps_to_next = max(1, round(ROUND_S / (measured.step_s + measured.exposed_s)))
        message = self._agreement.message(measured, proposal, steps_to_next)
        self._rounds.begin(message, self._message_bytes)
        self._round_step = self._step
        self._sampled_bucket = self._step % max(1, len(measured.sizes))

    def _finish_round(self, from_step: int) -> None:
        if not self._rounds.is_under_way:
            return
        proposed = self._agreement.pending
        outcome = self._agreement.receive(self._rounds.finish())
        self._everyone = outcome.measured
        self._next_round_step = self._round_step + outcome.steps_to_next
        if outcome.vetoes and proposed is not None and self._autopilot is not None:
            self._vetoes |= outcome.vetoes
            self._autopilot.forbid([name for name in proposed.forms if name not in self.plan.forms])
        if outcome.applied is not None:
            self._switch_to(outcome.applied, from_step)

    def _why_not(self, plan: Plan) -> str:
        """Why this rank cannot follow a plan; empty if it can."""
        unknown = sorted({name for name in plan.forms if name not in self._forms})
        return f"no such form here: {', '.join(unknown)}" if unknown else ""

    def _switch_to(self, plan: Plan, from_step: int) -> None:
        self.plan = plan
        self._switches.append(Switch(step=from_step, plan=plan))
        if self._rank == 0:
            self._display.announce(self._switches[-1])

    # Measuring ------------------------------------------------------------------------------------------------

    def _measurement(self) -> Measurement:
        loss, self._loss = self._loss, None
        return msgspec.structs.replace(
            self._meter.measurement(),
            idle=self._idleness.since_last(),
            residual_ratio=self._evidence.residual_ratio,
            cosine=self._evidence.cosine,
            loss=loss,
        )

    def _count(self, name: str, num_values: int, num_bytes: int) -> None:
        values, sent = self._sent.get(name, (0, 0))
        self._sent[name] = values + num_values, sent + num_bytes
        self._sent_in_step[name] = self._sent_in_step.get(name, 0) + num_bytes
        exact_bytes = 2 * (self._num_ranks - 1) * EXACT.payload_bytes(-(-num_values // self._num_ranks))
        self._bytes_saved += exact_bytes - num_bytes

    def _show_figures(self, now_s: float) -> None:
        self._figures_due_s = now_s + FIGURES_S
        measured = self._meter.measurement()
        if not measured.sizes:
            return
        num_bytes = sum(self._sent_in_step.values()) or 1
        travelled_s = measured.ready_s[-1] - measured.ready_s[0] + measured.exposed_s
        self._figures = Figures(
            step=self._step,
            step_s=measured.step_s + measured.exposed_s,
            exposed_s=measured.exposed_s,
            hidden=1 - measured.exposed_s / travelled_s if travelled_s else 1.0,
            plan=self.plan.number,
            forms={name: sent / num_bytes for name, sent in self._sent_in_step.items()},
            bytes_sent=sum(sent for _, sent in self._sent.values()),
            bytes_saved=self._bytes_saved,
            bandwidth_bytes_per_s=measured.bandwidth_bytes_per_s,
        )
        self._group.record(
            "training step",
            now_s - self._figures.step_s,
            now_s,
            "training",
            plan=self._figures.plan,
            exposed_s=self._figures.exposed_s,
            bytes_saved=self._figures.bytes_saved,
            figures=str(self._figures),
        )
        if self._rank == 0:
            self._display.show(self._figures)
        if self._on_figures is not None:
            self._on_figures(self._figures)


def _on_host(values: Tensor) -> Floats:
    array: Floats = values.detach().to("cpu", torch.float32).flatten().numpy()
    return array


def _budget_of(budget: float | Sequence[str] | Budget | None) -> Budget:
    if budget is None:
        return Budget()
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, int | float):
        return Budget(max_error=budget)
    return Budget(allowed=(budget,) if isinstance(budget, str) else tuple(budget))


def _contention() -> float:
    """How much of a codec's time the training loses: all of it, if torch's threads use every core of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1.0 if torch.get_num_threads() >= cores else 0.0
