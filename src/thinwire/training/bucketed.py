"""How the gradients of a model under DistributedDataParallel travel: its hooks, and what leaves when.

DDP's own hook tells of each bucket that is full, and wants its average. What is coded leaves earlier, in ``parts``,
when the gradients of a part are there. They are copied out of the parameters, because DDP has not put them into its
bucket yet, and their averages into the bucket, when they have arrived and it is full.

Not here: the plan, and what is measured for it (``link``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from thinwire.errors import UsageError
from thinwire.planner.forms import Form
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.training.link import GradientLink
from thinwire.training.low_rank_sum import pieces_of
from thinwire.training.parts import Part, Parts
from thinwire.training.settings import Settings


class BucketedLink(GradientLink):
    """How one model's gradients travel, on one rank. Made by ``attach``."""

    def __init__(
        self, model: DistributedDataParallel, group: ThinwireProcessGroup, settings: Settings
    ) -> None:
        super().__init__(dict(model.module.named_parameters()), group, settings)
        self._parts = Parts()
        self._is_in_step = False
        try:
            # Without annotations, because torch compares them and does not take those that are text.
            model.register_comm_hook(self, lambda link, bucket: link._send(bucket))
        except RuntimeError as error:
            raise UsageError(f"the model has a communication hook already: {error}") from None
        if (
            self._can_code and not model.static_graph
        ):  # which may bring a parameter's gradient in several goes
            for each in model.module.parameters():
                if each.requires_grad:
                    each.register_post_accumulate_grad_hook(partial(_arrived, self, model))

    def _on_gradient(self, parameter: Tensor) -> None:
        """A parameter's gradient is there."""
        self._join_step()
        if self._parts.arrived(parameter):
            while part := self._parts.next_due():
                self._leave(part)

    def _send(self, bucket: GradBucket) -> Future[Tensor]:
        """A bucket is full; the future holds its average over all ranks."""
        self._join_step()
        self._is_in_step = not bucket.is_last()
        buffer = bucket.buffer()
        parts = self._parts.of_bucket(bucket.index(), bucket.parameters())
        while part := self._parts.next_due(full=bucket.index()):
            if part.bucket == bucket.index():  # the bucket has all of it
                self._begin(part)
            else:
                self._leave(part)
        for part in parts:
            if part.transfer is None:
                self._begin(part)
        averages: list[Future[Any]] = []
        early: list[tuple[Tensor, Future[Any]]] = []
        start = 0
        for form, together in self._together(parts):
            stop = start + sum(each.numel() for part in together for each in part.parameters)
            values, start = buffer[start:stop], stop
            if together[0].average is None:
                averages.append(self._average(values, together, form))
            else:
                early.append((values, together[0].average))
        whole = _filled(buffer, averages, early)
        return whole.then(self._look) if bucket.is_last() and self._look_bytes else whole

    def _join_step(self) -> None:
        """Begin a step with the first gradient, or bucket, of a backward pass."""
        if not self._is_in_step:
            self._is_in_step = True
            self._begin_step(self._clock.now_s())
            self._parts.begin_step()

    def _form_of(self, part: Part) -> Form:
        return self._forms[self.plan.form_of(part.index)]

    def _together(self, parts: Sequence[Part]) -> list[tuple[Form, list[Part]]]:
        """Neighbours that are exact travel as one."""
        found: list[tuple[Form, list[Part]]] = []
        for part in parts:
            form = self._form_of(part)
            if found and form.codec is found[-1][0].codec is None:
                found[-1][1].append(part)
            else:
                found.append((form, [part]))
        return found

    def _leave(self, part: Part) -> None:
        """It is this part's turn, and its bucket is not full."""
        self._begin(part)
        form = self._form_of(part)
        if form.codec is not None:
            part.average = self._average(part.packed(), [part], form)

    def _begin(self, part: Part) -> None:
        """It is this part's turn: measure it from now on."""
        shapes = tuple(tuple(each.shape) for each in part.parameters)
        part.transfer = self._begin_transfer(self._form_of(part), shapes, self._clock.now_s(), part.bucket)

    def _average(self, values: Tensor, parts: Sequence[Part], form: Form) -> Future[Tensor]:
        """All ranks' average of these parts, in place."""
        is_sampled = any(part.index == self._sampled_bucket for part in parts)
        transfers = [part.transfer for part in parts if part.transfer is not None]
        for transfer in transfers:
            transfer.start_s = self._clock.now_s()
        parameters = [each for part in parts for each in part.parameters]
        pieces = pieces_of([(self._names[id(each)], tuple(each.shape)) for each in parameters])
        return self._ending(transfers, self._sender.average(values, pieces, form, is_sampled=is_sampled))


def _arrived(link: BucketedLink, model: DistributedDataParallel, parameter: Tensor) -> None:
    if model.require_backward_grad_sync:
        link._on_gradient(parameter)


def _filled(
    buffer: Tensor, averages: Sequence[Future[Any]], early: Sequence[tuple[Tensor, Future[Any]]]
) -> Future[Tensor]:
    """The future of the buffer, when all that belongs into it is there."""

    if len(averages) == 1 and not early:
        return averages[0]  # which is in the buffer

    def arrived(_: Future[Any]) -> Tensor:
        for future in averages:
            future.value()  # raises what went wrong
        for values, future in early:
            values.copy_(future.value())
        return buffer

    return torch.futures.collect_all([*averages, *(future for _, future in early)]).then(arrived)
