"""Collectives whose data travels encoded: the same bytes everywhere and every time, nothing lost with a memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.codecs import Counting, Deflated, Garbling, Half, Noisy
from tests.sim.test_collectives import random_cluster, run
from thinwire.codec.base import Codec
from thinwire.errors import CodecError, MismatchError, PeerError, UsageError
from thinwire.protocol.frame import HEADER_BYTES
from thinwire.runtime.codec_memory import CodecMemory
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.inbox import ALLOWANCE_BYTES
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES, Array, ReduceOp
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster

FLOAT32 = DTYPES["float32"]
NUM_RANKS = 4
SIZES = (0, 1, 37, 5_000, 150_000)


def cluster_and_members(
    num_ranks: int = NUM_RANKS, seed: int = 0
) -> tuple[SimulatedCluster, list[Communicator]]:
    cluster = random_cluster(num_ranks, np.random.default_rng(seed))
    return cluster, cluster.group(range(num_ranks))


def draw(num_elements: int, num_ranks: int = NUM_RANKS, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(num_elements).astype(np.float32) for _ in range(num_ranks)]


def submit(
    members: list[Communicator],
    arrays: list[Array],
    codec: Codec,
    memories: list[CodecMemory] | None = None,
    *,
    average: bool = False,
) -> list[Job]:
    options = CallOptions(codec=codec)
    return [
        member.all_reduce(
            array,
            ReduceOp.SUM,
            FLOAT32,
            average=average,
            options=options if memories is None else CallOptions(codec=codec, memory=memories[rank]["x"]),
        )
        for rank, (member, array) in enumerate(zip(members, arrays, strict=True))
    ]


@pytest.mark.parametrize("codec", [Half(), Noisy(), Deflated(), Counting()], ids=str)
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 8])
def test_the_network_does_not_change_the_bytes(codec: Codec, num_ranks: int) -> None:
    results = []
    for seed in range(3):
        cluster, members = cluster_and_members(num_ranks, seed)
        for num_elements in SIZES:
            arrays = draw(num_elements, num_ranks)
            run(cluster, submit(members, arrays, codec))
            assert len({array.tobytes() for array in arrays}) == 1, "replicas differ"
            results.append(arrays[0].tobytes())
    assert results == 3 * results[: len(SIZES)]


def test_every_encode_draws_anew() -> None:
    cluster, members = cluster_and_members()
    results = []
    for _ in range(2):
        arrays = [np.zeros(60_000, np.float32) for _ in range(NUM_RANKS)]
        run(cluster, submit(members, arrays, Noisy()))
        results.append(arrays[0])
    assert np.unique(results[0]).size > 0.99 * results[0].size, "two segments, or ranks, drew the same"
    assert not np.array_equal(results[0], results[1]), "two calls drew the same"


@pytest.mark.parametrize("average", [False, True])
def test_with_a_memory_nothing_is_lost(average: bool) -> None:
    """What came out, and what is still owed, is what went in: whatever the codec of each step."""
    num_elements, cut = 10_001, []
    cluster, members = cluster_and_members()
    memories = [CodecMemory() for _ in members]
    put_in, came_out = np.zeros(num_elements), np.zeros(num_elements)
    for step, codec in enumerate([Noisy(0.5), Half(), Noisy(2.0), Deflated(), Noisy(1.0)]):
        arrays = draw(num_elements, seed=step)
        put_in += np.sum(arrays, axis=0, dtype=np.float64)
        run(cluster, submit(members, arrays, codec, memories, average=average))
        came_out += arrays[0] * (NUM_RANKS if average else 1)
        owed = np.sum([memory["x"].residual for memory in memories], axis=0, dtype=np.float64)
        np.testing.assert_allclose(came_out + owed, put_in, atol=1e-4)
        cut.append(float(np.abs(came_out - put_in).max()))
    assert max(cut) > 0.1, "the codecs lose too little for this to show anything"


def test_with_a_memory_a_scatter_of_sums_loses_nothing_either() -> None:
    """Only contributions to others are encoded: what a rank owes lies in their blocks, and nothing in its own."""
    sizes, steps = (3001, 0, 2500, 4503), [Noisy(0.5), Half(), Noisy(2.0)]
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    cluster, members = cluster_and_members()
    memories = [CodecMemory() for _ in members]
    put_in, came_out = np.zeros(bounds[-1]), np.zeros(bounds[-1])
    for step, codec in enumerate(steps):
        arrays = draw(int(bounds[-1]), seed=step)
        put_in += np.sum(arrays, axis=0, dtype=np.float64)
        outputs = [np.empty(size, np.float32) for size in sizes]
        jobs = [
            member.reduce_scatter(
                np.split(arrays[rank], bounds[1:-1]),
                outputs[rank],
                ReduceOp.SUM,
                FLOAT32,
                options=CallOptions(codec=codec, memory=memories[rank]["x"]),
            )
            for rank, member in enumerate(members)
        ]
        run(cluster, jobs)
        came_out += np.concatenate(outputs)
        residuals = [memory["x"].residual for memory in memories]
        np.testing.assert_allclose(came_out + np.sum(residuals, axis=0, dtype=np.float64), put_in, atol=1e-4)
    for rank, residual in enumerate(residuals):
        assert not residual[bounds[rank] : bounds[rank + 1]].any()
    assert np.abs(came_out - put_in).max() > 0.1, "the codecs lose too little for this to show anything"


@pytest.mark.parametrize("codec", [Noisy(), Counting()], ids=str)
def test_a_restored_memory_goes_on_with_the_same_bytes(codec: Codec) -> None:
    def steps(begin: int, end: int, memories: list[CodecMemory]) -> list[bytes]:
        cluster, members = cluster_and_members(seed=begin)
        results = []
        for step in range(begin, end):
            arrays = draw(40_000, seed=step)
            run(cluster, submit(members, arrays, codec, memories))
            results.append(arrays[0].tobytes())
        return results

    whole = steps(0, 4, [CodecMemory() for _ in range(NUM_RANKS)])
    first = [CodecMemory() for _ in range(NUM_RANKS)]
    before = steps(0, 2, first)
    second = [CodecMemory() for _ in range(NUM_RANKS)]
    for memory, saved in zip(second, first, strict=True):
        memory.load_state_dict(saved.state_dict())
    assert before + steps(2, 4, second) == whole


def test_what_is_not_finite_is_not_remembered() -> None:
    cluster, members = cluster_and_members()
    memories = [CodecMemory() for _ in members]
    arrays = draw(1000)
    arrays[1][::7] = np.inf
    with np.errstate(all="ignore"):
        run(cluster, submit(members, arrays, Half(), memories))
    assert np.isinf(arrays[0][::7]).all()
    arrays = draw(1000)
    expected = np.sum(arrays, axis=0)
    run(cluster, submit(members, arrays, Half(), memories))
    np.testing.assert_allclose(arrays[0], expected, atol=0.05)


def test_a_memory_serves_one_operation_at_a_time() -> None:
    cluster, members = cluster_and_members()
    memories = [CodecMemory() for _ in members]
    jobs = submit(members, draw(100), Half(), memories)
    with pytest.raises(UsageError, match="'x' has not ended"):
        submit(members, draw(100), Half(), memories)
    with pytest.raises(UsageError, match="cannot be saved"):
        memories[0].state_dict()
    with pytest.raises(UsageError, match="cannot be reset"):
        memories[0].reset()
    run(cluster, jobs)
    memories[0].reset()
    assert not len(memories[0])
    with pytest.raises(UsageError, match="not the saved state"):
        memories[0].load_state_dict({"x": {"num_calls": 1}})


@pytest.mark.parametrize("num_elements", [100, 200_000])
@pytest.mark.parametrize("how", ["short", "long"])
@pytest.mark.parametrize("culprit", range(3))
def test_who_sends_what_cannot_be_decoded_is_named_on_all_ranks(
    culprit: int, how: str, num_elements: int
) -> None:
    cluster, members = cluster_and_members(3)
    cluster.watch()
    jobs = [
        submit([member], [array], Garbling(how if member.rank == culprit else ""))[0]
        for member, array in zip(members, draw(num_elements, 3), strict=True)
    ]
    cluster.network.run(until=lambda: all(member.error for member in members), limit_s=5.0)
    for member, job in zip(members, jobs, strict=True):
        assert job.done()
        if member.rank == culprit and isinstance(member.error, CodecError):
            continue  # it came across its own rubbish first
        assert isinstance(member.error, PeerError)
        assert member.error.rank == culprit


def test_a_codec_that_fails_fails_the_group() -> None:
    cluster, members = cluster_and_members(3)
    jobs = [
        submit([member], [array], Garbling("raise" if member.rank == 1 else ""))[0]
        for member, array in zip(members, draw(1000, 3), strict=True)
    ]
    cluster.network.run(until=lambda: all(member.error for member in members), limit_s=5.0)
    assert all(job.done() for job in jobs)
    assert isinstance(members[1].error, CodecError)
    for rank in (0, 2):
        assert isinstance(members[rank].error, PeerError)
        assert "rank 1 on host1: its codec failed: ZeroDivisionError" in str(members[rank].error)


def test_ranks_with_different_codecs_disagree() -> None:
    cluster, members = cluster_and_members(3)
    cluster.watch()
    for member, array in zip(members, draw(100, 3), strict=True):
        submit([member], [array], Noisy(0.5 if member.rank == 2 else 0.25))
    cluster.network.run(until=lambda: all(member.error for member in members), limit_s=5.0)
    for member in members:
        assert isinstance(member.error, MismatchError)
        assert "noisy(scale=0.5)" in str(member.error)
        assert "noisy(scale=0.25)" in str(member.error)


def test_a_codec_against_none_is_a_disagreement() -> None:
    cluster, members = cluster_and_members(2)
    cluster.watch()
    submit(members[:1], draw(100, 1), Half())
    members[1].all_reduce(draw(100, 1)[0], ReduceOp.SUM, FLOAT32)
    cluster.network.run(until=lambda: all(member.error for member in members), limit_s=5.0)
    assert all(isinstance(member.error, MismatchError) for member in members)


def test_payloads_shorter_than_their_bound_do_not_use_up_the_allowance() -> None:
    cluster, members = cluster_and_members(2)
    for _ in range(100):
        run(cluster, submit(members, [np.zeros(1000, np.float32) for _ in range(2)], Deflated()))
    left = [
        cluster.endpoints[rank].allowances.left(cluster.endpoints[1 - rank].contact.endpoint)
        for rank in (0, 1)
    ]
    assert min(left) > ALLOWANCE_BYTES // 2


def test_it_is_payloads_that_travel() -> None:
    num_elements = 400_000
    cluster = SimulatedCluster(2, np.random.default_rng(0), LinkProfile(bandwidth_bytes_per_s=1e6))
    members = cluster.group(range(2))
    run(cluster, submit(members, [np.zeros(num_elements, np.float32) for _ in range(2)], Half()))
    # Each rank sends half the contributions and half the sum, two bytes an element; some headers come on top.
    took_s = cluster.network.clock.now_s()
    payload_s = num_elements * 2 / 1e6
    assert payload_s < took_s < payload_s * 1.01 + 100 * HEADER_BYTES / 1e6


def test_equal_codecs_are_equal_calls() -> None:
    """The plan is looked up by value: another instance of the same codec finds it."""
    assert Noisy(0.5) == replace(Noisy(0.25), scale=0.5)
    cluster, members = cluster_and_members(2)
    arrays = draw(100, 2)
    jobs = [submit([member], [array], Noisy(0.5))[0] for member, array in zip(members, arrays, strict=True)]
    run(cluster, jobs)
