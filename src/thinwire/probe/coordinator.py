"""How orders and reports travel: through a key-value store that all hosts reach, such as ``torch.distributed.Store``.

Host 0 coordinates: it runs the campaign, writes each experiment into the store, takes part like everybody, and collects
the reports. Each wait has a time limit. A host that misses one is given up: the others go on, and the topology says
what is missing and why. A token in the store keeps strangers out; who can read the store is trusted.

Not here: which experiments (``campaign``) and doing them (``agent``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

import msgspec

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import CollectiveTimeoutError, LinkError, ThinwireError
from thinwire.probe.agent import Agent
from thinwire.probe.experiment import Card, Experiment, Outcome, Report
from thinwire.transport.bulk import new_token

JOIN_S = 30.0  # for all hosts to come
# From an order to this rank's own part: its flows must not delay the order on its way to the others.
LEAD_S = 0.03
SLACK_S = 3.0  # for a report, beyond what the experiment may take
_ORDER_S = 60.0  # for the next order: longer than any experiment with all its time limits

Result = TypeVar("Result")
Value = TypeVar("Value")
# Makes a campaign from everybody's card, or the reason why there is none.
Plan = Callable[[Sequence[Card | str]], Generator[Experiment, Outcome, Result]]


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that is needed. Failures are ``RuntimeError``."""

    def set(self, key: str, value: str, /) -> object: ...
    def get(self, key: str, /) -> bytes: ...
    def add(self, key: str, amount: int, /) -> int: ...
    def check(self, keys: list[str], /) -> bool: ...
    def wait(self, keys: list[str], timeout: timedelta, /) -> object: ...
    def delete_key(self, key: str, /) -> object: ...


class _Joining(msgspec.Struct, frozen=True):
    """A host's first word: its card, or why it cannot take part."""

    card: Card | None
    failure: str = ""


class _Order(msgspec.Struct, frozen=True):
    """What happens next: an experiment for some hosts, or the end."""

    hosts: tuple[int, ...] = ()
    experiment: Experiment | None = None
    result: str = ""  # JSON
    failure: str = ""


def conduct(
    store: Store,
    rank: int,
    num_ranks: int,
    host: str,
    plan: Plan[Result],
    kind: type[Result],
    *,
    interface: str | None = None,
    join_s: float = JOIN_S,
    clock: Clock = SYSTEM_CLOCK,
    progress: Callable[[str], None] = lambda purpose: None,
) -> Result:
    """Take part in a campaign; every rank calls this, and gets the campaign's result.

    Args:
        store: where the ranks meet. It should not be in use by another thread: waiting may block it.
        rank, num_ranks: who this is, and of how many.
        host: this machine's name.
        plan: makes the campaign, on rank 0.
        kind: of its result, which travels as JSON.
        interface: network interface or address to use; None: all.
        join_s: how long the others are waited for.
        clock: tells the time.
        progress: told on rank 0 what begins.

    Raises:
        UsageError: no such interface here.
        LinkError: the store cannot be reached.
        CollectiveTimeoutError: rank 0 does not come, or fell silent.
        ThinwireError: rank 0 has given this one up, because it was too slow; or the store is gone.
    """
    try:
        desk = _Desk(store, rank, num_ranks, join_s)
        try:
            token = desk.token()
            agent = Agent(rank, host, token, interface, clock)
        except ThinwireError as error:
            desk.join(_Joining(None, str(error)))
            raise
        try:
            desk.join(_Joining(agent.card))
            if rank == 0:
                return _coordinate(desk, agent, plan, progress)
            return msgspec.json.decode(_follow(desk, agent), type=kind)
        except ThinwireError:
            raise
        except RuntimeError as error:
            raise ThinwireError(
                f"the probe was cut off: the store where the ranks meet is gone ({error}); its host has ended"
            ) from error
        finally:
            agent.close()
    except ThinwireError:
        raise
    except RuntimeError as error:
        raise LinkError(
            f"the store where the ranks meet failed: {error}; check that its host runs"
        ) from error


