"""Every reduction on every element type, averages and pre-multiplied sums, against NumPy in float64 or int64."""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
import pytest

from thinwire.collective.algorithms import algorithms
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.schedule import CollectiveKind
from thinwire.errors import UsageError
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES, Array, DType, ReduceOp, narrow, reducer, widen
from thinwire.sim import LinkProfile
from thinwire.sim.cluster import SimulatedCluster

NUM_RANKS = 5
NUM_ELEMENTS = 203
REDUCTIONS = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE, CollectiveKind.REDUCE_SCATTER)
ALGORITHMS = [found for found in algorithms() if found.kind in REDUCTIONS and not found.encodes]
UFUNCS = {
    ReduceOp.SUM: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}
OPS = [(op, dtype) for dtype in DTYPES.values() for op in ReduceOp]


def encode(values: Array, dtype: DType) -> Array:
    """Whole numbers as an array of the type."""
    if not dtype.is_half:
        return values.astype(dtype.storage)
    halves = np.empty(values.size, dtype.storage)
    narrow(halves, values.astype(np.float32), dtype)
    return halves


def decode(array: Array, dtype: DType) -> Array:
    if not dtype.is_half:
        return array
    wide = np.empty(array.size, np.float32)
    widen(wide, array, dtype)
    return wide


def draw(dtype: DType, seed: int = 0) -> list[Array]:
    """For each rank numbers so small that no type overflows and no half rounds."""
    values = np.random.default_rng(seed).integers(0, 3, (NUM_RANKS, NUM_ELEMENTS))
    return [row.astype(bool) if dtype.name == "bool" else row for row in values]


def cluster_and_members() -> tuple[SimulatedCluster, list[Communicator]]:
    profile = LinkProfile(latency_s=0.001, jitter_s=0.001, lanes=2)
    cluster = SimulatedCluster(NUM_RANKS, np.random.default_rng(0), profile)
    return cluster, cluster.group(range(NUM_RANKS))


def run(cluster: SimulatedCluster, jobs: list[Job]) -> None:
    cluster.run(jobs)
    for job in jobs:
        job.wait(0)


@pytest.mark.parametrize(("op", "dtype"), OPS, ids=lambda value: getattr(value, "name", None))
def test_all_reduce(op: ReduceOp, dtype: DType) -> None:
    cluster, members = cluster_and_members()
    values = draw(dtype)
    arrays = [encode(row, dtype) for row in values]
    try:
        reducer(op, dtype)
    except UsageError:
        with pytest.raises(UsageError, match=f"{op} is not defined on {dtype.name}"):
            members[0].all_reduce(arrays[0], op, dtype)
        return
    run(cluster, [member.all_reduce(array, op, dtype) for member, array in zip(members, arrays, strict=True)])
    expected = functools.reduce(UFUNCS[op], values)
    for array in arrays:
        np.testing.assert_array_equal(decode(array, dtype), expected)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int32", "complex64"])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda found: f"{found.kind}-{found.name}")
def test_averages_by_every_algorithm(algorithm: Algorithm, name: str) -> None:
    dtype = DTYPES[name]
    cluster, members = cluster_and_members()
    values = draw(dtype)
    arrays = [encode(row, dtype) for row in values]
    options = CallOptions(algorithm=algorithm.name)
    bounds = [NUM_ELEMENTS * rank // NUM_RANKS for rank in range(NUM_RANKS + 1)]
    total = np.sum(values, axis=0)
    mean = (
        total // NUM_RANKS if dtype.is_integer else encode(total, DTYPES["float32"]) / np.float32(NUM_RANKS)
    )
    expected = decode(encode(mean, dtype), dtype)
    jobs, found, wanted = [], [], []
    for rank, (member, array) in enumerate(zip(members, arrays, strict=True)):
        if algorithm.kind is CollectiveKind.REDUCE_SCATTER:
            blocks = [array[begin:end] for begin, end in pairwise(bounds)]
            output = np.zeros_like(blocks[rank])
            jobs.append(
                member.reduce_scatter(blocks, output, ReduceOp.SUM, dtype, average=True, options=options)
            )
            found.append(output)
            wanted.append(expected[bounds[rank] : bounds[rank + 1]])
        elif algorithm.kind is CollectiveKind.REDUCE:
            jobs.append(member.reduce(array, 2, ReduceOp.SUM, dtype, average=True, options=options))
            found += [array] if rank == 2 else []
            wanted += [expected] if rank == 2 else []
        else:
            jobs.append(member.all_reduce(array, ReduceOp.SUM, dtype, average=True, options=options))
            found.append(array)
            wanted.append(expected)
    run(cluster, jobs)
    for array, result in zip(found, wanted, strict=True):
        np.testing.assert_allclose(decode(array, dtype), result, rtol=0 if dtype.is_half else 3e-7)


def test_a_pre_multiplied_sum() -> None:
    dtype = DTYPES["float32"]
    cluster, members = cluster_and_members()
    values = draw(dtype)
    arrays = [encode(row, dtype) for row in values]
    run(
        cluster,
        [
            member.all_reduce(array, ReduceOp.SUM, dtype, premultiply=0.5)
            for member, array in zip(members, arrays, strict=True)
        ],
    )
    np.testing.assert_array_equal(arrays[0], np.sum(values, axis=0) * 0.5)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_are_rounded_once(name: str) -> None:
    """The table's choice adds halves up in float32: the result is the rounded exact sum, on every rank."""
    dtype = DTYPES[name]
    cluster, members = cluster_and_members()
    rng = np.random.default_rng(1)
    arrays = [encode(rng.standard_normal(20_000), dtype) for _ in range(NUM_RANKS)]
    exact = np.sum([decode(array, dtype).astype(np.float64) for array in arrays], axis=0)
    expected = encode(exact, dtype)
    run(
        cluster,
        [
            member.all_reduce(array, ReduceOp.SUM, dtype)
            for member, array in zip(members, arrays, strict=True)
        ],
    )
    for array in arrays:
        assert array.tobytes() == arrays[0].tobytes()
    assert np.mean(arrays[0] == expected) > 0.999, "only sums that float32 cannot hold may differ"
