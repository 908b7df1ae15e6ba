"""The calls of torch.distributed, by the names under which torch makes them, as calls of a ``Communicator``.

torch calls a process group by two sets of names: the Python front end by those of the C++ binding (``allreduce``,
``recv_anysource``), C++ (DistributedDataParallel, functional collectives) by the few that its trampoline knows;
``all_gather_single`` and its kin have two names each. Its options hold a negative timeout where nobody set one.

Each method checks its arguments, takes arrays from a staging, and launches a call; none blocks. Where torch's
documentation is silent the semantics are Gloo's; where Gloo refuses or garbles (16-bit integers, non-contiguous
outputs, unequal blocks, a message to oneself) the call does what it says.

Not here: what a group is and where its calls go (``process_group``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import msgspec
import torch
from torch import Tensor
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceCoalescedOptions,
    AllreduceOptions,
    AllToAllOptions,
    BarrierOptions,
    BroadcastOptions,
    GatherOptions,
    ReduceOptions,
    ReduceScatterOptions,
    ScatterOptions,
)
from torch._C._distributed_c10d import ReduceOp as TorchReduceOp

from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.lanes import Completion, all_of
from thinwire.runtime.loopback import Loopback
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import Array, DType, ReduceOp
from thinwire.runtime.sparse import all_reduce_sparse
from thinwire.runtime.strand import Call
from thinwire.runtime.torch_buffers import (
    ArrayStaging,
    HostStaging,
    Staging,
    dtype_of,
    reducible_dtype_of,
    staging_for,
    staging_for_sum,
)
from thinwire.runtime.work import Outputs, ThinwireWork


class Reduction(NamedTuple):
    """torch's ``ReduceOp`` on one element type in ours: an operation, and what comes before and after it."""

    op: ReduceOp
    dtype: DType
    average: bool = False
    premultiply: float | None = None

    @property
    def is_plain_sum(self) -> bool:
        """Whether it is a sum or an average of what is given."""
        return self.op is ReduceOp.SUM and self.premultiply is None

    @classmethod
    def of(cls, name: str, op: TorchReduceOp, torch_dtype: torch.dtype) -> Reduction:
        """Translate for a call named ``name``.

        Raises:
            UsageError: there is no such reduction of such tensors.
        """
        dtype = reducible_dtype_of(name, torch_dtype)
        state: Any = op.__getstate__()
        kind, factor = state
        if kind in _OPS:
            return cls(_OPS[kind], dtype)
        if kind == TorchReduceOp.AVG:
            if dtype.name == "bool":
                raise UsageError(f"{name}: an average of bool is not defined: convert it to float32 first")
            return cls(ReduceOp.SUM, dtype, average=True)
        assert kind == TorchReduceOp.PREMUL_SUM, kind
        if isinstance(factor, Tensor) and factor.numel() != 1:
            raise UsageError(f"{name}: a pre-multiplied sum takes one factor, found {factor.numel()}")
        return cls(ReduceOp.SUM, dtype, premultiply=float(factor))


_OPS: dict[Any, ReduceOp] = {getattr(TorchReduceOp, op.name): op for op in ReduceOp}


class Coded(NamedTuple):
    """What a call takes beside torch's options: its codec, the memory that goes with the tensor, and its priority.

    Only the calls that say so encode; torch itself gives none, so that its calls are exact. A call of a larger
    priority is sent first; None: as the group's other calls.
    """

    codec: Codec | None = None
    memory: TensorMemory | None = None
    priority: int | None = None

    def options(self, options: CallOptions) -> CallOptions:
        """The options of the call with these."""
        if self is EXACT:
            return options
        priority = options.priority if self.priority is None else self.priority
        return msgspec.structs.replace(options, codec=self.codec, memory=self.memory, priority=priority)


EXACT = Coded()


class TorchOptions(Protocol):
    """What torch's options of all calls have in common."""

    @property
    def timeout(self) -> timedelta: ...


