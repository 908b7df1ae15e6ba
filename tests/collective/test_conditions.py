"""The promises mean what torch.distributed means by its collectives: read off small cases by hand."""

from __future__ import annotations

import pytest

from thinwire.collective import Buffer, Collective, CollectiveKind, Ref, Schedule
from thinwire.collective.conditions import Extent, extents, postcondition, precondition
from thinwire.collective.schedule import data, input_block, output_block
from thinwire.errors import ScheduleError

# With 3 ranks, root 1: what ranks 1 and 2 read before, and what they must hold after, as {ref: {(rank, chunk)}}.
PROMISES = {
    "all_reduce": (
        ({data(0)}, {data(0): {(0, 0), (1, 0), (2, 0)}}),
        ({data(0)}, {data(0): {(0, 0), (1, 0), (2, 0)}}),
    ),
    "reduce": (({data(0)}, {data(0): {(0, 0), (1, 0), (2, 0)}}), ({data(0)}, {})),
    "broadcast": (({data(0)}, {data(0): {(1, 0)}}), (set(), {data(0): {(1, 0)}})),
    "all_gather": (
        ({input_block(0)}, {output_block(rank): {(rank, 0)} for rank in range(3)}),
        ({input_block(0)}, {output_block(rank): {(rank, 0)} for rank in range(3)}),
    ),
    "gather": (
        ({input_block(0)}, {output_block(rank): {(rank, 0)} for rank in range(3)}),
        ({input_block(0)}, {}),
    ),
    "scatter": (
        ({input_block(rank) for rank in range(3)}, {output_block(0): {(1, 1)}}),
        (set(), {output_block(0): {(1, 2)}}),
    ),
    "reduce_scatter": (
        ({input_block(rank) for rank in range(3)}, {output_block(0): {(0, 1), (1, 1), (2, 1)}}),
        ({input_block(rank) for rank in range(3)}, {output_block(0): {(0, 2), (1, 2), (2, 2)}}),
    ),
    "all_to_all": (
        ({input_block(rank) for rank in range(3)}, {output_block(rank): {(rank, 1)} for rank in range(3)}),
        ({input_block(rank) for rank in range(3)}, {output_block(rank): {(rank, 2)} for rank in range(3)}),
    ),
    "barrier": ((set(), {}), (set(), {})),
}


def collective(kind: str, num_ranks: int = 3, root: int = 0) -> Collective:
    kind = CollectiveKind(kind)
    in_place = kind in ("all_reduce", "reduce", "broadcast", "send_recv")
    return Collective(kind=kind, num_ranks=num_ranks, num_chunks=int(in_place), root=root)


@pytest.mark.parametrize("kind", PROMISES)
@pytest.mark.parametrize("rank", [1, 2])
def test_promises(kind: str, rank: int) -> None:
    before, after = PROMISES[kind][rank - 1]
    promise = collective(kind, root=1)
    assert precondition(promise, rank).keys() == before
    found = postcondition(promise, rank)
    assert {ref: {(r, chunk) for r in ranks} for ref, (ranks, chunk) in found.items()} == after


def test_send_recv_leaves_the_data_on_both() -> None:
    promise = collective("send_recv", num_ranks=2)
    assert [set(precondition(promise, rank)) for rank in (0, 1)] == [{data(0)}, set()]
    assert [postcondition(promise, rank)[data(0)].ranks for rank in (0, 1)] == [(0,), (0,)]


def schedule_of(kind: str, *, even: bool = False, scratch: tuple[Ref, ...] = ()) -> Schedule:
    return Schedule(collective(kind), "none", lambda rank: (), scratch=lambda rank: scratch, even_blocks=even)


def test_blocks_have_the_size_that_their_owner_gives_them() -> None:
    gather = extents(schedule_of("all_gather"), 2)
    assert gather[input_block(0)] == gather[output_block(2)] != gather[output_block(1)]
    scatter = extents(schedule_of("reduce_scatter"), 2)
    assert scatter[output_block(0)] == scatter[input_block(2)] != scatter[input_block(1)]
    sender, receiver = (extents(schedule_of("all_to_all"), rank) for rank in (1, 2))
    assert sender[input_block(2)] == receiver[output_block(1)] != receiver[output_block(0)]


def test_even_blocks_have_one_size() -> None:
    assert set(extents(schedule_of("all_to_all", even=True), 1).values()) == {Extent("block")}


def test_scratch_has_the_size_of_what_it_is_like() -> None:
    schedule = schedule_of("reduce_scatter", scratch=(input_block(1),))
    known = extents(schedule, 0)
    assert known[Ref(Buffer.SCRATCH, 0)] == known[input_block(1)]
    with pytest.raises(ScheduleError, match=r"scratch\[0\] has the size of input\[7\]"):
        extents(schedule_of("reduce_scatter", scratch=(input_block(7),)), 0)
