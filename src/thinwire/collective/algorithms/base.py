"""What an algorithm is: a generator of schedules for one collective, with its price in closed form.

Also the parts that several algorithms share: checked weights, and the place of partial sums.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from thinwire.collective.builder import ProgramBuilder
from thinwire.collective.schedule import Buffer, CollectiveKind, Ref, Schedule, input_block, output_block
from thinwire.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One way of doing one collective, for any number of ranks.

    Attributes:
        name: the family, e.g. ``"ring"``; a family has one algorithm per collective it can do.
        kind: the collective.
        generate: ``(num_ranks, **params) -> Schedule``. Parameters are keyword-only and have defaults.
        steps_formula: ``(num_ranks, **params)`` -> the longest chain of dependent messages, for 2 ranks or more.
        bytes_formula: ``(num_ranks, **params)`` -> what the busiest rank sends, in bytes of all data, equal shares.
        even_blocks: True if all blocks must have one size.
        encodes: how many encodes a contribution goes through at most; if any, it runs only with a codec.
        example_params: for tests and demonstrations: ``num_ranks`` -> parameter sets worth trying.
    """

    name: str
    kind: CollectiveKind
    generate: Callable[..., Schedule]
    steps_formula: Callable[..., int]
    bytes_formula: Callable[..., Fraction | int]
    even_blocks: bool = False
    encodes: int = 0
    example_params: Callable[[int], Sequence[Mapping[str, Any]]] = field(default=lambda num_ranks: ({},))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what ``generate`` takes beside the collective itself."""
        names = inspect.signature(self.generate).parameters
        return tuple(name for name in names if name not in ("num_ranks", "root"))

    @property
    def is_rooted(self) -> bool:
        """Whether the collective has a root."""
        return "root" in inspect.signature(self.generate).parameters

    def steps(self, num_ranks: int, **params: Any) -> int:
        """Steps as ``Proof.steps`` counts them: a chain of messages, each waiting for the one before.

        >>> from thinwire.collective.algorithms import find_algorithm
        >>> find_algorithm("all_reduce", "ring").steps(8)
        14
        """
        return self.steps_formula(num_ranks, **params) if num_ranks > 1 else 0

    def bytes_sent_fraction(self, num_ranks: int, **params: Any) -> Fraction:
        """Bytes sent by the busiest rank over the bytes of all data (the larger buffer), for equal shares.

        >>> from thinwire.collective.algorithms import find_algorithm
        >>> find_algorithm("all_reduce", "ring").bytes_sent_fraction(8)
        Fraction(7, 4)
        """
        return Fraction(self.bytes_formula(num_ranks, **params)) if num_ranks > 1 else Fraction(0)


def shares(num_ranks: int, weights: Sequence[int] | None) -> tuple[int, ...]:
    """The weights of the chunks, one a rank: the given ones once they are checked, else equal ones.

    Raises:
        UsageError: not one weight a rank, a negative one, or nothing but zeros.
    """
    if weights is None:
        return (1,) * num_ranks
    if len(weights) != num_ranks or min(weights) < 0 or sum(weights) == 0:
        raise UsageError(
            f"weights must be {num_ranks} integers, one a rank, none negative and not all 0; got {tuple(weights)}"
        )
    return tuple(weights)


def ceil_log2(number: int) -> int:
    """The rounds in which something that doubles reaches ``number``."""
    return (number - 1).bit_length()


def floor_log2(number: int) -> int:
    """The rounds in which something that doubles has not yet passed ``number``."""
    return number.bit_length() - 1


def chained_rounds(num_ranks: int) -> int:
    """The steps of ceil(log2 p) rounds of halving or doubling distances: the rounds that wait for one another.

    They are all of them, but one less if p is no more than 3/4 of the next power of two: the round that is not full
    then moves nothing that waited for the round beside it.
    """
    rounds = ceil_log2(num_ranks)
    return max(1, rounds if 4 * num_ranks > 3 * 2**rounds else rounds - 1)


def peers(rank: int, num_ranks: int) -> list[int]:
    """The other ranks, nearest above first, so that no two ranks send to the same one at the same time.

    >>> peers(2, 4)
    [3, 0, 1]
    """
    return [(rank + distance) % num_ranks for distance in range(1, num_ranks)]


class PartialSums:
    """Where a rank keeps what it has added up of each chunk so far.

    In-place data is its own sum. INPUT is never written, so the first addition copies the block to OUTPUT, if it
    is the one this rank ends with, or else to SCRATCH. Wide sums are added up in an ACCUMULATOR.

    Args:
        ops: the program, to which the copies are added.
        start: chunk -> where the rank's own contribution is.
        final: the chunks whose sums belong elsewhere than where they started, and where.
        wide: add in the accumulation dtype, round once at the end.
    """

    def __init__(
        self,
        ops: ProgramBuilder,
        start: Callable[[int], Ref],
        *,
        final: Mapping[int, Ref] | None = None,
        wide: bool = False,
    ) -> None:
        self._ops = ops
        self._start = start
        self._final = final or {}
        self._wide = wide
        self._moved: dict[int, Ref] = {}

    def ref(self, chunk: int) -> Ref:
        """The sum so far, to send."""
        return self._moved.get(chunk) or self._start(chunk)

    def writable(self, chunk: int) -> Ref:
        """The sum so far, to add to."""
        ref = self.ref(chunk)
        if self._wide and ref.buffer is not Buffer.ACCUMULATOR:
            return self._move(chunk, self._ops.accumulator(like=ref))
        if ref.buffer is Buffer.INPUT:
            return self._move(chunk, self._final.get(chunk) or self._ops.scratch(like=ref))
        return ref

    def finish(self, chunk: int) -> Ref:
        """The complete sum, rounded and where it belongs."""
        final = self._final.get(chunk) or self._start(chunk)
        return final if self.ref(chunk) == final else self._move(chunk, final)

    def _move(self, chunk: int, target: Ref) -> Ref:
        self._ops.copy(self.ref(chunk), target)
        self._moved[chunk] = target
        return target


def block_sums(ops: ProgramBuilder, *, wide: bool = False) -> PartialSums:
    """The partial sums of a reduce_scatter: contributions in INPUT, this rank's block ends in OUTPUT."""
    return PartialSums(ops, input_block, final={ops.rank: output_block(0)}, wide=wide)


def gathered(rank: int) -> Callable[[int], Ref]:
    """Where an all_gather finds each block it has, so that nothing waits for the copy of the rank's own."""
    return lambda block: input_block(0) if block == rank else output_block(block)
