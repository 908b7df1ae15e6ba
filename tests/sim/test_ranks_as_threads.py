"""64 ranks as threads of one process, over the memory transport: every collective, by every algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.sim.calls import KINDS, CollectiveCall, codec_for
from thinwire.collective.algorithms import algorithms_for
from thinwire.collective.schedule import CollectiveKind
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.endpoint import Endpoint
from thinwire.transport.memory import MemoryNetwork

NUM_RANKS = 64
TIMEOUT_S = 60.0

Everywhere = Callable[[Callable[[Communicator], None]], None]


@pytest.fixture(scope="module")
def everywhere() -> Iterator[Everywhere]:
    """Runs a function on all ranks at once, each on its own thread, and raises what any of them raised."""
    network = MemoryNetwork()
    endpoints = [
        Endpoint(network.transport(f"host{rank}"), RuntimeConfig(heartbeat_s=TIMEOUT_S))
        for rank in range(NUM_RANKS)
    ]
    contacts = [endpoint.contact for endpoint in endpoints]
    members = [
        endpoint.communicator(rank, contacts, group=1, timeout_s=TIMEOUT_S)
        for rank, endpoint in enumerate(endpoints)
    ]
    for endpoint in endpoints:
        endpoint.start_monitor()
    with ThreadPoolExecutor(NUM_RANKS) as pool:
        yield lambda function: [None for _ in pool.map(function, members)] and None
    for endpoint in endpoints:
        endpoint.close()
    network.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_collective(kind: CollectiveKind, everywhere: Everywhere) -> None:
    """By every algorithm with little data, by the table's choice with more than is sent without a grant."""
    rng = np.random.default_rng(64)
    little = [(640, found.name, codec_for(found)) for found in algorithms_for(kind)]
    for num_elements, algorithm, codec in [(200_000, None, None), *little]:
        call = CollectiveCall(kind, NUM_RANKS, num_elements, rng, root=17, algorithm=algorithm, codec=codec)

        def run(member: Communicator, call: CollectiveCall = call) -> None:
            call.submit(member).wait(TIMEOUT_S)

        everywhere(run)
        for rank in range(NUM_RANKS):
            call.check(rank)


@pytest.mark.parametrize("seed", range(2))
def test_ranks_that_run_ahead_of_each_other(seed: int, everywhere: Everywhere) -> None:
    """The same thirty small collectives on every rank, nobody waiting for the others: first calls, then answers."""
    rng = np.random.default_rng(seed)
    calls = [
        CollectiveCall(KINDS[rng.integers(len(KINDS))], NUM_RANKS, int(10 ** rng.uniform(0, 3)), rng)
        for _ in range(30)
    ]

    def run(member: Communicator) -> None:
        jobs = [call.submit(member) for call in calls]
        for job in jobs:
            job.wait(TIMEOUT_S)

    everywhere(run)
    for call in calls:
        for rank in range(NUM_RANKS):
            call.check(rank)
