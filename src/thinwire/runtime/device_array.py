"""A tensor that stays on its device while the executor works on it: what stands there where NumPy arrays stand else.

It has of an array what plans need, a size and slices; and encodes and decodes where it lies, in the order of one
stream of the device, so that whoever is told that one of these has been done may ask for the next, on any thread.
Only payloads come to the host.

Not here: the stream (``device_staging``), kernels (``thinwire.codec.device``), and arithmetic that encodes nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from thinwire.codec.base import Floats

if TYPE_CHECKING:  # ranks in a simulation have no need of it
    import torch
    from torch import Tensor

    from thinwire.codec.device.base import DeviceCodec


class CodingStream(Protocol):
    """The stream of a device on which everything here happens. Thread-safe.

    Attributes:
        device: whose.
    """

    device: torch.device

    def current(self) -> AbstractContextManager[object]:
        """Make it the current stream of this thread."""

    def lend(self, tensor: Tensor) -> object:
        """Let it use ``tensor`` from the moment that is returned on: when this thread's current stream has done all
        that it was told.
        """

    def reach(self, moment: object) -> None:
        """Return when the device has come to that moment."""

    def download(self, source: Tensor, target: memoryview) -> None:
        """Bring bytes to the host; returns when they are there. It is the current stream."""

    def upload(self, source: memoryview) -> Tensor:
        """Bytes from the host, which may be written again at once. It is the current stream."""

    def mark(self) -> object:
        """The moment when all that it was told to do is done."""

    def let_caller_follow(self, moment: object) -> None:
        """Let this thread's current stream wait for a moment."""


class DeviceArray:
    """A flat tensor of float32 or a half type, or a part of one.

    Args:
        values: 1-D and contiguous.
        form: what encodes it.
        stream: of its device.
    """

    __slots__ = ("_form", "_stream", "_values")

    def __init__(self, values: Tensor, form: DeviceCodec, stream: CodingStream) -> None:
        self._values = values
        self._form = form
        self._stream = stream

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self._values.device

    @property
    def size(self) -> int:
        """Elements."""
        return self._values.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self._values.numel() * self._values.element_size()

    def __getitem__(self, part: slice) -> DeviceArray:
        return DeviceArray(self._values[part], self._form, self._stream)

    def new(self, size: int) -> DeviceArray:
        """Another of this size, with anything in it, in float32."""
        with self._stream.current():
            return DeviceArray(self._float32(size), self._form, self._stream)

    def of(self, values: Floats) -> DeviceArray:
        """A copy of what lies on the host."""
        import torch

        with self._stream.current():
            copy = torch.tensor(values, device=self._values.device)
            return DeviceArray(copy, self._form, self._stream)

    def on_host(self) -> Floats:
        """A copy for the host, once everything asked for so far has been done."""
        with self._stream.current():
            copy: Floats = self._values.to("cpu", copy=True).numpy()
            return copy

    def copy(self, source: DeviceArray) -> None:
        """Become what ``source`` is; of another type rounded to nearest even."""
        with self._stream.current():
            self._values.copy_(source._values)

    def encode(self, residual: DeviceArray | None, payload: memoryview) -> int:
        """Encode it, and what is owed to it, into the front of ``payload``; returns how many bytes that took."""
        import torch

        with self._stream.current():
            num_bytes = self._form.payload_bytes(self.size)
            encoded = torch.empty(num_bytes, dtype=torch.uint8, device=self._values.device)
            if residual is None:
                self._form.encode_into(self._values.float(), encoded)
            else:
                self._form.encode_with_residual(self._values.float(), residual._values, encoded)
            self._stream.download(encoded, payload[:num_bytes])
        return num_bytes

    def decode(self, payload: memoryview, *, is_added: bool, divisor: int = 1) -> None:
        """Become what ``payload`` stands for, divided by ``divisor``; or add it.

        Raises:
            CodecError: it does not stand for so many values.
        """
        import torch

        with self._stream.current():
            encoded = self._stream.upload(payload)
            is_float32 = self._values.dtype is torch.float32
            if is_added:
                target = self._values.float()
                self._form.add_decoded(encoded, target)
            else:
                target = self._values if is_float32 else self._float32(self.size)
                self._form.decode_into(encoded, target)
                if (
                    divisor != 1
                ):  # by a tensor: by a number, a device multiplies with what is nearly 1 / divisor
                    target /= torch.full((), divisor, dtype=torch.float32, device=target.device)
            if not is_float32:
                self._values.copy_(target)

    def _float32(self, size: int) -> Tensor:
        import torch

        return torch.empty(size, dtype=torch.float32, device=self._values.device)
