"""Each way for a schedule to be wrong, and the counterexample that says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import pytest

from thinwire.collective import (
    Buffer,
    Collective,
    CollectiveKind,
    Op,
    OpKind,
    ProgramBuilder,
    Ref,
    Schedule,
    prove,
    write_schedule,
)
from thinwire.collective.algorithms import binomial_tree, direct, direct_coded, recursive_doubling, ring
from thinwire.collective.schedule import data, input_block, output_block
from thinwire.errors import ScheduleError, UsageError

ALL_REDUCE, BROADCAST = CollectiveKind.ALL_REDUCE, CollectiveKind.BROADCAST

Body = Callable[[ProgramBuilder], None]


def refuse(kind: CollectiveKind, num_ranks: int, body: Body, message: str, num_chunks: int = 1) -> None:
    """The schedule that ``body`` writes is refused with ``message``."""
    collective = Collective(kind=kind, num_ranks=num_ranks, num_chunks=num_chunks)
    with pytest.raises(ScheduleError, match=re.escape(message)):
        prove(write_schedule(collective, "wrong", body))


def refuse_ops(op: Op, message: str, *, kind: CollectiveKind = BROADCAST) -> None:
    """A first program with this one op (and one before it, to depend on) is refused with ``message``."""
    scratch = (data(0),) if kind is BROADCAST else (input_block(0),)
    before = Op(kind=OpKind.COPY, source=scratch, target=(Ref(Buffer.SCRATCH, 0),))
    schedule = Schedule(
        Collective(kind=kind, num_ranks=2, num_chunks=2 if kind is BROADCAST else 0),
        "wrong",
        lambda rank: () if rank else (before, op),
        scratch=lambda rank: scratch,
        accumulators=lambda rank: scratch,
        payloads=lambda rank: scratch,
    )
    with pytest.raises(ScheduleError, match=re.escape(f"rank 0 op 1 ({message}")):
        prove(schedule)


SCRATCH, WIDE, PAYLOAD = Ref(Buffer.SCRATCH, 0), Ref(Buffer.ACCUMULATOR, 0), Ref(Buffer.PAYLOAD, 0)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            Op(kind=OpKind.SEND, peer=0, source=(data(0),)),
            "send data[0] to rank 0): its peer must be another rank",
        ),
        (
            Op(kind=OpKind.SEND, peer=2, source=(data(0),)),
            "send data[0] to rank 2): its peer must be another rank",
        ),
        (Op(kind=OpKind.SEND, source=(data(0),)), "send data[0] to rank -1): its peer must be another rank"),
        (
            Op(kind=OpKind.SEND, peer=1, source=(data(2),)),
            "send data[2] to rank 1): this rank has no data[2]",
        ),
        (Op(kind=OpKind.SEND, peer=1, target=(data(0),)), "send nothing to rank 1): a send has no target"),
        (Op(kind=OpKind.RECV, peer=1, source=(data(0),)), "recv nothing from rank 1): a recv has no source"),
        (Op(kind=OpKind.COPY, source=(data(0),)), "copy data[0] to ): it needs one source for each target"),
        (Op(kind=OpKind.COPY), "copy  to ): it needs one source for each target, and at least one"),
        (
            Op(kind=OpKind.COPY, source=(data(1),), target=(SCRATCH,)),
            "copy data[1] to scratch[0]): data[1] and",
        ),
        (
            Op(kind=OpKind.SEND, peer=1, source=(data(0),), reduce=True),
            "send data[0] to rank 1): only a recv and a decode take the reduce flag",
        ),
        (
            Op(kind=OpKind.RECV, peer=1, target=(data(0), data(0))),
            "recv data[0], data[0] from rank 1): it writes a chunk twice",
        ),
        (
            Op(kind=OpKind.REDUCE, source=(data(0),), target=(data(0),)),
            "reduce data[0] into data[0]): it reads a chunk that it writes",
        ),
        (
            Op(kind=OpKind.SEND, peer=1, source=(WIDE,)),
            "send accumulator[0] to rank 1): an accumulator is read by",
        ),
        (
            Op(kind=OpKind.RECV, peer=1, target=(WIDE,)),
            "recv accumulator[0] from rank 1): an accumulator is writ",
        ),
        (
            Op(kind=OpKind.COPY, source=(data(0),), target=(PAYLOAD,)),
            "copy data[0] to payload[0]): a payload is encoded, sent, received and decoded, and nothing else",
        ),
        (
            Op(kind=OpKind.RECV, peer=1, target=(PAYLOAD,), reduce=True),
            "recv reduce payload[0] from rank 1): a payload is encoded, sent, received and decoded",
        ),
        (
            Op(kind=OpKind.SEND, peer=1, source=(PAYLOAD, data(0))),
            "send payload[0], data[0] to rank 1): a message of a payload holds nothing else",
        ),
        (
            Op(kind=OpKind.ENCODE, source=(data(0),), target=(data(1),)),
            "encode data[0] as data[1]): it makes a payload of something that is none",
        ),
        (
            Op(kind=OpKind.DECODE, source=(data(0),), target=(data(1),)),
            "decode data[0] to data[1]): it makes something of a payload",
        ),
        (
            Op(kind=OpKind.ENCODE, source=(data(0), data(1)), target=(PAYLOAD, SCRATCH)),
            "encode data[0], data[1] as payload[0], scratch[0]): it needs one source and one target",
        ),
        (
            Op(kind=OpKind.ENCODE, source=(data(1),), target=(PAYLOAD,)),
            "encode data[1] as payload[0]): data[1] and payload[0] differ in size",
        ),
        (
            Op(kind=OpKind.SEND, peer=1, source=(data(0),), deps=(1,)),
            "send data[0] to rank 1): it depends on op 1, which is not an earlier op",
        ),
    ],
)
def test_malformed_ops(op: Op, message: str) -> None:
    refuse_ops(op, message)


def test_input_is_never_written() -> None:
    op = Op(kind=OpKind.COPY, source=(SCRATCH,), target=(input_block(0),))
    refuse_ops(op, "copy scratch[0] to input[0]): input is never written", kind=CollectiveKind.ALL_GATHER)


def test_weights_that_do_not_fit() -> None:
    collective = Collective(kind=BROADCAST, num_ranks=1, num_chunks=2)
    with pytest.raises(ScheduleError, match="weights must be 2 integers"):
        prove(Schedule(collective, "wrong", lambda rank: (), weights=(1,)))


def test_a_send_without_a_recv() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
            ops.send(1, data(0))
        else:
            ops.recv(0, data(0))

    refuse(BROADCAST, 2, body, "rank 0 op 1 (send data[0] to rank 1) has no matching recv")


def test_a_recv_without_a_send() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 1:
            ops.recv(0, data(0))

    refuse(BROADCAST, 2, body, "rank 1 op 0 (recv data[0] from rank 0) has no matching send")


def test_chunks_of_equal_weight_may_still_differ_in_size() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0), data(1))
        else:
            ops.recv(0, data(1), data(0))

    refuse(
        BROADCAST,
        2,
        body,
        "rank 0 op 0 (send data[0], data[1] to rank 1) and "
        "rank 1 op 0 (recv data[1], data[0] from rank 0) differ in size",
        num_chunks=2,
    )


def test_one_message_is_on_one_channel() -> None:
    collective = Collective(kind=BROADCAST, num_ranks=2, num_chunks=1)
    send = Op(kind=OpKind.SEND, peer=1, source=(data(0),), channel=1)
    recv = Op(kind=OpKind.RECV, peer=0, target=(data(0),))
    with pytest.raises(ScheduleError, match="are on different channels"):
        prove(Schedule(collective, "wrong", lambda rank: (recv if rank else send,)))


def test_a_deadlock_is_shown_as_a_cycle() -> None:
    def body(ops: ProgramBuilder) -> None:
        heard = ops.recv(1 - ops.rank)
        ops.send(1 - ops.rank, after=[heard])

    refuse(
        CollectiveKind.BARRIER,
        2,
        body,
        "deadlock: rank 0 op 0 (recv nothing from rank 1) waits for rank 1 op 1 (send nothing to rank 0) waits for "
        "rank 1 op 0 (recv nothing from rank 0) waits for rank 0 op 1 (send nothing to rank 1) waits for rank 0 op 0",
        num_chunks=0,
    )


def test_a_window_can_be_too_small() -> None:
    """Rank 1 takes the first message only after rank 2's token, which it gets only after it has the second."""

    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
            ops.send(1, data(1))
        elif ops.rank == 1:
            token = ops.recv(2)
            ops.recv(0, data(0), after=[token])
            ops.recv(0, data(1))
            ops.send(2, data(1))
            ops.send(2, data(0))
        else:
            second = ops.recv(1, data(1))
            ops.send(1, after=[second])
            ops.recv(1, data(0))

    collective = Collective(kind=BROADCAST, num_ranks=3, num_chunks=2)
    schedule = write_schedule(collective, "narrow", body)
    assert prove(schedule, window=2).steps == 4
    with pytest.raises(
        ScheduleError, match=re.escape("rank 0 op 1 (send data[1] to rank 1) waits for rank 1 op 1")
    ):
        prove(schedule, window=1)


