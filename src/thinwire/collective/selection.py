"""The first choice of an algorithm: an explicit table, read from the top; the first rule that fits is taken.

Half types are added up wide, in float32, by one rank for each chunk, so that they round once: only algorithms that
are ``wide`` can, and where one can, it does. Small data goes where the steps are few, large data where the bytes are
few. A planner that knows the links chooses better. A call with a codec takes an algorithm that encodes, and no other
call does.

Not here: measuring, and making the schedule (``algorithms.generate``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from thinwire.collective.algorithms import algorithms_for, collective_kind, find_algorithm
from thinwire.collective.schedule import CollectiveKind
from thinwire.errors import UsageError

KiB, MiB = 1 << 10, 1 << 20

ALL_REDUCE, REDUCE, BROADCAST = CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE, CollectiveKind.BROADCAST
ALL_GATHER, REDUCE_SCATTER = CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER
ALL_TO_ALL, BARRIER = CollectiveKind.ALL_TO_ALL, CollectiveKind.BARRIER
GATHER, SCATTER, SEND_RECV = CollectiveKind.GATHER, CollectiveKind.SCATTER, CollectiveKind.SEND_RECV


class Place(enum.StrEnum):
    """Where the ranks of a group are. On a crowded host the cores are the bottleneck, and few messages win."""

    NETWORK = "network"  # on several hosts
    HOST = "host"  # on one, with a core each
    CROWDED_HOST = "crowded_host"  # on one, with fewer cores than ranks


def place_of(host_keys: Sequence[str], num_cores: int) -> Place:
    """The place of a group whose ranks have these ``Contact.host_key``; ``num_cores`` of the host at hand.

    >>> place_of(["a", "a", "a"], num_cores=2), place_of(["a", "b"], num_cores=2)
    (<Place.CROWDED_HOST: 'crowded_host'>, <Place.NETWORK: 'network'>)
    """
    if len(set(host_keys)) > 1:
        return Place.NETWORK
    return Place.HOST if len(host_keys) <= num_cores else Place.CROWDED_HOST


class Rule(NamedTuple):
    """One line of the table. A limit that is None does not limit.

    Attributes:
        kinds: the collectives it is for.
        algorithm: what to take.
        max_bytes: largest size of the data (of the larger buffer, for block collectives).
        min_ranks, max_ranks: fewest and most ranks.
        is_half: only for half types (True).
        places: only there; none named: anywhere.
        is_coded: for calls with a codec (True), or for those without.
    """

    kinds: tuple[CollectiveKind, ...]
    algorithm: str
    max_bytes: int | None = None
    min_ranks: int = 1
    max_ranks: int | None = None
    is_half: bool = False
    places: tuple[Place, ...] = ()
    is_coded: bool = False


# The sizes for hosts were measured on 2 cores with 2, 3, 4 and 8 ranks (`thinwire bench all-reduce --algorithm`).
RULES = (
    Rule((ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER), "direct_coded", is_coded=True),
    Rule((ALL_REDUCE, REDUCE, REDUCE_SCATTER), "direct", is_half=True),
    Rule((ALL_REDUCE,), "recursive_doubling", max_bytes=2 * MiB, max_ranks=2, places=(Place.HOST,)),
    Rule((ALL_REDUCE,), "recursive_doubling", max_bytes=64 * KiB, places=(Place.HOST,)),
    Rule((ALL_REDUCE,), "star", max_bytes=4 * MiB, max_ranks=16, places=(Place.CROWDED_HOST,)),
    Rule((ALL_REDUCE,), "ring", min_ranks=5, max_ranks=16, places=(Place.CROWDED_HOST,)),
    Rule((ALL_REDUCE,), "recursive_doubling", max_bytes=32 * KiB),
    Rule((BROADCAST, REDUCE), "binomial_tree", max_bytes=32 * KiB),
    Rule((ALL_GATHER,), "bruck", max_bytes=32 * KiB, min_ranks=9),
    Rule((REDUCE_SCATTER,), "halving_doubling", max_bytes=32 * KiB, min_ranks=9),
    Rule((ALL_TO_ALL,), "bruck", max_bytes=32 * KiB, min_ranks=9),
    Rule((ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, ALL_TO_ALL, BROADCAST, REDUCE), "direct", max_ranks=16),
    Rule((ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER), "ring"),
    Rule((BROADCAST, REDUCE), "double_binary_tree"),
    Rule((ALL_TO_ALL,), "round_robin"),
    Rule((GATHER, SCATTER), "star"),
    Rule((BARRIER,), "dissemination"),
    Rule((SEND_RECV,), "direct"),
)


class Choice(NamedTuple):
    """An algorithm's name and its parameters."""

    algorithm: str
    params: dict[str, int]


