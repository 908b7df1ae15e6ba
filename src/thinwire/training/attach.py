"""``thinwire.attach``: let thinwire choose how the gradients of a model travel, under DistributedDataParallel or FSDP2.

Not here: how (``link``, ``sharded``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from torch.nn.parallel import DistributedDataParallel

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.planner.forms import Budget
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.training.fidelity import budget_of
from thinwire.training.link import GradientLink
from thinwire.training.settings import OnFigures, Settings

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def attach(
    model: DistributedDataParallel | FSDPModule,
    fidelity: str | Codec = "auto",
    *,
    parameters: str | Codec = "exact",
    target: float = 0.03,
    budget: float | Sequence[str] | Budget | None = None,
    quiet: bool = False,
    on_figures: OnFigures | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> GradientLink:
    """Let thinwire choose how the gradients of ``model`` travel. Every rank calls it, before the first step.

    Args:
        model: over a thinwire process group, without a communication hook of its own: DistributedDataParallel, or
            the root of what ``fully_shard`` has sharded.
        fidelity: ``"auto"``: the most faithful form that hides behind the compute; ``"exact"``; or a codec, such as
            ``"quantize(bits=4)"``, always with error feedback.
        parameters: under ``fully_shard``, how they are gathered: ``"exact"``, or a codec, such as
            ``"cast(to=bfloat16)"``.
        target: of ``"auto"``: how much of a step may be communication that is not hidden, a fraction.
        budget: of ``"auto"``: a bound on the relative error after feedback (``planner.forms``), or the names of the
            codecs that may be used.
        quiet: no live line, even on a terminal.
        on_figures: called on this rank with the figures of the last steps, a few times a second, from the thread that
            runs the backward pass: for TensorBoard and the like.

    Raises:
        UsageError: the model's group is not thinwire's, it has a hook already, or the fidelity cannot be read.
    """
    settings = Settings(
        fidelity=fidelity,
        target=target,
        budget=budget_of(budget),
        quiet=quiet,
        on_figures=on_figures,
        clock=clock,
    )
    if _is_sharded(model):
        from thinwire.training.sharded import ShardedLink

        return ShardedLink(model, parameters, settings)
    group = getattr(model, "process_group", None)
    if not isinstance(model, DistributedDataParallel) or not isinstance(group, ThinwireProcessGroup):
        raise UsageError(
            "attach needs a model under DistributedDataParallel or fully_shard, over a thinwire group: "
            f"call init_process_group('thinwire') first; found {type(model).__name__} over {type(group).__name__}"
        )
    if parameters != "exact":
        raise UsageError(
            f"DistributedDataParallel does not gather parameters: leave out parameters={parameters!r}"
        )
    link = GradientLink(dict(model.module.named_parameters()), group, settings)
    try:
        # Without annotations, because torch compares them and does not take those that are text.
        model.register_comm_hook(link, lambda link, bucket: link._send(bucket))
    except RuntimeError as error:
        raise UsageError(f"the model has a communication hook already: {error}") from None
    return link


def _is_sharded(model: object) -> TypeGuard[FSDPModule]:
    """Whether it is FSDP2's. Who has such a model has imported FSDP2; all others are spared the second it takes."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(model, fsdp.FSDPModule)
