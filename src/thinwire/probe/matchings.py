"""Rounds in which everybody is busy with one other, until all have met: a round-robin tournament. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]


def rounds(num_hosts: int) -> tuple[tuple[Pair, ...], ...]:
    """Every pair once, in as few rounds as can be: n - 1 for an even number of hosts, n for an odd one.

    The circle method: one host stays, the others move on by one place; with an odd number somebody rests.

    >>> rounds(4)
    (((0, 3), (1, 2)), ((0, 2), (1, 3)), ((0, 1), (2, 3)))
    """
    places: list[int | None] = list(range(num_hosts))
    if num_hosts % 2:
        places.append(None)
    found = []
    for _ in range(len(places) - 1):
        met = zip(places[: len(places) // 2], reversed(places), strict=False)
        found.append(tuple(sorted((min(a, b), max(a, b)) for a, b in met if a is not None and b is not None)))
        places.insert(1, places.pop())
    return tuple(found)


def teams(hosts: Sequence[int], size: int = 4) -> tuple[tuple[int, ...], ...]:
    """Split hosts into teams of about ``size``, never fewer than three unless there are not more.

    >>> teams(range(9))
    ((0, 2, 4, 6, 8), (1, 3, 5, 7))
    """
    number = max(1, len(hosts) // size)
    return tuple(tuple(hosts[first::number]) for first in range(number))