def choose(
    kind: CollectiveKind,
    num_ranks: int,
    num_bytes: int,
    *,
    is_half: bool = False,
    is_even: bool = True,
    is_commutative: bool = True,
    is_coded: bool = False,
    place: Place = Place.NETWORK,
    override: str | None = None,
) -> Choice:
    """What to use for one call.

    Args:
        num_bytes: size of the data (of the larger buffer, for block collectives).
        is_half: float16 or bfloat16 to be reduced.
        is_even: all blocks have one size; if not, algorithms that need it are passed over.
        is_commutative: a + b and b + a are the same bits. Not so for min and max of floats, whose zeros have signs:
            algorithms in which two ranks add the same two numbers each in its own order are passed over.
        is_coded: the call has a codec.
        place: where the ranks are.
        override: see ``parse_override``; collectives that it does not name are chosen by the table, and so are calls
            with a codec where it names an algorithm that does not encode.

    Raises:
        UsageError: the override makes no sense, or names an algorithm that needs even blocks where they are not, or
            a codec; or no algorithm for this collective encodes.

    >>> choose(CollectiveKind.ALL_REDUCE, 4, 1 << 20, is_half=True)
    Choice(algorithm='direct', params={'wide': True})
    >>> choose(CollectiveKind.ALL_REDUCE, 4, 1 << 20, override="all_reduce=hierarchical:group_size=2").params
    {'group_size': 2}
    """
    wanted = (parse_override(override) if override else {}).get(kind)
    if wanted is not None and is_coded and not find_algorithm(kind, wanted.algorithm).encodes:
        wanted = None
    name, params = wanted or Choice(
        _first_fitting(kind, num_ranks, num_bytes, is_half, is_even, is_commutative, is_coded, place), {}
    )
    algorithm = find_algorithm(kind, name)
    if algorithm.encodes and not is_coded:
        raise UsageError(f"{name} for {kind} encodes what it sends, and this call has no codec: give it one")
    if algorithm.even_blocks and not is_even:
        raise UsageError(
            f"{name} for {kind} needs blocks of one size, and these are not: override it with another"
        )
    if is_half and "wide" in algorithm.parameters:
        params = {"wide": True, **params}
    return Choice(name, params)


def parse_override(text: str) -> Mapping[CollectiveKind, Choice]:
    """What a user asks for instead of the table: ``[collective=]algorithm[:parameter=integer]...``, comma-separated.

    An algorithm without a collective is meant for all collectives that have it.

    Raises:
        UsageError: an unknown name, or something that cannot be read; the message lists the valid names.

    >>> choices = parse_override("ring,all_to_all=bruck,reduce=direct:wide=1")
    >>> choices[CollectiveKind.ALL_TO_ALL].algorithm, choices[CollectiveKind.REDUCE].params
    ('bruck', {'wide': 1})
    """
    general: dict[CollectiveKind, Choice] = {}
    particular: dict[CollectiveKind, Choice] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        head, *settings = item.split(":")
        name, _, algorithm = head.rpartition("=")
        choice = Choice(algorithm, dict(map(_parse_setting, settings)))
        if name:
            kind = collective_kind(name)
            find_algorithm(kind, algorithm)
            particular[kind] = choice
        else:
            general |= dict.fromkeys(_kinds_with(algorithm), choice)
    return general | particular


def _first_fitting(
    kind: CollectiveKind,
    num_ranks: int,
    num_bytes: int,
    is_half: bool,
    is_even: bool,
    is_commutative: bool,
    is_coded: bool,
    place: Place,
) -> str:
    fitting = (
        rule.algorithm
        for rule in RULES
        if kind in rule.kinds
        and is_coded == rule.is_coded
        and (rule.max_bytes is None or num_bytes <= rule.max_bytes)
        and rule.min_ranks <= num_ranks
        and (rule.max_ranks is None or num_ranks <= rule.max_ranks)
        and (is_half or not rule.is_half)
        and (is_commutative or rule.algorithm != "recursive_doubling")
        and (not rule.places or place in rule.places)
        and (is_even or not find_algorithm(kind, rule.algorithm).even_blocks)
    )
    found = next(fitting, None)
    if found is None:
        raise UsageError(f"no algorithm for {kind} encodes what it sends: call it without a codec")
    return found


def _parse_setting(text: str) -> tuple[str, int]:
    key, _, value = text.partition("=")
    try:
        return key.strip(), int(value)
    except ValueError:
        raise UsageError(
            f"cannot read {text!r}: an algorithm's parameters are written :name=integer"
        ) from None


def _kinds_with(algorithm: str) -> list[CollectiveKind]:
    names = {kind: {known.name for known in algorithms_for(kind)} for kind in CollectiveKind}
    kinds = [kind for kind in CollectiveKind if algorithm in names[kind]]
    if not kinds:
        raise UsageError(
            f"no algorithm {algorithm!r}; choose one of: {', '.join(sorted(set().union(*names.values())))}"
        )
    return kinds
