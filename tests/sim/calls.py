"""Every collective as a call with its answer: the arrays a rank hands over, and what NumPy says they become."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thinwire.codec.base import Codec
from thinwire.codec.plain import Plain
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.schedule import CollectiveKind
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES, Array, ReduceOp

KINDS = [kind for kind in CollectiveKind if kind is not CollectiveKind.SEND_RECV]
MAY_BE_UNEVEN = (CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_TO_ALL)
FLOAT32 = DTYPES["float32"]


@dataclass
class CollectiveCall:
    """One collective of ``num_ranks`` ranks, on small whole numbers in float32, so that every order of adding is exact.

    Attributes:
        num_elements: of the whole data; block collectives share it out among the ranks.
        even: blocks have one size; else those of higher ranks are larger.
        codec: with which it is made; one that leaves these numbers whole.
    """

    kind: CollectiveKind
    num_ranks: int
    num_elements: int
    rng: np.random.Generator
    root: int = 0
    even: bool = True
    algorithm: str | None = None
    codec: Codec | None = None

    def __post_init__(self) -> None:
        p, draw = self.num_ranks, self._draw
        weights = [1] * p if self.even else list(range(1, p + 1))
        self.block_sizes = [self.num_elements * weight // sum(weights) for weight in weights]
        match self.kind:
            case CollectiveKind.ALL_REDUCE | CollectiveKind.REDUCE | CollectiveKind.BROADCAST:
                self.inputs = [[draw(self.num_elements)] for _ in range(p)]
            case CollectiveKind.ALL_GATHER | CollectiveKind.GATHER:
                self.inputs = [[draw(size)] for size in self.block_sizes]
            case CollectiveKind.SCATTER | CollectiveKind.REDUCE_SCATTER | CollectiveKind.ALL_TO_ALL:
                self.inputs = [[draw(size) for size in self.block_sizes] for _ in range(p)]
            case _:
                self.inputs = [[] for _ in range(p)]
        self.found: dict[int, list[Array]] = {}

    def submit(self, member: Communicator) -> Job:
        """Make the call on one rank."""
        rank, p = member.rank, self.num_ranks
        options = CallOptions(algorithm=self.algorithm, codec=self.codec)
        own = [block.copy() for block in self.inputs[rank]]
        found: list[Array] = []
        self.found[rank] = found
        match self.kind:
            case CollectiveKind.BARRIER:
                return member.barrier(options=options)
            case CollectiveKind.ALL_REDUCE:
                found += own
                return member.all_reduce(own[0], ReduceOp.SUM, FLOAT32, options=options)
            case CollectiveKind.REDUCE:
                found += own
                return member.reduce(own[0], self.root, ReduceOp.SUM, FLOAT32, options=options)
            case CollectiveKind.BROADCAST:
                found += own
                return member.broadcast(own[0], self.root, FLOAT32, options=options)
            case CollectiveKind.ALL_GATHER:
                found += [_blank(size) for size in self.block_sizes]
                return member.all_gather(own[0], found, FLOAT32, options=options)
            case CollectiveKind.GATHER:
                outputs = [_blank(size) for size in self.block_sizes] if rank == self.root else None
                found += outputs or []
                return member.gather(own[0], outputs, self.root, FLOAT32, options=options)
            case CollectiveKind.SCATTER:
                found.append(_blank(self.block_sizes[rank]))
                inputs = own if rank == self.root else None
                return member.scatter(inputs, found[0], self.root, FLOAT32, options=options)
            case CollectiveKind.REDUCE_SCATTER:
                found.append(_blank(self.block_sizes[rank]))
                return member.reduce_scatter(own, found[0], ReduceOp.SUM, FLOAT32, options=options)
            case CollectiveKind.ALL_TO_ALL:
                found += [_blank(self.block_sizes[rank]) for _ in range(p)]
                return member.all_to_all(own, found, FLOAT32, even=self.even, options=options)
        raise AssertionError(self.kind)

    @cached_property
    def totals(self) -> list[Array]:
        """The sum over all ranks of each block."""
        return [functools.reduce(np.add, blocks) for blocks in zip(*self.inputs, strict=True)]

    def expected(self, rank: int) -> list[Array]:
        """What the rank ends up with; nothing where its result is undefined."""
        match self.kind:
            case CollectiveKind.ALL_REDUCE:
                return self.totals
            case CollectiveKind.REDUCE if rank == self.root:
                return self.totals
            case CollectiveKind.BROADCAST:
                return self.inputs[self.root]
            case CollectiveKind.ALL_GATHER:
                return [blocks[0] for blocks in self.inputs]
            case CollectiveKind.GATHER if rank == self.root:
                return [blocks[0] for blocks in self.inputs]
            case CollectiveKind.SCATTER:
                return [self.inputs[self.root][rank]]
            case CollectiveKind.REDUCE_SCATTER:
                return [self.totals[rank]]
            case CollectiveKind.ALL_TO_ALL:
                return [blocks[rank] for blocks in self.inputs]
        return []

    def check(self, rank: int) -> None:
        """Assert that the rank has what it should."""
        for found, expected in zip(self.found[rank], self.expected(rank), strict=False):
            np.testing.assert_array_equal(found, expected, err_msg=f"{self.kind}, rank {rank}")

    def _draw(self, size: int) -> Array:
        return self.rng.integers(-100, 100, size).astype(np.float32)


def codec_for(algorithm: Algorithm) -> Codec | None:
    """What a call by that algorithm needs: a codec, if it encodes."""
    return Plain() if algorithm.encodes else None


def _blank(size: int) -> Array:
    return np.full(size, np.nan, np.float32)
