"""Successive refinement: each codec encodes what those before it left out (Equitz and Cover 1991).

A low rank and the signs of the rest, say, or the largest values exactly and all others at one bit.

Not here: a codec whose payload is another's input, such as an entropy coder; those hold the other (``rans``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.combining import own_seed, split_state
from thinwire.errors import CodecError, UsageError

_LENGTH_BYTES = 8
_ROUNDING = 1e-6  # of one subtraction and one addition, beside the magnitudes that go into it


@dataclass(frozen=True)
class Chain(Codec):
    """Encode with each codec what is left; what is decoded is the sum.

    Payload: the codecs' payloads one after the other. Before each but the last stands its length (64 bits, lowest byte
    first), unless the shape tells it.

    Args:
        codecs: one or more.

    Raises:
        UsageError: if there is none.

    >>> from thinwire.codec.low_rank import LowRank
    >>> from thinwire.codec.top_k import TopK
    >>> matrix = np.ones((8, 8), np.float32)
    >>> matrix[2, 3] = 50
    >>> codec = Chain((TopK(1), LowRank(2)))
    >>> bool(np.allclose(codec.decode(codec.encode(matrix).payload, matrix.shape), matrix, atol=1e-4))
    True
    """

    codecs: tuple[Codec, ...]

    def __post_init__(self) -> None:
        if not self.codecs:
            raise UsageError("chain: expected one codec or more, found none")

    @property
    def is_unbiased(self) -> bool:
        """If the last codec is, whatever the others leave to it."""
        return self.codecs[-1].is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        """The sum of all, and the lengths."""
        return sum(codec.payload_bound(shape) for codec in self.codecs) + sum(self._lengths(shape))

    def payload_bytes(self, shape: Shape) -> int | None:
        """Exact if all are."""
        sizes = [codec.payload_bytes(shape) for codec in self.codecs]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def error_bound(self, shape: Shape) -> float:
        """The product of all, and rounding."""
        errors = [codec.error_bound(shape) for codec in self.codecs]
        return prod(errors) + _ROUNDING * (1 + max(errors)) if all(errors) else min(errors) + _ROUNDING

    def initial_state(self, shape: Shape) -> State:
        """The codecs' states, one after the other."""
        return tuple(array for codec in self.codecs for array in codec.initial_state(shape))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """One after the other; see ``Codec.encode_into``."""
        return self._encode(values, np.zeros_like(values), False, state, seed, payload, next_state)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Leave in the residual what none of them sent."""
        return self._encode(values, residual, True, state, seed, payload, next_state)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Add up all; see ``Codec.decode_into``."""
        parts = zip(self.codecs, self._split(payload, out.shape), strict=True)
        codec, part = next(parts)
        codec.decode_into(part, out)
        with np.errstate(over="ignore", invalid="ignore"):  # foreign bytes may stand for infinities
            for codec, part in parts:
                codec.add_decoded(part, out)

    def _encode(
        self,
        values: Floats,
        rest: Floats,
        is_rest_wanted: bool,
        state: State,
        seed: int,
        payload: Payload,
        next_state: State,
    ) -> int:
        shape = values.shape
        states = tuple(split_state(state, self.codecs, shape))
        next_states = tuple(split_state(next_state, self.codecs, shape))
        at = 0
        for index, (codec, length_bytes) in enumerate(zip(self.codecs, self._lengths(shape), strict=True)):
            out = payload[at + length_bytes :]
            own = (states[index], own_seed(seed, index), out, next_states[index])
            is_last = index == len(self.codecs) - 1
            if index == 0 and (is_rest_wanted or not is_last):
                num_bytes = codec.encode_with_residual(values, rest, *own)
            else:
                num_bytes = codec.encode_into(values if index == 0 else rest, *own)
                if is_rest_wanted or not is_last:
                    rest -= codec.decode(out[:num_bytes], shape)
            length = num_bytes.to_bytes(_LENGTH_BYTES, "little")[:length_bytes]
            payload[at : at + length_bytes] = np.frombuffer(length, np.uint8)
            at += length_bytes + num_bytes
        return at

    def _lengths(self, shape: Shape) -> list[int]:
        """How many bytes of length stand before each codec's payload."""
        before = [_LENGTH_BYTES if codec.payload_bytes(shape) is None else 0 for codec in self.codecs[:-1]]
        return [*before, 0]

    def _split(self, payload: Payload, shape: Shape) -> Iterator[Payload]:
        at = 0
        for codec, length_bytes in zip(self.codecs[:-1], self._lengths(shape), strict=False):
            exact = codec.payload_bytes(shape)
            length = payload[at : at + length_bytes].tobytes()
            num_bytes = int.from_bytes(length, "little") if exact is None else exact
            at += length_bytes
            if at + num_bytes > payload.size:
                raise CodecError(f"chain: expected {num_bytes} bytes for {codec}, found {payload.size - at}")
            yield payload[at : at + num_bytes]
            at += num_bytes
        yield payload[at:]
