"""The average of all ranks' gradients as thin factors: PowerSGD (Vogels, Karimireddy and Jaggi 2019, algorithm 1).

Each matrix M, with what is owed to it, becomes P Q^T of ``low_rank_dim`` columns:

    P = average of M Q over the ranks, orthonormalised        the first all-reduce, of small tensors
    Q = average of M^T P                                      the second one
    everybody takes P Q^T, which is what one rank with the average of all M would have found

The products are linear in M, so no matrix is encoded twice, however many ranks there are, and that is why this loses so
much less of a training than codecs of the same size do. Both sums are of ``FACTOR_CODEC``'s eight bits a value. What
they leave out of P costs next to nothing, because Q is made for the P that came out; what they leave out of a rank's
own Q, and out of the part of the sum that it encodes for all, it owes. Parameters that are no matrices, or too small to
gain, travel in the first sum, and are owed alike. Q is where the next step's Q begins; the first is noise from a seed
that all ranks share.

A rank owes M - P (M^T P)^T. That is not M - P Q^T, as the authors have it, but has the same average, and does not grow
with the differences between the ranks.

All ranks get the same bytes: what they compute from the sums is done by ``codec.kernels.low_rank``, in one order on
every machine.

A step whose gradients are not finite gives NaN everywhere, and nothing of it is owed.

Not here: which buckets travel so (``link``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.futures import Future

from thinwire.codec.base import Floats
from thinwire.codec.kernels.low_rank import (
    add_product,
    fill_noise,
    orthonormalise,
    transposed_times_vectors,
)
from thinwire.planner.forms import FACTOR_CODEC, is_factored
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.futures import StrandFuture
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup

_ONE, _MINUS_ONE = np.float32(1), np.float32(-1)
_LEFT, _RIGHT = "low rank, left", "low rank, right"


class Piece(NamedTuple):
    """One parameter's part of a bucket."""

    name: str
    shape: tuple[int, ...]
    part: slice

    @property
    def matrix_shape(self) -> tuple[int, int]:
        return self.shape[0], prod(self.shape[1:])


def pieces_of(parameters: Sequence[tuple[str, tuple[int, ...]]]) -> list[Piece]:
    """Where each parameter, given by name and shape, lies in their bucket.

    >>> [piece.part for piece in pieces_of([("weight", (2, 3)), ("bias", (2,))])]
    [slice(0, 6, None), slice(6, 8, None)]
    """
    pieces, start = [], 0
    for name, shape in parameters:
        pieces.append(Piece(name, shape, slice(start, start := start + prod(shape))))
    return pieces


class _Turn:
    """Of a bucket to begin its second sum: set when it may."""

    begin: Callable[[], None] | None = None


