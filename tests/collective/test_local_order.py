"""What deps mean: conflicting pieces of ordered ops wait for each other, and nothing else does."""

from __future__ import annotations

from thinwire.collective import Op, OpKind
from thinwire.collective.local_order import LocalOrder
from thinwire.collective.schedule import data


def copy(source: int, target: int, *deps: int) -> Op:
    return Op(kind=OpKind.COPY, source=(data(source),), target=(data(target),), deps=deps)


def send(*chunks: int, deps: tuple[int, ...] = ()) -> Op:
    return Op(kind=OpKind.SEND, peer=1, source=tuple(map(data, chunks)), deps=deps)


def recv(*chunks: int, deps: tuple[int, ...] = ()) -> Op:
    return Op(kind=OpKind.RECV, peer=1, target=tuple(map(data, chunks)), deps=deps)


def test_a_piece_waits_only_for_the_pieces_it_conflicts_with() -> None:
    order = LocalOrder((recv(0, 1), send(1, 2, 0, deps=(0,))))
    assert [order.waits_for(1, piece) for piece in range(3)] == [[(0, 1)], [], [(0, 0)]]


def test_reading_together_is_no_conflict() -> None:
    order = LocalOrder((send(0), send(0, deps=(0,))))
    assert order.waits_for(1, 0) == []


def test_ops_that_deps_do_not_order_do_not_wait() -> None:
    order = LocalOrder((recv(0), send(0)))
    assert order.waits_for(1, 0) == []


def test_order_through_other_ops_counts() -> None:
    order = LocalOrder((recv(0, 1), copy(1, 2, 0), copy(2, 0, 1)))
    assert order.ancestors == [0b0, 0b1, 0b11]
    assert order.waits_for(2, 0) == [(1, 0), (0, 0)]


def test_without_a_common_chunk_all_pieces_wait() -> None:
    order = LocalOrder((recv(0, 1), send(2, deps=(0,)), send(deps=(1,))))
    assert order.waits_for(1, 0) == [(0, 0), (0, 1)]
    assert order.waits_for(2, 0) == [(1, 0)]


def test_what_the_last_writer_waits_for_is_left_out() -> None:
    order = LocalOrder((recv(0), recv(0, deps=(0,)), send(0, deps=(1,))))
    assert order.waits_for(2, 0) == [(1, 0)]


def test_a_writer_that_does_not_wait_hides_nothing() -> None:
    """Op 1 may well run before op 0, if other ranks say so; op 2 still has to wait for both."""
    order = LocalOrder((recv(0), recv(0), send(0, deps=(0, 1))))
    assert order.waits_for(2, 0) == [(1, 0), (0, 0)]
