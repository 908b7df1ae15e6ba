"""Successive refinement: a second codec for what the first left out (Equitz and Cover 1991).

A low rank and the signs of the rest, say, or the largest values exactly and all others at one bit.

Not here: more than two, which is a chain of a codec and a chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.combining import own_seed, split_state
from thinwire.errors import CodecError

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Chain(Codec):
    """Encode with ``first``, and the rest with ``second``; what is decoded is the sum.

    Payload: the length of the first payload (64 bits, lowest byte first) unless the shape tells it, that payload, and
    the second.

    >>> from thinwire.codec.low_rank import LowRank
    >>> from thinwire.codec.top_k import TopK
    >>> matrix = np.ones((8, 8), np.float32)
    >>> matrix[2, 3] = 50
    >>> codec = Chain(TopK(1), LowRank(2))
    >>> bool(np.allclose(codec.decode(codec.encode(matrix).payload, matrix.shape), matrix, atol=1e-4))
    True
    """

    first: Codec
    second: Codec

    @property
    def is_unbiased(self) -> bool:
        """If the second codec is, whatever the first leaves to it."""
        return self.second.is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        """The sum of both, and the length."""
        return self._first_at(shape) + self.first.payload_bound(shape) + self.second.payload_bound(shape)

    def payload_bytes(self, shape: Shape) -> int | None:
        """Exact if both are."""
        first, second = self.first.payload_bytes(shape), self.second.payload_bytes(shape)
        return None if first is None or second is None else first + second

    def error_bound(self, shape: Shape) -> float:
        """The product of both, and rounding."""
        first, second = self.first.error_bound(shape), self.second.error_bound(shape)
        return first * second + 1e-6 * (1 + first) if first and second else min(first, second)

    def initial_state(self, shape: Shape) -> State:
        """The first codec's, then the second's."""
        return (*self.first.initial_state(shape), *self.second.initial_state(shape))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """One after the other; see ``Codec.encode_into``."""
        rest = np.zeros_like(values)
        at = self._encode_first(values, rest, state, seed, payload, next_state)
        own, own_next = self._second_of(state, rest.shape), self._second_of(next_state, rest.shape)
        return at + self.second.encode_into(rest, own, own_seed(seed, 1), payload[at:], own_next)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Leave in the residual what neither sent."""
        at = self._encode_first(values, residual, state, seed, payload, next_state)
        own, own_next = self._second_of(state, values.shape), self._second_of(next_state, values.shape)
        num_bytes = self.second.encode_into(residual, own, own_seed(seed, 1), payload[at:], own_next)
        residual -= self.second.decode(payload[at : at + num_bytes], values.shape)
        return at + num_bytes

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Add up both; see ``Codec.decode_into``."""
        first, second = self._split(payload, out.shape)
        self.first.decode_into(first, out)
        self.second.add_decoded(second, out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Add both."""
        first, second = self._split(payload, out.shape)
        self.first.add_decoded(first, out)
        self.second.add_decoded(second, out)

    def _encode_first(
        self, values: Floats, rest: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        (own,) = split_state(state, [self.first], values.shape)
        (own_next,) = split_state(next_state, [self.first], values.shape)
        at = self._first_at(values.shape)
        num_bytes = self.first.encode_with_residual(
            values, rest, own, own_seed(seed, 0), payload[at:], own_next
        )
        if at:
            payload[:at] = np.frombuffer(num_bytes.to_bytes(at, "little"), np.uint8)
        return at + num_bytes

    def _second_of(self, state: State, shape: Shape) -> State:
        return tuple(split_state(state, [self.first, self.second], shape))[1]

    def _first_at(self, shape: Shape) -> int:
        return _LENGTH_BYTES if self.first.payload_bytes(shape) is None else 0

    def _split(self, payload: Payload, shape: Shape) -> tuple[Payload, Payload]:
        at = self._first_at(shape)
        exact = self.first.payload_bytes(shape)
        num_bytes = int.from_bytes(payload[:at].tobytes(), "little") if exact is None else exact
        if at + num_bytes > payload.size:
            raise CodecError(f"chain: expected a first payload of {num_bytes} bytes, found {payload.size - at}")
        return payload[at : at + num_bytes], payload[at + num_bytes :]
