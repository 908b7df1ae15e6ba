"""Binomial tree: what one rank has, two have after a step, then four, then eight.

Ranks are counted from the root. The parent of v is v without its lowest set bit, so that the ranks below v are the
consecutive ones from v up, which lets gather and scatter move whole subtrees as one message.

============  ===============  =========================  ========================================================
collective    steps            bytes the busiest sends    wins
============  ===============  =========================  ========================================================
broadcast     floor(log2 p)    ceil(log2 p)               small data
reduce        floor(log2 p)    1                          small data
all_reduce    2 floor(log2 p)  ceil(log2 p)               small data where one rank must see the sum first
gather        floor(log2 p)    largest subtree, 1/2 at p  small blocks, many ranks: the root gets few messages
                               = 2^k
scatter       floor(log2 p)    (p - 1) / p                as above
============  ===============  =========================  ========================================================

The root's messages of one broadcast count as one step; sent one after the other they take ceil(log2 p) rounds.
It loses for large data: the root sends everything ceil(log2 p) times. Intermediate ranks keep others' blocks, whose
sizes they know only if all are equal: gather and scatter need even blocks.

Source: the folklore of MPI; written up in R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective
communication operations in MPICH", International Journal of High Performance Computing Applications 19 (1), 2005.
"""

from __future__ import annotations

from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, ceil_log2, floor_log2
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import (
    Collective,
    CollectiveKind,
    Ref,
    Schedule,
    data,
    input_block,
    output_block,
)

NAME = "binomial_tree"


class Tree:
    """The binomial tree of ``num_ranks`` ranks below ``root``, seen from ``rank``.

    Attributes:
        parent: a rank, or None at the root.
        children: ranks, smallest subtree first.
    """

    def __init__(self, rank: int, num_ranks: int, root: int) -> None:
        self._num_ranks, self._root = num_ranks, root
        place = self._place(rank)
        self.parent = None if rank == root else self._rank(place & (place - 1))
        reach = place & -place if place else num_ranks
        distances = (1 << level for level in range(num_ranks.bit_length()))
        self.children = [
            self._rank(place + distance)
            for distance in distances
            if distance < reach and place + distance < num_ranks
        ]

    def subtree(self, rank: int) -> list[int]:
        """``rank`` and all below it."""
        place = self._place(rank)
        end = min(place + (place & -place), self._num_ranks) if place else self._num_ranks
        return [self._rank(below) for below in range(place, end)]

    def _place(self, rank: int) -> int:
        return (rank - self._root) % self._num_ranks

    def _rank(self, place: int) -> int:
        return (place + self._root) % self._num_ranks


def broadcast(num_ranks: int, *, root: int = 0) -> Schedule:
    """Down the tree, the largest subtree first."""

    def body(ops: ProgramBuilder) -> None:
        _pass_down(ops, Tree(ops.rank, num_ranks, root))

    collective = Collective(kind=CollectiveKind.BROADCAST, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body)


def reduce(num_ranks: int, *, root: int = 0) -> Schedule:
    """Up the tree; a rank adds its children's sums, smallest subtree first."""

    def body(ops: ProgramBuilder) -> None:
        _add_up(ops, Tree(ops.rank, num_ranks, root))

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body)


def all_reduce(num_ranks: int) -> Schedule:
    """Up the tree to rank 0 and down again."""

    def body(ops: ProgramBuilder) -> None:
        tree = Tree(ops.rank, num_ranks, root=0)
        _add_up(ops, tree)
        ops.phase += 1
        _pass_down(ops, tree)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=1)
    return write_schedule(collective, NAME, body)


def gather(num_ranks: int, *, root: int = 0) -> Schedule:
    """Up the tree, a whole subtree's blocks as one message. Even blocks only."""

    def body(ops: ProgramBuilder) -> None:
        tree = Tree(ops.rank, num_ranks, root)
        kept: dict[int, Ref] = {ops.rank: input_block(0)}
        if tree.parent is None:
            ops.copy(input_block(0), output_block(ops.rank))
        for child in tree.children:
            for origin in tree.subtree(child):
                kept[origin] = (
                    output_block(origin) if tree.parent is None else ops.scratch(like=input_block(0))
                )
            ops.recv(child, *(kept[origin] for origin in tree.subtree(child)))
        if tree.parent is not None:
            ops.send(tree.parent, *(kept[origin] for origin in tree.subtree(ops.rank)))

    collective = Collective(kind=CollectiveKind.GATHER, num_ranks=num_ranks, root=root)
    return write_schedule(collective, NAME, body, even_blocks=True)


def scatter(num_ranks: int, *, root: int = 0) -> Schedule:
    """Down the tree, a whole subtree's blocks as one message. Even blocks only."""

    def body(ops: ProgramBuilder) -> None:
        tree = Tree(ops.rank, num_ranks, root)
        kept: dict[int, Ref] = {}
        for destination in tree.subtree(ops.rank):
            if tree.parent is None:
                kept[destination] = input_block(destination)
            elif destination == ops.rank:
                kept[destination] = output_block(0)
            else:
                kept[destination] = ops.scratch(like=output_block(0))
        if tree.parent is None:
            ops.copy(input_block(ops.rank), output_block(0))
        else:
            ops.recv(tree.parent, *kept.values())
        for child in reversed(tree.children):
            ops.send(child, *(kept[destination] for destination in tree.subtree(child)))

    collective = Collective(kind=CollectiveKind.SCATTER, num_ranks=num_ranks, root=root)
    return write_schedule(collective, NAME, body, even_blocks=True)


def _add_up(ops: ProgramBuilder, tree: Tree) -> None:
    for child in tree.children:
        ops.recv_reduce(child, data(0))
    if tree.parent is not None:
        ops.send(tree.parent, data(0))


def _pass_down(ops: ProgramBuilder, tree: Tree) -> None:
    if tree.parent is not None:
        ops.recv(tree.parent, data(0))
    for child in reversed(tree.children):
        ops.send(child, data(0))


def _largest_subtree(num_ranks: int) -> Fraction:
    sizes = (min(1 << level, num_ranks - (1 << level)) for level in range(ceil_log2(num_ranks)))
    return Fraction(max(sizes), num_ranks)


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BROADCAST,
        generate=broadcast,
        steps_formula=lambda p, **_: floor_log2(p),
        bytes_formula=lambda p, **_: ceil_log2(p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE,
        generate=reduce,
        steps_formula=lambda p, **_: floor_log2(p),
        bytes_formula=lambda p, **_: 1,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p: 2 * floor_log2(p),
        bytes_formula=ceil_log2,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.GATHER,
        generate=gather,
        steps_formula=lambda p, **_: floor_log2(p),
        bytes_formula=lambda p, **_: _largest_subtree(p),
        even_blocks=True,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.SCATTER,
        generate=scatter,
        steps_formula=lambda p, **_: floor_log2(p),
        bytes_formula=lambda p, **_: Fraction(p - 1, p),
        even_blocks=True,
    ),
)
