"""Another codec for each kind of tensor: a model's few large matrices are worth more thought than its many vectors.

Not here: a choice by name or by measurement, which whoever calls the codecs makes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.plain import Plain
from thinwire.errors import UsageError


@dataclass(frozen=True)
class PerTensor(Codec):
    """Choose by the shape: ``matrices`` for two dimensions or more, ``vectors`` for fewer, ``small`` for small ones.

    Whether it is lossless or unbiased depends on all three, because these do not know of a shape.

    Args:
        small_values: tensors of at most so many values are small.

    Raises:
        UsageError: if the number is negative.

    >>> from thinwire.codec.low_rank import LowRank
    >>> PerTensor(matrices=LowRank(2), vectors=Plain()).payload_bytes((100, 100))
    1604
    """

    matrices: Codec
    vectors: Codec
    small: Codec = field(default_factory=Plain)
    small_values: int = 1024

    def __post_init__(self) -> None:
        if self.small_values < 0:
            raise UsageError(f"per_tensor: expected small_values of 0 or more, found {self.small_values}")

    def choice(self, shape: Shape) -> Codec:
        """The codec for tensors of this shape."""
        if prod(shape) <= self.small_values:
            return self.small
        return self.matrices if len(shape) > 1 else self.vectors

    @property
    def is_lossless(self) -> bool:
        """If all three are."""
        return self.matrices.is_lossless and self.vectors.is_lossless and self.small.is_lossless

    @property
    def is_unbiased(self) -> bool:
        """If all three are."""
        return self.matrices.is_unbiased and self.vectors.is_unbiased and self.small.is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        """The chosen codec's."""
        return self.choice(shape).payload_bound(shape)

    def payload_bytes(self, shape: Shape) -> int | None:
        """The chosen codec's."""
        return self.choice(shape).payload_bytes(shape)

    def error_bound(self, shape: Shape) -> float:
        """The chosen codec's."""
        return self.choice(shape).error_bound(shape)

    def initial_state(self, shape: Shape) -> State:
        """The chosen codec's."""
        return self.choice(shape).initial_state(shape)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """As the chosen codec; see ``Codec.encode_into``."""
        return self.choice(values.shape).encode_into(values, state, seed, payload, next_state)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """As the chosen codec."""
        chosen = self.choice(values.shape)
        return chosen.encode_with_residual(values, residual, state, seed, payload, next_state)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """As the chosen codec; see ``Codec.decode_into``."""
        self.choice(out.shape).decode_into(payload, out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """As the chosen codec."""
        self.choice(out.shape).add_decoded(payload, out)
