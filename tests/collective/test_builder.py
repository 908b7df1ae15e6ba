"""Dependencies follow from the chunks, are enough, and are no more than needed."""

from __future__ import annotations

import numpy as np

from thinwire.collective import Buffer, Collective, CollectiveKind, ProgramBuilder, Ref, write_schedule
from thinwire.collective.schedule import data, input_block
from thinwire.testing.algorithms import check_schedule


def deps(ops: ProgramBuilder) -> list[tuple[int, ...]]:
    return [op.deps for op in ops.program()]


def test_a_reader_waits_for_the_last_writer() -> None:
    ops = ProgramBuilder(0)
    ops.recv(1, data(0))
    ops.recv_reduce(2, data(0))
    ops.send(3, data(0))
    assert deps(ops) == [(), (0,), (1,)]


def test_a_writer_waits_for_every_reader_since_the_last_write() -> None:
    ops = ProgramBuilder(0)
    ops.recv(1, data(0))
    ops.send(2, data(0))
    ops.send(3, data(0))
    ops.recv(1, data(0))
    ops.send(2, data(0))
    assert deps(ops) == [(), (0,), (0,), (1, 2), (3,)]


def test_ops_without_a_common_chunk_are_independent() -> None:
    ops = ProgramBuilder(0)
    ops.send(1, data(0))
    ops.recv_reduce(3, data(1))
    ops.send(1, data(1))
    ops.recv_reduce(3, data(2))
    assert deps(ops) == [(), (), (1,), ()]


def test_additions_happen_in_the_order_of_the_list() -> None:
    ops = ProgramBuilder(0)
    for peer in (3, 1, 2):
        ops.recv_reduce(peer, data(0))
    assert deps(ops) == [(), (0,), (1,)]


def test_both_ranks_can_add_in_the_order_of_ranks() -> None:
    """Received first and reduced after, the other's value may stand on the left."""

    def body(ops: ProgramBuilder) -> None:
        received = ops.scratch(like=data(0))
        ops.send(1 - ops.rank, data(0))
        ops.recv(1 - ops.rank, received)
        if ops.rank == 0:
            ops.reduce(received, data(0))
        else:
            ops.reduce(data(0), received)
            ops.copy(received, data(0))

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=2, num_chunks=1)
    schedule = write_schedule(collective, "example", body)
    assert [op.deps for op in schedule.program(0)] == [(), (), (0, 1)]
    assert [op.deps for op in schedule.program(1)] == [(), (), (1,), (0, 2)]
    check_schedule(schedule, np.random.default_rng(0))


def test_what_follows_from_other_dependencies_is_left_out() -> None:
    ops = ProgramBuilder(0)
    ops.recv(1, data(0), data(1))
    ops.copy(data(1), data(2))
    ops.send(2, data(0), data(2))  # waits for 1, and so for 0
    assert deps(ops)[2] == (1,)


def test_waiting_can_be_asked_for() -> None:
    ops = ProgramBuilder(0)
    heard = ops.recv(1)
    ops.send(2, after=[heard])
    ops.send(2, data(0), after=[1])
    assert deps(ops) == [(), (0,), (1,)]


def test_scratch_and_accumulators_are_numbered_and_sized() -> None:
    ops = ProgramBuilder(0)
    one, other = ops.scratch(like=input_block(4)), ops.scratch(like=input_block(2))
    wide = ops.accumulator(like=data(7))
    assert (one, other, wide) == (Ref(Buffer.SCRATCH, 0), Ref(Buffer.SCRATCH, 1), Ref(Buffer.ACCUMULATOR, 0))
    assert ops.scratch_sizes() == (input_block(4), input_block(2))
    assert ops.accumulator_sizes() == (data(7),)


def test_phases_are_recorded() -> None:
    ops = ProgramBuilder(0)
    ops.send(1, data(0))
    ops.phase += 1
    ops.recv(1, data(1))
    assert [op.phase for op in ops.program()] == [0, 1]


def test_programs_are_written_when_first_needed_and_once() -> None:
    written: list[int] = []

    def body(ops: ProgramBuilder) -> None:
        written.append(ops.rank)
        ops.copy(data(0), ops.scratch(like=data(0)))

    collective = Collective(kind=CollectiveKind.BROADCAST, num_ranks=4096, num_chunks=1)
    schedule = write_schedule(collective, "example", body)
    assert written == []
    assert schedule.scratch(9) == (data(0),)
    assert len(schedule.program(9)) == 1
    assert written == [9]