def test_an_in_place_exchange_needs_a_buffered_message() -> None:
    schedule = recursive_doubling.all_reduce(2)
    assert prove(schedule, window=1).steps == 1
    with pytest.raises(ScheduleError, match="deadlock"):
        prove(schedule, window=0)
    assert prove(ring.all_reduce(4), window=0).window == 0
    with pytest.raises(UsageError, match="at least 0 messages"):
        prove(schedule, window=-1)


def race(*deps: tuple[int, ...]) -> Callable[[int], tuple[Op, ...]]:
    """Three ranks: rank 0 adds up what it receives from 1 and 2, with the given deps, and sends the sum back."""

    def program(rank: int) -> tuple[Op, ...]:
        if rank:
            ops = ProgramBuilder(rank)
            ops.send(0, data(0))
            ops.recv(0, data(0))
            return ops.program()
        steps = (
            Op(kind=OpKind.RECV, peer=1, target=(data(0),), reduce=True),
            Op(kind=OpKind.RECV, peer=2, target=(data(0),), reduce=True),
            Op(kind=OpKind.SEND, peer=1, source=(data(0),)),
            Op(kind=OpKind.SEND, peer=2, source=(data(0),)),
        )
        return tuple(
            Op(kind=op.kind, peer=op.peer, source=op.source, target=op.target, reduce=op.reduce, deps=waits)
            for op, waits in zip(steps, deps, strict=True)
        )

    return program


