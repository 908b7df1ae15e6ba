"""The largest magnitudes of each block of values, in one pass over memory.

Candidates at or above a threshold go into a buffer; whenever it is full, only the largest of it stay and the
threshold rises. So the answer is exact whatever threshold the pass began with, if enough candidates came at all. A good
first threshold (from a sample of the values, or from the block before) makes most of the pass a comparison of 64
magnitudes at a time.

Of equal magnitudes the one with the lower index is larger. NaN is larger than infinity.

Not here: how many to keep, and how positions and values are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import GROUP, MAGNITUDE, at_least, lowest_bit

_SPAN = 4096  # values that are added up and scanned while they are in the first-level cache
_RUN = 16  # values of a sample that lie side by side: a cache line
_SAMPLE = 65536
_MARGIN = 1 << 19  # below the last block's smallest key: 3 to 6 % of the magnitude


@kernel
def _kth_largest(keys: Any, count: int, k: int, low: np.int32) -> np.int32:
    """The k-th largest magnitude of keys[:count], ``low`` or more: halving the range that it lies in."""
    high = np.int32(low)
    for i in range(count):
        high = max(high, np.int32(keys[i] & MAGNITUDE))
    while low < high:
        middle = np.int32(low + np.int32(np.int32(high - low) >> np.int32(1)))
        num_above = np.int32(0)
        for i in range(count):
            num_above = np.int32(num_above + np.int32(np.int32(keys[i] & MAGNITUDE) > middle))
        if num_above >= k:
            low = np.int32(middle + np.int32(1))
        else:
            high = middle
    return low


@kernel
def _keep_largest(keys: Any, positions: Any, count: int, k: int, low: np.int32) -> np.int32:
    """Keep the k largest of ``count`` candidates, in their order; returns the smallest key kept."""
    smallest = _kth_largest(keys, count, k, low)
    num_ties: Any = k
    for i in range(count):
        num_ties -= np.int64(np.int32(keys[i] & MAGNITUDE) > smallest)
    kept = 0
    for i in range(count):
        key = np.int32(keys[i] & MAGNITUDE)
        if key > smallest or (key == smallest and num_ties > 0):
            num_ties -= np.int64(key == smallest)
            keys[kept] = keys[i]
            positions[kept] = positions[i]
            kept += 1
    return smallest


@kernel
def _select_in_block(
    addend: Any,
    sums: Any,
    bits: Any,
    start: int,
    stop: int,
    k: int,
    least: np.int32,
    keys: Any,
    positions: Any,
) -> tuple[int, np.int32]:
    """Leave up to k candidates in ``positions``; returns how many, and the smallest key kept (0 where fewer)."""
    count = 0
    for begin in range(start, stop, _SPAN):
        end = min(begin + _SPAN, stop)
        if addend.size:
            for i in range(begin, end):
                sums[i] += addend[i]
        for group in range(begin, end, GROUP):
            if group + GROUP <= end:
                mask = at_least(bits, group, least)
            else:
                mask = np.uint64(0)
                for i in range(group, end):
                    if np.int32(bits[i] & MAGNITUDE) >= least:
                        mask |= np.uint64(1) << np.uint64(i - group)
            while mask != np.uint64(0):
                i = group + lowest_bit(mask)
                mask &= mask - np.uint64(1)
                key = np.int32(bits[i] & MAGNITUDE)
                if key < least:
                    continue  # the threshold has risen since the mask was made
                if count == keys.size:
                    smallest = _keep_largest(keys, positions, count, k, np.int32(max(0, int(least) - 1)))
                    least = np.int32(min(int(smallest) + 1, MAGNITUDE))
                    count = k
                    if key < least:
                        continue
                keys[count] = bits[i]
                positions[count] = i - start
                count += 1
    if count < k:
        return count, np.int32(0)
    return k, _keep_largest(keys, positions, count, k, np.int32(max(0, int(least) - 1)))


@kernel
def _sampled_threshold(addend: Any, bits: Any, k: int, keys: Any) -> np.int32:
    """A key that a few more than k of the values exceed, probably; 0 where there are too few for a sample."""
    stride = bits.size // (_SAMPLE // _RUN)
    if stride < 2 * _RUN:
        return np.int32(0)
    expected = k * (_SAMPLE / bits.size)
    wanted = int(expected + 4 * np.sqrt(expected) + 4)
    if wanted >= _SAMPLE:
        return np.int32(0)
    values = bits.view(np.float32)
    for i in range(_SAMPLE):
        at = i // _RUN * stride + i % _RUN
        value = np.float32(values[at] + addend[at]) if addend.size else values[at]
        keys[i] = np.int32(np.float32(value).view(np.int32) & MAGNITUDE)
    return _kth_largest(keys, _SAMPLE, wanted, np.int32(0))


@kernel
def select(
    addend: Any,
    sums: Any,
    bits: Any,
    block: int,
    kept: int,
    kept_in_rest: int,
    keys: Any,
    candidates: Any,
    positions: Any,
    chosen: Any,
) -> None:
    """Write where in its block each block's largest magnitudes are, ascending, and the values that are there.

    Args:
        addend, sums: flat float32; ``addend`` is added to ``sums`` on the way, and ``sums`` becomes zero where a value
            is chosen. Both may be empty.
        bits: the values among which to choose, as int32; the memory of ``sums``, unless that is empty.
        block: values of a block, less than 2^31; the last may be shorter.
        kept: positions wanted of a whole block; ``kept_in_rest`` of the last one, if it is shorter.
        keys, candidates: scratch memory of one size, ``scratch_size``; int32 and uint32.
        positions, chosen: uint32 and float32; one for each that is kept.
    """
    none = addend[:0]
    threshold = _sampled_threshold(addend, bits, kept * (bits.size // block) + kept_in_rest, keys)
    done = 0
    for start in range(0, bits.size, block):
        stop = min(start + block, bits.size)
        k = kept if stop - start == block else kept_in_rest
        buffer, own = keys[: 2 * k + GROUP], candidates[: 2 * k + GROUP]
        count, smallest = _select_in_block(addend, sums, bits, start, stop, k, threshold, buffer, own)
        if count < k:
            _, smallest = _select_in_block(none, sums, bits, start, stop, k, np.int32(0), buffer, own)
        for i in range(k):
            positions[done + i] = own[i]
            chosen[done + i] = np.int32(buffer[i]).view(np.float32)
        if sums.size:
            for i in range(k):
                sums[start + own[i]] = 0
        done += k
        threshold = np.int32(max(0, int(smallest) - _MARGIN))


def scratch_size(kept: int) -> int:
    """Elements of each of the two scratch arrays of ``select``."""
    return max(2 * kept + GROUP, _SAMPLE)


@kernel
def scatter_add(addend: Any, positions: Any, block: int, kept: int, out: Any) -> None:
    """Add to the values at ``positions``, of which there are ``kept`` in each block."""
    start, left = 0, kept
    for i in range(positions.size):
        if left == 0:
            start, left = start + block, kept
        out[start + positions[i]] += addend[i]
        left -= 1
