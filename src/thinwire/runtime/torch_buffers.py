"""Tensors as the flat NumPy arrays that the executor works on, and the way there and back where they are not.

A *staging* belongs to one call. ``read``, ``write`` and ``update`` give an array for a tensor that the call reads,
writes, or does both to; ``begin`` makes sure that what is read lies in the arrays; ``finish`` brings what was
written back. A contiguous CPU tensor is its own array, with nothing to begin or to finish; any other dense CPU tensor
goes through a temporary. ``cuda_staging`` has the same for CUDA tensors; ``device_staging`` leaves those where they
are whose sum is encoded there.

Not here: the order of these steps and the threads they run on (``strand``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.runtime.memory import Chunk
from thinwire.runtime.reduction import DTYPES, Array, DType

_BYTES = DTYPES["uint8"]


class Staging(Protocol):
    """The way of one call's tensors to the executor and back: the steps.

    Attributes:
        devices: where its tensors lie, for a torch future; empty for the CPU.
        needs_begin: whether ``begin`` has anything to do.
        needs_finish: whether ``finish`` has anything to do.
    """

    devices: Sequence[torch.device]
    needs_begin: bool

    @property
    def needs_finish(self) -> bool: ...

    def begin(self) -> None:
        """Return when the arrays hold what was in the tensors when they were given. May block."""

    def finish(self) -> None:
        """Bring the arrays' content back into the tensors; does not wait for the device."""

    def synchronize(self) -> None:
        """Make the caller's current stream wait for what ``finish`` began."""

    def finished_stream(self) -> contextlib.AbstractContextManager[object]:
        """The stream on which the tensors are ready, as the current one."""


class SumStaging(Staging, Protocol):
    """That of a sum, which may be made where the tensors are."""

    def update(self, tensor: Tensor) -> Chunk: ...


class ArrayStaging(Staging, Protocol):
    """That of any call, on the host."""

    def read(self, tensor: Tensor) -> Array: ...

    def write(self, tensor: Tensor) -> Array: ...

    def update(self, tensor: Tensor) -> Array: ...


class HostStaging:
    """For CPU tensors."""

    devices: Sequence[torch.device] = ()
    needs_begin = False

    def __init__(self) -> None:
        self._copies: list[tuple[Tensor, Tensor]] = []

    @property
    def needs_finish(self) -> bool:
        return bool(self._copies)

    def read(self, tensor: Tensor) -> Array:
        return array_of(plain(tensor))

    def write(self, tensor: Tensor) -> Array:
        if is_plain(tensor):
            return array_of(tensor)
        return self._temporary(tensor, torch.empty(tensor.shape, dtype=tensor.dtype))

    def update(self, tensor: Tensor) -> Array:
        if is_plain(tensor):
            return array_of(tensor)
        return self._temporary(tensor, plain(tensor))

    def begin(self) -> None:
        pass

    def finish(self) -> None:
        for target, temporary in self._copies:
            target.copy_(temporary)

    def synchronize(self) -> None:
        pass

    def finished_stream(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def _temporary(self, tensor: Tensor, temporary: Tensor) -> Array:
        refuse_overlap(tensor)
        self._copies.append((tensor.detach(), temporary))
        return array_of(temporary)


def staging_for_sum(name: str, tensors: Sequence[Tensor], codec: Codec | None) -> SumStaging:
    """The staging for a call that sums up these tensors, encoded with ``codec`` if there is one.

    Raises:
        UsageError: as ``staging_for`` does.
    """
    if codec is not None and len({tensor.device for tensor in tensors if tensor.is_cuda}) == 1:
        from thinwire.runtime.device_staging import device_staging_for

        on_device = device_staging_for(tensors, codec)
        if on_device is not None:
            return on_device
    return staging_for(name, tensors)


def staging_for(name: str, tensors: Sequence[Tensor]) -> ArrayStaging:
    """The staging for a call named ``name`` on these tensors.

    Raises:
        UsageError: they are not dense, not on one device, or on one that thinwire does not reach.
    """
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            kind = str(tensor.layout).removeprefix("torch.")
            raise UsageError(f"{name} needs dense tensors, found {kind}: call .to_dense() first")
    if all(tensor.is_cpu for tensor in tensors):
        return HostStaging()
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        places = " and ".join(sorted(map(str, devices)))
        raise UsageError(f"{name} needs its tensors on one device, found {places}: move them together first")
    device = devices.pop()
    if device.type == "cuda":
        from thinwire.runtime.cuda_staging import CudaStaging

        return CudaStaging(device)
    raise UsageError(f"{name} takes CPU and CUDA tensors, found one on {device}: move it to the CPU first")


def dtype_of(dtype: torch.dtype) -> DType:
    """The element type under which tensors of ``dtype`` are moved: bytes for those that only torch knows."""
    return DTYPES.get(_name(dtype), _BYTES)


def reducible_dtype_of(name: str, dtype: torch.dtype) -> DType:
    """The element type under which tensors of ``dtype`` are reduced.

    Raises:
        UsageError: thinwire can move ``dtype`` but not compute with it.
    """
    found = DTYPES.get(_name(dtype))
    if found is None:
        raise UsageError(
            f"{name} cannot compute with {_name(dtype)}: convert it to bfloat16 or float32 first"
        )
    return found


def array_of(tensor: Tensor) -> Array:
    """The memory of a contiguous CPU tensor as a flat array of its ``dtype_of``.

    >>> array_of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 2., 3., 4.], dtype=float32)
    """
    flat = tensor.detach() if tensor.requires_grad else tensor
    if flat.dim() != 1:
        flat = flat.reshape(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.uint16)
    elif _name(flat.dtype) not in DTYPES:
        flat = flat.view(torch.uint8)
    array: Array = flat.numpy()
    return array


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor's memory is its content, element after element."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def plain(tensor: Tensor) -> Tensor:
    """The tensor itself if ``is_plain``, else a copy that is."""
    return tensor.detach().contiguous().resolve_conj().resolve_neg()


def refuse_overlap(tensor: Tensor) -> None:
    """Raise ``UsageError`` if several elements of a tensor that is to be written lie in one place."""
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise UsageError(
            f"a tensor of shape {tuple(tensor.shape)} made by expand() cannot be written to: call .clone() first"
        )


@functools.cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
