"""The calls that measure: ``probe`` the network between ranks, ``bench_link`` the ways from one host to another.

Not here: any of the parts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime

from thinwire.clock import SYSTEM_CLOCK, Clock, wall_time_s
from thinwire.errors import UsageError
from thinwire.probe.campaign import BUDGET_S, Campaign, full_form
from thinwire.probe.coordinator import JOIN_S, conduct
from thinwire.probe.experiment import Card, Experiment, Outcome
from thinwire.probe.link_test import LinkTest, link_test
from thinwire.probe.quick import quick_probe
from thinwire.probe.store import Store
from thinwire.topology import Topology
from thinwire.transport.addresses import host_name
from thinwire.transport.tcp import congestion_controls

MIN_WAY_S = 0.05


class Form(enum.StrEnum):
    FULL = "full"
    QUICK = "quick"


def probe(
    store: Store,
    rank: int,
    num_ranks: int,
    *,
    form: Form | str = Form.FULL,
    budget_s: float = BUDGET_S,
    interface: str | None = None,
    host: str | None = None,
    join_s: float = JOIN_S,
    clock: Clock = SYSTEM_CLOCK,
    progress: Callable[[str], None] = lambda purpose: None,
) -> Topology:
    """Measure the network between ranks; every rank calls this and gets the same topology.

    A rank that does not come, or falls silent, and a link that does not work, become gaps of the topology. The call
    ends in any case: each step has a time limit.

    Args:
        store: a ``torch.distributed.Store``, or anything with the methods of ``Store``, that all ranks reach. In a
            running job give it a store of its own (``store.clone()``): waiting blocks it for other threads.
        rank, num_ranks: who this is, and of how many.
        form: "full" measures everything and takes some 15 s; "quick" measures round trips and bandwidths of all pairs
            beside a running job, in under one second from when all have called, and takes each wire less than
            0.1 s. What it could not measure in that time is None, or has only an interval.
        budget_s: of the full form, see ``campaign.full_form``.
        interface: network interface or address to use; None: all.
        host: this machine's name; None: as the system says.
        join_s: how long the others are waited for.
        clock: tells the time.
        progress: told on rank 0 what begins.

    Raises:
        UsageError: no such form or interface, or too small a budget.
        LinkError: the store cannot be reached.
        CollectiveTimeoutError: rank 0 does not come, or fell silent.
        ThinwireError: rank 0 has given this one up, or failed; or the store is gone.
    """
    try:
        chosen = Form(form)
    except ValueError:
        raise UsageError(f"form is {form!r}: use 'full' or 'quick'") from None

    name = host or host_name()
    if chosen is Form.QUICK:
        return quick_probe(
            *(store, rank, num_ranks, name),
            now=_now,
            interface=interface,
            join_s=join_s,
            clock=clock,
            progress=progress,
        )

    def plan(joined: Sequence[Card | str]) -> Campaign:
        return full_form(joined, now=_now, budget_s=budget_s)

    return conduct(
        store,
        rank,
        num_ranks,
        name,
        plan,
        Topology,
        interface=interface,
        join_s=join_s,
        clock=clock,
        progress=progress,
    )


def bench_link(
    store: Store,
    rank: int,
    *,
    way_s: float,
    interface: str | None = None,
    host: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
    progress: Callable[[str], None] = lambda purpose: None,
) -> LinkTest:
    """Try every way in which bytes get from rank 0 to rank 1; both call this and get the same.

    Args:
        store: see ``probe``.
        rank: 0 or 1.
        way_s: how long each way is tried.
        interface, host, clock, progress: see ``probe``.

    Raises:
        UsageError: no such interface, or too short a time.
        LinkError: nothing gets through, or the store cannot be reached any more.
        CollectiveTimeoutError: rank 0 does not come, or fell silent.
    """
    if not way_s >= MIN_WAY_S:
        raise UsageError(
            f"{way_s:g} s for each way is too little to measure anything: give {MIN_WAY_S} s or more"
        )

    def plan(joined: Sequence[Card | str]) -> Generator[Experiment, Outcome, LinkTest]:
        return link_test(joined, congestion_controls=congestion_controls(), way_s=way_s)

    name = host or host_name()
    return conduct(store, rank, 2, name, plan, LinkTest, interface=interface, clock=clock, progress=progress)


def _now() -> str:
    return datetime.fromtimestamp(wall_time_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
