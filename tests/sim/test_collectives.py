"""Every collective by every algorithm, over links of random speed that reorder frames, against NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.sim.calls import FLOAT32, KINDS, MAY_BE_UNEVEN, CollectiveCall, codec_for
from thinwire.collective.algorithms import algorithms, algorithms_for
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.schedule import CollectiveKind
from thinwire.errors import StalledError
from thinwire.protocol.frame import HEADER_BYTES
from thinwire.runtime.job import Job
from thinwire.runtime.link_watch import LinkWatch
from thinwire.runtime.runs import Pace
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster

ALGORITHMS = [found for found in algorithms() if found.kind is not CollectiveKind.SEND_RECV]
REDUCTIONS = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE, CollectiveKind.REDUCE_SCATTER)
SIZES = (0, 1, 37, 5_000, 150_000)  # elements; the last is beyond what is sent without a grant


def name_of(found: Algorithm) -> str:
    return f"{found.kind}-{found.name}"


def random_cluster(num_ranks: int, rng: np.random.Generator) -> SimulatedCluster:
    """Ranks between which every directed link has its own speed, latency, jitter and number of lanes."""
    cluster = SimulatedCluster(num_ranks, rng)
    for source in range(num_ranks):
        for target in range(num_ranks):
            profile = LinkProfile(
                latency_s=float(10 ** rng.uniform(-5, -1)),
                bandwidth_bytes_per_s=float(10 ** rng.uniform(6, 10)),
                jitter_s=float(10 ** rng.uniform(-5, -1)),
                lanes=int(rng.integers(1, 4)),
            )
            cluster.network.shape(source, target, profile)
    return cluster


def run(cluster: SimulatedCluster, jobs: list[Job]) -> None:
    """Run to the end, and raise what went wrong."""
    cluster.run(jobs)
    for job in jobs:
        job.wait(0)


def variants(algorithm: Algorithm, num_ranks: int) -> list[str]:
    """The algorithm with each of its example parameters that can be asked for by name."""
    return [
        ":".join([algorithm.name, *(f"{name}={int(value)}" for name, value in params.items())])
        for params in algorithm.example_params(num_ranks)
        if all(isinstance(value, int) for value in params.values())
    ]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=name_of)
def test_every_algorithm(algorithm: Algorithm, num_ranks: int) -> None:
    rng = np.random.default_rng([num_ranks, len(algorithm.name)])
    cluster = random_cluster(num_ranks, rng)
    members = cluster.group(range(num_ranks))
    can_be_uneven = algorithm.kind in MAY_BE_UNEVEN and not algorithm.even_blocks
    shapes = product(SIZES, (True, False) if can_be_uneven else (True,), variants(algorithm, num_ranks))
    for num_elements, even, variant in shapes:
        call = CollectiveCall(
            kind=algorithm.kind,
            num_ranks=num_ranks,
            num_elements=num_elements,
            rng=rng,
            root=int(rng.integers(num_ranks)),
            even=even,
            algorithm=variant,
            codec=codec_for(algorithm),
        )
        run(cluster, [call.submit(member) for member in members])
        for rank in range(num_ranks):
            call.check(rank)


def test_tiles_of_a_large_collective_follow_each_other() -> None:
    """40 MB are three tiles, of which two are in flight."""
    rng = np.random.default_rng(0)
    cluster = random_cluster(2, rng)
    call = CollectiveCall(kind=CollectiveKind.ALL_REDUCE, num_ranks=2, num_elements=10_000_000, rng=rng)
    run(cluster, [call.submit(member) for member in cluster.group(range(2))])
    for rank in range(2):
        call.check(rank)


@pytest.mark.parametrize("seed", range(10))
def test_many_collectives_of_several_groups_in_flight(seed: int) -> None:
    """Thirty calls on three groups that share ranks, all submitted before time begins to pass."""
    rng = np.random.default_rng(seed)
    cluster = random_cluster(4, rng)
    groups = [
        cluster.group(ranks, group_id) for group_id, ranks in enumerate([[0, 1, 2, 3], [3, 1], [0, 2, 3]])
    ]
    jobs: list[Job] = []
    calls: list[CollectiveCall] = []
    for _ in range(30):
        members = groups[rng.integers(len(groups))]
        call = CollectiveCall(
            kind=KINDS[rng.integers(len(KINDS))],
            num_ranks=len(members),
            num_elements=int(10 ** rng.uniform(0, 5)),
            rng=rng,
            root=int(rng.integers(len(members))),
        )
        calls.append(call)
        jobs += [call.submit(member) for member in members]
    run(cluster, jobs)
    for call in calls:
        for rank in range(call.num_ranks):
            call.check(rank)


@pytest.mark.parametrize(
    "algorithm", [found for found in ALGORITHMS if found.kind in REDUCTIONS], ids=name_of
)
def test_the_network_does_not_change_the_bytes(algorithm: Algorithm) -> None:
    """Rounding depends on the order of adding; the order must depend on the plan alone, not on who is faster."""
    results = []
    for seed in range(4):
        cluster = random_cluster(5, np.random.default_rng(seed))
        call = CollectiveCall(
            algorithm.kind,
            5,
            20_000,
            np.random.default_rng(99),
            algorithm=algorithm.name,
            codec=codec_for(algorithm),
        )
        for blocks in call.inputs:
            for block in blocks:
                block *= np.float32(0.1)
        run(cluster, [call.submit(member) for member in cluster.group(range(5))])
        results.append(
            [array.tobytes() for rank in range(5) if call.expected(rank) for array in call.found[rank]]
        )
    assert all(result == results[0] for result in results)
    if algorithm.kind is CollectiveKind.ALL_REDUCE:
        assert len(set(results[0])) == 1


def test_a_barrier_holds_until_the_last_rank_comes() -> None:
    for algorithm in algorithms_for(CollectiveKind.BARRIER):
        cluster = random_cluster(5, np.random.default_rng(0))
        call = CollectiveCall(
            CollectiveKind.BARRIER, 5, 0, np.random.default_rng(0), algorithm=algorithm.name
        )
        *early, last = cluster.group(range(5))
        jobs = [call.submit(member) for member in early]
        with pytest.raises(StalledError):
            cluster.run(jobs)
        assert not any(job.done() for job in jobs)
        run(cluster, [*jobs, call.submit(last)])


@pytest.mark.parametrize("seed", range(5))
def test_messages_arrive_in_the_order_of_their_tag(seed: int) -> None:
    """Sends and receives of several tags and sizes, from named ranks: the k-th of a tag meets the k-th."""
    rng = np.random.default_rng(seed)
    cluster = random_cluster(3, rng)
    members = cluster.group(range(3))
    sent, received, jobs = [], [], list[Job]()
    for number in range(40):
        source, target = (int(rank) for rank in rng.choice(3, 2, replace=False))
        data = np.full(int(10 ** rng.uniform(0, 5)), number, np.float32)
        tag = number % 2
        sent.append((source, target, tag, data))
        jobs.append(members[source].send(data, target, tag, FLOAT32))
    for source, target, tag, data in sent:
        received.append(np.zeros_like(data))
        jobs.append(members[target].recv(received[-1], source, tag, FLOAT32))
    run(cluster, jobs)
    for (_, _, _, data), found in zip(sent, received, strict=True):
        np.testing.assert_array_equal(found, data)


@pytest.mark.parametrize("num_elements", [10, 100_000])
def test_receiving_from_any_rank_says_from_whom(num_elements: int) -> None:
    cluster = random_cluster(4, np.random.default_rng(0))
    members = cluster.group(range(4))
    found = [np.zeros(num_elements, np.float32) for _ in range(3)]
    receives = [members[0].recv(array, None, 5, FLOAT32) for array in found]
    sends = [members[rank].send(np.full(num_elements, rank, np.float32), 0, 5, FLOAT32) for rank in (1, 2, 3)]
    run(cluster, [*receives, *sends])
    assert sorted(job.source for job in receives) == [1, 2, 3]
    for array, job in zip(found, receives, strict=True):
        np.testing.assert_array_equal(array, job.source)


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if not each.encodes], ids=name_of)
def test_frames_of_any_number_of_segments(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank takes each link for as fast as it likes, and for something else at each frame."""
    rng = np.random.default_rng(len(algorithm.name))
    monkeypatch.setattr(LinkWatch, "pace", lambda self, peer: Pace(float(10 ** rng.uniform(5, 10))))
    cluster = random_cluster(4, rng)
    members = cluster.group(range(4))
    for variant in variants(algorithm, 4):
        call = CollectiveCall(
            kind=algorithm.kind, num_ranks=4, num_elements=400_000, rng=rng, algorithm=variant
        )
        run(cluster, [call.submit(member) for member in members])
        for rank in range(4):
            call.check(rank)


def test_a_fast_link_carries_the_same_bytes_in_fewer_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def frames_and_bytes(pace_bytes_per_s: float) -> tuple[int, int]:
        monkeypatch.setattr(LinkWatch, "pace", lambda self, peer: Pace(pace_bytes_per_s))
        rng = np.random.default_rng(0)
        cluster = random_cluster(4, rng)
        call = CollectiveCall(
            kind=CollectiveKind.ALL_REDUCE, num_ranks=4, num_elements=800_000, rng=rng, algorithm="direct"
        )
        run(cluster, [call.submit(member) for member in cluster.group(range(4))])
        carried = [link for endpoint in cluster.endpoints for link in endpoint.carried().values()]
        return sum(link.frames_sent for link in carried), sum(link.bytes_sent for link in carried)

    (many, bytes_of_many), (few, bytes_of_few) = frames_and_bytes(0.0), frames_and_bytes(1e9)
    assert bytes_of_many - bytes_of_few == HEADER_BYTES * (many - few)
    assert few < many / 4
