"""What several codecs share: whose state is whose, seeds of their own for each part, how many is how many.

Not here: any codec.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import islice

from thinwire.codec.base import Codec, Shape, State
from thinwire.errors import UsageError


@functools.lru_cache(maxsize=4096)
def _num_arrays(codec: Codec, shape: Shape) -> int:
    return len(codec.initial_state(shape))


def split_state(state: State, codecs: Sequence[Codec], shape: Shape) -> Iterator[State]:
    """The part of each codec, where the states of all of them follow one another."""
    arrays = iter(state)
    for codec in codecs:
        yield tuple(islice(arrays, _num_arrays(codec, shape)))


def keep_state(state: State, next_state: State) -> None:
    """Pass a state on as it is."""
    for before, after in zip(state, next_state, strict=True):
        after[...] = before


def own_seed(seed: int, part: int) -> int:
    """Another seed for each part of a combination.

    >>> len({own_seed(7, part) for part in range(100)})
    100
    """
    return ((seed ^ (part + 1) * 0x9E3779B97F4A7C15) * 0xD1342543DE82EF95 + part) % 2**64


def count_or_fraction(k: float, whose: str) -> float:
    """A fraction below 1 as it is, a count as a whole number.

    Raises:
        UsageError: if it is neither.

    >>> count_or_fraction(64.0, "top_k"), count_or_fraction(0.01, "top_k")
    (64, 0.01)
    """
    if 0 < k < 1:
        return k
    if not (k >= 1 and k == int(k)):
        raise UsageError(f"{whose}: expected a whole number from 1 or a fraction below 1, found k={k!r}")
    return int(k)