class _Desk:
    """What one rank reads and writes in the store."""

    def __init__(self, store: Store, rank: int, num_ranks: int, join_s: float) -> None:
        self.rank, self.num_ranks, self.join_s = rank, num_ranks, join_s
        self._store = store
        # A store may be used for several probes: the n-th of one rank meets the n-th of the others.
        self._prefix = f"thinwire/probe/{store.add(f'thinwire/probe/joined/{rank}', 1)}"

    def token(self) -> bytes:
        """What all ranks of this probe know: made by rank 0."""
        if self.rank == 0:
            self._put("token", new_token().hex())
        return bytes.fromhex(self._await("token", str, self.join_s))

    def join(self, joining: _Joining) -> None:
        self._put(f"join/{self.rank}", joining)

    def joinings(self) -> list[Card | str]:
        """Everybody's card, or why there is none. Takes ``join_s`` if somebody does not come."""
        keys = {rank: f"join/{rank}" for rank in range(self.num_ranks)}
        here = self._arrived(keys, self.join_s)
        absent = _Joining(None, f"it did not come within {self.join_s:g} s")
        words = [self._read(keys[rank], _Joining) if rank in here else absent for rank in keys]
        return [word.card or word.failure for word in words]

    def put_cards(self, cards: Sequence[Card | None]) -> None:
        self._put("cards", list(cards))

    def cards(self) -> list[Card | None]:
        return self._await("cards", list[Card | None], 2 * self.join_s)

    def put_order(self, step: int, order: _Order) -> None:
        self._put(f"order/{step}", order)

    def put_last_order(self, step: int, order: _Order) -> None:
        """Give the others a moment to read it: the store may go when this rank does."""
        self.put_order(step, order)
        self._arrived({rank: f"left/{rank}" for rank in order.hosts if rank != self.rank}, SLACK_S)

    def order(self, step: int) -> _Order:
        order = self._await(f"order/{step}", _Order, _ORDER_S)
        if order.experiment is None:
            self._put(f"left/{self.rank}", True)
        return order

    def put_report(self, step: int, report: Report) -> None:
        self._put(f"report/{step}/{self.rank}", report)

    def reports(self, step: int, ranks: Iterable[int], timeout_s: float) -> dict[int, Report]:
        """The reports that came in time, taken out of the store."""
        keys = {rank: f"report/{step}/{rank}" for rank in ranks}
        found = {rank: self._read(keys[rank], Report) for rank in self._arrived(keys, timeout_s)}
        for rank in found:
            self._store.delete_key(f"{self._prefix}/{keys[rank]}")
        return found

    def _put(self, key: str, value: object) -> None:
        self._store.set(f"{self._prefix}/{key}", msgspec.json.encode(value).decode())

    def _read(self, key: str, kind: type[Value]) -> Value:
        return msgspec.json.decode(self._store.get(f"{self._prefix}/{key}"), type=kind)

    def _await(self, key: str, kind: type[Value], timeout_s: float) -> Value:
        """What rank 0 writes there."""
        if not self._arrived({0: key}, timeout_s):
            raise CollectiveTimeoutError(
                f"rank 0 did not go on with the probe within {timeout_s:g} s: check that it runs"
            )
        return self._read(key, kind)

    def _arrived(self, keys: dict[int, str], timeout_s: float) -> set[int]:
        """Those whose key is there, as soon as all are or the time is over."""
        full = {rank: f"{self._prefix}/{key}" for rank, key in keys.items()}
        try:
            self._store.wait(list(full.values()), timedelta(seconds=timeout_s))
        except RuntimeError:
            return {rank for rank, key in full.items() if self._store.check([key])}
        return set(full)


def _coordinate(desk: _Desk, agent: Agent, plan: Plan[Result], progress: Callable[[str], None]) -> Result:
    joined = desk.joinings()
    cards = [card if isinstance(card, Card) else None for card in joined]
    desk.put_cards(cards)
    active = {rank for rank, card in enumerate(cards) if card is not None}
    step = 0
    try:
        campaign = plan(joined)
        experiment = next(campaign)
        while True:
            progress(experiment.purpose)
            desk.put_order(step, _Order(tuple(sorted(active)), experiment))
            threading.Event().wait(LEAD_S)
            own = agent.perform(step, experiment, cards)
            timeout_s = experiment.patience_s + experiment.linger_s + SLACK_S
            reports = desk.reports(step, active - {0}, timeout_s)
            why = f"it did not report on {experiment.purpose} within {timeout_s:g} s after the others"
            silent = dict.fromkeys(active - {0} - set(reports), why)
            silent |= {rank: report.error for rank, report in reports.items() if report.error}
            active -= set(silent)
            step += 1
            experiment = campaign.send(Outcome(reports={0: own, **reports}, silent=silent))
    except StopIteration as end:
        result: Result = end.value
        desk.put_last_order(step, _Order(tuple(sorted(active)), result=msgspec.json.encode(result).decode()))
        return result
    except ThinwireError as error:
        desk.put_last_order(step, _Order(tuple(sorted(active)), failure=f"rank 0 stopped: {error}"))
        raise


def _follow(desk: _Desk, agent: Agent) -> str:
    cards = desk.cards()
    step = 0
    while True:
        order = desk.order(step)
        if order.failure:
            raise ThinwireError(order.failure)
        if desk.rank not in order.hosts:
            raise ThinwireError("rank 0 went on with the probe without this one, which was too slow")
        if order.result:
            return order.result
        assert order.experiment is not None
        try:
            report = agent.perform(step, order.experiment, cards)
        except ThinwireError as error:
            desk.put_report(step, Report(error=str(error)))
            raise
        desk.put_report(step, report)
        step += 1