class LowRankSum:
    """Of one group's gradients. Keeps the basis Q of each matrix, by the parameter's name."""

    def __init__(self, group: ThinwireProcessGroup) -> None:
        self._group = group
        self._bases: dict[str, Floats] = {}
        self._turns: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def average(
        self, values: Tensor, pieces: Sequence[Piece], low_rank_dim: int, residual: Floats
    ) -> Future[list[Tensor]]:
        """Begin to replace ``values`` with the average over all ranks; the future holds it.

        Args:
            values: a flat bucket on the CPU, float32.
            residual: what is owed to it, as long; it is brought up to date.
        """
        gradient: Floats = values.numpy()
        residual += gradient
        factored = [piece for piece in pieces if is_factored(piece.shape, low_rank_dim)]
        plain = [piece for piece in pieces if not is_factored(piece.shape, low_rank_dim)]
        matrices = [residual[piece.part].reshape(piece.matrix_shape) for piece in factored]
        bases = [self._basis(piece, low_rank_dim) for piece in factored]
        lefts = [_times(matrix, basis) for matrix, basis in zip(matrices, bases, strict=True)]
        first = _Packed([*lefts, *(residual[piece.part] for piece in plain)])
        result = StrandFuture(_RIGHT, [])
        turn = _Turn()
        self._turns.append(turn)

        def on_lefts() -> None:
            for left, total in zip(lefts, first.sums, strict=False):
                left[:] = total
                orthonormalise(left)
            for matrix, left, basis in zip(matrices, lefts, bases, strict=True):
                transposed_times_vectors(matrix, _ONE, left, basis)
            second = _Packed(bases)
            turn.begin = lambda: self._average(_RIGHT, second, result, lambda: on_rights(second))
            self._begin_turns()

        def on_rights(second: _Packed) -> None:
            if not (first.is_finite and second.is_finite):
                values.fill_(torch.nan)
                with np.errstate(invalid="ignore"):
                    residual[:] = np.nan_to_num(residual - gradient, nan=0.0, posinf=0.0, neginf=0.0)
                for piece in factored:
                    del self._bases[piece.name]
                result.set_result([values])
                return
            for piece, total, owed in zip(
                plain, first.sums[len(lefts) :], first.owed[len(lefts) :], strict=True
            ):
                gradient[piece.part] = total
                residual[piece.part] = owed
            for piece, matrix, left, basis, total, owed in zip(
                factored, matrices, lefts, bases, second.sums, second.owed, strict=True
            ):
                columns = left.astype(np.float32)
                basis -= owed  # what this rank has sent of it
                add_product(columns, basis, _MINUS_ONE, True, matrix)
                add_product(columns, total, _ONE, False, gradient[piece.part].reshape(matrix.shape))
                basis[:] = total
            result.set_result([values])

        self._average(_LEFT, first, result, on_lefts)
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """The bases, as ``torch.save`` takes them."""
        return {name: torch.from_numpy(basis.copy()) for name, basis in self._bases.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with these bases."""
        self._bases = {str(name): torch.as_tensor(basis).numpy().copy() for name, basis in state_dict.items()}

    def _basis(self, piece: Piece, low_rank_dim: int) -> Floats:
        """The basis of a matrix. Rows that it lacks, or that have faded to nothing, are noise."""
        num_columns = piece.matrix_shape[1]
        basis = np.zeros((low_rank_dim, num_columns), np.float32)
        known = self._bases.get(piece.name)
        if known is not None and known.shape[1] == num_columns:
            basis[: len(known)] = known[:low_rank_dim]
        for index, row in enumerate(basis):
            if not row.any():
                fill_noise(np.uint64(index), row)
        self._bases[piece.name] = basis
        return basis

    def _begin_turns(self) -> None:
        """Second sums begin in the order of the first ones, on every rank, whatever thread gets here first."""
        with self._lock:
            while self._turns and self._turns[0].begin is not None:
                self._turns.popleft().begin()  # type: ignore[misc]

    def _average(self, strand: str, packed: _Packed, result: StrandFuture, then: Callable[[], None]) -> None:
        """Average over all ranks; then go on, on a thread that may block."""

        def arrived(done: Future[Any]) -> None:
            try:
                done.value()
                then()
            except Exception as error:
                result.set_exception(error)

        options = CallOptions(codec=FACTOR_CODEC, memory=packed.memory)
        self._group.all_reduce_apart(strand, packed.values, options, average=True).get_future().then(arrived)


class _Packed:
    """Arrays that travel as one message. Nothing is owed to them from before."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        flat = [np.asarray(array, np.float32).reshape(-1) for array in arrays]
        self.values = torch.from_numpy(np.concatenate([*flat, np.zeros(0, np.float32)]))
        self.memory = TensorMemory("factors")
        self._shapes = [array.shape for array in arrays]

    @property
    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.values).all())

    @property
    def sums(self) -> list[Floats]:
        """In the shapes of the arrays."""
        return self._unpacked(self.values.numpy())

    @property
    def owed(self) -> list[Floats]:
        """What this rank has left out of each."""
        return self._unpacked(self.memory.residual)

    def _unpacked(self, flat: Floats) -> list[Floats]:
        views, start = [], 0
        for shape in self._shapes:
            views.append(flat[start : start + prod(shape)].reshape(shape))
            start += prod(shape)
        return views


def _times(matrix: Floats, basis: Floats) -> Any:
    """The columns of M Q as rows, in float64, with each of Q's made one long.

    So they are as large as the gradient, which they share blocks of eight bits with. Only their sum must be the same on
    all ranks, so BLAS may do it.
    """
    directions = torch.nn.functional.normalize(torch.from_numpy(basis))
    return (directions @ torch.from_numpy(matrix).T).numpy().astype(np.float64)
