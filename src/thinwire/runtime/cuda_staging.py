"""CUDA tensors through pinned host memory: out on one side stream, back in on another.

What the caller's current stream wrote before the call is waited for on the device (``wait_stream``), never by the
caller. ``begin`` blocks a thread of ours until the copy out has arrived; ``finish`` starts the copy in, and
``synchronize`` makes the stream that is current in ``Work.wait`` wait for it, on the device again.

The pinned memory is torch's: its caching allocator reuses a block only when the copies from and to it are done,
as it does for the tensors' own memory once ``record_stream`` has told it of the side streams.

Not here: GPU-to-GPU transfers, which never touch the host, and codecs on the device (``device_staging``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from thinwire.runtime.reduction import Array
from thinwire.runtime.torch_buffers import array_of, refuse_overlap


class CudaStaging:
    """For the tensors of one call, all on ``device``; made when the call is, on the caller's thread."""

    needs_begin = True
    needs_finish = True

    def __init__(self, device: torch.device) -> None:
        self.devices: Sequence[torch.device] = [device]
        self._out, self._in = _side_streams(device)
        self._out.wait_stream(torch.cuda.current_stream(device))
        self._called = self._out.record_event()
        self._copied_out = self._called
        self._copied_in: torch.cuda.Event | None = None
        self._copies: list[tuple[Tensor, Tensor]] = []

    def read(self, tensor: Tensor) -> Array:
        return array_of(self._copy_out(tensor))

    def write(self, tensor: Tensor) -> Array:
        return array_of(self._copy_in_later(tensor, _pinned_like(tensor)))

    def update(self, tensor: Tensor) -> Array:
        return array_of(self._copy_in_later(tensor, self._copy_out(tensor)))

    def begin(self) -> None:
        self._copied_out.synchronize()

    def finish(self) -> None:
        with torch.cuda.stream(self._in):
            self._in.wait_event(self._called)
            for target, pinned in self._copies:
                target.copy_(pinned, non_blocking=True)
        self._copied_in = self._in.record_event()

    def synchronize(self) -> None:
        if self._copied_in is not None:
            torch.cuda.current_stream(self.devices[0]).wait_event(self._copied_in)

    def finished_stream(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._in)

    def _copy_out(self, tensor: Tensor) -> Tensor:
        pinned = _pinned_like(tensor)
        with torch.cuda.stream(self._out):
            pinned.copy_(tensor.detach(), non_blocking=True)
        tensor.record_stream(self._out)
        self._copied_out = self._out.record_event()
        return pinned

    def _copy_in_later(self, tensor: Tensor, pinned: Tensor) -> Tensor:
        refuse_overlap(tensor)
        tensor.record_stream(self._in)
        self._copies.append((tensor.detach(), pinned))
        return pinned


def _pinned_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


@functools.cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    return torch.cuda.Stream(device), torch.cuda.Stream(device)
