"""Idle time is read from the kernel's counters, and garbage is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinwire.training.idle import Idleness


def test_the_share_since_the_last_question(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    idleness = Idleness(stat)
    assert idleness.since_last() is None  # no time has passed
    stat.write_text("cpu  160 0 120 720 100 0 0 0 0 0\n")
    assert idleness.since_last() == pytest.approx(0.2)
    stat.write_text("cpu  160 0 120 720 200 0 0 0 0 0\n")
    assert idleness.since_last() == 1.0


@pytest.mark.parametrize("garbage", ["", "cpu", "cpu a b c d e f g h", "cpu 1 2"])
def test_garbage_is_unknown(tmp_path: Path, garbage: str) -> None:
    stat = tmp_path / "stat"
    stat.write_text(garbage)
    idleness = Idleness(stat)
    assert idleness.since_last() is None


def test_this_machine() -> None:
    share = Idleness().since_last()
    assert share is None or 0 <= share <= 1
