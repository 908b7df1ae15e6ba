"""Data parallel training whose gradients travel across the step boundary.

Each gradient leaves as soon as the backward pass has made it. Those of the front layers overtake all others on
every link, segment by segment, because the next forward pass needs them first; it begins as soon as they have
landed, while the later layers' still travel. The optimizer steps each parameter when its gradient lands or, at the
latest, before the forward pass uses it. Priorities across the step boundary are the idea of P. Peng et al., "A
generic communication scheduler for distributed DNN training acceleration" (ByteScheduler), SOSP 2019, and A.
Jayarajan et al., "Priority-based parameter propagation for distributed DNN training", MLSys 2019.

Sums are made in rank order (``collective.algorithms.rank_order``), so they do not depend on what travels with what.

Not here: choosing among lossy forms (``attach``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.runtime.codec_memory import CodecMemory
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.reduction import DTYPES
from thinwire.training.deferred import DeferredStep
from thinwire.training.fidelity import AUTO, codec_of
from thinwire.training.notices import Notices
from thinwire.training.parcels import Parcel, parcels_of

STRAND = "data parallel"
SMALL_BYTES = 256 << 10
_HALF = (torch.float16, torch.bfloat16)


class DataParallel(nn.Module):
    """Trains one replica of ``module`` on each rank; takes the arguments of torch's DistributedDataParallel.

    Without ``overlap`` it is a drop-in for it: when ``backward`` returns, gradients are averaged. With it, ``backward``
    and ``optimizer.step`` return while gradients travel::

        model = thinwire.DataParallel(network)
        optimizer = model.overlap(torch.optim.AdamW(model.parameters()))

    Between ``backward`` and the next forward pass gradients and parameters are then not to be read, or only after
    ``synchronize()``; ``state_dict`` and the optimizer's do that themselves. Clip with ``clip_grad_norm_``.

    Args:
        module: the same on all ranks, but for its values: those of rank 0 are taken.
        broadcast_buffers: buffers are rank 0's at the beginning of each forward pass that follows a synchronized one.
        init_sync: take rank 0's parameters and buffers now.
        process_group: a thinwire group; None: the default group.
        find_unused_parameters: parameters may stay without a gradient in a step, other ones on each rank.
        bucket_cap_mb: what small parameters are put together to, at most, in MiB; by default 256 KiB.
        fidelity: ``"exact"``, or a codec, such as ``"quantize(bits=8)"``, always with error feedback.
        device_ids, output_device, dim, check_reduction, gradient_as_bucket_view, static_graph: accepted, and have
            no effect: the module stays where it is, and there are no buckets to view.

    Attributes:
        memory: what a codec still owes, each rank's own, for checkpoints: its ``state_dict`` after ``synchronize()``.

    Raises:
        UsageError: the group is not thinwire's, nothing in the module has a gradient, or there is no such fidelity.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int | torch.device] | None = None,
        output_device: int | torch.device | None = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: dist.ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        *,
        fidelity: str | Codec = "exact",
    ) -> None:
        super().__init__()
        if fidelity == AUTO:
            raise UsageError('DataParallel takes "exact" or a codec: "auto" is for attach()')
        self._codec = codec_of(fidelity)
        self.memory = CodecMemory()
        group = process_group or dist.distributed_c10d._get_default_group()
        if not isinstance(group, ThinwireProcessGroup):
            raise UsageError(
                f"DataParallel needs a thinwire group, found {type(group).__name__}: init_process_group('thinwire')"
            )
        self.module = module
        self.process_group = group
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.require_backward_grad_sync = True
        self._last_was_synchronized = True  # the last forward pass: as DDP counts, whose bits ours shall be
        trained = [each for each in module.parameters() if each.requires_grad]
        if not trained:
            raise UsageError("no parameter of the module needs a gradient: there is nothing to reduce")
        small_bytes = SMALL_BYTES if bucket_cap_mb is None else int(bucket_cap_mb * (1 << 20))
        self._parcels = parcels_of(trained, small_bytes)
        self._parcel_of = {id(each): parcel for parcel in self._parcels for each in parcel.parameters}
        for parcel in self._parcels:
            parcel.priority = len(self._parcels) - parcel.index
        self._launch_order = self._parcels[::-1]
        # Observed in the first backward pass; None once it is agreed on.
        self._ready_order: list[int] | None = []
        self._num_launched = len(self._parcels)
        self._notices: Notices | None = None
        self._landed = threading.Condition()
        self._deferred: DeferredStep | None = None
        self._called: set[nn.Module] | None = set()  # observed in the first forward pass
        self._needs: dict[nn.Module, list[Parcel]] = {}
        if init_sync:
            self._broadcast([each.detach() for each in [*module.parameters(), *module.buffers()]])
        for each in trained:
            each.register_post_accumulate_grad_hook(self._on_gradient)
        for inner in module.modules():
            inner.register_forward_pre_hook(self._before)
        self.register_state_dict_pre_hook(lambda *_: self.synchronize())  # type: ignore[no-untyped-call]

    # For users ------------------------------------------------------------------------------------------------

    def overlap(self, optimizer: Optimizer) -> Optimizer:
        """Let ``optimizer.step`` return at once, and be done parameter by parameter as gradients land.

        Returns:
            The same optimizer.

        Raises:
            UsageError: it steps all parameters together, or there is one already.
        """
        if self._deferred is not None:
            raise UsageError("an optimizer is overlapped already: put all parameters into one, in groups")
        self._deferred = DeferredStep(optimizer, lambda each: self._is_pending(each))
        optimizer.register_state_dict_pre_hook(lambda _: self.synchronize())
        return optimizer

    def synchronize(self) -> None:
        """Wait until every gradient has landed and every step that was asked for is done."""
        self._settle(self._parcels)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """``torch.nn.utils.clip_grad_norm_`` once all gradients have landed. Returns their norm before."""
        self.synchronize()
        return nn.utils.clip_grad_norm_(self.module.parameters(), max_norm, norm_type)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of backward passes in here are accumulated; they travel with the first one after."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module returns."""
        if self._deferred is None or self._called is not None or not torch.is_grad_enabled():
            self.synchronize()
        if self.broadcast_buffers and self._last_was_synchronized:
            self._broadcast([each.detach() for each in self.module.buffers()])
        result = self.module(*inputs, **kwargs)
        self._last_was_synchronized = torch.is_grad_enabled() and self.require_backward_grad_sync
        if self._called and torch.is_grad_enabled():
            self._needs = _needs(self.module, self._called, self._parcel_of)
            self._called = None
        return result

    # Forward --------------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, inputs: Any) -> None:
        """A module is about to run: what it needs must have landed."""
        if self._called is not None:
            self._called.add(module)
        elif self._deferred is not None:
            self._settle(self._needs.get(module, self._parcels))

    def _settle(self, needed: Sequence[Parcel]) -> None:
        """Wait for these parcels; takes others that land meanwhile."""
        while any(each.work is not None for each in needed):
            with self._landed:
                self._landed.wait_for(lambda: any(each.has_landed for each in self._parcels))
            self._take([each for each in self._parcels if each.has_landed])

    def _take(self, landed: Sequence[Parcel]) -> None:
        """Give gradients back to their parameters, and step those for which that was asked."""
        unused = self._unused_ids()
        for parcel in landed:
            work, parcel.work = parcel.work, None
            assert work is not None
            work.wait()
            is_lost = self._codec is not None and self._told().has_overflowed(parcel.index)
            for parameter, gradient in zip(parcel.parameters, parcel.gradients, strict=True):
                if is_lost:
                    gradient.fill_(torch.nan)
                if id(parameter) not in unused:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            parcel.gradients = []
        if self._deferred is not None:
            parameters = [each for parcel in landed for each in parcel.parameters]
            if stepped := [each for each in parameters if self._deferred.is_waiting(each)]:
                self._deferred.apply(stepped)
                for each in stepped:
                    each.grad = None

    def _is_pending(self, parameter: Parameter) -> bool:
        parcel = self._parcel_of.get(id(parameter))
        return parcel is not None and parcel.work is not None

    # Backward -------------------------------------------------------------------------------------------------

    def _on_gradient(self, parameter: Parameter) -> None:
        if not self.require_backward_grad_sync:
            return
        if self._num_launched == len(self._parcels):
            self._begin_backward()
        parcel = self._parcel_of[id(parameter)]
        parcel.missing.discard(id(parameter))
        if not parcel.missing:
            if self._ready_order is not None:
                self._ready_order.append(parcel.index)
            self._launch()

    def _begin_backward(self) -> None:
        self.synchronize()  # what a step without a forward pass in between left behind
        self._num_launched = 0
        self._notices = None
        for parcel in self._parcels:
            parcel.expect()
        torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)

    def _launch(self) -> None:
        """Send what is ready, in the order that all ranks keep."""
        while self._num_launched < len(self._parcels):
            parcel = self._launch_order[self._num_launched]
            if parcel.missing:
                return
            self._num_launched += 1
            packed = parcel.pack().mul_(1.0 / self.process_group.size())
            parcel.work = self.process_group.all_reduce_apart(STRAND, packed, self._options(parcel, packed))
            parcel.work.add_done_callback(self._on_landed)

    def _options(self, parcel: Parcel, packed: Tensor) -> CallOptions:
        if self._codec is None:
            algorithm = None if packed.dtype in _HALF or packed.numel() == 0 else "rank_order"
            return CallOptions(priority=parcel.priority, algorithm=algorithm)
        if not bool(torch.isfinite(packed.sum(dtype=torch.float32))):
            parcel.has_overflowed = True
            packed.zero_()
        memory = self.memory[f"parcel {parcel.index}"]
        return CallOptions(priority=parcel.priority, codec=self._codec, memory=memory)

    def _end_backward(self) -> None:
        missing = {each for parcel in self._parcels for each in parcel.missing}
        if missing and not self.find_unused_parameters:
            names = [name for name, each in self.module.named_parameters() if id(each) in missing]
            self._num_launched = len(self._parcels)
            raise UsageError(
                f"no gradient came for {', '.join(names)}: every parameter must take part in the loss, "
                "or find_unused_parameters=True"
            )
        used = [id(each) not in missing for parcel in self._parcels for each in parcel.parameters]
        for parcel in self._parcels:
            parcel.missing.clear()
        self._launch()
        if self.find_unused_parameters or self._codec is not None:
            overflowed = [parcel.has_overflowed for parcel in self._parcels]
            communicator = self.process_group.communicator(STRAND + ", notices")
            self._notices = Notices(communicator, used, overflowed)
        if self._ready_order is not None:
            self._agree_on_order(self._ready_order)
        if self._deferred is None:
            self.synchronize()

    def _agree_on_order(self, ready_order: Sequence[int]) -> None:
        """From now on parcels leave in the order in which they became ready on rank 0."""
        late = [parcel.index for parcel in self._launch_order if parcel.index not in ready_order]
        order = np.array([*ready_order, *late], np.int64)
        self.process_group.communicator(STRAND).broadcast(order, 0, DTYPES["int64"]).wait()
        self._launch_order = [self._parcels[index] for index in order]
        self._ready_order = None

    def _unused_ids(self) -> set[int]:
        """The parameters that no rank used."""
        if not self.find_unused_parameters:
            return set()
        parameters = [each for parcel in self._parcels for each in parcel.parameters]
        return {id(parameters[index]) for index in self._told().unused()}

    def _told(self) -> Notices:
        assert self._notices is not None, "nothing is taken before the backward pass has ended"
        return self._notices

    def _on_landed(self) -> None:
        with self._landed:
            self._landed.notify_all()

    def _broadcast(self, tensors: Sequence[Tensor]) -> None:
        for work in [
            dist.broadcast(each, group_src=0, group=self.process_group, async_op=True) for each in tensors
        ]:
            work.wait()


def _needs(
    root: nn.Module, called: set[nn.Module], parcel_of: dict[int, Parcel]
) -> dict[nn.Module, list[Parcel]]:
    """Module -> the parcels that must have landed before it runs.

    A module's parameters are needed by itself; where it is never called (``nn.MultiheadAttention`` reads the weights of
    its ``out_proj``), by whatever contains it and is called.
    """
    needs: dict[nn.Module, list[Parcel]] = {}

    def visit(module: nn.Module, caller: nn.Module) -> None:
        caller = module if module in called else caller
        for parameter in module.parameters(recurse=False):
            parcel = parcel_of.get(id(parameter))
            if parcel is not None and parcel not in needs.setdefault(caller, []):
                needs[caller].append(parcel)
        for child in module.children():
            visit(child, caller)

    visit(root, root)
    return {module: needs.get(module, []) for module in called}
