"""A schedule is named by its content; chunks of any weights cover the data."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from thinwire.collective import Collective, CollectiveKind, Op, algorithms, chunk_bounds, generate
from thinwire.collective.algorithms.direct import all_reduce


@given(st.integers(0, 10**12), st.lists(st.integers(0, 9), min_size=1).filter(any))
def test_chunks_cover_the_data_in_order_within_one_element_of_their_share(
    size: int, weights: list[int]
) -> None:
    bounds = chunk_bounds(size, tuple(weights))
    assert (bounds[0], bounds[-1]) == (0, size)
    for (begin, end), weight in zip(pairwise(bounds), weights, strict=True):
        assert abs((end - begin) - size * weight / sum(weights)) < 1.001
        assert weight or begin == end


def test_fingerprints_tell_schedules_apart() -> None:
    variants = [
        all_reduce(4),
        all_reduce(5),
        all_reduce(4, wide=True),
        all_reduce(4, weights=(1, 2, 3, 4)),
        generate(Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=4), "ring"),
        generate(Collective(kind=CollectiveKind.BROADCAST, num_ranks=4), "direct"),
        generate(Collective(kind=CollectiveKind.BROADCAST, num_ranks=4, root=1), "direct"),
    ]
    assert len({schedule.fingerprint for schedule in variants}) == len(variants)
    assert all_reduce(4).fingerprint == all_reduce(4).fingerprint


def test_ops_survive_serialisation() -> None:
    for algorithm in algorithms():
        program = algorithm.generate(2).program(1)
        assert msgspec.json.decode(msgspec.json.encode(program), type=tuple[Op, ...]) == program


def test_a_schedule_says_what_it_is() -> None:
    assert repr(all_reduce(4, wide=True)) == "<Schedule all_reduce of 4 ranks by direct, wide=1>"
