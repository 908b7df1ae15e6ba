"""A rank dies, falls silent or loses a connection at every step of a collective: the others learn of it and go on.

The ranks 0 to 3 form a group, and 0 and 1 another. The victim is rank 3. Whatever it is that the victim was about to
send or to receive: on every survivor the running collective ends, well or with PeerError, the next one of that group
ends with PeerError, and the other group does not notice. A hang is a StalledError.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.sim.calls import FLOAT32, KINDS, CollectiveCall, codec_for
from thinwire.collective.algorithms import algorithms
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.schedule import CollectiveKind
from thinwire.errors import PeerError
from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.job import Job
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster
from thinwire.sim.faults import (
    PASS,
    Flight,
    Kill,
    Partition,
    PartitionOneWay,
    Reset,
    Rule,
    Silence,
    Verdict,
    random_fault,
)

NUM_RANKS = 4
VICTIM = 3
SURVIVORS = [0, 1, 2]
HEARTBEAT_S = 2.0
PROFILE = LinkProfile(latency_s=0.0001, bandwidth_bytes_per_s=1e9, jitter_s=0.0001, lanes=2)
ALGORITHMS = [found for found in algorithms() if found.kind is not CollectiveKind.SEND_RECV]


def name_of(found: Algorithm) -> str:
    return f"{found.kind}-{found.name}"


class Trial:
    """A cluster with a group of all and one of ranks 0 and 1, and a collective to be run by all."""

    def __init__(self, algorithm: Algorithm, num_elements: int, fault: Rule | None) -> None:
        rng = np.random.default_rng(0)
        self.cluster = SimulatedCluster(NUM_RANKS, rng, PROFILE, RuntimeConfig(heartbeat_s=HEARTBEAT_S))
        self.everybody = self.cluster.group(range(NUM_RANKS), group_id=1)
        self.pair = self.cluster.group([0, 1], group_id=2)
        self.call = CollectiveCall(
            kind=algorithm.kind,
            num_ranks=NUM_RANKS,
            num_elements=num_elements,
            rng=rng,
            algorithm=algorithm.name,
            codec=codec_for(algorithm),
        )
        self._rng = rng
        self.cluster.watch()
        if fault is not None:
            self.cluster.network.install(fault)

    @property
    def now_s(self) -> float:
        return self.cluster.network.clock.now_s()

    def run(self, within_s: float) -> list[Job]:
        """Run the collective until it has ended on all survivors."""
        jobs = [self.call.submit(member) for member in self.everybody]
        self.cluster.run(jobs[:VICTIM], limit_s=self.now_s + within_s)
        return jobs

    def check_survivors(self, jobs: list[Job]) -> None:
        """Whoever got a result got the right one; whoever did not, was told who is gone."""
        for rank in SURVIVORS:
            error = jobs[rank].exception()
            if error is None:
                self.call.check(rank)
            else:
                assert_names_the_victim(error)

    def let_the_news_spread(self, within_s: float) -> None:
        """Wait: a rank that had what it needed may end well, and learn of the victim's end a moment later."""
        end_s = self.now_s + within_s
        self.cluster.network.run(until=lambda: self.now_s >= end_s)

    def check_later_calls_fail(self, within_s: float) -> None:
        jobs = [self.call.submit(member) for member in self.everybody[:VICTIM]]
        self.cluster.run(jobs, limit_s=self.now_s + within_s)
        for job in jobs:
            assert_names_the_victim(job.exception())

    def check_the_pair_is_undisturbed(self) -> None:
        call = CollectiveCall(kind=CollectiveKind.ALL_REDUCE, num_ranks=2, num_elements=20_000, rng=self._rng)
        jobs = [call.submit(member) for member in self.pair]
        self.cluster.run(jobs, limit_s=self.now_s + 1.0)
        for rank in (0, 1):
            jobs[rank].wait(0)
            call.check(rank)


