"""The conformance kit of algorithms finds what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thinwire.collective import (
    Algorithm,
    Collective,
    CollectiveKind,
    ProgramBuilder,
    Schedule,
    write_schedule,
)
from thinwire.collective.algorithms import ring, star
from thinwire.collective.schedule import data
from thinwire.errors import ScheduleError
from thinwire.testing.algorithms import check_algorithm, check_schedule


def reduction(generate: Callable[..., Schedule], **claims: Any) -> Algorithm:
    """An all_reduce that claims what the star can do, unless said otherwise."""
    formulas: dict[str, Any] = {"steps_formula": lambda p: 2, "bytes_formula": lambda p: p - 1, **claims}
    return Algorithm(name="example", kind=CollectiveKind.ALL_REDUCE, generate=generate, **formulas)


def test_a_right_algorithm_passes() -> None:
    check_algorithm(reduction(lambda num_ranks: star.all_reduce(num_ranks)))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"steps_formula": lambda p: 3}, "takes 2 steps, by its formula 3"),
        ({"bytes_formula": lambda p: 1}, "sends 2 of the data, by its formula 1"),
        ({"even_blocks": True}, "even_blocks differs"),
    ],
)
def test_false_claims_are_found(claim: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(reduction(lambda num_ranks: star.all_reduce(num_ranks), **claim))


def test_an_algorithm_that_fails_for_some_number_of_ranks_is_found() -> None:
    def generate(num_ranks: int) -> Schedule:
        def body(ops: ProgramBuilder) -> None:
            if ops.rank < 4:
                ops.send((ops.rank + 1) % num_ranks, data(0))
                ops.recv_reduce((ops.rank - 1) % num_ranks, data(0))

        collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=1)
        return write_schedule(collective, "example", body)

    with pytest.raises(ScheduleError):
        check_algorithm(reduction(generate))


def test_any_size_is_checked() -> None:
    for num_elements in (0, 1, 2, 1000):
        proof = check_schedule(ring.all_reduce(5), np.random.default_rng(1), num_elements=num_elements)
        assert proof.steps == 8
