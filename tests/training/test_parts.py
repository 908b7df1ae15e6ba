"""Which parameters leave together, and when it is whose turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from thinwire.training.parts import LEAST_VALUES, NUM_PARTS, Part, Parts, stretches


def weights(*sizes: int) -> list[Tensor]:
    return [torch.empty(size) for size in sizes]


def settled(*buckets: Sequence[Tensor]) -> Parts:
    """After two steps with these buckets, at the beginning of the third."""
    parts = Parts()
    for _ in range(2):
        parts.begin_step()
        for index, bucket in enumerate(buckets):
            parts.of_bucket(index, bucket)
    parts.begin_step()
    return parts


def due(parts: Parts, full: int = -1) -> list[int]:
    found = []
    while part := parts.next_due(full):
        found.append(part.index)
    return found


def test_before_two_steps_with_the_same_buckets_a_bucket_is_one_part() -> None:
    bucket = weights(LEAST_VALUES, LEAST_VALUES)
    parts = Parts()
    for _ in range(2):
        parts.begin_step()
        assert not parts.arrived(bucket[0])
        assert [part.parameters for part in parts.of_bucket(0, bucket)] == [tuple(bucket)]
    parts.begin_step()
    assert parts.arrived(bucket[0])
    assert [part.parameters for part in parts.of_bucket(0, bucket)] == [(bucket[0],), (bucket[1],)]


def test_parts_are_due_in_order_when_their_gradients_are_there() -> None:
    first, second = weights(*[LEAST_VALUES] * 3), weights(LEAST_VALUES)
    parts = settled(first, second)
    parts.arrived(first[1])
    assert due(parts) == []
    parts.arrived(first[0])
    assert due(parts) == [0, 1]
    parts.arrived(second[0])
    assert due(parts) == []
    parts.arrived(first[2])
    assert due(parts) == [2]
    assert due(parts, full=1) == [3]


def test_a_parameter_without_a_gradient_holds_up_nothing_once_its_bucket_is_full() -> None:
    first, second = weights(*[LEAST_VALUES] * 2), weights(LEAST_VALUES)
    parts = settled(first, second)
    parts.arrived(first[1])
    parts.arrived(second[0])
    assert due(parts) == []
    assert due(parts, full=0) == [0, 1]
    assert due(parts, full=1) == [2]


def test_buckets_that_are_not_as_before_are_one_part_each_until_they_stay_so() -> None:
    first, second = weights(*[LEAST_VALUES] * 2), weights(LEAST_VALUES)
    parts = settled(first, second)
    swapped = [*first[:1], *second], first[1:]
    for _ in range(2):
        assert [len(parts.of_bucket(index, bucket)) for index, bucket in enumerate(swapped)] == [1, 1]
        parts.begin_step()
    assert [len(parts.of_bucket(index, bucket)) for index, bucket in enumerate(swapped)] == [2, 1]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 40))
def test_stretches_cover_everything_once_and_are_large_enough(sizes: list[int], least: int) -> None:
    found = stretches(sizes, least)
    covered = [index for stretch in found for index in range(len(sizes))[stretch]]
    assert covered == list(range(len(sizes)))
    assert all(sum(sizes[stretch]) >= least for stretch in found) or len(found) == 1


@given(st.lists(st.lists(st.integers(0, 3 * LEAST_VALUES), min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_model_has_a_few_parts(sizes: list[list[int]]) -> None:
    buckets = [[torch.empty(min(1, size)).expand(size) for size in each] for each in sizes]
    parts = settled(*buckets)
    found: list[Part] = [
        part for index, bucket in enumerate(buckets) for part in parts.of_bucket(index, bucket)
    ]
    assert [part.index for part in found] == list(range(len(found)))
    assert len(buckets) <= len(found) <= NUM_PARTS + len(buckets)
