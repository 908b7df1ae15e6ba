"""Waiting for cores is read from the kernel's counters, and garbage is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinwire.training.cores import waited_for_cores_s


def test_all_threads_together(tmp_path: Path) -> None:
    for thread, waited_ns in enumerate((1_000_000_000, 500_000_000)):
        (tmp_path / str(thread)).mkdir()
        (tmp_path / str(thread) / "schedstat").write_text(f"7 {waited_ns} 3\n")
    (tmp_path / "2").mkdir()  # a thread that ended while we looked
    assert waited_for_cores_s(tmp_path) == pytest.approx(1.5)


@pytest.mark.parametrize("garbage", ["", "1", "a b c"])
def test_garbage_is_unknown(tmp_path: Path, garbage: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "schedstat").write_text(garbage)
    assert waited_for_cores_s(tmp_path) is None


def test_this_process() -> None:
    before, after = waited_for_cores_s(), waited_for_cores_s()
    assert (before is None) == (after is None)
    assert before is None or after is None or before >= 0
