"""Allowances: nobody sends more ahead than the receiver has room for, and nothing is lost on the way back."""

import numpy as np
import pytest

from thinwire.errors import ProtocolError
from thinwire.protocol.frame import Header, Kind
from thinwire.runtime.inbox import ALLOWANCE_BYTES, Allowances, Credits, Early, Inbox, eager_cost


def test_the_sender_stops_when_its_allowance_is_spent_and_goes_on_when_it_is_restored() -> None:
    allowances = Allowances()
    assert allowances.take("peer", ALLOWANCE_BYTES)
    assert not allowances.take("peer", 1)
    assert allowances.take("another", 1)
    allowances.restore("peer", 10)
    assert allowances.take("peer", 10)
    assert not allowances.take("peer", 1)


def test_credit_for_what_was_never_sent_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="more than was ever sent"):
        Allowances().restore("peer", 1)


def test_every_byte_of_allowance_comes_back_in_the_end() -> None:
    """Whatever the sizes, what credits have not returned is less than they wait for before they return it."""
    rng = np.random.default_rng(1)
    allowances, returned = Allowances(), []
    credits = Credits(lambda peer, amount: returned.append(amount))
    taken = 0
    for size in rng.integers(0, 5000, 2000):
        cost = eager_cost(int(size))
        assert allowances.take("peer", cost), "the receiver has consumed everything: there must be room"
        taken += cost
        credits.consumed("peer", cost)
        while returned:
            amount = returned.pop()
            allowances.restore("peer", amount)
            taken -= amount
    assert 0 <= taken < ALLOWANCE_BYTES // 2


def test_an_inbox_has_room_for_the_allowance_and_no_more() -> None:
    inbox = Inbox()
    header = Header(Kind.DATA, group=1, operation=2, length=ALLOWANCE_BYTES)
    inbox.check_room("peer", ALLOWANCE_BYTES)
    inbox.put((1, 2, 0), Early("peer", header, []))
    with pytest.raises(ProtocolError, match="ahead of the operations"):
        inbox.check_room("peer", 1)
    inbox.check_room("another", 1)
    assert inbox.has_arrived(1, 2)
    assert [early.header for early in inbox.take((1, 2, 0))] == [header]
    inbox.check_room("peer", ALLOWANCE_BYTES)
    assert not inbox.has_arrived(1, 2)


def test_a_group_is_taken_whole() -> None:
    inbox = Inbox()
    for group, operation in ((1, 0), (1, 1), (2, 0)):
        inbox.put((group, operation, 0), Early("peer", Header(Kind.GRANT, group, operation), []))
    assert len(inbox.take_group(1)) == 2
    assert len(inbox.take((2, 0, 0))) == 1
