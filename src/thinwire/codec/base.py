"""What a codec is: two pure functions between float32 tensors and bytes, and the size of the bytes beforehand.

A codec keeps nothing: what it wants to remember from one encode to the next (a residual, the basis of a subspace)
is its *state*, a tuple of arrays that the caller keeps and passes in. What it draws comes from a *seed* that
the caller passes in. So the same values, state and seed give the same payload and the same next state, on every
machine; and whoever has the payload, the shape and the codec has the same values.

The functions that end in ``_into`` write where they are told, because memory that was just allocated costs as much to
touch as the encoding itself; ``encode`` and ``decode`` are the same in new memory. ``next_state`` may be the very
arrays of ``state``.

Not here: any particular codec; how codecs are combined (``feedback``, ``chain``, ...); how they are named in text.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thinwire.errors import CodecError

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Payload = npt.NDArray[np.uint8]
Shape = tuple[int, ...]
State = tuple[Array, ...]


class Encoded(NamedTuple):
    """What an encode gives: the bytes to send, and what to pass to the next encode of the same tensor."""

    payload: Payload
    state: State


class Codec(ABC):
    """Two pure functions between float32 tensors and bytes.

    Subclasses are frozen dataclasses: equal parameters make equal codecs. ``values`` are C-contiguous float32 arrays;
    a codec that does not look at the shape treats them as flat. All of them take arrays of any size, zero
    included, and finite values; each says what it does with others. An array of float32 zeros is encoded without error.
    """

    @classmethod
    def name(cls) -> str:
        """What the codec is called in text: its class's name in small letters, as in ``error_feedback``."""
        return _WORD.sub("_", cls.__name__).lower()

    def __str__(self) -> str:
        """What ``text.parse`` makes this codec of again: codecs it holds first, then what is not as by default."""
        held: list[str] = []
        named: list[str] = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # a subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, Codec):
                held.append(str(value))
            elif isinstance(value, tuple) and value and isinstance(value[0], Codec):
                held.extend(map(str, value))
            elif value != field.default:
                named.append(f"{field.name}={value}")
        return f"{self.name()}({', '.join(held + named)})"

    @property
    def is_lossless(self) -> bool:
        """Whether decode(encode(x)) is x, bit for bit."""
        return False

    @property
    def is_unbiased(self) -> bool:
        """Whether the mean of decode(encode(x)) over all seeds is x."""
        return self.is_lossless

    @property
    def has_feedback(self) -> bool:
        """Whether its state holds what it left out, and sends it later: then nobody else should."""
        return False

    @abstractmethod
    def payload_bound(self, shape: Shape) -> int:
        """The most bytes that the payload of any values of this shape may have."""

    def payload_bytes(self, shape: Shape) -> int | None:
        """The bytes of the payload of values of this shape, or None where they depend on the values."""
        return self.payload_bound(shape)

    @abstractmethod
    def error_bound(self, shape: Shape) -> float:
        """The most that |decode(encode(x)) - x| / |x| (2-norms) may be for finite x and any seed, or infinity."""

    def initial_state(self, shape: Shape) -> State:
        """The state to pass to the first encode of a tensor of this shape."""
        return ()

    @abstractmethod
    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Encode ``values`` into the front of ``payload``, which holds ``payload_bound`` bytes or more.

        Args:
            values: the tensor; not changed.
            state: from ``initial_state`` or the last encode of this tensor.
            seed: 64 bits, another one for each encode; codecs that draw nothing ignore it.
            payload: where the bytes go.
            next_state: where the next state goes: arrays like those of ``state``, or those themselves.

        Returns:
            How many bytes were written.
        """

    @abstractmethod
    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Write the tensor that ``payload`` stands for to ``out``, whose shape is the encoded tensor's.

        Raises:
            CodecError: if no values of this shape have this payload. ``out`` then holds anything.
        """

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Add the tensor that ``payload`` stands for to ``out``. Raises CodecError as ``decode_into`` does."""
        out += self.decode(payload, out.shape)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Encode ``values + residual``, and leave in ``residual`` what the payload lacks of that sum.

        The step of error feedback (Seide et al. 2014; Karimireddy et al. 2019), here so that a codec may do it in one
        pass over memory. The residual is finite for finite values.
        """
        residual += values
        num_bytes = self.encode_into(residual, state, seed, payload, next_state)
        residual -= self.decode(payload[:num_bytes], values.shape)
        return num_bytes

    def encode(self, values: Floats, state: State | None = None, seed: int = 0) -> Encoded:
        """``encode_into`` in new memory; without ``state``, from the initial one."""
        before = self.initial_state(values.shape) if state is None else state
        payload = np.empty(self.payload_bound(values.shape), np.uint8)
        after = tuple(np.empty_like(array) for array in before)
        return Encoded(payload[: self.encode_into(values, before, seed, payload, after)], after)

    def decode(self, payload: Payload, shape: Shape) -> Floats:
        """``decode_into`` in new memory."""
        out = np.empty(shape, np.float32)
        self.decode_into(payload, out)
        return out

    def bits_per_value(self, shape: Shape) -> float:
        """Payload bits for each value: exact, or at most where it depends on the values. 0 for an empty tensor."""
        return 8 * self.payload_bound(shape) / max(1, prod(shape))

    def check_size(self, num_bytes: int, shape: Shape) -> None:
        """For codecs whose every payload has ``payload_bound`` bytes. Raises CodecError where one has not."""
        expected = self.payload_bound(shape)
        if num_bytes != expected:
            raise CodecError(
                f"a payload of {self} for the shape {shape} has {expected} bytes, found {num_bytes}: "
                "decode with the codec and the shape of the encode"
            )
