"""CUDA tensors that are encoded where they lie: nothing is staged but payloads, through pinned memory.

All coding of a device happens on one side stream. ``begin`` blocks a thread of ours until what the caller's current
stream wrote before the call is there: would the side stream wait for it, so would all that was decoded meanwhile for
earlier calls. ``synchronize`` makes the stream that is current in ``Work.wait`` wait for the end, on the device. The
thread that encodes a segment waits for its payload to be on the host; nobody else waits.

Not here: calls without a codec, or with one that has no device form (``cuda_staging``).
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from thinwire.codec.base import Codec
from thinwire.codec.device.base import DeviceCodec, device_form
from thinwire.runtime.coding import TRIAL_SIZE
from thinwire.runtime.device_array import CodingStream, DeviceArray
from thinwire.runtime.torch_buffers import array_of, is_plain

log = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class DeviceStaging:
    """For the tensors of one call with a codec; made when the call is, on the caller's thread.

    Args:
        form: what encodes them.
        stream: of their device.
    """

    needs_begin = True
    needs_finish = True

    def __init__(self, form: DeviceCodec, stream: CodingStream) -> None:
        self.devices: Sequence[torch.device] = [stream.device] if stream.device.type != "cpu" else []
        self._form = form
        self._stream = stream
        self._written: list[object] = []
        self._end: object = None

    def update(self, tensor: Tensor) -> DeviceArray:
        self._written.append(self._stream.lend(tensor))
        return DeviceArray(tensor.detach().reshape(-1), self._form, self._stream)

    def begin(self) -> None:
        for moment in self._written:
            self._stream.reach(moment)

    def finish(self) -> None:
        self._end = self._stream.mark()

    def synchronize(self) -> None:
        if self._end is not None:
            self._stream.let_caller_follow(self._end)

    def finished_stream(self) -> contextlib.AbstractContextManager[object]:
        return self._stream.current()


class CudaStream:
    """See ``CodingStream``. The pinned memory is torch's, whose allocator knows what copies still use."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def current(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def lend(self, tensor: Tensor) -> object:
        tensor.record_stream(self._stream)
        return torch.cuda.current_stream(self.device).record_event()

    def reach(self, moment: object) -> None:
        assert isinstance(moment, torch.cuda.Event)
        moment.synchronize()

    def download(self, source: Tensor, target: memoryview) -> None:
        pinned = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        pinned.copy_(source, non_blocking=True)
        self._stream.record_event().synchronize()
        target[:] = array_of(pinned).data

    def upload(self, source: memoryview) -> Tensor:
        pinned = torch.empty(len(source), dtype=torch.uint8, pin_memory=True)
        array_of(pinned).data[:] = source
        return pinned.to(self.device, non_blocking=True)

    def mark(self) -> object:
        return self._stream.record_event()

    def let_caller_follow(self, moment: object) -> None:
        assert isinstance(moment, torch.cuda.Event)
        torch.cuda.current_stream(self.device).wait_event(moment)


def device_staging_for(tensors: Sequence[Tensor], codec: Codec) -> DeviceStaging | None:
    """The staging for a sum of tensors on one CUDA device; None if they have to be encoded on the host."""
    form = device_form(codec)
    if form is None or not all(tensor.is_cuda and _is_for(tensor) for tensor in tensors):
        return None
    device = tensors[0].device
    return DeviceStaging(form, _stream_of(device)) if works_on(device, form) else None


def _is_for(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and is_plain(tensor) and tensor.dtype in _DTYPES


@functools.cache
def _stream_of(device: torch.device) -> CudaStream:
    return CudaStream(device)


@functools.cache
def works_on(device: torch.device, form: DeviceCodec) -> bool:
    """Whether a form runs on a device: tried once, which also compiles it, on no thread that other ranks listen to.

    Triton needs more than itself: a C compiler, and a device that it knows. Without, the log says so once.
    """
    values, residual = torch.ones(TRIAL_SIZE, device=device), torch.zeros(TRIAL_SIZE, device=device)
    payload = torch.empty(form.payload_bytes(TRIAL_SIZE), dtype=torch.uint8, device=device)
    try:
        form.encode_into(values, payload)
        form.encode_with_residual(values, residual, payload)
        form.decode_into(payload, values)
        form.add_decoded(payload, values)
    except Exception as error:  # whatever it is, the host writes the same bytes
        log.warning(
            "%s is encoded on the host, because Triton failed on %s: %s: %s",
            form.codec,
            device,
            type(error).__name__,
            error,
        )
        return False
    return True
