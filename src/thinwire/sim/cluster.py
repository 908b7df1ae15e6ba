"""Ranks in virtual time: the runtime as it is, on a simulated network, watched by the virtual clock.

Each rank is an ``Endpoint`` on a host of its own; calls on its communicators return at once, and ``run`` lets time
pass until they have ended. Not here: threads that block (use ``MemoryNetwork`` for ranks as threads).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from thinwire.runtime.communicator import Communicator
from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.encoder import at_once
from thinwire.runtime.endpoint import Endpoint
from thinwire.runtime.job import Job
from thinwire.sim.network import LinkProfile, SimulatedNetwork

_POLLS_PER_HEARTBEAT_LIMIT = 8


class SimulatedCluster:
    """``num_ranks`` endpoints that can form groups.

    Args:
        num_ranks: endpoint ``r`` of ``network`` is rank r of the cluster.
        rng: for what happens by chance in the network.
        profile: of all links that ``network.shape`` does not say otherwise of.
        config: of every endpoint.

    >>> from thinwire.runtime.reduction import DTYPES, ReduceOp
    >>> cluster = SimulatedCluster(3, np.random.default_rng(0), LinkProfile(latency_s=0.001))
    >>> arrays = [np.full(4, rank, np.float32) for rank in range(3)]
    >>> jobs = [
    ...     member.all_reduce(array, ReduceOp.SUM, DTYPES["float32"])
    ...     for member, array in zip(cluster.group(range(3)), arrays)
    ... ]
    >>> cluster.run(jobs)
    >>> arrays[0]
    array([3., 3., 3., 3.], dtype=float32)
    """

    def __init__(
        self,
        num_ranks: int,
        rng: np.random.Generator,
        profile: LinkProfile | None = None,
        config: RuntimeConfig | None = None,
    ) -> None:
        self.config = config or RuntimeConfig()
        self.network = SimulatedNetwork(rng, profile)
        self.endpoints = [
            Endpoint(
                self.network.transport(f"host{rank}"),
                self.config,
                clock=self.network.clock,
                encode=at_once,
            )
            for rank in range(num_ranks)
        ]

    def group(
        self, ranks: Sequence[int], group_id: int = 1, timeout_s: float = math.inf
    ) -> list[Communicator]:
        """A group of these ranks: its members, in that order."""
        contacts = [self.endpoints[rank].contact for rank in ranks]
        return [
            self.endpoints[rank].communicator(index, contacts, group_id, timeout_s)
            for index, rank in enumerate(ranks)
        ]

    def watch(self) -> None:
        """Let every endpoint look after heartbeats and deadlines from now on. Time never runs out after this."""
        for rank in range(len(self.endpoints)):
            self._poll(rank)

    def run(self, jobs: Iterable[Job], limit_s: float = math.inf) -> None:
        """Let time pass until all jobs have ended, well or not.

        Raises:
            StalledError: they never will, or had not when the clock showed ``limit_s``.
        """
        waited_for = list(jobs)
        self.network.run(until=lambda: all(job.done() for job in waited_for), limit_s=limit_s)

    def _poll(self, rank: int) -> None:
        clock = self.network.clock
        if self.network.endpoints[rank].alive:
            if not self.network.is_stopped(rank):
                self.endpoints[rank].poll(clock.now_s())
            clock.call_later(self.config.heartbeat_s / _POLLS_PER_HEARTBEAT_LIMIT, lambda: self._poll(rank))
