"""``thinwire run`` with real processes: launching, replacing, tracing, restarting, and what failures look like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, is_installed
from thinwire.trace import load

pytestmark = pytest.mark.system

ASKS_FOR_GLOO = """
import sys

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
numbers = torch.ones(3)
dist.all_reduce(numbers)
made_by = type(dist.group.WORLD).__module__.split(".")[0]
sys.stdout.write(f"{dist.get_backend()} {made_by} {numbers.tolist()}\\n")  # one write: lines of ranks do not mix
dist.destroy_process_group()
"""
FAILS_THE_FIRST_TIME = """
import os, sys

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    raise ValueError("on purpose")
sys.stdout.write("second time\\n")
"""


def thinwire_run(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thinwire", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=100)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def test_a_script_that_asks_for_thinwire_gets_it() -> None:
    answer = thinwire_run("--nproc-per-node=3", "examples/all_reduce.py")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "3 ranks agree on 6\n"


def test_a_script_that_asks_for_gloo_gets_thinwire_unchanged(script: Path) -> None:
    script.write_text(ASKS_FOR_GLOO)
    answer = thinwire_run("--replace", "gloo", "--nproc-per-node=2", script)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "gloo thinwire [2.0, 2.0, 2.0]\n" * 2


def test_without_replace_gloo_is_gloo(script: Path) -> None:
    script.write_text(ASKS_FOR_GLOO)
    answer = thinwire_run("--nproc-per-node=2", script)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "gloo torch [2.0, 2.0, 2.0]\n" * 2


def test_a_trace_holds_every_collective_of_every_rank(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    answer = thinwire_run("--trace", file, "--nproc-per-node=3", "examples/all_reduce.py")
    assert answer.returncode == 0, answer.stderr
    ranks = load(file).ranks
    assert [rank.rank for rank in ranks] == [0, 1, 2]
    for rank in ranks:
        assert [span.name for span in rank.spans if "1000" in span.name and "all_reduce" in span.name]


def test_a_trace_of_nothing_is_a_mistake(tmp_path: Path, script: Path) -> None:
    script.write_text("print('no group')\n")
    answer = thinwire_run("--trace", tmp_path / "trace.json", script)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith("thinwire: nothing was traced")
    assert not (tmp_path / "trace.json").exists()


def test_a_failing_script_is_one_line_after_its_own_traceback(script: Path) -> None:
    script.write_text("raise ValueError('on purpose')\n")
    answer = thinwire_run("--nproc-per-node=2", script)
    assert answer.returncode == 1
    assert "on purpose" in answer.stderr, answer.stderr  # both ranks say it, perhaps at once
    assert "torch/distributed/launcher" not in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("thinwire: rank ")


def test_elastic_restarts_work(script: Path) -> None:
    script.write_text(FAILS_THE_FIRST_TIME)
    answer = thinwire_run("--nproc-per-node=2", "--max-restarts=1", script)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "second time\n" * 2


@pytest.mark.skipif(not is_installed(), reason="torch is imported before its log level can be set")
def test_an_unreachable_rendezvous_is_one_line(script: Path) -> None:
    script.write_text("")
    host = ("--nnodes=2", "--node-rank=1", "--master-addr=127.0.0.1", "--master-port=9")
    answer = thinwire_run(*host, "--rdzv-conf=timeout=1", script)
    assert answer.returncode == 2
    assert answer.stderr.startswith("thinwire: no rendezvous at 127.0.0.1:9")
    assert answer.stderr.count("\n") == 1
