"""Random bits as a function of a seed and a position, the same on every machine and in any order.

Each block of a tensor has a key; position ``i`` of the block has the 32 bits ``mix(i * ODD ^ key)``. ``mix`` is the
"lowbias32" permutation of C. Wellons' hash prospector; keys come from the output function of SplitMix64 (Steele, Lea
and Flood 2014). Not for secrets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ODD = 0x9E3779B1
_MASK = (1 << 64) - 1


def block_keys(seed: int, first_block: int, num_blocks: int) -> npt.NDArray[np.uint32]:
    """The key of each block from ``first_block`` on.

    >>> block_keys(7, 0, 3)[2] == block_keys(7, 2, 1)[0]
    np.True_
    """
    counters = np.arange(first_block + 1, first_block + num_blocks + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(_mixed(seed & _MASK))
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def random_bits(keys: npt.NDArray[np.uint32], num_positions: int) -> npt.NDArray[np.uint32]:
    """The 32 bits of each position of each block: shape (blocks, positions)."""
    positions = np.arange(num_positions, dtype=np.uint32) * np.uint32(ODD)
    bits = positions[None, :] ^ keys[:, None]
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> np.uint32(15)
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> np.uint32(16)
    return bits


def _mixed(number: int) -> int:
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31
