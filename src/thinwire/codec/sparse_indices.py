"""Which of a tensor's values a payload holds, in close to the fewest bits that can say so.

The positions kept in a block are ascending, and all choices of them are about equally likely, so the gaps between them
are close to geometric, and Golomb's code with m = ln 2 / p (Golomb 1966; Gallager and Van Voorhis 1975) is the best
prefix code of such gaps. For 64 of 4096 it takes 7.5 bits an index, where log2 C(4096, 64) is 7.36 for each, raw
positions take 12 and a tensor of int64 takes 64. How many are kept follows from the shape and is not sent.

Not here: how the positions are chosen, and the values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thinwire.codec.base import Array, Payload
from thinwire.codec.kernels.golomb import decode_gaps, encode_gaps
from thinwire.errors import CodecError


class Kept(NamedTuple):
    """How many positions of how many values: ``kept`` of each ``block``, ``kept_in_rest`` of the shorter last one."""

    size: int
    block: int
    kept: int
    kept_in_rest: int

    @property
    def total(self) -> int:
        """How many positions in all."""
        return self.size // self.block * self.kept + self.kept_in_rest


def indices_bound(kept: Kept) -> int:
    """The most bytes that the indices may take.

    >>> indices_bound(Kept(size=4096, block=4096, kept=64, kept_in_rest=0)) * 8 / 64
    8.5
    """
    bits = kept.size // kept.block * _bits_bound(kept.block, kept.kept)
    return (bits + _bits_bound(kept.size % kept.block, kept.kept_in_rest) + 7) // 8


def encode_indices(positions: Array, kept: Kept, out: Payload) -> int:
    """Write positions to the front of ``out``, which holds ``indices_bound`` bytes or more; returns how many it took.

    Args:
        positions: uint32, within its block each, ascending in a block.
    """
    out[: indices_bound(kept)] = 0
    return encode_gaps(positions, kept.size, kept.block, kept.kept, *_divisors(kept), out)


def decode_indices(payload: Payload, kept: Kept) -> tuple[Array, int]:
    """The positions at the front of ``payload``, and how many bytes they took.

    Raises:
        CodecError: if the bytes are no such positions.
    """
    positions = np.empty(kept.total, np.uint32)
    num_bytes = decode_gaps(payload, kept.size, kept.block, kept.kept, *_divisors(kept), positions)
    if num_bytes < 0:
        raise CodecError(
            f"expected {kept.total} ascending positions of {kept.size} values, found a payload of {payload.size} bytes "
            "that ends before or names a position beyond: encoder and decoder must agree on codec and shape"
        )
    return positions, num_bytes


def _divisor(size: int, kept: int) -> int:
    """ln 2 over the share that is kept."""
    return max(1, size * 693 // (1000 * max(1, kept)))


def _divisors(kept: Kept) -> tuple[int, int]:
    return _divisor(kept.block, kept.kept), _divisor(kept.size % kept.block, kept.kept_in_rest)


def _bits_bound(size: int, kept: int) -> int:
    divisor = _divisor(size, kept)
    return kept * (1 + (divisor - 1).bit_length()) + (size - kept) // divisor