@pytest.mark.parametrize(
    ("deps", "message"),
    [
        (
            ((), (), (0, 1), (0, 1)),
            "race on data[0]: nothing orders rank 0 op 0 (recv reduce data[0] from rank 1) and",
        ),
        (
            ((), (0,), (1,), ()),
            "(recv reduce data[0] from rank 1) and rank 0 op 3 (send data[0] to rank 2)",
        ),
        (((), (0,), (0,), (1,)), "rank 0 op 2 (send data[0] to rank 1)"),
    ],
)
def test_races(deps: tuple[tuple[int, ...], ...], message: str) -> None:
    collective = Collective(kind=ALL_REDUCE, num_ranks=3, num_chunks=1)
    prove(Schedule(collective, "right", race((), (0,), (1,), (1,))))
    with pytest.raises(ScheduleError, match=re.escape(message)):
        prove(Schedule(collective, "wrong", race(*deps)))


def ping_pong(*, answered: bool) -> Callable[[int], tuple[Op, ...]]:
    """Rank 0 sends its chunk and then writes it, waiting for nothing on its own side but for rank 1's answer.

    Rank 1 answers when it has the chunk, or else at once.
    """

    def program(rank: int) -> tuple[Op, ...]:
        ops = ProgramBuilder(rank)
        if rank == 0:
            return (
                Op(kind=OpKind.SEND, peer=1, source=(data(0),)),
                Op(kind=OpKind.RECV, peer=1, target=(data(0),)),
            )
        mine = ops.scratch(like=data(0))
        ops.copy(data(0), mine)
        heard = ops.recv_reduce(0, mine)
        source = mine if answered else data(0)
        ops.send(0, source, after=[heard] if answered else [])
        ops.copy(mine, data(0))
        return ops.program()

    return program


