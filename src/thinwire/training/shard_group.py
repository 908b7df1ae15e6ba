"""What there is to know of one parameter group of FSDP2 (``fully_shard``), and the seam by which its data travels.

A group is what is gathered and reduced together: the parameters of one ``fully_shard`` call. torch asks an object for
memory and for its all-gathers, and another for its reduce-scatters (``set_custom_all_gather``,
``set_custom_reduce_scatter``); where a group is, and what is done with a result, is private to torch 2.13, and only
this file looks.

Not here: how what is asked for is done (``sharded``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ReduceOp, Work
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_common import DDPMeshInfo, FSDPMeshInfo

from thinwire.errors import UsageError
from thinwire.runtime.process_group import ThinwireProcessGroup


class Carrier(Protocol):
    """Carries what groups ask for."""

    def gather(self, output: Tensor, input: Tensor) -> Work:
        """Every rank's ``input`` is to go into its part of ``output``."""

    def reduce_scatter(self, group: ShardGroup, output: Tensor, input: Tensor, op: Any) -> None:
        """The reduction of all ranks' ``input`` is to go into ``output``, each rank's part to it."""


class ShardGroup:
    """One parameter group of one FSDP2 module.

    Args:
        name: of the module, in the model.
        inner: torch's ``FSDPParamGroup``.
    """

    def __init__(self, name: str, inner: Any) -> None:
        self.name = name or "(root)"
        self._inner = inner

    @property
    def process_group(self) -> ThinwireProcessGroup:
        """Whose ranks have a shard each.

        Raises:
            UsageError: it is not thinwire's, or nothing is sharded.
        """
        mesh = self._inner.mesh_info
        found = mesh.shard_process_group if isinstance(mesh, FSDPMeshInfo) else None
        if not isinstance(found, ThinwireProcessGroup):
            raise UsageError(
                f"{self.name} is sharded over {type(found).__name__}, not over a thinwire group: "
                "call init_process_group('thinwire') before fully_shard"
            )
        return found

    @property
    def num_values(self) -> int:
        """Of a reduce-scatter to which every parameter that is trained brings a gradient, padding included."""
        trained = [each for each in self._inner.fsdp_params if each.sharded_param.requires_grad]
        in_a_shard = sum(math.prod(each.padded_sharded_param_size) for each in trained)
        return int(in_a_shard * self.process_group.size())

    @property
    def divisor(self) -> float:
        """Of the sum, where the user has set one."""
        return float(self._inner.gradient_divide_factor)

    def why_it_waits(self) -> str:
        """Why torch looks at a reduce-scatter's result at once, whatever the gradients; empty if it does not."""
        inner, policy = self._inner, self._inner.mp_policy
        if inner.device.type != "cpu":
            # What torch queues on its streams after a transfer must find its result.
            return f"it is on {inner.device.type}"
        originals = {each.sharded_param.dtype for each in inner.fsdp_params}
        if policy.reduce_dtype is not None or policy.param_dtype is not None:
            reduced = policy.reduce_dtype or policy.param_dtype
            if originals != {reduced}:
                return f"its gradients are reduced as {reduced} and then converted: use reduce_dtype=torch.float32"
        if isinstance(inner.mesh_info, DDPMeshInfo):
            return "its shards are replicated, and summed up once more"
        if inner._all_reduce_hook is not None:
            return "it has a hook for all-reduce"
        if any(each.offload_to_cpu for each in inner.fsdp_params):
            return "its gradients are offloaded"
        return ""

    def looks_at_once(self, output: Tensor, op: Any) -> bool:
        """Whether torch will use ``output`` before the backward pass ends: to divide, convert or add to it."""
        parameters = [each.sharded_param for each in self._inner.fsdp_params]
        return (
            op == ReduceOp.SUM
            or output.dtype != self._inner._orig_dtype
            or any(each.grad is not None or _has_hooks(each) for each in parameters)
            or bool(self.why_it_waits())
        )

    def carry_by(self, carrier: Carrier) -> None:
        """From now on ``carrier`` does what this group asks for.

        Raises:
            UsageError: somebody else does already.
        """
        for found, usual in (
            (self._inner._all_gather_comm, DefaultAllGather),
            (self._inner._reduce_scatter_comm, DefaultReduceScatter),
        ):
            if not isinstance(found, usual):
                raise UsageError(
                    f"{self.name} has a communication of its own already: {type(found).__name__}"
                )
        self._inner._all_gather_comm = _Gather(carrier)
        self._inner._reduce_scatter_comm = _ReduceScatter(carrier, self)


def shard_groups_of(model: FSDPModule) -> list[ShardGroup]:
    """All groups of a model, in the order of its modules."""
    groups, seen = [], set()
    assert isinstance(model, nn.Module)
    for name, module in model.named_modules():
        for inner in module._get_fsdp_state()._fsdp_param_groups if isinstance(module, FSDPModule) else ():
            if id(inner) not in seen:
                seen.add(id(inner))
                groups.append(ShardGroup(name, inner))
    return groups


def _has_hooks(parameter: Any) -> bool:
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


class _Allocating:
    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Allocating, AllGather):
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> Work:
        """torch waits for what is returned before it uses the output, be ``async_op`` true or not."""
        return self._carrier.gather(output_tensor, input_tensor)


class _ReduceScatter(_Allocating, ReduceScatter):
    def __init__(self, carrier: Carrier, group: ShardGroup) -> None:
        self._carrier = carrier
        self._group = group

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        self._carrier.reduce_scatter(self._group, output_tensor, input_tensor, op)
