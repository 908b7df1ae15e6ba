"""The conformance kit of algorithms: what every generator of schedules must pass, ours or anybody's.

``check_algorithm`` holds an algorithm to its word for many numbers of ranks; ``check_schedule`` holds one schedule to
its collective's promise. Both raise ``ScheduleError`` or ``AssertionError`` with the first thing that is wrong.

Each schedule is proved, and then run by the interpreter in random orders: integers must come out exactly as
NumPy adds them up, and floats with the same bytes in every run, on all ranks of an all_reduce. Where the schedule
encodes, integers survive that whole, and every encode of floats loses something of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.check import Proof, prove
from thinwire.collective.conditions import Extent, extents, postcondition, precondition
from thinwire.collective.interpret import Array, Contributions, Interpreter, Memory
from thinwire.collective.schedule import CollectiveKind, Schedule, chunk_bounds

NUM_RANKS = (*range(1, 10), 16, 17)


def check_algorithm(algorithm: Algorithm, num_ranks: Iterable[int] = NUM_RANKS, *, seed: int = 0) -> None:
    """Check an algorithm with all its ``example_params``, from every end of the ranks if it has a root.

    Beside what ``check_schedule`` checks, steps, bytes and encodes must be as the algorithm says.

    Args:
        num_ranks: for how many ranks; send_recv is checked for 2.
        seed: of the sizes, the data and the orders.

    >>> from thinwire.collective import find_algorithm
    >>> check_algorithm(find_algorithm("all_reduce", "ring"), num_ranks=[1, 2, 3])
    """
    rng = np.random.default_rng(seed)
    for count in [2] if algorithm.kind is CollectiveKind.SEND_RECV else num_ranks:
        for params in algorithm.example_params(count):
            for root in {0, count // 2, count - 1} if algorithm.is_rooted else {0}:
                rooted = {"root": root} if algorithm.is_rooted else {}
                schedule = algorithm.generate(count, **params, **rooted)
                proof = check_schedule(schedule, rng, num_elements=int(rng.integers(200)))
                assert schedule.even_blocks == algorithm.even_blocks, f"{schedule}: even_blocks differs"
                steps, sent = algorithm.steps(count, **params), algorithm.bytes_sent_fraction(count, **params)
                assert proof.steps == steps, f"{schedule} takes {proof.steps} steps, by its formula {steps}"
                encodes = algorithm.encodes if count > 1 else 0
                assert proof.num_encodes == encodes, (
                    f"{schedule} encodes {proof.num_encodes} times, not {encodes}"
                )
                assert proof.bytes_sent_fraction == sent, (
                    f"{schedule} sends {proof.bytes_sent_fraction} of the data, by its formula {sent}"
                )


def check_schedule(
    schedule: Schedule, rng: np.random.Generator, *, num_elements: int = 100, num_orders: int = 2
) -> Proof:
    """Prove a schedule under the smallest window, run it in some orders, and compare with NumPy.

    Args:
        num_elements: of in-place data; blocks have random sizes up to this, one size if the schedule needs it.
        num_orders: how many runs for integers, and how many for floats.
    """
    proof = prove(schedule, window=1)
    interpreter = Interpreter(schedule)
    whole = contributions(schedule, rng, num_elements, np.int64)
    for _ in range(num_orders):
        _check_sums(schedule, interpreter.run(whole, rng), whole)
    narrow = contributions(schedule, rng, num_elements, np.float16)
    interpreter = Interpreter(schedule, accumulation=np.float32, encode=lose_something)
    _check_same_bytes(schedule, [interpreter.run(narrow, rng) for _ in range(num_orders)])
    return proof


def lose_something(values: Array, encode: int) -> Array:
    """What a lossy encode might leave of floats: another thing for each number, the same for the same."""
    rng = np.random.default_rng(encode)
    return (values * rng.uniform(0.5, 1.5, values.size)).astype(values.dtype)


def contributions(
    schedule: Schedule, rng: np.random.Generator, num_elements: int, dtype: DTypeLike
) -> Contributions:
    """Random data for every rank's chunks and blocks; see ``check_schedule`` for their sizes."""
    bounds = chunk_bounds(num_elements, schedule.weights) if sum(schedule.weights) else [0]
    sizes: dict[Extent, int] = {
        Extent("chunk", chunk): end - begin for chunk, (begin, end) in enumerate(pairwise(bounds))
    }

    def draw(size: int) -> Array:
        if np.issubdtype(dtype, np.integer):
            return rng.integers(-(2**40), 2**40, size, dtype)
        return rng.standard_normal(size).astype(dtype)

    found = {}
    for rank in range(schedule.num_ranks):
        own = extents(schedule, rank)
        for ref, chunk in precondition(schedule.collective, rank).items():
            size = sizes.setdefault(own[ref], int(rng.integers(num_elements + 1)))
            found[rank, chunk] = draw(size)
    return found


def _check_sums(schedule: Schedule, memory: list[Memory], start: Contributions) -> None:
    for rank, own in enumerate(memory):
        for ref, (ranks, chunk) in postcondition(schedule.collective, rank).items():
            expected = reduce(np.add, [start[origin, chunk] for origin in ranks])
            if expected.size:
                assert np.array_equal(own[ref], expected), f"{schedule}: rank {rank} ends with a wrong {ref}"


def _check_same_bytes(schedule: Schedule, runs: list[list[Memory]]) -> None:
    collective = schedule.collective
    first = runs[0]
    for memory in runs:
        for rank, own in enumerate(memory):
            like = first[0 if collective.kind == CollectiveKind.ALL_REDUCE else rank]
            for ref in postcondition(collective, rank).keys() & like.keys():
                assert own[ref].tobytes() == like[ref].tobytes(), (
                    f"{schedule}: {ref} has other bytes on rank {rank}, or in another order"
                )
