"""Lowering keeps the meaning: any order that segment dependencies allow gives what the ops in list order give."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thinwire.collective import generate
from thinwire.collective.algorithms import algorithms
from thinwire.collective.schedule import Buffer, Collective, CollectiveKind, Op, OpKind, Program, Ref
from thinwire.runtime.lowering import (
    LOCAL_GRID,
    NETWORK_GRID,
    Grid,
    Lowered,
    lower,
    only_answers,
    pooled_bytes,
    segment_bytes_for,
)

GRID = Grid(uncut_bytes_max=256, segment_bytes_min=256, segment_bytes_max=4096, pieces=4)
ITEMSIZE = 16  # so that a few hundred elements make many segments


def data(*chunks: int) -> tuple[Ref, ...]:
    return tuple(Ref(Buffer.DATA, chunk) for chunk in chunks)


@st.composite
def local_programs(draw: st.DrawFn) -> tuple[Program, list[int]]:
    """Ops on one rank's memory, with every hazard covered by a dependency, directly or through other ops."""
    sizes = draw(st.lists(st.integers(0, 200), min_size=2, max_size=4))
    by_size = [
        [b for b, other in enumerate(sizes) if other == size and b != a] for a, size in enumerate(sizes)
    ]
    ops: list[Op] = []
    ancestors: list[set[int]] = []
    for _ in range(draw(st.integers(1, 10))):
        source = draw(st.sampled_from(range(len(sizes))))
        if not by_size[source]:
            sizes.append(sizes[source])
            by_size[source] = [len(sizes) - 1]
            by_size.append([source])
        target = draw(st.sampled_from(by_size[source]))
        hazards = [
            number
            for number, op in enumerate(ops)
            if target in (op.source[0].chunk, op.target[0].chunk) or source == op.target[0].chunk
        ]
        # Leave out, at random, what other dependencies imply.
        needed: list[int] = []
        for number in reversed(hazards):
            if not any(number in ancestors[other] for other in needed) or draw(st.booleans()):
                needed.append(number)
        kind = draw(st.sampled_from([OpKind.COPY, OpKind.REDUCE]))
        ops.append(Op(kind=kind, source=data(source), target=data(target), deps=tuple(sorted(needed))))
        ancestors.append({*needed}.union(*(ancestors[number] for number in needed)))
    return tuple(ops), sizes


@given(local_programs(), st.integers(0, 2**32 - 1))
def test_any_allowed_order_of_segments_gives_the_result_of_the_ops_in_order(
    program_and_sizes: tuple[Program, list[int]], seed: int
) -> None:
    program, sizes = program_and_sizes
    rng = np.random.default_rng(seed)
    start = [rng.integers(0, 1000, size) for size in sizes]

    expected = [chunk.copy() for chunk in start]
    for op in program:
        source, target = expected[op.source[0].chunk], expected[op.target[0].chunk]
        target[:] = source if op.kind is OpKind.COPY else target + source

    lowered = lower(program, lambda ref: sizes[ref.chunk], ITEMSIZE, GRID)
    found = [chunk.copy() for chunk in start]
    waiting = [segment.num_deps for segment in lowered.segments]
    ready = [index for index, count in enumerate(waiting) if not count]
    num_run = 0
    while ready:
        segment = lowered.segments[ready.pop(int(rng.integers(len(ready))))]
        num_run += 1
        (from_, into) = segment.source[0], segment.target[0]
        source = found[from_.chunk][from_.begin : from_.end]
        target = found[into.chunk][into.begin : into.end]
        target[:] = source if segment.kind is OpKind.COPY else target + source
        for dependent in segment.dependents:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                ready.append(dependent)
    assert num_run == len(lowered.segments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5), st.sampled_from([1, 4, ITEMSIZE]))