def assert_names_the_victim(error: BaseException | None) -> None:
    assert isinstance(error, PeerError), error
    assert (error.rank, error.host) == (VICTIM, f"host{VICTIM}"), error


def num_events(algorithm: Algorithm, num_elements: int) -> int:
    """How many frames the victim sends and receives when all goes well."""
    trial = Trial(algorithm, num_elements, fault=None)
    jobs = trial.run(within_s=1.0)
    trial.cluster.run(jobs)
    return trial.cluster.network.num_events(VICTIM)


@pytest.mark.parametrize("num_elements", [64, 60_000])
@pytest.mark.parametrize("fault", [Kill, Silence])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=name_of)
def test_a_rank_is_gone_from_any_step_on(
    algorithm: Algorithm, fault: Callable[[int, int], Rule], num_elements: int
) -> None:
    within_s = 1.0 if fault is Kill else 1.5 * HEARTBEAT_S
    for event in range(1, num_events(algorithm, num_elements) + 1):
        trial = Trial(algorithm, num_elements, fault(VICTIM, event))
        jobs = trial.run(within_s)
        trial.check_survivors(jobs)
        trial.let_the_news_spread(within_s)
        trial.check_later_calls_fail(within_s)
        trial.check_the_pair_is_undisturbed()


class NotesDepartures(Rule):
    """Lets everything pass, and notes as which events of the victim frames leave it."""

    def __init__(self) -> None:
        self.events: list[int] = []

    def judge_frame(self, flight: Flight) -> Verdict:
        if flight.source == VICTIM and flight.header is not None:
            self.events.append(flight.event)
        return PASS


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=name_of)
def test_a_connection_breaks_at_any_step(algorithm: Algorithm) -> None:
    """Nobody has died, but two ranks cannot reach each other: their group ends, on all ranks, and no other."""
    num_elements = 60_000
    notes = NotesDepartures()
    Trial(algorithm, num_elements, notes).run(within_s=1.0)
    for event in notes.events:
        trial = Trial(algorithm, num_elements, Reset(VICTIM, event))
        trial.run(within_s=1.0)
        trial.let_the_news_spread(within_s=1.0)
        later = [trial.call.submit(member) for member in trial.everybody]
        ends_within(trial.cluster, later, 1.0)
        for job in later:
            assert isinstance(job.exception(), PeerError)
        trial.check_the_pair_is_undisturbed()


def ends_within(cluster: SimulatedCluster, jobs: list[Job], seconds: float) -> None:
    cluster.run(jobs, limit_s=cluster.network.clock.now_s() + seconds)


def watched_cluster(num_ranks: int, rng: np.random.Generator) -> SimulatedCluster:
    cluster = SimulatedCluster(num_ranks, rng, PROFILE, RuntimeConfig(heartbeat_s=HEARTBEAT_S))
    cluster.watch()
    return cluster


def all_reduce(num_ranks: int, rng: np.random.Generator, num_elements: int = 1000) -> CollectiveCall:
    return CollectiveCall(CollectiveKind.ALL_REDUCE, num_ranks, num_elements, rng)


def test_both_sides_of_a_partition_end_and_live_on_apart() -> None:
    rng = np.random.default_rng(0)
    cluster = watched_cluster(4, rng)
    everybody = cluster.group(range(4), group_id=1)
    sides = [cluster.group([0, 1], group_id=2), cluster.group([2, 3], group_id=3)]
    cluster.network.install(Partition([0, 1], [2, 3]))
    jobs = [all_reduce(4, rng).submit(member) for member in everybody]
    ends_within(cluster, jobs, 1.5 * HEARTBEAT_S)
    for rank, job in enumerate(jobs):
        error = job.exception()
        assert isinstance(error, PeerError)
        assert (error.rank < 2) != (rank < 2), "the lost rank is on the other side"
    for side in sides:
        call = all_reduce(2, rng)
        jobs = [call.submit(member) for member in side]
        ends_within(cluster, jobs, 1.0)
        for rank, job in enumerate(jobs):
            job.wait(0)
            call.check(rank)


