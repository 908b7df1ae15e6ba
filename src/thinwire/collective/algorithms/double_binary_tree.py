"""Double binary tree: two trees over the same ranks, each for half of the data.

In one binary tree the inner ranks send twice what they receive and the leaves send nothing. So there are two trees,
and a rank that is an inner one in the first is a leaf in the second: everybody's ports are busy both ways. The trees
are in-order trees: of the places 1 .. m the odd ones are leaves, and the rank at the top is the largest power of two.
The second tree is the first one mirrored (m even) or turned by one place (m odd).

In broadcast and reduce the trees span the other ranks and the root stands above both; in all_reduce they span all.

============  ========================  ========================  ================================================
collective    steps                     bytes the busiest sends   wins
============  ========================  ========================  ================================================
all_reduce    2 floor(log2 p)           min(2, p / 2)             middle and large data, many ranks: few steps at
                                                                  constant bytes, pipelined by segments
broadcast     1 + floor(log2 (p - 1))   1                         as above
reduce        1 + floor(log2 (p - 1))   1                         as above
============  ========================  ========================  ================================================

It loses to ring and direct for large data and few ranks: 2 instead of 2 (p - 1) / p.

Source: P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
Parallel Computing 35 (12), 2009. Deviation: their colouring of the edges into send and receive rounds is left out,
since messages here go as soon as they can.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from thinwire.collective.algorithms.base import Algorithm, floor_log2
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data

NAME = "double_binary_tree"


class Place(NamedTuple):
    """The neighbours of one rank in one tree, as ranks."""

    parent: int | None
    children: list[int]


def in_order_parents(size: int) -> list[int | None]:
    """The in-order tree over ``size`` places: for each its parent, None at the top. Counted from 0.

    >>> in_order_parents(5)
    [1, 3, 1, None, 3]
    """
    return [_in_order_parent(number, size) for number in range(1, size + 1)]


def all_reduce(num_ranks: int) -> Schedule:
    """Each half up its tree and down again."""
    trees = _two_trees(range(num_ranks))

    def body(ops: ProgramBuilder) -> None:
        places = [tree[ops.rank] for tree in trees]
        for half, place in enumerate(places):
            _add_up(ops, half, place)
        ops.phase += 1
        for half, place in enumerate(places):
            _pass_down(ops, half, place)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=2)
    return write_schedule(collective, NAME, body)


def broadcast(num_ranks: int, *, root: int = 0) -> Schedule:
    """Each half down its tree."""
    trees = _rooted_trees(num_ranks, root)

    def body(ops: ProgramBuilder) -> None:
        for half, tree in enumerate(trees):
            _pass_down(ops, half, tree[ops.rank])

    collective = Collective(kind=CollectiveKind.BROADCAST, num_ranks=num_ranks, num_chunks=2, root=root)
    return write_schedule(collective, NAME, body)


def reduce(num_ranks: int, *, root: int = 0) -> Schedule:
    """Each half up its tree."""
    trees = _rooted_trees(num_ranks, root)

    def body(ops: ProgramBuilder) -> None:
        for half, tree in enumerate(trees):
            _add_up(ops, half, tree[ops.rank])

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=num_ranks, num_chunks=2, root=root)
    return write_schedule(collective, NAME, body)


def _in_order_parent(number: int, size: int) -> int | None:
    """Counted from 1. The height of a place is its lowest set bit; places beyond the end are climbed over."""
    if number == 1 << floor_log2(size):
        return None
    while True:
        height = number & -number
        number = (number - height) | 2 * height
        if number <= size:
            return number - 1


def _two_trees(ranks: Sequence[int]) -> tuple[dict[int, Place], dict[int, Place]]:
    is_even = len(ranks) % 2 == 0
    return _tree(ranks), _tree(ranks[::-1] if is_even else [*ranks[1:], ranks[0]])


def _rooted_trees(num_ranks: int, root: int) -> tuple[dict[int, Place], ...]:
    """Two trees over the other ranks, the root above both."""
    others = [rank for rank in range(num_ranks) if rank != root]
    if not others:
        return ({root: Place(None, [])},) * 2
    rooted = []
    for tree in _two_trees(others):
        (top,) = (rank for rank, place in tree.items() if place.parent is None)
        rooted.append({**tree, top: Place(root, tree[top].children), root: Place(None, [top])})
    return tuple(rooted)


def _tree(ranks: Sequence[int]) -> dict[int, Place]:
    """The in-order tree with ``ranks`` in its places."""
    parents = in_order_parents(len(ranks))
    children: dict[int, list[int]] = {rank: [] for rank in ranks}
    for place, parent in enumerate(parents):
        if parent is not None:
            children[ranks[parent]].append(ranks[place])
    return {
        rank: Place(None if parent is None else ranks[parent], children[rank])
        for rank, parent in zip(ranks, parents, strict=True)
    }


def _add_up(ops: ProgramBuilder, half: int, place: Place) -> None:
    for child in place.children:
        ops.recv_reduce(child, data(half))
    if place.parent is not None:
        ops.send(place.parent, data(half))


def _pass_down(ops: ProgramBuilder, half: int, place: Place) -> None:
    if place.parent is not None:
        ops.recv(place.parent, data(half))
    for child in place.children:
        ops.send(child, data(half))


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p: 2 * floor_log2(p),
        bytes_formula=lambda p: min(Fraction(2), Fraction(p, 2)),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BROADCAST,
        generate=broadcast,
        steps_formula=lambda p, **_: 1 + floor_log2(p - 1),
        bytes_formula=lambda p, **_: 1,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE,
        generate=reduce,
        steps_formula=lambda p, **_: 1 + floor_log2(p - 1),
        bytes_formula=lambda p, **_: 1,
    ),
)
