"""What the command line says, and how fast, when no torch is needed."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.house.tree import is_installed

# The promise is 0.3 s on an idle machine. What is measured is CPU time, which others on the machine change little.
LIMIT_CPU_S = 0.5


def thinwire(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thinwire", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not is_installed(), reason="only an installed thinwire can leave torch alone")
@pytest.mark.parametrize(
    "words",
    [
        *([], ["--help"], ["--version"], ["run", "--help"], ["bench", "--help"], ["compare", "--help"]),
        *(["schedule", "--help"], ["schedule", "all-reduce", "--ranks", "3"]),
    ],
    ids=" ".join,
)
def test_answers_at_once(words: list[str]) -> None:
    spent_before_s = _cpu_of_children_s()
    answer = thinwire(*words)
    assert answer.returncode == 0
    assert answer.stdout
    assert _cpu_of_children_s() - spent_before_s < LIMIT_CPU_S


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--frobnicate"], "No such option: --frobnicate"),
        (["run"], "training_script"),
        (["run", "missing.py"], "no script at missing.py"),
        (["run", "--nproc-per-node=many", __file__], "many"),
        (["run", "--frobnicate", __file__], "--frobnicate"),
        (["run", "--nproc-per-node", "2", "--trace", "t.json", __file__], "go before torchrun's options"),
        (["run", "--replace", "gloo", "--no-python", "true"], "drop --no-python"),
        (["run", "--replace", "carrier-pigeon", __file__], "carrier-pigeon"),
        (["run", "--trace", "missing/trace.json", __file__], "a folder that exists"),
        (["bench", "all-deduce"], "all-deduce"),
        (["bench", "all-reduce", "--max-bytes", "big"], "'big' is not a size"),
        (["bench", "all-reduce", "--max-bytes", "100"], "no size from"),
        (["bench", "all-reduce", "--ranks", "1,2"], "--ranks 1,2"),
        (["bench", "all-reduce", "--against", "carrier-pigeon"], "carrier-pigeon"),
        (["bench", "all-reduce", "--pairs", "0"], "--pairs"),
        (["schedule", "all-deduce"], "all_deduce"),
        (["schedule", "all-reduce", "--algorithm", "carrier-pigeon"], "carrier-pigeon"),
        (["compare"], "no script to train"),
        (["compare", "missing.py"], "no script at missing.py"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], complaint: str) -> None:
    answer = thinwire(*words)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert complaint in answer.stderr
    assert answer.stderr.startswith("thinwire: ")
    assert answer.stderr.count("\n") == 1
