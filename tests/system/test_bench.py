"""``thinwire bench`` with real ranks: every collective is right, and people and programs can read what it prints."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from thinwire.cli.measurement import BenchKind, Report

pytestmark = pytest.mark.system


def bench(*words: str) -> str:
    command = [sys.executable, "-m", "thinwire", "bench", *words, "--max-bytes=64KiB", "--pairs=1"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("kind", BenchKind)
def test_every_collective_is_exact_at_every_size(kind: BenchKind) -> None:
    report = msgspec.json.decode(bench(kind, "--ranks=3", "--factor=8", "--json"), type=Report)
    assert [row.num_wrong for row in report.rows] == [0, 0, 0]
    assert all(row.num_ranks == 3 and row.busbw > 0 for row in report.rows)


def test_the_table_has_a_line_a_size_for_each_number_of_ranks() -> None:
    lines = bench("all-reduce", "--ranks=2,3", "--against=gloo").splitlines()
    assert [line.split("|")[0].strip() for line in lines if not line.startswith("#")] == (
        ["1 KiB", "4 KiB", "16 KiB", "64 KiB"] * 2
    )
    assert all(line.endswith("x") for line in lines if not line.startswith("#"))
    assert "2 ranks" in lines[0]
    assert "congestion control" in lines[0]


def test_inside_a_job_the_jobs_ranks_are_measured() -> None:
    command = [sys.executable, "-m", "thinwire", "run", "--nproc-per-node=2", "-m", "thinwire", "bench"]
    command += ["all-reduce", "--max-bytes=1KiB", "--pairs=1", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert answer.returncode == 0, answer.stderr
    (row,) = msgspec.json.decode(answer.stdout, type=Report).rows
    assert (row.num_ranks, row.num_wrong) == (2, 0)


def test_a_rank_that_fails_ends_the_bench_with_one_last_line() -> None:
    command = [sys.executable, "-m", "thinwire", "bench", "all-reduce", "--ranks=2", "--algorithm=nonesuch"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert answer.returncode == 2
    assert "nonesuch" in answer.stderr.splitlines()[-1]
