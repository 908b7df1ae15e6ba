"""The generators: one file each, one family of schedules from the literature.

``generate`` makes a schedule by name. To add a family, write a file with an ``ALGORITHMS`` tuple like its neighbours'
and name it in ``_FAMILIES``; or, from outside, ``register`` an ``Algorithm``.
"""

from __future__ import annotations

from typing import Any

from thinwire.collective.algorithms import (
    binomial_tree,
    bruck,
    direct,
    direct_coded,
    dissemination,
    double_binary_tree,
    halving_doubling,
    hierarchical,
    rank_order,
    recursive_doubling,
    ring,
    round_robin,
    star,
    torus,
)
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule
from thinwire.errors import UsageError

_FAMILIES = (
    ring,
    direct,
    direct_coded,
    rank_order,
    round_robin,
    halving_doubling,
    recursive_doubling,
    binomial_tree,
    double_binary_tree,
    star,
    bruck,
    dissemination,
    hierarchical,
    torus,
)

_registry: dict[tuple[CollectiveKind, str], Algorithm] = {}


def register(algorithm: Algorithm) -> None:
    """Make an algorithm known by its name.

    Raises:
        UsageError: there is one of that name for that collective.
    """
    key = algorithm.kind, algorithm.name
    if key in _registry:
        raise UsageError(f"there is already an algorithm {algorithm.name!r} for {algorithm.kind}")
    _registry[key] = algorithm


def algorithms() -> tuple[Algorithm, ...]:
    """All algorithms."""
    return tuple(_registry.values())


def algorithms_for(kind: CollectiveKind | str) -> tuple[Algorithm, ...]:
    """The algorithms for one collective.

    >>> [found.name for found in algorithms_for("all_to_all")]
    ['direct', 'round_robin', 'bruck']
    """
    kind = collective_kind(kind)
    return tuple(found for found in _registry.values() if found.kind is kind)


def find_algorithm(kind: CollectiveKind | str, name: str) -> Algorithm:
    """The algorithm of that name for that collective.

    Raises:
        UsageError: no such collective or algorithm; the message lists those there are.
    """
    kind = collective_kind(kind)
    found = _registry.get((kind, name))
    if found is None:
        names = ", ".join(known.name for known in algorithms_for(kind))
        raise UsageError(f"no algorithm {name!r} for {kind}; choose one of: {names}")
    return found


def collective_kind(name: CollectiveKind | str) -> CollectiveKind:
    """The collective of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    try:
        return CollectiveKind(name)
    except ValueError:
        raise UsageError(f"no collective {name!r}; choose one of: {', '.join(CollectiveKind)}") from None


def generate(collective: Collective, algorithm: str, **params: Any) -> Schedule:
    """The schedule that an algorithm makes for a collective.

    Args:
        collective: kind, number of ranks and root. The number of chunks is the algorithm's affair: leave it 0.
        algorithm: its name, for this kind of collective.
        params: the algorithm's own, e.g. ``weights``, ``wide``, ``group_size``.

    Raises:
        UsageError: a wrong name, rank or parameter; the message lists the valid ones.

    >>> generate(Collective(kind=CollectiveKind.BROADCAST, num_ranks=4, root=2), "binomial_tree")
    <Schedule broadcast of 4 ranks by binomial_tree>
    """
    found = find_algorithm(collective.kind, algorithm)
    num_ranks, root = collective.num_ranks, collective.root
    if num_ranks < 1:
        raise UsageError(f"a collective needs at least 1 rank, not {num_ranks}")
    if not 0 <= root < num_ranks:
        raise UsageError(f"the root must be one of the ranks 0 to {num_ranks - 1}, not {root}")
    unknown = sorted(params.keys() - set(found.parameters))
    if unknown:
        valid = ", ".join(found.parameters) or "none"
        raise UsageError(
            f"{algorithm} for {found.kind} takes no parameter {', '.join(unknown)}; it takes: {valid}"
        )
    if found.is_rooted:
        params["root"] = root
    return found.generate(num_ranks, **params)


for _family in _FAMILIES:
    for _algorithm in _family.ALGORITHMS:
        register(_algorithm)
