"""What the device form of a codec is, and which codecs have one.

A device form works on flat float32 tensors and uint8 payloads that lie on one device, on that device's current stream,
and waits for nothing. It writes the payload that the codec on the host writes, and decodes what that wrote, bit for bit
but where a form says otherwise; so ranks with and without a GPU understand each other.

Not here: codecs that draw (stochastic rounding), that remember (low rank, feedback of their own), or whose payloads
are of no fixed size. They encode on the host.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from thinwire.codec.base import Codec
from thinwire.codec.cast import Cast
from thinwire.codec.quantize import Quantize
from thinwire.codec.sign import Sign
from thinwire.errors import UsageError

PAYLOAD_ALIGNMENT = 4  # bytes; what torch allocates is aligned better
_launching = threading.Lock()


class DeviceCodec(ABC):
    """One codec on a device. What it writes is written once the current stream has come to it.

    Args:
        codec: what the payloads are of.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def payload_bytes(self, num_values: int) -> int:
        """The bytes of the payload of so many values."""
        return self.codec.payload_bound((num_values,))

    def encode_into(self, values: Tensor, payload: Tensor) -> None:
        """Write the payload of ``values``.

        Args:
            values: float32, 1-D, contiguous; not changed.
            payload: uint8, exactly ``payload_bytes`` of them, at a multiple of ``PAYLOAD_ALIGNMENT``.

        Raises:
            UsageError: they are not such tensors.
        """
        self._check(values, payload)
        self._take(values, None, payload)

    def encode_with_residual(self, values: Tensor, residual: Tensor, payload: Tensor) -> None:
        """Write the payload of ``values + residual``, and leave in ``residual`` what it lacks of that sum.

        ``residual`` is as ``values``. Raises UsageError as ``encode_into`` does.
        """
        self._check(values, payload)
        self._check(residual, payload)
        self._take(values, residual, payload)

    def decode_into(self, payload: Tensor, out: Tensor) -> None:
        """Write what ``payload`` stands for to ``out``, float32, 1-D, contiguous.

        Raises:
            CodecError: a payload of values of this size has another length.
        """
        self._put(payload, out, is_added=False)

    def add_decoded(self, payload: Tensor, out: Tensor) -> None:
        """Add it to ``out``. Raises CodecError as ``decode_into`` does."""
        self._put(payload, out, is_added=True)

    @abstractmethod
    def _encode(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None: ...

    @abstractmethod
    def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None: ...

    def _take(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None:
        if values.numel():
            self._encode(values, residual, payload)
        else:
            payload.zero_()

    def _put(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
        self.codec.check_size(payload.numel(), (out.numel(),))
        self._check(out, payload)
        if out.numel():
            self._decode(payload, out, is_added)

    def _check(self, values: Tensor, payload: Tensor) -> None:
        expected = self.payload_bytes(values.numel())
        if values.dtype != torch.float32 or values.dim() != 1 or not values.is_contiguous():
            raise UsageError(
                f"{self.codec} on a device takes flat, contiguous float32 values, found {values.dtype} of shape "
                f"{tuple(values.shape)}: call .float().contiguous().view(-1) first"
            )
        if payload.dtype != torch.uint8 or payload.numel() != expected:
            raise UsageError(
                f"{self.codec} of {values.numel()} values needs {expected} bytes of uint8 for its payload, found "
                f"{payload.numel()} of {payload.dtype}"
            )
        if payload.device != values.device or payload.data_ptr() % PAYLOAD_ALIGNMENT:
            raise UsageError(
                f"{self.codec} needs its payload on {values.device}, at a multiple of {PAYLOAD_ALIGNMENT} bytes, found "
                f"it on {payload.device} at {payload.data_ptr() % PAYLOAD_ALIGNMENT} beyond one: allocate it there"
            )


@functools.lru_cache(maxsize=256)
def device_form(codec: Codec) -> DeviceCodec | None:
    """The device form of ``codec``; None where it has none, or Triton is not installed.

    >>> from thinwire.codec.low_rank import LowRank
    >>> device_form(LowRank(2)) is None
    True
    """
    if importlib.util.find_spec("triton") is None:
        return None
    if type(codec) is Quantize:
        from thinwire.codec.device.quantize import DeviceQuantize

        return DeviceQuantize(codec) if DeviceQuantize.is_for(codec) else None
    if type(codec) is Sign:
        from thinwire.codec.device.sign import DeviceSign

        return DeviceSign(codec)
    if type(codec) is Cast and codec.to in ("float16", "bfloat16"):
        from thinwire.codec.device.cast import DeviceCast

        return DeviceCast(codec)
    return None


def launch(
    kernel: Any, num_programs: int, *arguments: object, num_warps: int = 4, **constants: object
) -> None:
    """Run ``num_programs`` programs of a kernel on the device of its first argument.

    Products are never fused with sums, so that floats round where they do on the host. One launch at a time: the first
    compiles, and in Triton's interpreter a kernel runs in modules that are changed for it meanwhile.
    """
    place = next(argument for argument in arguments if isinstance(argument, Tensor))
    with _launching, torch.cuda.device_of(place):
        kernel[(num_programs,)](*arguments, **constants, num_warps=num_warps, enable_fp_fusion=False)
