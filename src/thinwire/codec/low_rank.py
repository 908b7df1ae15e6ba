"""Low rank: a matrix as the product of two thin ones (Vogels, Karimireddy and Jaggi 2019, PowerSGD).

One step of subspace iteration for each encode: P = M Q, orthonormalised; Q' = M^T P; the payload is P and Q', and Q'
is the basis of the next encode of the same tensor. Gradients of successive steps have much of their subspace in
common, so this one step comes close to the singular value decomposition, which would cost a hundred times more. The
first encode, which begins with noise, takes three steps.

What is decoded, P P^T M, is a projection of M: never longer than M, and M without error if M has so low a rank. Every
tensor is scaled by its own largest magnitude and every vector normalised for itself, so the scales of different
matrices never meet.

Not here: sums over ranks of P before Q' is computed (Vogels 2019, algorithm 1), which need another exchange; error
feedback, which what the rank leaves out needs (``feedback``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.low_rank import (
    add_product,
    fill_noise,
    largest_magnitude,
    orthonormalise,
    times_vectors,
    transposed_times_vectors,
)
from thinwire.codec.plain import Plain
from thinwire.errors import UsageError

_PLAIN = Plain()
_SMALLEST = float(np.finfo(np.float32).tiny)
_ROUNDING = 1e-5
_FIRST_STEPS = 3


@dataclass(frozen=True)
class LowRank(Codec):
    """Send two factors of ``low_rank_dim`` vectors each.

    A tensor is a matrix of shape[0] rows and the other dimensions as columns; one that has a single dimension, or so
    few rows or columns that the factors would be no smaller, is sent plainly. The state is the basis Q, whose rows
    are normalised; a row of zeros is replaced with noise from the seed. Not for values that are not finite.

    Payload: the largest magnitude, the rows of P^T, the rows of Q'^T, in float32.

    Args:
        low_rank_dim: how many vectors.

    Raises:
        UsageError: if there are none.

    >>> matrix = np.outer([1, 2, 3, 4], [1, 0, 2, 1, 1]).astype(np.float32)
    >>> codec = LowRank(1)
    >>> bool(np.allclose(codec.decode(codec.encode(matrix).payload, matrix.shape), matrix))
    True
    """

    low_rank_dim: int

    def __post_init__(self) -> None:
        if self.low_rank_dim < 1:
            raise UsageError(f"low_rank: expected low_rank_dim of 1 or more, found {self.low_rank_dim}")

    def payload_bound(self, shape: Shape) -> int:
        """Exactly the factors, or the plain values."""
        if self._sent_plainly(shape):
            return _PLAIN.payload_bound(shape)
        return 4 * (1 + self.low_rank_dim * sum(_matrix(shape)))

    def error_bound(self, shape: Shape) -> float:
        """1, which a matrix orthogonal to the whole basis reaches, and a little rounding."""
        return 0.0 if self._sent_plainly(shape) else 1 + _ROUNDING

    def initial_state(self, shape: Shape) -> State:
        """A basis of zeros, which the first encode replaces."""
        if self._sent_plainly(shape):
            return ()
        return (np.zeros((self.low_rank_dim, _matrix(shape)[1]), np.float32),)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """One step of subspace iteration; see ``Codec.encode_into``."""
        shape = values.shape
        if self._sent_plainly(shape):
            return _PLAIN.encode_into(values, state, seed, payload, next_state)
        num_rows, num_columns = _matrix(shape)
        matrix, basis = values.reshape(num_rows, num_columns), next_state[0]
        num_steps = 1 if state[0].any() else _FIRST_STEPS
        np.copyto(basis, state[0])
        for index, vector in enumerate(basis):
            if not vector.any():
                fill_noise(np.uint64((seed * 0x9E3779B97F4A7C15 + index) % 2**64), vector)
        largest = max(float(largest_magnitude(values.reshape(-1))), _SMALLEST)
        scale = np.float32(1 / largest)
        left = np.empty((self.low_rank_dim, num_rows), np.float64)
        for _ in range(num_steps):
            times_vectors(matrix, scale, basis, left)
            orthonormalise(left)
            transposed_times_vectors(matrix, scale, left, basis)
        _PLAIN.encode_into(np.array([largest], np.float32), (), 0, payload, ())
        at = 4
        for factor in (left.astype(np.float32), basis):
            at += _PLAIN.encode_into(factor, (), 0, payload[at:], ())
        _normalise(basis)
        return at

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Multiply; see ``Codec.decode_into``."""
        self._decode(payload, out, add=False)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Multiply and add in one pass."""
        self._decode(payload, out, add=True)

    def _decode(self, payload: Payload, out: Floats, *, add: bool) -> None:
        if self._sent_plainly(out.shape):
            (_PLAIN.add_decoded if add else _PLAIN.decode_into)(payload, out)
            return
        self.check_size(payload.size, out.shape)
        num_rows, num_columns = _matrix(out.shape)
        floats = _PLAIN.decode(payload, (payload.size // 4,))
        left = floats[1 : 1 + self.low_rank_dim * num_rows].reshape(self.low_rank_dim, num_rows)
        right = floats[1 + left.size :].reshape(self.low_rank_dim, num_columns)
        add_product(left, right, floats[0], add, out.reshape(num_rows, num_columns))

    def _sent_plainly(self, shape: Shape) -> bool:
        if len(shape) < 2 or not prod(shape):
            return True
        num_rows, num_columns = _matrix(shape)
        return 1 + self.low_rank_dim * (num_rows + num_columns) >= num_rows * num_columns


def _matrix(shape: Shape) -> tuple[int, int]:
    return shape[0], prod(shape[1:])


def _normalise(basis: Floats) -> None:
    """Make the largest element of each row 1, so that no row fades to nothing or overflows over many encodes."""
    for vector in basis:
        largest = largest_magnitude(vector)
        if largest > _SMALLEST:
            vector /= largest
        else:
            vector[:] = 0