class CallOptionsMaker(Protocol):
    """Makes the options of a call from torch's. Without any, or with a timeout nobody set, the group's holds."""

    def __call__(self, opts: TorchOptions | None = None, shape: Sequence[int] = ()) -> CallOptions: ...


class TorchCalls:
    """All collectives and messages. A subclass says who it is and launches what the methods prepare."""

    _rank: int
    _size: int  # ranks in the group
    _loopback: Loopback

    _launch: Callable[[Call, Staging, Outputs], ThinwireWork]
    _launch_blocking: Callable[[Callable[[], None], Outputs], ThinwireWork]
    _launch_message: Callable[[Call, Staging, Tensor], ThinwireWork]
    _call_options: CallOptionsMaker

    # Collectives ------------------------------------------------------------------------------------------------

    def allreduce(
        self,
        tensors: Sequence[Tensor] | Tensor,
        opts: AllreduceOptions | None = None,
        coded: Coded = EXACT,
    ) -> ThinwireWork:
        opts = opts or AllreduceOptions()
        tensor = _single("all_reduce", tensors)
        if tensor.layout == torch.sparse_coo and tensor.is_cpu and coded.codec is None:
            reduction = Reduction.of("all_reduce", opts.reduceOp, tensor.dtype)
            return self._launch_blocking(lambda: all_reduce_sparse(self, tensor, reduction), [tensor])
        return self._all_reduce("all_reduce", [tensor], opts, coded)

    def allreduce_coalesced(
        self, tensors: Sequence[Tensor], opts: AllreduceCoalescedOptions | None = None
    ) -> ThinwireWork:
        return self._all_reduce("all_reduce_coalesced", tensors, opts or AllreduceCoalescedOptions())

    def _all_reduce(
        self, name: str, tensors: Sequence[Tensor], opts: AllreduceOptions, coded: Coded = EXACT
    ) -> ThinwireWork:
        reductions = [Reduction.of(name, opts.reduceOp, tensor.dtype) for tensor in tensors]
        is_encoded_sum = self._size > 1 and all(each.is_plain_sum for each in reductions)
        staging = staging_for_sum(name, tensors, coded.codec if is_encoded_sum else None)

        def call_for(tensor: Tensor, reduction: Reduction) -> Call:
            data = staging.update(tensor)
            op, dtype, average, premultiply = reduction
            options = coded.options(self._call_options(opts, tensor.shape))
            return lambda to: to.all_reduce(
                data, op, dtype, average=average, premultiply=premultiply, options=options
            )

        return self._launch(_each(list(map(call_for, tensors, reductions))), staging, list(tensors))

    def reduce(self, tensors: Sequence[Tensor] | Tensor, opts: ReduceOptions | None = None) -> ThinwireWork:
        """As in Gloo, the tensor of a rank other than the root holds nothing meaningful afterwards."""
        opts = opts or ReduceOptions()
        tensor = _single("reduce", tensors)
        staging = staging_for("reduce", [tensor])
        data = staging.update(tensor)
        op, dtype, average, premultiply = Reduction.of("reduce", opts.reduceOp, tensor.dtype)
        options = self._call_options(opts, tensor.shape)
        root = opts.rootRank
        return self._launch(
            lambda to: to.reduce(
                data, root, op, dtype, average=average, premultiply=premultiply, options=options
            ),
            staging,
            [tensor],
        )

    def broadcast(
        self, tensors: Sequence[Tensor] | Tensor, opts: BroadcastOptions | None = None
    ) -> ThinwireWork:
        opts = opts or BroadcastOptions()
        tensor = _single("broadcast", tensors)
        staging = staging_for("broadcast", [tensor])
        root = opts.rootRank
        data = staging.read(tensor) if self._rank == root else staging.write(tensor)
        options = self._call_options(opts)
        return self._launch(
            lambda to: to.broadcast(data, root, dtype_of(tensor.dtype), options=options), staging, [tensor]
        )

    def allgather(
        self,
        output_lists: Sequence[Sequence[Tensor]],
        inputs: Sequence[Tensor],
        opts: AllgatherOptions | None = None,
    ) -> ThinwireWork:
        input, outputs = _single("all_gather", inputs), _single_list("all_gather", output_lists)
        staging = staging_for("all_gather", [input, *outputs])
        call = self._all_gather_call("all_gather", input, outputs, staging, opts)
        return self._launch(call, staging, outputs)

    def allgather_coalesced(
        self,
        output_lists: Sequence[Sequence[Tensor]],
        inputs: Sequence[Tensor],
        opts: AllgatherOptions | None = None,
    ) -> ThinwireWork:
        """``output_lists[r][i]`` becomes rank r's ``inputs[i]``."""
        name = "all_gather_coalesced"
        _check_count(name, "lists of outputs", len(output_lists), self._size)
        for outputs in output_lists:
            _check_count(name, "outputs in a list", len(outputs), len(inputs))
        staging = staging_for(name, [*inputs, *(output for outputs in output_lists for output in outputs)])
        by_input = zip(inputs, zip(*output_lists, strict=True), strict=True)
        calls = [self._all_gather_call(name, input, outputs, staging, opts) for input, outputs in by_input]
        return self._launch(_each(calls), staging, output_lists)

    def _all_gather_call(
        self,
        name: str,
        input: Tensor,
        outputs: Sequence[Tensor],
        staging: ArrayStaging,
        opts: AllgatherOptions | None,
    ) -> Call:
        _check_count(name, "outputs", len(outputs), self._size)
        _check_dtypes(name, [input, *outputs])
        source, targets = staging.read(input), [staging.write(output) for output in outputs]
        options = self._call_options(opts)
        return lambda to: to.all_gather(source, targets, dtype_of(input.dtype), options=options)

    def all_gather_single(
        self,
        output: Tensor,
        input: Tensor,
        opts: AllgatherOptions | None = None,
        coded: Coded = EXACT,
    ) -> ThinwireWork:
        return self.all_gather_single_coalesced([output], [input], opts, coded)

    def all_gather_single_coalesced(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        opts: AllgatherOptions | None = None,
        coded: Coded = EXACT,
    ) -> ThinwireWork:
        name = "all_gather_single"
        _check_count(name, "outputs", len(outputs), len(inputs))
        staging = staging_for(name, [*inputs, *outputs])
        options = coded.options(self._call_options(opts))

        def call_for(output: Tensor, input: Tensor) -> Call:
            _check_dtypes(name, [input, output])
            _check_numel(name, "output", output, self._size * input.numel())
            source, targets = staging.read(input), self._equal_blocks(staging.write(output))
            return lambda to: to.all_gather(source, targets, dtype_of(input.dtype), options=options)

        return self._launch(_each(list(map(call_for, outputs, inputs))), staging, outputs)

    def gather(
        self,
        output_lists: Sequence[Sequence[Tensor]],
        inputs: Sequence[Tensor],
        opts: GatherOptions | None = None,
    ) -> ThinwireWork:
        opts = opts or GatherOptions()
        input, root = _single("gather", inputs), opts.rootRank
        outputs = _single_list("gather", output_lists) if self._rank == root else []
        if self._rank == root:
            _check_count("gather", "outputs", len(outputs), self._size)
        _check_dtypes("gather", [input, *outputs])
        for output in outputs:
            _check_numel("gather", "each output", output, input.numel())
        staging = staging_for("gather", [input, *outputs])
        source, targets = staging.read(input), [staging.write(output) for output in outputs]
        options = self._call_options(opts)
        return self._launch(
            lambda to: to.gather(source, targets or None, root, dtype_of(input.dtype), options=options),
            staging,
            outputs,
        )

    def scatter(
        self,
        outputs: Sequence[Tensor],
        input_lists: Sequence[Sequence[Tensor]],
        opts: ScatterOptions | None = None,
    ) -> ThinwireWork:
        opts = opts or ScatterOptions()
        output, root = _single("scatter", outputs), opts.rootRank
        inputs = _single_list("scatter", input_lists) if self._rank == root else []
        if self._rank == root:
            _check_count("scatter", "inputs", len(inputs), self._size)
        _check_dtypes("scatter", [output, *inputs])
        for input in inputs:
            _check_numel("scatter", "each input", input, output.numel())
        staging = staging_for("scatter", [output, *inputs])
        sources, target = [staging.read(input) for input in inputs], staging.write(output)
        options = self._call_options(opts)
        return self._launch(
            lambda to: to.scatter(sources or None, target, root, dtype_of(output.dtype), options=options),
            staging,
            [output],
        )

    def reduce_scatter(
        self,
        outputs: Sequence[Tensor],
        input_lists: Sequence[Sequence[Tensor]],
        opts: ReduceScatterOptions | None = None,
    ) -> ThinwireWork:
        name = "reduce_scatter"
        output, inputs = _single(name, outputs), _single_list(name, input_lists)
        _check_count(name, "inputs", len(inputs), self._size)
        _check_dtypes(name, [output, *inputs])
        _check_numel(name, "output", output, inputs[self._rank].numel())
        staging = staging_for(name, [output, *inputs])
        sources = [staging.read(input) for input in inputs]
        call = self._reduce_scatter_call(name, output, sources, staging, opts)
        return self._launch(call, staging, [output])

    def reduce_scatter_single(
        self,
        output: Tensor,
        input: Tensor,
        opts: ReduceScatterOptions | None = None,
        coded: Coded = EXACT,
    ) -> ThinwireWork:
        return self.reduce_scatter_single_coalesced([output], [input], opts, coded)

    def reduce_scatter_single_coalesced(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        opts: ReduceScatterOptions | None = None,
        coded: Coded = EXACT,
    ) -> ThinwireWork:
        name = "reduce_scatter_single"
        _check_count(name, "outputs", len(outputs), len(inputs))
        staging = staging_for(name, [*inputs, *outputs])

        def call_for(output: Tensor, input: Tensor) -> Call:
            _check_dtypes(name, [output, input])
            _check_numel(name, "input", input, self._size * output.numel())
            return self._reduce_scatter_call(
                name, output, self._equal_blocks(staging.read(input)), staging, opts, coded
            )

        return self._launch(_each(list(map(call_for, outputs, inputs))), staging, outputs)

    def _reduce_scatter_call(
        self,
        name: str,
        output: Tensor,
        sources: Sequence[Array],
        staging: ArrayStaging,
        opts: ReduceScatterOptions | None,
        coded: Coded = EXACT,
    ) -> Call:
        opts = opts or ReduceScatterOptions()
        target = staging.write(output)
        op, dtype, average, premultiply = Reduction.of(name, opts.reduceOp, output.dtype)
        options = coded.options(self._call_options(opts))
        return lambda to: to.reduce_scatter(
            sources, target, op, dtype, average=average, premultiply=premultiply, options=options
        )

    def alltoall(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: AllToAllOptions | None = None
    ) -> ThinwireWork:
        _check_count("all_to_all", "outputs", len(outputs), self._size)
        _check_count("all_to_all", "inputs", len(inputs), self._size)
        _check_dtypes("all_to_all", [*outputs, *inputs])
        staging = staging_for("all_to_all", [*outputs, *inputs])
        sources, targets = list(map(staging.read, inputs)), list(map(staging.write, outputs))
        options = self._call_options(opts)
        return self._launch(
            lambda to: to.all_to_all(sources, targets, dtype_of(inputs[0].dtype), options=options),
            staging,
            outputs,
        )

    def all_to_all_single(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: Sequence[int],
        input_split_sizes: Sequence[int],
        opts: AllToAllOptions | None = None,
    ) -> ThinwireWork:
        name = "all_to_all_single"
        _check_dtypes(name, [output, input])
        staging = staging_for(name, [output, input])
        sources = self._blocks(name, "input", input, staging.read(input), input_split_sizes)
        targets = self._blocks(name, "output", output, staging.write(output), output_split_sizes)
        even = not input_split_sizes and not output_split_sizes
        options = self._call_options(opts)
        return self._launch(
            lambda to: to.all_to_all(sources, targets, dtype_of(input.dtype), even=even, options=options),
            staging,
            [output],
        )

    def barrier(self, opts: BarrierOptions | None = None) -> ThinwireWork:
        options = self._call_options(opts)
        return self._launch(lambda to: to.barrier(options=options), HostStaging(), [])

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    # Point to point ---------------------------------------------------------------------------------------------

    def send(self, tensors: Sequence[Tensor], dst: int, tag: int = 0) -> ThinwireWork:
        tensor = _single("send", tensors)
        staging = staging_for("send", [tensor])
        data, options = staging.read(tensor), self._call_options()

        def call(to: Communicator) -> Job | Completion:
            if dst == self._rank:
                return self._loopback.send(data, tag)
            return to.send(data, dst, tag, dtype_of(tensor.dtype), options=options)

        return self._launch_message(call, staging, tensor)

    def recv(self, tensors: Sequence[Tensor], src: int | None, tag: int = 0) -> ThinwireWork:
        """``src`` None: from any other rank."""
        tensor = _single("recv", tensors)
        staging = staging_for("recv", [tensor])
        data, options = staging.write(tensor), self._call_options()

        def call(to: Communicator) -> Job | Completion:
            if src == self._rank:
                return self._loopback.recv(data, tag)
            return to.recv(data, src, tag, dtype_of(tensor.dtype), options=options)

        return self._launch_message(call, staging, tensor)

    def recv_anysource(self, tensors: Sequence[Tensor], tag: int = 0) -> ThinwireWork:
        return self.recv(tensors, None, tag)

    def _equal_blocks(self, flat: Array) -> list[Array]:
        size = flat.size // self._size
        return [flat[start : start + size] for start in range(0, size * self._size, size or 1)] or [
            flat
        ] * self._size

    def _blocks(
        self, name: str, what: str, tensor: Tensor, flat: Array, split_sizes: Sequence[int]
    ) -> list[Array]:
        """The array of ``tensor``, cut into one block for each rank at rows given by ``split_sizes``."""
        rows = tensor.shape[0] if tensor.dim() else 1
        if not split_sizes:
            if rows % self._size:
                raise UsageError(
                    f"{name}: {what} has {rows} rows, not a multiple of {self._size} ranks: give split sizes"
                )
            return self._equal_blocks(flat)
        _check_count(name, f"{what} split sizes", len(split_sizes), self._size)
        if sum(split_sizes) != rows:
            raise UsageError(f"{name}: {what} has {rows} rows, but its split sizes sum to {sum(split_sizes)}")
        width = flat.size // rows if rows else 0
        ends = [sum(split_sizes[: rank + 1]) * width for rank in range(self._size)]
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _each(calls: Sequence[Call]) -> Call:
    """All ``calls`` as one, in their order."""
    return calls[0] if len(calls) == 1 else lambda to: all_of([call(to) for call in calls])


def _single(name: str, tensors: Sequence[Tensor] | Tensor) -> Tensor:
    if isinstance(tensors, Tensor):
        return tensors
    _check_count(name, "tensors", len(tensors), 1)
    return tensors[0]


def _single_list(name: str, lists: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    _check_count(name, "lists of tensors", len(lists), 1)
    return lists[0]


def _check_count(name: str, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise UsageError(f"{name} needs {expected} {what}, found {found}")


def _check_numel(name: str, what: str, tensor: Tensor, expected: int) -> None:
    if tensor.numel() != expected:
        raise UsageError(
            f"{name} needs {expected} elements in {what}, found {tensor.numel()} in shape {tuple(tensor.shape)}"
        )


def _check_dtypes(name: str, tensors: Sequence[Tensor]) -> None:
    found = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    if len(found) > 1:
        raise UsageError(
            f"{name} needs tensors of one dtype, found {' and '.join(found)}: convert them first"
        )
