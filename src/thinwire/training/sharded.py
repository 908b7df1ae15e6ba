"""How the gradients and parameters of a model under FSDP2 (``fully_shard``) travel.

Its reduce-scatters are what buckets are to DistributedDataParallel: coded with error feedback, measured, and switched
from form to form by the same machinery (``link``). Each contribution is encoded once, for the rank that owns its shard;
sums are not encoded. torch waits for a reduce-scatter on the CPU before the backward pass goes on; here it goes on
at once, and gradients have arrived when ``backward`` returns, unless torch looks at them earlier. All-gathers
are exact unless the user names a codec for parameters; what that leaves out of a parameter is not owed, because the
shard itself stays as it is and is gathered anew the next time. They overtake gradients, because the backward pass waits
for them.

Not here: torch's side of it (``shard_group``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp, ReduceScatterOptions, Work
from torch.distributed.fsdp import FSDPModule
from torch.futures import Future

from thinwire.codec.base import Codec
from thinwire.codec.low_rank import LowRank
from thinwire.errors import UsageError
from thinwire.planner.forms import EXACT, Form
from thinwire.runtime.torch_calls import Coded
from thinwire.training.fidelity import AUTO, codec_of
from thinwire.training.link import GradientLink
from thinwire.training.settings import Settings
from thinwire.training.shard_group import ShardGroup, shard_groups_of

_GATHER_PRIORITY = 1
_NO_BACKWARD = -1


class ShardedLink(GradientLink):
    """How one model's gradients and parameters travel, on one rank. Made by ``attach``."""

    _num_halves = 1
    _is_idle_between_passes = False  # parameters travel, and tell what the wire carries

    def __init__(self, model: FSDPModule, parameters: str | Codec, settings: Settings) -> None:
        groups = shard_groups_of(model)
        process_groups = {id(group.process_group): group.process_group for group in groups}
        if len(process_groups) != 1:
            raise UsageError(
                f"attach needs a model whose parameters are sharded over one group, found {len(process_groups)}"
            )
        if waiting := next((group for group in groups if group.why_it_waits()), None):
            _refuse_auto(settings.fidelity, waiting)
        _refuse_factors([settings.fidelity, parameters, *(settings.budget.allowed or ())])
        self._parameter_form = _form_of(parameters)
        (group,) = process_groups.values()
        named = dict(model.named_parameters())  # type: ignore[attr-defined]  # a module, though not by its type
        super().__init__(named, group, settings)
        self._backward = _NO_BACKWARD  # torch's number of the pass whose transfers are under way
        self._num_sent = 0
        self._under_way: list[Future[Tensor]] = []
        for each in groups:
            each.carry_by(self)

    # What torch asks for --------------------------------------------------------------------------------------

    def gather(self, output: Tensor, input: Tensor) -> Work:
        """Parameters: every rank's ``input`` into its part of ``output``, in the form that the user named."""
        form = self._parameter_form if input.is_floating_point() else EXACT
        self._ledger.count(form, output.numel(), 1, "parameters, ")
        coded = Coded(form.codec, priority=_GATHER_PRIORITY)
        work = self._group.all_gather_single(output, input, None, coded)
        if not input.is_cpu:
            work.wait()
        return work

    def reduce_scatter(self, group: ShardGroup, output: Tensor, input: Tensor, op: Any) -> None:
        """Gradients of one group of parameters. On return ``output`` holds the result only if torch looks at it."""
        now_s = self._clock.now_s()
        is_under_way = self._join_backward(now_s)
        future = self._scatter(group, output, input, op, now_s)
        self._under_way.append(future)
        if not is_under_way or group.looks_at_once(output, op):
            self._wait()

    def _scatter(
        self, group: ShardGroup, output: Tensor, input: Tensor, op: Any, now_s: float
    ) -> Future[Tensor]:
        index = self._num_sent
        self._num_sent += 1
        # Part of a group's gradients does not say whose they are, so that nothing could be owed to anybody.
        is_whole = input.numel() == group.num_values
        form = self._forms[self.plan.form_of(index)] if is_whole else EXACT
        layout = [(group.name, input.numel())]
        transfer = self._begin_transfer(form, [(input.numel(),)], now_s)
        options = ReduceScatterOptions()
        options.reduceOp = op
        if op not in (ReduceOp.SUM, ReduceOp.AVG):  # what is owed is of what travels
            input.mul_(1.0 / group.divisor)
            options.reduceOp = ReduceOp.SUM  # type: ignore[assignment]
        if form.codec is None:
            if is_whole:
                self._sender.pay(input, layout)
            work = self._group.reduce_scatter_single(output, input, options)
            future: Future[Any] = work.get_future()
        else:
            codec = form.codec
            future = self._sender.send_coded(
                input,
                layout,
                lambda memory: self._group.reduce_scatter_single(
                    output, input, options, Coded(codec, memory)
                ),
                is_sampled=index == self._sampled_bucket,
            )
        return self._ending(transfer, future)

    # A backward pass ------------------------------------------------------------------------------------------

    def _join_backward(self, now_s: float) -> bool:
        """Begin a step with the first transfer of a backward pass; False outside of one."""
        number = torch._C._current_graph_task_id()
        if number == _NO_BACKWARD or number != self._backward:
            with contextlib.suppress(Exception):  # of a pass that failed, and has said so
                self._wait()
            self._begin_step(now_s)
            self._backward, self._num_sent = number, 0
            if number != _NO_BACKWARD:
                torch.autograd.Variable._execution_engine.queue_callback(self._wait)
        return number != _NO_BACKWARD

    def _wait(self) -> None:
        """Return when every gradient that is under way has arrived; raise what went wrong."""
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.wait()


def _form_of(parameters: str | Codec) -> Form:
    if parameters == AUTO:
        raise UsageError('parameters travel "exact", or through a codec that you name, not "auto"')
    codec = codec_of(parameters)
    return EXACT if codec is None else Form(name=str(codec), codec=codec)


def _refuse_factors(asked: Sequence[str | Codec]) -> None:
    for each in asked:
        if each != AUTO and isinstance(codec_of(each), LowRank):
            raise UsageError(
                f"{each} factors whole matrices, and under fully_shard tensors travel as flat shards: "
                "use quantize, cast or top_k"
            )


def _refuse_auto(fidelity: str | Codec, waiting: ShardGroup) -> None:
    if fidelity == AUTO:
        raise UsageError(
            f'fidelity "auto" hides transfers behind the backward pass, which waits for those of {waiting.name}: '
            f'{waiting.why_it_waits()}; or use "exact" or a codec'
        )