def test_a_rank_that_is_heard_by_nobody_learns_it_too() -> None:
    rng = np.random.default_rng(0)
    cluster = watched_cluster(4, rng)
    cluster.network.install(PartitionOneWay([VICTIM], SURVIVORS))
    members = cluster.group(range(4))
    jobs = [all_reduce(4, rng).submit(member) for member in members]
    ends_within(cluster, jobs[:VICTIM], 1.5 * HEARTBEAT_S)
    for job in jobs[:VICTIM]:
        assert_names_the_victim(job.exception())
    later = all_reduce(4, rng).submit(members[VICTIM])
    ends_within(cluster, [later], 1.5 * HEARTBEAT_S)
    assert isinstance(later.exception(), PeerError)


def test_a_rank_that_closes_fails_those_who_still_need_it() -> None:
    rng = np.random.default_rng(0)
    cluster = watched_cluster(4, rng)
    everybody = cluster.group(range(4))
    call = all_reduce(4, rng)
    jobs = [call.submit(member) for member in everybody]
    ends_within(cluster, jobs, 1.0)
    late = all_reduce(4, rng)
    jobs = [late.submit(member) for member in everybody[:VICTIM]]
    cluster.endpoints[VICTIM].close()
    ends_within(cluster, jobs, 1.0)
    for job in jobs:
        assert_names_the_victim(job.exception())


def test_every_pending_operation_ends() -> None:
    """Collectives, messages, and receives from any rank: all of them, whether they involve the victim or not."""
    rng = np.random.default_rng(0)
    cluster = watched_cluster(4, rng)
    first, *_ = members = cluster.group(range(4))
    calls = [all_reduce(4, rng, num_elements) for num_elements in (10, 100_000, 5_000_000)]
    jobs = [call.submit(member) for call in calls for member in members]
    victims = jobs[VICTIM :: len(members)]
    pending = [job for job in jobs if job not in victims]
    pending.append(first.recv(np.zeros(5, np.float32), VICTIM, 0, FLOAT32))
    pending.append(first.recv(np.zeros(5, np.float32), None, 1, FLOAT32))
    pending.append(first.send(np.zeros(100_000, np.float32), VICTIM, 2, FLOAT32))
    cluster.network.install(Kill(VICTIM, event=20))
    ends_within(cluster, pending, 1.0)
    assert_names_the_victim(pending[-1].exception())
    assert_names_the_victim(pending[-2].exception())
    assert_names_the_victim(pending[-3].exception())


@pytest.mark.parametrize("seed", range(60))
def test_random_faults_never_hang_anybody(seed: int) -> None:
    """Five ranks, ten collectives in flight, a fault drawn from the seed: every rank that runs gets an answer."""
    rng = np.random.default_rng(seed)
    cluster = watched_cluster(5, rng)
    members = cluster.group(range(5))
    cluster.network.install(random_fault(rng, num_endpoints=5, num_events=80))
    calls = [
        CollectiveCall(KINDS[rng.integers(len(KINDS))], 5, int(10 ** rng.uniform(0, 5)), rng)
        for _ in range(10)
    ]
    jobs = {
        (index, member.rank): call.submit(member) for index, call in enumerate(calls) for member in members
    }

    def runs(rank: int) -> bool:
        return cluster.network.endpoints[rank].alive and not cluster.network.is_stopped(rank)

    cluster.network.run(
        until=lambda: all(job.done() for (_, rank), job in jobs.items() if runs(rank)),
        limit_s=4 * HEARTBEAT_S,
    )
    for (index, rank), job in jobs.items():
        if runs(rank) and job.exception() is None:
            calls[index].check(rank)
        elif runs(rank):
            assert isinstance(job.exception(), PeerError)