def test_segments_cover_every_element_once_and_both_ends_cut_alike(sizes: list[int], itemsize: int) -> None:
    chunks = data(*range(len(sizes)))
    sender = lower(
        (Op(kind=OpKind.SEND, peer=1, source=chunks),), lambda ref: sizes[ref.chunk], itemsize, GRID
    )
    receiver = lower(
        (Op(kind=OpKind.RECV, peer=0, target=chunks),), lambda ref: sizes[ref.chunk], itemsize, GRID
    )
    covered = [np.zeros(size, int) for size in sizes]
    for segment in sender.segments:
        for piece in segment.source:
            covered[piece.chunk][piece.begin : piece.end] += 1
    assert all((chunk == 1).all() for chunk in covered)
    assert [s.source for s in sender.segments] == [s.target for s in receiver.segments]
    assert [s.num_bytes for s in sender.segments] == [s.num_bytes for s in receiver.segments]
    assert sender.bytes_to == {1: sum(sizes) * itemsize}
    assert sender.frames_to == {1: len(receiver.receives)}


def test_the_first_segment_travels_on_while_the_last_is_still_arriving() -> None:
    """A ring step: what is received and reduced is sent on, segment by segment."""
    program = (
        Op(kind=OpKind.RECV, peer=0, target=data(0), reduce=True),
        Op(kind=OpKind.SEND, peer=2, source=data(0), deps=(0,)),
    )
    lowered = lower(program, lambda ref: 100, ITEMSIZE, GRID)
    receives, sends = _by_kind(lowered, OpKind.RECV), _by_kind(lowered, OpKind.SEND)
    assert len(receives) == len(sends) > 1
    assert [lowered.segments[index].dependents for index in receives] == [(send,) for send in sends]


def test_a_dependency_without_a_common_chunk_is_pure_order() -> None:
    program = (
        Op(kind=OpKind.RECV, peer=0, target=data(0)),
        Op(kind=OpKind.SEND, peer=2, source=data(1), deps=(0,)),
    )
    lowered = lower(program, lambda ref: 100, ITEMSIZE, GRID)
    receives, sends = _by_kind(lowered, OpKind.RECV), _by_kind(lowered, OpKind.SEND)
    assert all(lowered.segments[index].dependents == tuple(sends) for index in receives)


def test_every_writer_that_an_op_is_ordered_after_counts_not_only_the_last() -> None:
    """Two receives into one chunk that do not wait for each other (the network orders them), then a send of it."""
    program = (
        Op(kind=OpKind.RECV, peer=0, target=data(0)),
        Op(kind=OpKind.RECV, peer=2, target=data(0)),
        Op(kind=OpKind.SEND, peer=3, source=data(0), deps=(0, 1)),
    )
    assert lower(program, lambda ref: 10, 8, GRID).segments[2].num_deps == 2


def test_small_ops_are_one_frame_whatever_their_chunks() -> None:
    op = Op(kind=OpKind.SEND, peer=1, source=data(0, 1, 2))
    (segment,) = lower((op,), lambda ref: 10, 4, GRID).segments
    assert segment.num_bytes == 120


def test_a_token_without_data_is_one_empty_frame() -> None:
    (segment,) = lower((Op(kind=OpKind.SEND, peer=1),), lambda ref: 0, 1, GRID).segments
    assert (segment.num_bytes, segment.source) == (0, ())


def test_only_what_may_come_before_its_dependencies_counts_as_staged() -> None:
    program = (
        Op(kind=OpKind.RECV, peer=0, target=data(0), reduce=True),
        Op(kind=OpKind.RECV, peer=2, target=data(0), reduce=True, deps=(0,)),
    )
    lowered = lower(program, lambda ref: 10, 8, GRID)
    assert lowered.staging_bytes == 80


