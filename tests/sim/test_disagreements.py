"""Ranks that call different things, one that never calls, and one that gives up: everybody is told, and told why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from thinwire.errors import AbortedError, CollectiveTimeoutError, MismatchError
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES, ReduceOp
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster

FLOAT32, INT32 = DTYPES["float32"], DTYPES["int32"]
NUM_RANKS = 3
Make = Callable[[Communicator], Job]


def cluster_and_members(timeout_s: float = 1000.0) -> tuple[SimulatedCluster, list[Communicator]]:
    cluster = SimulatedCluster(
        NUM_RANKS, np.random.default_rng(0), LinkProfile(latency_s=0.001, jitter_s=0.001, lanes=2)
    )
    cluster.watch()
    return cluster, cluster.group(range(NUM_RANKS), timeout_s=timeout_s)


def all_reduce(num_elements: int, op: ReduceOp = ReduceOp.SUM, algorithm: str | None = None) -> Make:
    options = CallOptions(algorithm=algorithm)
    return lambda member: member.all_reduce(np.zeros(num_elements, np.float32), op, FLOAT32, options=options)


def broadcast(num_elements: int, root: int) -> Make:
    return lambda member: member.broadcast(np.zeros(num_elements, np.float32), root, FLOAT32)


def reduce(num_elements: int, root: int) -> Make:
    return lambda member: member.reduce(np.zeros(num_elements, np.float32), root, ReduceOp.SUM, FLOAT32)


def all_gather(num_elements: int) -> Make:
    return lambda member: member.all_gather(
        np.zeros(num_elements, np.float32),
        [np.zeros(num_elements, np.float32) for _ in range(NUM_RANKS)],
        FLOAT32,
    )


def integers(num_elements: int) -> Make:
    return lambda member: member.all_reduce(np.zeros(num_elements, np.int32), ReduceOp.SUM, INT32)


DISAGREEMENTS: dict[str, tuple[Make, Make, str, str]] = {
    "collective": (all_reduce(10), all_gather(10), "all_reduce", "all_gather"),
    "size": (all_reduce(10), all_reduce(11), "float32[10]", "float32[11]"),
    "large size": (all_reduce(100_000), all_reduce(100_001), "float32[100000]", "float32[100001]"),
    "small and large": (all_reduce(10), all_reduce(1_000_000), "float32[10]", "float32[1000000]"),
    "type": (all_reduce(10), integers(10), "float32[10]", "int32[10]"),
    "reduction": (all_reduce(10), all_reduce(10, ReduceOp.MAX), "sum", "max"),
    "root": (broadcast(10, 0), broadcast(10, 1), "root=0", "root=1"),
    "root of something large": (broadcast(100_000, 0), broadcast(100_000, 1), "root=0", "root=1"),
    "direction": (broadcast(10, 0), reduce(10, 0), "broadcast", "reduce"),
    "algorithm": (
        all_reduce(10, algorithm="ring"),
        all_reduce(10, algorithm="direct"),
        "by ring",
        "by direct",
    ),
}


@pytest.mark.parametrize("odd_one", range(NUM_RANKS))
@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_everybody_hears_both_sides(name: str, odd_one: int) -> None:
    usual, odd, usual_words, odd_words = DISAGREEMENTS[name]
    cluster, members = cluster_and_members()
    jobs = [(odd if member.rank == odd_one else usual)(member) for member in members]
    cluster.network.run(until=lambda: all(member.error for member in members), limit_s=5.0)
    for member, job in zip(members, jobs, strict=True):
        assert job.done()
        error = member.error
        assert isinstance(error, MismatchError), error
        assert f"rank {odd_one} on host{odd_one} called" in str(error)
        assert usual_words in str(error)
        assert odd_words in str(error)


def test_a_message_of_another_size_is_a_mismatch_at_both_ends() -> None:
    cluster, members = cluster_and_members()
    jobs = [
        members[0].send(np.zeros(10, np.float32), 1, 0, FLOAT32),
        members[1].recv(np.zeros(11, np.float32), 0, 0, FLOAT32),
    ]
    cluster.run(jobs[1:], limit_s=5.0)
    assert isinstance(jobs[1].exception(), MismatchError)
    cluster.network.run(until=lambda: members[0].error is not None, limit_s=10.0)
    assert isinstance(members[0].error, MismatchError)
    assert "float32[10]" in str(members[0].error)
    assert "float32[11]" in str(members[0].error)


def test_a_rank_that_never_calls_is_named() -> None:
    cluster, members = cluster_and_members(timeout_s=30.0)
    jobs = [all_reduce(10, algorithm="direct")(member) for member in members[:2]]
    cluster.run(jobs, limit_s=35.0)
    errors = [job.exception() for job in jobs]
    assert any(isinstance(error, CollectiveTimeoutError) for error in errors)
    assert all("rank 2 (host2)" in str(error) for error in errors)
    late = all_reduce(10)(members[2])
    cluster.run([late], limit_s=40.0)
    assert isinstance(late.exception(), AbortedError)


def test_who_aborts_a_group_ends_it_for_all() -> None:
    cluster, members = cluster_and_members()
    jobs = [all_reduce(10)(member) for member in members[:2]]
    members[2].abort("the script raised ZeroDivisionError")
    cluster.run(jobs, limit_s=1.0)
    for job in jobs:
        error = job.exception()
        assert isinstance(error, AbortedError)
        assert "rank 2 on host2 gave up: the script raised ZeroDivisionError" in str(error)
