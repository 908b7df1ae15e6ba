"""The interpreter finds by running what the checker finds by arguing."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.collective import (
    Collective,
    CollectiveKind,
    Op,
    OpKind,
    ProgramBuilder,
    Schedule,
    write_schedule,
)
from thinwire.collective.algorithms import direct, recursive_doubling, ring
from thinwire.collective.interpret import Array, Interpreter
from thinwire.collective.schedule import data, output_block
from thinwire.errors import ScheduleError

ALL_REDUCE = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=2, num_chunks=1)


def start(num_ranks: int, num_chunks: int, *, dtype: str = "int64") -> dict[tuple[int, int], Array]:
    """Rank r's chunk c is [r + 10 c]."""
    return {
        (rank, chunk): np.array([rank + 10 * chunk], dtype)
        for rank in range(num_ranks)
        for chunk in range(num_chunks)
    }


def test_it_computes_what_the_schedule_says() -> None:
    memory = Interpreter(ring.all_reduce(3)).run(start(3, 3), np.random.default_rng(0))
    assert [[int(own[data(chunk)][0]) for chunk in range(3)] for own in memory] == [[3, 33, 63]] * 3


def test_the_reduce_op_can_be_any() -> None:
    memory = Interpreter(recursive_doubling.all_reduce(5), add=np.maximum).run(
        start(5, 1), np.random.default_rng(0)
    )
    assert [int(own[data(0)][0]) for own in memory] == [4] * 5


def test_wide_sums_round_once() -> None:
    values = [np.float16(1), np.float16(2048), np.float16(1), np.float16(1)]  # 2048 + 1 is 2048 in float16
    begin = {(rank, chunk): np.array([value]) for rank, value in enumerate(values) for chunk in range(4)}
    narrow, wide = (
        Interpreter(direct.all_reduce(4, wide=wide), accumulation=np.float32).run(
            begin, np.random.default_rng(0)
        )
        for wide in (False, True)
    )
    assert wide[0][data(1)] == np.float16(2052)  # 2051 rounded to even
    assert narrow[0][data(1)] == np.float16(2048)
    assert wide[0][data(1)].dtype == np.float16


def test_the_caller_keeps_its_data() -> None:
    begin = start(2, 2)
    Interpreter(ring.all_reduce(2)).run(begin, np.random.default_rng(0))
    assert begin == start(2, 2)


def test_the_order_comes_from_the_generator() -> None:
    """Two additions in no order: over many runs, both orders are seen."""

    def program(rank: int) -> tuple[Op, ...]:
        if rank:
            return (Op(kind=OpKind.SEND, peer=0, source=(data(0),)),)
        return tuple(Op(kind=OpKind.RECV, peer=peer, target=(data(0),), reduce=True) for peer in (1, 2))

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=3, num_chunks=1)
    begin = {(0, 0): np.array([1e16]), (1, 0): np.array([-1e16]), (2, 0): np.array([1.0])}
    interpreter = Interpreter(Schedule(collective, "race", program))
    seen = [
        [float(interpreter.run(begin, np.random.default_rng(seed))[0][data(0)][0]) for seed in range(20)]
    ] * 2
    assert set(seen[0]) == {0.0, 1.0}
    assert seen[0] == seen[1]


def test_it_runs_into_deadlocks() -> None:
    def body(ops: ProgramBuilder) -> None:
        ops.recv_reduce(1 - ops.rank, data(0))
        ops.send(1 - ops.rank, data(0))

    with pytest.raises(ScheduleError, match="deadlock: 4 pieces can never run"):
        Interpreter(write_schedule(ALL_REDUCE, "stuck", body)).run(start(2, 1), np.random.default_rng(0))


def run_on_rank_0(body: Op) -> None:
    """Rank 1 sends its data; rank 0 does ``body``."""
    send = Op(kind=OpKind.SEND, peer=0, source=(data(0),))
    schedule = Schedule(ALL_REDUCE, "wrong", lambda rank: (send,) if rank else (body,))
    Interpreter(schedule).run({(0, 0): np.arange(3), (1, 0): np.arange(3)}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            Op(kind=OpKind.COPY, source=(data(1),), target=(data(0),)),
            "reads data.1. before anything was written",
        ),
        (
            Op(kind=OpKind.COPY, source=(data(0),), target=(output_block(0),)),
            "3 elements do not fit into output.0.",
        ),
        (Op(kind=OpKind.RECV, peer=1), "a message with chunks meets a recv without"),
        (
            Op(kind=OpKind.COPY, source=(data(0),), target=(data(0),)),
            "1 pieces of messages are never received",
        ),
        (Op(kind=OpKind.RECV, peer=0, target=(data(0),)), "can never run"),
        (Op(kind=OpKind.RECV, peer=1, target=(data(0), data(0))), "can never run"),
    ],
)
def test_it_runs_into_every_other_fault(op: Op, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        run_on_rank_0(op)
