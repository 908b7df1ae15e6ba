"""How orders and reports travel: through a key-value store that all hosts reach, such as ``torch.distributed.Store``.

Host 0 coordinates: it runs the campaign, writes each experiment into the store, takes part like everybody, and collects
the reports. Each wait has a time limit. A host that misses one is given up: the others go on, and the topology says
what is missing and why. A token in the store keeps strangers out; who can read the store is trusted.

Not here: which experiments (``campaign``) and doing them (``agent``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

import msgspec

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import CollectiveTimeoutError, ThinwireError
from thinwire.probe.agent import Agent
from thinwire.probe.experiment import Card, Experiment, Outcome, Report
from thinwire.probe.store import Desk, Store, store_errors
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
    with store_errors():
        desk = _Desk(store, rank, num_ranks, join_s)
        try:
            token = desk.token()
            agent = Agent(rank, host, token, interface, clock)
        except ThinwireError as error:
            desk.join(_Joining(None, str(error)))
            raise
        with closing(agent), store_errors(_cut_off):
            desk.join(_Joining(agent.card))
            if rank == 0:
                return _coordinate(desk, agent, plan, progress)
            return msgspec.json.decode(_follow(desk, agent), type=kind)


def _cut_off(error: RuntimeError) -> ThinwireError:
    return ThinwireError(
        f"the probe was cut off: the store where the ranks meet is gone ({error}); its host has ended"
    )


class _Desk(Desk):
    """Where a rank of a campaign speaks to the others."""

    def __init__(self, store: Store, rank: int, num_ranks: int, join_s: float) -> None:
        super().__init__(store, rank, num_ranks)
        self._join_s = join_s

    def token(self) -> bytes:
        """What all ranks of this probe know: made by rank 0."""
        if self.rank == 0:
            self.put("token", new_token().hex())
        return bytes.fromhex(self._await("token", str, self._join_s))

    def join(self, joining: _Joining) -> None:
        self.put(f"join/{self.rank}", joining)

    def joinings(self) -> list[Card | str]:
        """Everybody's card, or why there is none. Takes ``join_s`` if somebody does not come."""
        keys = [f"join/{rank}" for rank in range(self.num_ranks)]
        here = self.wait_for(keys, self._join_s)
        absent = _Joining(None, f"it did not come within {self._join_s:g} s")
        words = [self.read(key, _Joining) if key in here else absent for key in keys]
        return [word.card or word.failure for word in words]

    def put_cards(self, cards: Sequence[Card | None]) -> None:
        self.put("cards", list(cards))

    def cards(self) -> list[Card | None]:
        return self._await("cards", list[Card | None], 2 * self._join_s)

    def put_order(self, step: int, order: _Order) -> None:
        self.put(f"order/{step}", order)

    def put_last_order(self, step: int, order: _Order) -> None:
        """Give the others a moment to read it: the store may go when this rank does."""
        self.put_order(step, order)
        self.wait_for((f"left/{rank}" for rank in order.hosts if rank != self.rank), SLACK_S)

    def order(self, step: int) -> _Order:
        order = self._await(f"order/{step}", _Order, _ORDER_S)
        if order.experiment is None:
            self.put(f"left/{self.rank}", True)
        return order

    def put_report(self, step: int, report: Report) -> None:
        self.put(f"report/{step}/{self.rank}", report)

    def reports(self, step: int, ranks: Iterable[int], timeout_s: float) -> dict[int, Report]:
        """The reports that came in time, taken out of the store."""
        keys = {rank: f"report/{step}/{rank}" for rank in ranks}
        here = self.wait_for(keys.values(), timeout_s)
        found = {rank: self.read(key, Report) for rank, key in keys.items() if key in here}
        for rank in found:
            self.delete(keys[rank])
        return found

    def _await(self, key: str, kind: type[Value], timeout_s: float) -> Value:
        """What rank 0 writes there."""
        if not self.wait_for([key], timeout_s):
            raise CollectiveTimeoutError(
                f"rank 0 did not go on with the probe within {timeout_s:g} s: check that it runs"
            )
        return self.read(key, kind)


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
