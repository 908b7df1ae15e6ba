"""The table has a line for every call, its lines can all be reached, and users can overrule it."""

from __future__ import annotations

import itertools

import pytest

from thinwire.collective import (
    Choice,
    Collective,
    CollectiveKind,
    choose,
    find_algorithm,
    generate,
    parse_override,
    prove,
)
from thinwire.collective.selection import RULES, Place, place_of
from thinwire.errors import UsageError

ALL_REDUCE, ALL_TO_ALL = CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_TO_ALL
CODED = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_GATHER)
REDUCING = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE, CollectiveKind.REDUCE_SCATTER)

CALLS = [
    (kind, num_ranks, num_bytes, is_half, is_even)
    for kind, num_ranks, num_bytes, is_half, is_even in itertools.product(
        CollectiveKind,
        (1, 2, 3, 4, 8, 16, 17, 64),
        (0, 1 << 10, 1 << 16, 1 << 28),
        (False, True),
        (False, True),
    )
    if (not is_half or kind in REDUCING) and (kind is not CollectiveKind.SEND_RECV or num_ranks == 2)
]


def test_every_call_has_an_algorithm_that_can_do_it() -> None:
    chosen = set()
    for kind, num_ranks, num_bytes, is_half, is_even in CALLS:
        name, params = choose(kind, num_ranks, num_bytes, is_half=is_half, is_even=is_even)
        assert is_even or not find_algorithm(kind, name).even_blocks
        chosen.add((kind, num_ranks, name, tuple(params.items())))
    for kind, num_ranks, name, params in chosen:
        if num_ranks < 64:
            prove(generate(Collective(kind=kind, num_ranks=num_ranks), name, **dict(params)))


def test_every_line_of_the_table_is_used() -> None:
    """No line hides behind those above it."""
    used = {
        (kind, choose(kind, num_ranks, num_bytes, is_half=is_half, is_even=is_even, place=place).algorithm)
        for kind, num_ranks, num_bytes, is_half, is_even in CALLS
        for place in Place
    }
    used |= {(kind, choose(kind, 4, 1 << 20, is_coded=True).algorithm) for kind in CODED}
    assert used == {(kind, rule.algorithm) for rule in RULES for kind in rule.kinds}


@pytest.mark.parametrize("kind", REDUCING)
def test_half_types_are_added_up_wide(kind: CollectiveKind) -> None:
    for num_bytes in (100, 1 << 20):
        assert choose(kind, 4, num_bytes, is_half=True) == Choice("direct", {"wide": True})


@pytest.mark.parametrize("kind", CODED)
def test_only_a_call_with_a_codec_encodes(kind: CollectiveKind) -> None:
    assert choose(kind, 4, 1 << 20, is_coded=True).algorithm == "direct_coded"
    assert choose(kind, 4, 1 << 20, is_coded=True, override="ring").algorithm == "direct_coded"
    assert choose(ALL_REDUCE, 4, 100, is_coded=True, is_half=True) == Choice("direct_coded", {"wide": True})
    with pytest.raises(UsageError, match="this call has no codec"):
        choose(kind, 4, 1 << 20, override="direct_coded")


def test_a_collective_that_nothing_encodes_takes_no_codec() -> None:
    with pytest.raises(UsageError, match="no algorithm for broadcast encodes"):
        choose(CollectiveKind.BROADCAST, 4, 1 << 20, is_coded=True)


def test_small_data_takes_few_steps_and_large_data_few_bytes() -> None:
    assert choose(ALL_REDUCE, 8, 1 << 10).algorithm == "recursive_doubling"
    assert choose(ALL_REDUCE, 8, 1 << 24).algorithm == "direct"
    assert choose(ALL_REDUCE, 64, 1 << 24).algorithm == "ring"


def test_where_cores_are_scarce_few_messages_win() -> None:
    assert choose(ALL_REDUCE, 4, 1 << 20, place=Place.CROWDED_HOST).algorithm == "star"
    assert choose(ALL_REDUCE, 4, 1 << 20, place=Place.HOST).algorithm == "direct"
    assert choose(ALL_REDUCE, 8, 1 << 24, place=Place.CROWDED_HOST).algorithm == "ring"


@pytest.mark.parametrize("place", Place)
def test_where_order_shows_in_the_bits_no_two_ranks_add_in_their_own_order(place: Place) -> None:
    for num_ranks, num_bytes in itertools.product((2, 3, 8), (10, 1 << 20)):
        choice = choose(ALL_REDUCE, num_ranks, num_bytes, is_commutative=False, place=place)
        assert choice.algorithm != "recursive_doubling"


@pytest.mark.parametrize(
    ("keys", "cores", "place"),
    [
        (["a"], 1, Place.HOST),
        (["a", "a"], 2, Place.HOST),
        (["a", "a", "a"], 2, Place.CROWDED_HOST),
        (["a", "b"], 1, Place.NETWORK),
    ],
)
def test_the_place_follows_from_the_hosts_and_the_cores(keys: list[str], cores: int, place: Place) -> None:
    assert place_of(keys, cores) is place


class TestOverride:
    def test_for_one_collective(self) -> None:
        override = "all_reduce=ring, all_to_all=bruck"
        assert choose(ALL_REDUCE, 4, 10, override=override).algorithm == "ring"
        assert choose(ALL_TO_ALL, 4, 10, override=override).algorithm == "bruck"
        assert choose(CollectiveKind.BARRIER, 4, 0, override=override).algorithm == "dissemination"

    def test_for_all_that_have_it_unless_said_otherwise(self) -> None:
        override = "all_gather=bruck,ring"
        assert choose(ALL_REDUCE, 4, 10, override=override).algorithm == "ring"
        assert choose(CollectiveKind.ALL_GATHER, 4, 10, override=override).algorithm == "bruck"
        assert choose(ALL_TO_ALL, 4, 10, override=override).algorithm == "direct"

    def test_with_parameters(self) -> None:
        choice = choose(ALL_REDUCE, 8, 10, override="hierarchical:group_size=4")
        assert choice == Choice("hierarchical", {"group_size": 4})

    def test_half_types_stay_wide_where_the_algorithm_can(self) -> None:
        assert choose(ALL_REDUCE, 4, 10, is_half=True, override="star").params == {"wide": True}
        assert choose(ALL_REDUCE, 4, 10, is_half=True, override="star:wide=0").params == {"wide": 0}
        assert choose(ALL_REDUCE, 4, 10, is_half=True, override="ring").params == {}

    def test_nothing_is_no_override(self) -> None:
        assert parse_override("") == {}
        assert parse_override(" , ") == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rong", "no algorithm 'rong'; choose one of: binomial_tree, bruck, direct"),
            ("all_reduce=bruck", "no algorithm 'bruck' for all_reduce; choose one of: ring"),
            ("all_produce=ring", "no collective 'all_produce'; choose one of"),
            ("hierarchical:group_size=two", "cannot read 'group_size=two'"),
            ("hierarchical:4", "cannot read '4'"),
        ],
    )
    def test_mistakes_are_named(self, text: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            parse_override(text)

    def test_uneven_blocks_are_refused_where_they_do_not_work(self) -> None:
        with pytest.raises(UsageError, match="bruck for all_to_all needs blocks of one size"):
            choose(ALL_TO_ALL, 4, 10, is_even=False, override="bruck")