def test_order_through_another_rank_counts() -> None:
    collective = Collective(kind=ALL_REDUCE, num_ranks=2, num_chunks=1)

    def schedule(answered: bool) -> Schedule:
        return Schedule(
            collective, "ping", ping_pong(answered=answered), scratch=lambda rank: (data(0),) * rank
        )

    assert prove(schedule(answered=True)).steps == 2
    with pytest.raises(ScheduleError, match=re.escape("race on data[0]: nothing orders rank 0 op 0")):
        prove(schedule(answered=False))


def test_reading_what_was_never_written() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 1:
            ops.send(0, data(0))
        else:
            ops.recv(1, data(0))

    refuse(
        BROADCAST, 2, body, "rank 1 op 0 (send data[0] to rank 0) reads data[0] before anything was written"
    )


def test_adding_to_what_was_never_written() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
        else:
            ops.recv_reduce(0, data(0))

    refuse(BROADCAST, 2, body, "adds to data[0] before anything was written to it")


def test_missing_repeated_and_foreign_contributions() -> None:
    def sends(times: int, chunk: int) -> Body:
        def body(ops: ProgramBuilder) -> None:
            other = 1 - ops.rank
            kept = ops.scratch(like=data(0))
            ops.copy(data(0), kept)
            for _ in range(times):
                ops.send(other, kept)
                ops.recv_reduce(other, data(0))

        return body

    refuse(ALL_REDUCE, 2, sends(0, 0), "rank 0 ends with a wrong data[0]: chunk 0 of rank 1 is missing")
    refuse(ALL_REDUCE, 2, sends(2, 0), "rank 0 ends with a wrong data[0]: chunk 0 of rank 1 is in it 2 times")

    def all_to_all(ops: ProgramBuilder) -> None:
        ops.copy(input_block(ops.rank), output_block(ops.rank))
        relayed = ops.scratch(like=input_block(1 - ops.rank))
        ops.copy(input_block(1 - ops.rank), relayed)
        ops.send(1 - ops.rank, relayed)
        ops.recv(1 - ops.rank, output_block(1 - ops.rank))
        if ops.rank == 0:
            ops.copy(output_block(0), output_block(1))

    collective = Collective(kind=CollectiveKind.ALL_TO_ALL, num_ranks=2)
    wrong = write_schedule(collective, "wrong", all_to_all, even_blocks=True)
    message = (
        "rank 0 ends with a wrong output[1]: chunk 0 of rank 1 is missing, chunk 0 of rank 0 does not belong"
    )
    with pytest.raises(ScheduleError, match=re.escape(message)):
        prove(wrong)


def test_a_result_that_is_never_written() -> None:
    refuse(
        CollectiveKind.ALL_GATHER, 1, lambda ops: None, "rank 0 ends with nothing in output[0]", num_chunks=0
    )


def test_chunks_of_weight_zero_owe_nothing() -> None:
    collective = Collective(kind=ALL_REDUCE, num_ranks=2, num_chunks=1)
    assert prove(Schedule(collective, "idle", lambda rank: (), weights=(0,))).steps == 0


def test_every_rank_must_add_up_in_the_same_order() -> None:
    """Everybody sends to everybody, and adds up in the order of arrival that suits it."""

    def body(ops: ProgramBuilder) -> None:
        kept = ops.scratch(like=data(0))
        ops.copy(data(0), kept)
        for distance in (1, 2):
            ops.send((ops.rank + distance) % 3, kept)
            ops.recv_reduce((ops.rank - distance) % 3, data(0))

    refuse(
        ALL_REDUCE,
        3,
        body,
        "data[0] is added up in different orders: (r1 + (r0 + r2)) on rank 0, (r2 + (r0 + r1)) on rank 1",
    )


def test_rounding_must_be_the_same_everywhere() -> None:
    def body(ops: ProgramBuilder) -> None:
        other = 1 - ops.rank
        kept = ops.scratch(like=data(0))
        ops.copy(data(0), kept)
        ops.send(other, kept)
        if ops.rank == 0:
            ops.recv_reduce(other, data(0))
        else:
            wide = ops.accumulator(like=data(0))
            ops.copy(data(0), wide)
            ops.recv_reduce(other, wide)
            ops.copy(wide, data(0))

    refuse(ALL_REDUCE, 2, body, "(r0 + r1) on rank 0, ~{r0 + r1} on rank 1")


