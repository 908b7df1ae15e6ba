"""Top-k: the values of largest magnitude, and where they were (Aji and Heafield 2017; Lin et al. 2018, DGC).

Which values are kept is exact, however fast: one pass over memory collects all values above a threshold that a sample
suggests (DGC, section 3.1.1) and keeps the best k of them; in the rare case that fewer than k come, a second
pass starts from zero. So the payload's size never depends on luck. Taken per block of the tensor (64 of
each 4096, say; SparseLoCo 2025) the values are spread over all layers, and indices are cheaper.

Not here: the kernel that selects (``kernels.top_k``), the code of the indices (``sparse_indices``), error feedback,
without which a tensor's small values are never sent (``feedback``), and momentum (``momentum``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod, sqrt

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.combining import count_or_fraction
from thinwire.codec.kernels.top_k import scatter_add, scratch_size, select
from thinwire.codec.plain import Plain
from thinwire.codec.sparse_indices import Kept, decode_indices, encode_indices, indices_bound
from thinwire.errors import CodecError, UsageError

_MOST_BLOCK = 2**31 - 1
_NONE = np.empty(0, np.float32)


@dataclass(frozen=True)
class TopK(Codec):
    """Keep the values of largest magnitude, of the whole tensor or of each block of it.

    Payload: the indices, then the payload of ``values`` for the kept values as one flat tensor. Of equal
    magnitudes the first is kept; NaN counts as larger than infinity, so that it is sent, not left in a residual.

    Args:
        k: how many to keep: a count, or a fraction of the values if it is below 1.
        block: keep k of each ``block`` values, and in proportion of what is left; 0: of the whole tensor.
        values: the codec of what is kept.

    Raises:
        UsageError: if the numbers make no sense.

    >>> codec = TopK(2)
    >>> codec.decode(codec.encode(np.array([1, -4, 2, 3], np.float32)).payload, (4,))
    array([ 0., -4.,  0.,  3.], dtype=float32)
    """

    k: float
    block: int = 0
    values: Codec = field(default_factory=Plain)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", count_or_fraction(self.k, self.name()))
        if not 0 <= self.block <= _MOST_BLOCK:
            raise UsageError(f"top_k: expected a block of 0 to {_MOST_BLOCK} values, found {self.block}")
        if self.block and self.k > self.block:
            raise UsageError(
                f"top_k: expected k of at most the block's {self.block} values, found k={self.k}"
            )

    def kept(self, shape: Shape) -> Kept:
        """How many values of each block are kept.

        >>> TopK(64, block=4096).kept((3, 4096, 10)).total
        1920
        """
        size = prod(shape)
        block = self.block or min(max(1, size), _MOST_BLOCK)
        return Kept(size, block, self._kept_of(block, size), self._kept_of(size % block, size))

    def _kept_of(self, num_values: int, size: int) -> int:
        if self.k < 1:
            return ceil(self.k * num_values)
        whole = self.block or max(1, size)
        return -(-min(int(self.k), whole) * num_values // whole)

    def payload_bound(self, shape: Shape) -> int:
        """What the worst gaps take, and the values."""
        kept = self.kept(shape)
        return indices_bound(kept) + self.values.payload_bound((kept.total,))

    def payload_bytes(self, shape: Shape) -> int | None:
        """Unknown but for empty tensors: indices are as long as the gaps require."""
        return 0 if self.payload_bound(shape) == 0 else None

    def error_bound(self, shape: Shape) -> float:
        """sqrt(1 - k/n) where the kept values are sent without error."""
        kept = self.kept(shape)
        if not kept.total:
            return 0.0
        of_values = self.values.error_bound((kept.total,))
        share = kept.kept / kept.block if kept.size >= kept.block else 1.0
        if kept.kept_in_rest:
            share = min(share, kept.kept_in_rest / (kept.size % kept.block))
        return sqrt(max(1 - share * (1 - of_values**2), of_values**2))

    def initial_state(self, shape: Shape) -> State:
        """That of ``values``."""
        return self.values.initial_state((self.kept(shape).total,))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Select, and write indices and values; see ``Codec.encode_into``."""
        kept = self.kept(values.shape)
        positions, chosen = _select(_NONE, _NONE, values.reshape(-1), kept)
        num_bytes = encode_indices(positions, kept, payload)
        return num_bytes + self.values.encode_into(chosen, state, seed, payload[num_bytes:], next_state)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Add up and select in one pass, and take out of the residual what was sent."""
        flat = residual.reshape(-1)
        kept = self.kept(values.shape)
        positions, chosen = _select(values.reshape(-1), flat, flat, kept)
        num_bytes = encode_indices(positions, kept, payload)
        end = num_bytes + self.values.encode_into(chosen, state, seed, payload[num_bytes:], next_state)
        if not self.values.is_lossless:
            chosen -= self.values.decode(payload[num_bytes:end], chosen.shape)
            chosen[np.isnan(chosen)] = 0  # nothing is owed where the value was not finite
            scatter_add(chosen, positions, kept.block, kept.kept, flat)
        return end

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Zeros but for what was kept; see ``Codec.decode_into``."""
        positions, chosen, kept = self._read(payload, out.shape)
        out.fill(0)
        scatter_add(chosen, positions, kept.block, kept.kept, out.reshape(-1))

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Touches only what was kept."""
        positions, chosen, kept = self._read(payload, out.shape)
        scatter_add(chosen, positions, kept.block, kept.kept, out.reshape(-1))

    def _read(self, payload: Payload, shape: Shape) -> tuple[Array, Floats, Kept]:
        kept = self.kept(shape)
        if payload.size > self.payload_bound(shape):
            raise CodecError(
                f"top_k: expected at most {self.payload_bound(shape)} bytes for shape {shape}, found {payload.size}"
            )
        positions, num_bytes = decode_indices(payload, kept)
        return positions, self.values.decode(payload[num_bytes:], (kept.total,)), kept


def _select(addend: Floats, sums: Floats, values: Floats, kept: Kept) -> tuple[Array, Floats]:
    """Positions and values of what is kept; see ``kernels.top_k.select``."""
    positions, chosen = np.empty(kept.total, np.uint32), np.empty(kept.total, np.float32)
    scratch = scratch_size(max(kept.kept, kept.kept_in_rest))
    keys, candidates = np.empty(scratch, np.int32), np.empty(scratch, np.uint32)
    select(addend, sums, values.view(np.int32), *kept[1:], keys, candidates, positions, chosen)
    return positions, chosen
