"""The autopilot's benchmark: a training of a few steps in a lab, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.autopilot.measure import Order, one
from benchmarks.autopilot.plots import draw
from benchmarks.autopilot.runs import append, load
from benchmarks.autopilot.tables import tables
from thinwire.errors import UsageError

pytestmark = pytest.mark.system


def test_a_training_ends_in_a_table_and_a_picture(tmp_path: Path) -> None:
    order = Order(num_steps=6, num_ranks=2)
    try:
        run = one(order, "text", "lan-1g", "thinwire auto", seed=0, is_short=False)
    except UsageError as error:
        pytest.skip(str(error))
    assert not run.failure
    assert len(run.losses) == order.num_steps
    assert run.quality is not None
    assert run.plans[0].step == 1
    assert run.bytes_a_step() > 0
    kept = tmp_path / "runs.json"
    for _ in range(2):
        append(kept, [msgspec.structs.replace(run, infinite=(run.step_time(),))])
    assert len(load(kept).runs) == 1
    assert "| thinwire auto | 1.00x (1.00x) |" in tables(load(kept))
    draw(load(kept), "text", tmp_path / "text.png")
    assert (tmp_path / "text.png").stat().st_size > 0


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    order = Order(num_steps=1, peers_python=str(tmp_path / "nothing"))
    run = one(order, "text", "lan-1g", "hivemind", seed=0, is_short=True)
    assert "hivemind" in run.failure