def test_what_was_never_encoded_is_not_decoded() -> None:
    def body(ops: ProgramBuilder) -> None:
        ops.decode(ops.payload(like=data(0)), data(0))

    refuse(ALL_REDUCE, 1, body, "reads payload[0] before anything was written to it")


def test_what_was_never_encoded_is_not_sent_as_a_payload() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.send(1, data(0))
        else:
            ops.decode(ops.recv_payload(0, like=data(0)), data(0))

    refuse(BROADCAST, 2, body, "one is of a payload, the other is not")


def test_a_payload_is_written_once() -> None:
    def body(ops: ProgramBuilder) -> None:
        payload = ops.encode(data(0))
        if ops.rank:
            ops.recv(0, payload)
        else:
            ops.send(1, payload)

    refuse(ALL_REDUCE, 2, body, "writes payload[0] again: a payload is written once")


def test_all_ranks_decode_the_same_payload() -> None:
    """Each rank adds up the same sum and encodes it for itself: the sums are equal, what is left of them is not."""

    def body(ops: ProgramBuilder) -> None:
        recursive = ops.scratch(like=data(0))
        ops.copy(data(0), recursive)
        ops.send(1 - ops.rank, recursive)
        ops.recv_reduce(1 - ops.rank, data(0))
        ops.decode(ops.encode(data(0)), data(0))

    refuse(ALL_REDUCE, 2, body, "data[0] is added up in different orders: ~[(r0 + r1)]#3 on rank 0")


def test_an_owner_that_keeps_its_own_sum_is_found_out() -> None:
    def body(ops: ProgramBuilder) -> None:
        if ops.rank == 0:
            ops.decode_reduce(ops.recv_payload(1, like=data(0)), data(0))
            ops.send(1, ops.encode(data(0)))
        else:
            ops.send(0, ops.encode(data(0)))
            ops.decode(ops.recv_payload(0, like=data(0)), data(0))

    refuse(ALL_REDUCE, 2, body, "data[0] is added up in different orders")


def test_a_proof_counts_encodes() -> None:
    def ring_that_encodes_at_every_hop(ops: ProgramBuilder) -> None:
        if ops.rank:
            ops.decode_reduce(ops.recv_payload(ops.rank - 1, like=data(0)), data(0))
        if ops.rank < 3:
            ops.send(ops.rank + 1, ops.encode(data(0)))

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=4, num_chunks=1, root=3)
    assert prove(write_schedule(collective, "ring", ring_that_encodes_at_every_hop)).num_encodes == 3
    assert prove(direct_coded.all_reduce(4)).num_encodes == 2
    assert prove(direct_coded.reduce_scatter(4)).num_encodes == 1
    assert prove(direct.all_reduce(4)).num_encodes == 0


def test_a_barrier_that_lets_somebody_through() -> None:
    def body(ops: ProgramBuilder) -> None:
        ops.send((ops.rank + 1) % 3)
        ops.recv((ops.rank - 1) % 3)

    refuse(
        CollectiveKind.BARRIER,
        3,
        body,
        "rank 0 can leave the barrier before rank 1 has entered it",
        num_chunks=0,
    )


def test_a_proof_counts() -> None:
    proof = prove(direct.all_reduce(4, weights=(1, 2, 3, 4)), window=2)
    assert proof.window == 2
    assert proof.steps == 2
    assert proof.messages_sent == (6,) * 4
    assert proof.chunks_sent == (6,) * 4
    # Rank r sends the other ranks' shares once, and its own three times.
    assert proof.weight_sent == (9 + 3, 8 + 6, 7 + 9, 6 + 12)
    assert proof.bytes_sent_fraction == Fraction(18, 10)
    assert proof.max_fan_in == 3

    tree = prove(binomial_tree.gather(4))
    assert tree.total_weight == 4
    assert tree.chunks_sent == (0, 1, 2, 1)
    assert prove(ring.all_reduce(4)).max_fan_in == 1
