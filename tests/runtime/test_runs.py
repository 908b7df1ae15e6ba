"""Which segments share a frame: those of one op in their order, and as many as the link carries in a moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.collective.schedule import Buffer, Op, OpKind, Ref
from thinwire.runtime.lowering import Grid, Lowered, lower
from thinwire.runtime.runs import FRAME_BYTES_MAX, LONGEST_S, Pace, frame_bytes, joined

GRID = Grid(uncut_bytes_max=256, segment_bytes_min=256, segment_bytes_max=4096, pieces=4)
ITEMSIZE = 4
SIZES = st.lists(st.integers(0, 3000), min_size=1, max_size=5)


def received(sizes: list[int], payload_bound: int | None = None) -> Lowered:
    """A RECV of several chunks, or of payloads."""
    buffer = Buffer.DATA if payload_bound is None else Buffer.PAYLOAD
    chunks = tuple(Ref(buffer, chunk) for chunk in range(len(sizes)))
    bound = None if payload_bound is None else lambda elements: elements * payload_bound
    return lower(
        (Op(kind=OpKind.RECV, peer=0, target=chunks),), lambda ref: sizes[ref.chunk], ITEMSIZE, GRID, bound
    )


@given(SIZES, st.data())
def test_the_length_of_a_frame_tells_its_segments(sizes: list[int], data: st.DataObject) -> None:
    lowered = received(sizes)
    count = len(lowered.segments)
    first = data.draw(st.integers(0, count - 1))
    run = range(first, data.draw(st.integers(first + 1, count)))
    num_bytes = sum(segment.num_bytes for segment in lowered.segments[first : run.stop])
    assert lowered.num_bytes(run) == num_bytes
    assert lowered.run_of(first, num_bytes) == run
    assert lowered.run_of(first, num_bytes + 1) is None


@given(SIZES, st.integers(0, 50_000))
def test_the_front_of_a_run_is_as_long_as_it_may_be_and_one_at_least(sizes: list[int], most: int) -> None:
    lowered = received(sizes)
    whole = range(len(lowered.segments))
    front = lowered.front(whole, most)
    assert front.start == 0
    assert len(front) == 1 or lowered.num_bytes(front) <= most
    assert front == whole or lowered.num_bytes(range(len(front) + 1)) > most


@given(SIZES)
def test_what_is_joined_are_the_same_elements_in_one_piece_a_chunk(sizes: list[int]) -> None:
    pieces = joined([segment.target for segment in received(sizes).segments])
    assert [piece.end - piece.begin for piece in pieces if piece.end] == [size for size in sizes if size]


def test_payloads_whose_length_nobody_knows_travel_alone() -> None:
    lowered = received([3000, 3000], payload_bound=4)
    assert len(lowered.segments) > 2
    assert lowered.run_ends == tuple(range(1, len(lowered.segments) + 1))


@pytest.mark.parametrize(
    ("left_bytes", "pace", "expected"),
    [
        (10**6, Pace(), 0),  # nothing is known
        (10**6, Pace(1e6), round(1e6 * LONGEST_S)),  # slow: no longer than others may wait
        (
            10**6,
            Pace(2e8),
            750_000,
        ),  # the rest is kept for the time until the next phase has something to send
        (10**6, Pace(1e9), 10**6),  # all of it: it is gone in a moment
        (10**6, Pace(1e8, held_share=0.0), 10**6),  # no link is waited for: nothing is kept back
        (10**6, Pace(1e8, held_share=0.5), 750_000),
        (10**9, Pace(1e12), FRAME_BYTES_MAX),
    ],
)
def test_a_frame_is_as_long_as_the_link_is_fast(left_bytes: int, pace: Pace, expected: int) -> None:
    assert frame_bytes(left_bytes, pace) == expected
