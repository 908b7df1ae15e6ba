"""Drawings show every message once; they are made even of schedules that are wrong."""

from __future__ import annotations

import pytest

from thinwire.collective import (
    Collective,
    CollectiveKind,
    OpKind,
    ProgramBuilder,
    algorithms,
    as_mermaid,
    as_steps,
    as_text,
    write_schedule,
)
from thinwire.collective.algorithms import direct, dissemination, hierarchical
from thinwire.collective.schedule import data
from thinwire.errors import ScheduleError


def test_programs_as_text() -> None:
    assert as_text(direct.reduce_scatter(2, wide=True), ranks=[1]).splitlines() == [
        "reduce_scatter of 2 ranks by direct, wide 1",
        "rank 1",
        "  0  send input[0] to rank 0",
        "  1  copy input[1] to accumulator[0]",
        "  2  recv reduce accumulator[0] from rank 0  after 1",
        "  3  copy accumulator[0] to output[0]        after 2",
    ]


def test_messages_by_step() -> None:
    assert as_steps(direct.all_reduce(2)).splitlines() == [
        "all_reduce of 2 ranks by direct, wide 0",
        "step 1",
        "  0 -> 1  data[1], added",
        "  1 -> 0  data[0], added",
        "step 2",
        "  0 -> 1  data[0]",
        "  1 -> 0  data[1]",
    ]
    assert "  0 -> 1  input[1], added to output[0]" in as_steps(direct.reduce_scatter(2))
    assert "  0 -> 1  input[0] to output[0]" in as_steps(direct.all_gather(2))
    assert "  0 -> 1  nothing" in as_steps(dissemination.barrier(2))


def test_mermaid() -> None:
    assert as_mermaid(direct.all_reduce(2)).splitlines() == [
        "sequenceDiagram",
        "    title all_reduce of 2 ranks by direct, wide 0",
        "    participant r0 as rank 0",
        "    participant r1 as rank 1",
        "    Note over r0,r1: step 1",
        "    r0->>r1: data[1], added",
        "    r1->>r0: data[0], added",
        "    Note over r0,r1: step 2",
        "    r0->>r1: data[0]",
        "    r1->>r0: data[1]",
    ]


def test_every_op_and_every_message_is_drawn() -> None:
    for algorithm in algorithms():
        schedule = algorithm.generate(2)
        ops = [op for rank in range(2) for op in schedule.program(rank)]
        num_messages = sum(op.kind is OpKind.SEND for op in ops)
        assert len(as_text(schedule).splitlines()) == 3 + len(ops)
        assert as_steps(schedule).count(" -> ") == num_messages
        assert as_mermaid(schedule).count("->>") == num_messages


def test_wide_drawings_stay_aligned() -> None:
    lines = as_steps(hierarchical.all_reduce(12, group_size=3)).splitlines()
    assert {line.index(" -> ") for line in lines if " -> " in line} == {4}


def test_a_wrong_schedule_can_be_drawn() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
        else:
            ops.recv_reduce(0, data(0))

    broadcast = Collective(kind=CollectiveKind.BROADCAST, num_ranks=2, num_chunks=1)
    assert "0 -> 1  data[0], added" in as_steps(write_schedule(broadcast, "wrong", body))


def test_without_its_counterpart_a_message_cannot_be_drawn() -> None:
    def body(ops: ProgramBuilder) -> None:
        ops.recv(1 - ops.rank, data(0))

    broadcast = Collective(kind=CollectiveKind.BROADCAST, num_ranks=2, num_chunks=1)
    lonely = write_schedule(broadcast, "lonely", body)
    assert "recv data[0] from rank 1" in as_text(lonely)
    with pytest.raises(ScheduleError, match="no matching send"):
        as_steps(lonely)
