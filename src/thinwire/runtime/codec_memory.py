"""What is remembered between the calls on one tensor: the residual, the codec's states, and how many calls there were.

The caller keeps it, one ``CodecMemory`` for all tensors, and names them; the executor fills it. Saved with a
checkpoint and restored, the next call sends the same bytes as it would have without.

Not here: what a residual is good for (``coding``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Shape, State
from thinwire.errors import UsageError
from thinwire.runtime.device_array import DeviceArray


class CodecMemory:
    """The memories of a job's tensors by name: of a parameter, a bucket, or whatever is reduced again and again.

    On every rank its own. A memory is as large as its tensor in float32; it is made when first used.

    >>> memory = CodecMemory()
    >>> bucket = memory["bucket 0"]  # goes into thinwire.all_reduce(..., memory=bucket)
    >>> memory.load_state_dict(memory.state_dict())
    """

    def __init__(self) -> None:
        self._tensors: dict[str, TensorMemory] = {}

    def __getitem__(self, name: str) -> TensorMemory:
        """The memory of the tensor of that name, empty at first."""
        return self._tensors.setdefault(name, TensorMemory(name))

    def __len__(self) -> int:
        return len(self._tensors)

    def reset(self) -> None:
        """Forget everything, what is owed included.

        Raises:
            UsageError: an operation that uses one of the memories has not ended.
        """
        for tensor in self._tensors.values():
            tensor.refuse_if_used("reset")
        self._tensors.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything, in dictionaries of tensors and numbers: ``torch.save`` and ``torch.load`` take it as it is.

        Raises:
            UsageError: an operation that uses one of the memories has not ended.
        """
        return {name: tensor.state_dict() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Forget everything, and remember what ``state_dict`` says.

        Raises:
            UsageError: as ``state_dict``; or this is not what ``state_dict`` returned.
        """
        self.reset()
        for name, state in state_dict.items():
            self[name].load_state_dict(state)


class TensorMemory:
    """The memory of one tensor on one rank.

    Attributes:
        name: for messages.
        num_calls: operations that used it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_calls = 0
        self._residual: Floats | DeviceArray = np.zeros(0, np.float32)
        self._codec = ""
        self._states: dict[tuple[int, Shape], State] = {}
        self._in_use = threading.Lock()

    @property
    def residual(self) -> Floats:
        """What this rank owes to the sum, element by element; empty before the first operation that may leave
        something out. It comes to the host if an operation on a device left it there.

        Raises:
            UsageError: it lies on a device, and an operation that has not ended uses it there.
        """
        if isinstance(self._residual, DeviceArray):
            self.refuse_if_used("brought to the host")
            self._residual = self._residual.on_host()
        return self._residual

    @residual.setter
    def residual(self, residual: Floats) -> None:
        self._residual = residual

    def residual_beside(self, array: DeviceArray | None) -> Floats | DeviceArray:
        """What is owed, for the operation that uses the memory now: on the device of ``array``, else on the host."""
        owed = self._residual
        if isinstance(owed, DeviceArray) and (array is None or array.device != owed.device):
            owed = owed.on_host()
        if array is not None and not isinstance(owed, DeviceArray):
            owed = array.of(owed)
        self._residual = owed
        return owed

    def begin(self, codec: Codec, num_elements: int) -> int:
        """An operation with ``codec`` uses the memory from now on; returns how many did before."""
        if self._residual.size not in (0, num_elements):
            raise UsageError(
                f"the memory {self.name!r} is of a tensor of {self._residual.size} elements, not of {num_elements}: "
                "give every tensor a memory of its own"
            )
        if not self._in_use.acquire(blocking=False):
            raise UsageError(
                f"an operation that uses the memory {self.name!r} has not ended: wait for it before the next"
            )
        if self._residual.size != num_elements and not codec.is_lossless and not codec.has_feedback:
            self._residual = np.zeros(num_elements, np.float32)
        if self._codec != str(codec):
            self._codec = str(codec)
            self._states.clear()
        self.num_calls += 1
        return self.num_calls - 1

    def end(self) -> None:
        """The operation has ended."""
        self._in_use.release()

    def take_residual(self) -> Floats:
        """What is owed, to whoever pays it some other way; nothing is owed after this.

        Raises:
            UsageError: an operation that uses the memory has not ended.
        """
        self.refuse_if_used("emptied")
        owed, self._residual = self.residual, np.zeros(0, np.float32)
        return owed

    def state(self, codec: Codec, first_element: int, shape: Shape) -> State:
        """The codec's state of the segment that begins there, which is updated in place."""
        key = first_element, shape
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = codec.initial_state(shape)
        return found

    def state_dict(self) -> dict[str, Any]:
        """See ``CodecMemory.state_dict``."""
        import torch  # only here: ranks in a simulation have no need of it

        self.refuse_if_used("saved")
        return {
            "num_calls": self.num_calls,
            "residual": torch.from_numpy(self.residual.copy()),
            "codec": self._codec,
            "states": [
                [first_element, list(shape), [torch.from_numpy(kept.copy()) for kept in state]]
                for (first_element, shape), state in self._states.items()
                if state
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """See ``CodecMemory.load_state_dict``."""
        import torch

        def array(values: Any) -> Array:
            copy: Array = torch.as_tensor(values).detach().cpu().numpy().copy()
            return copy

        self.refuse_if_used("loaded")
        try:
            self.num_calls = int(state_dict["num_calls"])
            self.residual = array(state_dict["residual"]).astype(np.float32).reshape(-1)
            self._codec = str(state_dict["codec"])
            self._states = {
                (int(first_element), tuple(map(int, shape))): tuple(map(array, state))
                for first_element, shape, state in state_dict["states"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"this is not the saved state of a codec memory: {type(error).__name__}: {error}"
            ) from None

    def refuse_if_used(self, what: str) -> None:
        """Raises UsageError if an operation uses the memory now."""
        if self._in_use.locked():
            raise UsageError(
                f"the memory {self.name!r} cannot be {what}: an operation that uses it has not ended"
            )
