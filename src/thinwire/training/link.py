"""How one model's gradients travel: the hook, the plan in force, and the rounds in which ranks agree on the next.

The hook sends each bucket in the form that the plan gives it, and tells the meters. At step boundaries, which are the
first bucket of each backward pass, ranks exchange what they measured (``agreement``), each asks its autopilot, which
says the same everywhere, and a new plan begins on all ranks at once. Everything works on gradients alone: accumulation
(``no_sync``), clipping, unused parameters and rebuilt buckets need nothing of the training script.

Not here: how a bucket travels in its form (``sending``), the decision (``planner``), and what is found out before the
first step (``opening``).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future
from torch.nn import Parameter

from thinwire.codec.base import Shape
from thinwire.collective.selection import Place
from thinwire.errors import UsageError
from thinwire.planner.forms import EXACT, EXACT_NAME, Form
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.training.agreement import Message, Plan, heard
from thinwire.training.autopilot import Autopilot, Remembered
from thinwire.training.calibration import calibrated
from thinwire.training.fidelity import AUTO, codec_of
from thinwire.training.figures import Figures, Report, Switch
from thinwire.training.ledger import Ledger
from thinwire.training.live import Display
from thinwire.training.looks import look
from thinwire.training.low_rank_sum import pieces_of
from thinwire.training.meter import Measurement, Meter, Transfer
from thinwire.training.opening import open_auto
from thinwire.training.rounds import Rounds
from thinwire.training.sending import Sender
from thinwire.training.settings import Settings
from thinwire.training.wire_meter import WireMeter

ROUND_S = 0.4  # between two rounds of agreement
FIGURES_S = 0.25


class GradientLink:
    """How one model's gradients travel, on one rank. Made by ``attach``.

    Attributes:
        plan: in force.
    """

    _num_halves = 2  # of an all-reduce: each value goes to who adds it up, and the sum comes back
    _is_idle_between_passes = True  # the wire, between a backward pass and the next

    def __init__(
        self, parameters: Mapping[str, Parameter], group: ThinwireProcessGroup, settings: Settings
    ) -> None:
        self._fidelity = str(settings.fidelity)
        self._group = group
        self._control = group.communicator("autopilot")
        self._rounds = Rounds(self._control)
        self._beside_gradients = group.communicator("looks at the wire")
        self._clock = settings.clock
        self._on_figures = settings.on_figures
        self._names = {id(each): name for name, each in parameters.items()}
        self._message_bytes = 1024 + 16 * len(self._names)
        self._rank, self._num_ranks = group.rank(), group.size()
        self._sender = Sender(group)
        self._autopilot: Autopilot | None = None
        self._forms: dict[str, Form] = {EXACT_NAME: EXACT}
        self._meter, self._wire_meter = Meter(0.0), WireMeter(0.0)
        self.plan = Plan(number=1, forms=(EXACT_NAME,), reason="as asked for")
        if settings.fidelity == AUTO:
            shapes = [tuple(each.shape) for each in parameters.values() if each.requires_grad]
            self._open_auto(shapes, settings)
        elif codec := codec_of(settings.fidelity):
            form = calibrated([codec], self._clock)[0]
            self._forms[form.name] = form
            self.plan = msgspec.structs.replace(self.plan, forms=(form.name,))
        self._display = Display(is_shown=self._rank == 0 and not settings.quiet)
        self._step = 0
        self._round_step, self._next_round_step = 0, 2
        self._look_bytes = 0  # to each other rank, when the gradients of this step have arrived
        self._sampled_bucket = -1
        self._buckets: list[tuple[Shape, ...]] = []  # of this step: what tensors they hold
        self._layouts: dict[tuple[int, ...], tuple[tuple[Shape, ...], ...]] = {}  # by the buckets' sizes
        self._loss: float | None = None
        self._ledger = Ledger(self._num_ranks)
        self._switches: list[Switch] = []
        self._figures: Figures | None = None
        self._figures_due_s = self._clock.now_s() + FIGURES_S
        self._switch_to(self.plan, from_step=1)
        weakref.finalize(self, self._display.close)

    # For users ------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What was sent, how, why, what it cost and saved. Printable."""
        last = self._autopilot.last if self._autopilot else None
        return Report(
            fidelity=self._fidelity,
            figures=self._figures,
            sent=dict(self._ledger.sent),
            exposed_s=self._meter.total_exposed_s,
            switches=tuple(self._switches),
            runners_up=tuple(f"{each}, {each.exposed_s * 1e3:.3g} ms exposed" for each in last.runners_up)
            if last
            else (),
            error_corrected=max(self._forms[name].error_corrected for name in self.plan.forms),
            residual_ratio=self._sender.evidence.residual_ratio,
            cosine=self._sender.evidence.cosine,
            complaint=self._autopilot.complaint if self._autopilot else "",
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
        return {
            "fidelity": self._fidelity,
            "plan": msgspec.json.encode(self.plan).decode(),
            "autopilot": msgspec.json.encode(remembered).decode() if remembered else "",
            "steps_to_round": self._next_round_step - self._step,
            "look_bytes": self._look_bytes,
        } | self._sender.state_dict()

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
            self._look_bytes = int(state_dict["look_bytes"])
            self._next_round_step = self._step + int(state_dict["steps_to_round"])
            self._sender.load_state_dict(state_dict)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is not the state of a link: {type(error).__name__}: {error}") from None
        self._switch_to(plan, from_step=self._step + 1)

    def close(self) -> None:
        """Leave the terminal as it was; the gradients go on as they do."""
        self._display.close()

    def _open_auto(self, shapes: Sequence[Shape], settings: Settings) -> None:
        if self._num_ranks == 1 or self._control.place is not Place.NETWORK:
            self.plan = msgspec.structs.replace(self.plan, reason="all ranks are on one host: exact")
            return
        rungs, speed, self.plan, codec_contention = open_auto(
            self._control, self._priced_as(shapes), settings.budget, self._clock
        )
        self._forms |= {rung.name: rung for rung in rungs}
        self._meter = Meter(speed.latency_s)
        self._wire_meter = WireMeter(speed.latency_s, speed.bandwidth_bytes_per_s)
        self._autopilot = Autopilot(
            rungs, target=settings.target, latency_s=speed.latency_s, codec_contention=codec_contention
        )

    # A step ---------------------------------------------------------------------------------------------------

    def _send(self, bucket: GradBucket) -> Future[Tensor]:
        """DistributedDataParallel's hook: a bucket is ready; the future holds the average over all ranks."""
        now_s = self._clock.now_s()
        if bucket.index() == 0:
            self._begin_step(now_s)
        form = self._forms[self.plan.form_of(bucket.index())]
        pieces = pieces_of([(self._names[id(each)], tuple(each.shape)) for each in bucket.parameters()])
        transfer = self._begin_transfer(form, tuple(piece.shape for piece in pieces), now_s)
        is_sampled = bucket.index() == self._sampled_bucket
        future = self._sender.average(bucket.buffer(), pieces, form, is_sampled=is_sampled)
        sent = self._ending(transfer, future)
        return sent.then(self._look) if bucket.is_last() and self._look_bytes else sent

    def _look(self, last: Future[Tensor]) -> Tensor:
        """The gradients of this step have arrived, or nearly; now see what else the wire carries."""
        value = last.value()
        self._wire_meter.look(self._clock.now_s(), self._control.traffic())  # apart from the gradients
        num_bytes, self._look_bytes = self._look_bytes, 0
        look(self._beside_gradients, num_bytes)
        self._ledger.count_look(num_bytes * (self._num_ranks - 1))
        return value

    def _priced_as(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The tensors of the all-reduce that costs what this link does to reduce tensors of these shapes."""
        if self._num_halves == 2:
            return tuple(shapes)
        return ((sum(map(prod, shapes)) * self._num_halves // 2,),)

    def _begin_transfer(self, form: Form, shapes: Sequence[Shape], now_s: float) -> Transfer:
        """A bucket of tensors of these shapes is about to go."""
        num_bytes = self._ledger.count(form, sum(map(prod, shapes)), self._num_halves, shapes=shapes)
        self._buckets.append(self._priced_as(shapes))
        return self._meter.begin_transfer(sum(map(prod, self._buckets[-1])), now_s, num_bytes)

    def _ending(self, transfer: Transfer, future: Future[Any]) -> Future[Tensor]:
        """The future of the tensor that a transfer brings, which tells the meter when it has."""

        def arrived(done: Future[Any]) -> Tensor:
            self._meter.end_transfer(transfer, self._clock.now_s())
            value: list[Tensor] = done.value()
            if self._autopilot is not None:
                self._control.acknowledge()  # or the wire meters of the others count the waiting for it
            return value[0]

        return future.then(arrived)

    def _begin_step(self, now_s: float) -> None:
        self._meter.begin_step(now_s)
        self._step += 1
        self._layouts[tuple(sum(map(prod, each)) for each in self._buckets)] = tuple(self._buckets)
        self._buckets = []
        self._sampled_bucket = -1
        if self._autopilot is not None:
            self._wire_meter.look(now_s, self._control.traffic())
            self._finish_round(from_step=self._step)
            if self._step >= self._next_round_step:
                self._begin_round()
        if now_s >= self._figures_due_s:
            self._show_figures(now_s)
        self._ledger.begin_step()

    # Agreeing -------------------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        measured = self._measurement()
        steps_to_next = 1
        if measured.step_s:
            steps_to_next = max(1, round(ROUND_S / (measured.step_s + measured.exposed_s)))
        message = Message(measured=measured, plan=self.plan.number, steps_to_next=steps_to_next)
        self._rounds.begin(message.encode(), self._message_bytes)
        self._round_step = self._step
        self._sampled_bucket = self._step % max(1, len(measured.sizes))

    def _finish_round(self, from_step: int) -> None:
        if not self._rounds.is_under_way:
            return
        assert self._autopilot is not None
        said = heard(self._rounds.finish())
        self._next_round_step = self._round_step + said.steps_to_next
        plan = self._autopilot.consider(said.measured, self.plan, self._layouts)
        if plan is not None:
            self._switch_to(plan, from_step)
        if self._autopilot.look_bytes and self._is_idle_between_passes:
            self._look_bytes = self._autopilot.look_bytes
            self._next_round_step = from_step + 1  # what it shows is worth a message at once

    def _switch_to(self, plan: Plan, from_step: int) -> None:
        self.plan = plan
        self._switches.append(Switch(step=from_step, plan=plan))
        if self._rank == 0:
            self._display.announce(self._switches[-1])

    # Measuring ------------------------------------------------------------------------------------------------

    def _measurement(self) -> Measurement:
        loss, self._loss = self._loss, None
        measured = self._meter.measurement()
        return msgspec.structs.replace(
            measured,
            bandwidth_bytes_per_s=self._wire_meter.bytes_per_s
            if self._wire_meter.is_counted
            else measured.bandwidth_bytes_per_s,
            residual_ratio=self._sender.evidence.residual_ratio,
            cosine=self._sender.evidence.cosine,
            loss=loss,
        )

    def _show_figures(self, now_s: float) -> None:
        self._figures_due_s = now_s + FIGURES_S
        measured = self._meter.measurement()
        if not measured.sizes:
            return
        self._figures = self._ledger.figures(self._step, self.plan, measured)
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