def test_a_payload_is_cut_where_its_chunk_is() -> None:
    """So its first segment is sent while the last is still to be encoded, and memory is held segment by segment."""
    payload = (Ref(Buffer.PAYLOAD, 0),)
    program = (
        Op(kind=OpKind.ENCODE, source=data(0), target=payload),
        Op(kind=OpKind.SEND, peer=1, source=payload, deps=(0,)),
        Op(kind=OpKind.SEND, peer=2, source=payload, deps=(0,)),
        Op(kind=OpKind.DECODE, source=payload, target=data(0), deps=(0,)),
    )
    lowered = lower(program, lambda ref: 1000, ITEMSIZE, GRID, lambda elements: elements + 3)
    by_kind = {kind: _by_kind(lowered, kind) for kind in (OpKind.ENCODE, OpKind.SEND, OpKind.DECODE)}
    encodes = by_kind[OpKind.ENCODE]
    assert len(encodes) == len(by_kind[OpKind.DECODE]) == len(by_kind[OpKind.SEND]) // 2 > 1
    for index, encode in enumerate(encodes):
        segment = lowered.segments[encode]
        readers = [
            sends[index]
            for sends in (by_kind[OpKind.SEND][: len(encodes)], by_kind[OpKind.SEND][len(encodes) :])
        ]
        assert segment.dependents == (*readers, by_kind[OpKind.DECODE][index])
        assert lowered.readers[segment.payload] == (3, 2)
    assert lowered.bytes_to == {1: 1000 + 3 * len(encodes), 2: 1000 + 3 * len(encodes)}
    assert lowered.staging_bytes == sum(
        pooled_bytes(lowered.segments[encode].num_bytes) for encode in encodes
    )


@given(st.integers(1, 10_000), st.integers(1, 32), st.sampled_from([1, 8, 100]))
def test_coded_segments_are_cut_by_the_bytes_of_their_payloads_and_at_whole_multiples(
    num_elements: int, bits: int, multiple: int
) -> None:
    program = (Op(kind=OpKind.ENCODE, source=data(0), target=(Ref(Buffer.PAYLOAD, 0),)),)
    grid = GRID._replace(multiple=multiple)
    lowered = lower(program, lambda ref: num_elements, 4, grid, lambda elements: -(-elements * bits // 8))
    sizes = [segment.source[0].end - segment.source[0].begin for segment in lowered.segments]
    assert sum(sizes) == num_elements
    assert all(size % multiple == 0 for size in sizes[:-1])
    assert all(segment.num_bytes <= max(4096, bits * multiple // 8 + 1) for segment in lowered.segments)


@given(st.integers(0, 1 << 40))
def test_pooled_buffers_are_few_kinds_and_waste_little(num_bytes: int) -> None:
    capacity = pooled_bytes(num_bytes)
    assert num_bytes <= capacity <= max(64, num_bytes * 1.125)
    assert pooled_bytes(capacity) == capacity


@given(st.integers(0, 1 << 40), st.sampled_from([GRID, LOCAL_GRID, NETWORK_GRID]))
def test_segments_are_a_power_of_two_within_the_limits_of_the_grid(chunk_bytes: int, grid: Grid) -> None:
    step = segment_bytes_for(chunk_bytes, grid)
    assert grid.segment_bytes_min <= step <= grid.segment_bytes_max
    assert step & (step - 1) == 0


def _by_kind(lowered: Lowered, kind: OpKind) -> list[int]:
    return [index for index, segment in enumerate(lowered.segments) if segment.kind is kind]


def test_the_hub_of_a_star_answers_and_of_no_two_ranks_both_do() -> None:
    star = generate(Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=4), "star")
    assert only_answers(star.program(0), 1)
    assert not only_answers(star.program(1), 0)
    for algorithm in algorithms():
        num_ranks = 2 if algorithm.kind is CollectiveKind.SEND_RECV else 5
        schedule = generate(Collective(kind=algorithm.kind, num_ranks=num_ranks), algorithm.name)
        programs = [schedule.program(rank) for rank in range(num_ranks)]
        for a, program in enumerate(programs):
            for b in {op.peer for op in program if op.kind is OpKind.SEND}:
                assert not (only_answers(program, b) and only_answers(programs[b], a)), schedule
