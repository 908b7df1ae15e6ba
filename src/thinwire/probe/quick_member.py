"""The quick form as one host sees it: it hears the plan, exchanges, reports, and hears the result.

    first host     plan ->            exchange ...            <- reports     result ->
    the others          -> exchange ...            report ->                          -> done

The first host knows everybody's card, and tells all at once; everything of it goes on in datagrams, because a store
costs three round trips for each word. A parcel is said again until it is answered. ``LIMIT_S`` after the plan the
first host makes the result of the reports that have come, whatever is missing.

Told the time and what arrives, it says what to send. Not here: sockets and the store (``quick``), what is measured
(``quick_exchange``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from thinwire.probe.quick_exchange import LASTS_S, Exchange, Send
from thinwire.probe.quick_messages import (
    Inbox,
    Message,
    Part,
    QuickCard,
    Topic,
    pack,
    pack_report,
    parcel,
    unpack,
)
from thinwire.transport.trains import Address

LIMIT_S = 0.72  # from the plan to the result
_AGAIN_S, _PATIENCE = 0.03, 1.2  # until a parcel is said again: at least, and in round trips
_MANY_HOSTS = 8
FAREWELL_S = 0.1  # for which the first host repeats the result
_PLAN, _REPORT, _RESULT, _DONE = Topic.PLAN, Topic.REPORT, Topic.RESULT, Topic.DONE

Cards = Sequence[QuickCard | None]
Routes = Callable[[QuickCard], Sequence[Address]]
Conclude = Callable[[dict[int, bytes]], bytes]


class Member:
    """One host. The first is made with everybody's card, the others with None.

    Args:
        number: this host's; 0 is the first.
        key: what datagrams to it begin with.
        routes: the addresses to try for a card, best first.
        now_s: the time.
        cards: what the first host knows.
        conclude: makes the result of the reports, on the first host.

    Attributes:
        cards, result: once they are known.
    """

    def __init__(
        self,
        number: int,
        key: bytes,
        routes: Routes,
        now_s: float,
        cards: Cards | None = None,
        conclude: Conclude = lambda reports: b"",
    ) -> None:
        self._number, self._key, self._routes = number, key, routes
        self._conclude = conclude
        self._inbox = Inbox()
        self._exchange: Exchange | None = None
        self._reports: dict[int, bytes] = {}
        self._told: set[int] = set()  # who has the result
        self._again_s = now_s
        self._ends_s = float("inf")
        self._addresses: dict[int, Sequence[Address]] = {}
        self.cards: Cards = ()
        self.result: bytes | None = None
        if cards is not None:
            self._begin(cards, now_s)

    @property
    def has_begun(self) -> bool:
        return self._exchange is not None

    def is_over(self, now_s: float) -> bool:
        """There is nothing left to do."""
        if self.result is None:
            return False
        return self._number > 0 or self._told >= self._reports.keys() - {0} or now_s >= self._ends_s

    def due_s(self, now_s: float) -> float:
        """When to poll next at the latest, if nothing comes."""
        if self._exchange is None:
            return float("inf")
        due_s = self._again_s
        if now_s < self._exchange.ends_s:
            due_s = min(due_s, self._exchange.due_s()) if self._number == 0 else self._exchange.due_s()
        return due_s

    def take(self, at_s: float, data: bytes, source: Address) -> Iterator[tuple[Address, list[bytes]]]:
        """Something came. Says what that makes it send at once."""
        found = unpack(self._key, data)
        if found is None:
            return
        sender, message = found
        if not isinstance(message, Part):
            if self._exchange is not None:
                self._exchange.take(at_s, sender, message, source)
            return
        whole = self._inbox.take(sender, message)
        if whole is None:
            return
        if self._number and sender == 0:
            if message.topic is _PLAN and self._exchange is None:
                self._begin(_decoded(whole, list[QuickCard | None]) or (), at_s)
            elif message.topic is _RESULT:
                self.result = whole
                yield from self._say(0, parcel(_DONE, b""))
        elif not self._number and sender in self._addresses:
            if message.topic is _REPORT and self.result is None:
                self._reports[sender] = whole
            elif message.topic is _DONE:
                self._told.add(sender)

    def poll(self, now_s: float) -> Iterator[tuple[Address, list[bytes]]]:
        """What is to be sent now."""
        exchange = self._exchange
        if exchange is None:
            return
        if now_s < exchange.ends_s:
            for send in exchange.poll(now_s):
                yield self._packed(send.peer, send)
        elif self._number not in self._reports:
            self._reports[self._number] = pack_report(exchange.pairs())
            self._again_s = now_s  # at once
        if self._number == 0 and self.result is None and self._is_complete(now_s):
            self.result = self._conclude(self._reports)
            self._ends_s = now_s + FAREWELL_S
            self._again_s = now_s
        if now_s >= self._again_s:
            is_crowd = len(self.cards) > _MANY_HOSTS  # whose parcels are long
            self._again_s = now_s + max(_AGAIN_S, is_crowd * _PATIENCE * exchange.longest_rtt_s())
            yield from self._repeat(now_s)

    def has_sent(self, datagrams: Sequence[bytes], took_s: float) -> None:
        """How long it took to send what ``poll`` said."""
        if len(datagrams) > 1 and self._exchange is not None:
            self._exchange.has_sent(sum(map(len, datagrams)), took_s)

    def _begin(self, cards: Cards, now_s: float) -> None:
        self.cards = cards
        self._addresses = {
            number: self._routes(card)
            for number, card in enumerate(cards)
            if card is not None and number != self._number
        }
        self._exchange = Exchange(self._number, self._addresses, len(cards), now_s)
        self._limit_s = now_s + LIMIT_S

    def _is_complete(self, now_s: float) -> bool:
        everybody = {number for number, card in enumerate(self.cards) if card is not None}
        return now_s >= self._limit_s or everybody <= set(self._reports)

    def _repeat(self, now_s: float) -> Iterator[tuple[Address, list[bytes]]]:
        """Say again what was not answered."""
        assert self._exchange is not None
        if self._number:
            if self.result is None and self._number in self._reports:
                yield from self._say(0, parcel(_REPORT, self._reports[self._number]))
            return
        if self.result is not None:
            whole = parcel(_RESULT, self.result)
            for peer in self._reports.keys() - {0} - self._told:
                yield from self._say(peer, whole)
        elif now_s < self._exchange.ends_s - LASTS_S / 2:  # who hears of it later would not be ready in time
            plan = parcel(_PLAN, msgspec.msgpack.encode(self.cards))
            for peer in self._addresses:
                if self._exchange.heard_from(peer) is None:
                    yield from self._say(peer, plan)

    def _say(self, peer: int, messages: Sequence[Message]) -> Iterator[tuple[Address, list[bytes]]]:
        known = self._addresses.get(peer, ())
        heard = self._exchange.heard_from(peer) if self._exchange else None
        for address in [heard] if heard else known:
            for message in messages:
                yield self._packed(peer, Send(peer, address, (message,)))

    def _packed(self, peer: int, send: Send) -> tuple[Address, list[bytes]]:
        card = self.cards[peer]
        assert card is not None
        return send.address, [pack(card.key, self._number, message) for message in send.messages]


Value = TypeVar("Value")


def _decoded(data: bytes, kind: type[Value]) -> Value | None:
    """None if it is no such thing: only who knows the key could have sent that."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None
