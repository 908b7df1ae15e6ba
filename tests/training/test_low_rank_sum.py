"""Averages as thin factors, between ranks that are threads of one process."""

from __future__ import annotations

import numpy as np
import torch

from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.training.low_rank_sum import LowRankSum, pieces_of

RANKS = 3
SHAPES = [("bias", (7,)), ("weight", (20, 30)), ("kernel", (16, 2, 3, 3)), ("small", (2, 3))]
PIECES = pieces_of(SHAPES)
SIZE = PIECES[-1].part.stop
DIM = 2


def averaged(steps: int, gradient_of: object) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """By rank: what it got in each step, and what it owes in the end."""
    assert callable(gradient_of)
    with groups_of(RANKS) as (groups, _):
        group_list = list(groups)
        sums = [LowRankSum(group) for group in group_list]

        def train(rank: int) -> tuple[list[np.ndarray], np.ndarray]:
            residual, got = np.zeros(SIZE, np.float32), []
            for step in range(steps):
                values = torch.from_numpy(gradient_of(rank, step).astype(np.float32))
                sums[rank].average(values, PIECES, DIM, residual).wait()
                got.append(values.numpy().copy())
            return got, residual

        return on_each(list(range(RANKS)), train)


def gradients(rank: int, step: int) -> np.ndarray:
    return np.random.default_rng([rank, step]).standard_normal(SIZE)


def test_all_ranks_get_the_same_bytes_and_what_was_sent_and_is_owed_is_what_went_in() -> None:
    steps = 5
    found = averaged(steps, gradients)
    for got, _ in found[1:]:
        assert [each.tobytes() for each in got] == [each.tobytes() for each in found[0][0]]
    meant = sum(gradients(rank, step) for rank in range(RANKS) for step in range(steps)) / RANKS
    sent, owed = sum(found[0][0]), sum(residual for _, residual in found) / RANKS
    np.testing.assert_allclose(sent + owed, meant, atol=1e-4)
    vector = np.abs([residual[PIECES[0].part] for _, residual in found])
    assert vector.max() < 0.1  # it travels as it is, but for its rounding to eight bits, and that of a sum


def test_an_average_of_low_rank_arrives_whole_even_where_no_ranks_part_is() -> None:
    """Ranks whose matrices differ by full-rank parts that cancel out: only the average counts."""
    parts = [gradients(rank, 0) for rank in range(RANKS)]
    noise = [part - sum(parts) / RANKS for part in parts]
    common = np.zeros(SIZE)
    common[PIECES[1].part] = np.outer(np.arange(20) - 9, np.cos(np.arange(30))).reshape(-1)
    found = averaged(1, lambda rank, step: common + noise[rank])
    np.testing.assert_allclose(found[0][0][0][PIECES[1].part], common[PIECES[1].part], atol=0.08)


def test_residuals_of_ranks_that_disagree_do_not_grow() -> None:
    """Rank r's gradient is its own again and again: what is owed settles, though the ranks never agree."""
    few, many = (
        max(
            np.linalg.norm(residual) for _, residual in averaged(steps, lambda rank, step: gradients(rank, 0))
        )
        for steps in (40, 80)
    )
    assert many < 1.2 * few


def test_what_is_not_finite_is_nan_everywhere_and_is_not_owed() -> None:
    def overflowing(rank: int, step: int) -> np.ndarray:
        values = gradients(rank, step)
        if step == 1 and rank == 2:
            values[PIECES[1].part.start] = np.inf
        return values

    for got, residual in averaged(3, overflowing):
        assert np.isnan(got[1]).all()
        assert np.isfinite(got[2]).all()
        assert np.isfinite(residual).all()


def test_saved_bases_go_on_with_the_same_bytes() -> None:
    with groups_of(1) as (groups, _):
        group = next(iter(groups))
        first, second = LowRankSum(group), LowRankSum(group)
        residual = np.zeros(SIZE, np.float32)
        first.average(torch.from_numpy(gradients(0, 0).astype(np.float32)), PIECES, DIM, residual).wait()
        second.load_state_dict(first.state_dict())
        outcomes = []
        for each in (first, second):
            values = torch.from_numpy(gradients(0, 1).astype(np.float32))
            each.average(values, PIECES, DIM, residual.copy()).wait()
            outcomes.append(values.numpy().tobytes())
        assert outcomes[0] == outcomes[1]
