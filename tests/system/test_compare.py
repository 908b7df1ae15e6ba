"""``thinwire compare`` and the examples, as a person runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

pytestmark = pytest.mark.system

SMALL = ["--steps=12", "--width=32", "--layers=1", "--batch=2"]


def thinwire(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thinwire", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)


def test_the_demo_ends_with_its_table() -> None:
    answer = thinwire("compare", "--ranks=2", "examples/train_text.py", *SMALL)
    assert answer.returncode == 0, answer.stderr
    for row in ("time to loss", "time a step", "bytes sent", "final loss"):
        assert row in answer.stdout
    final = next(line for line in answer.stdout.splitlines() if "final loss" in line)
    ours, theirs = (float(word) for word in final.split("│")[2:4])
    assert ours == pytest.approx(theirs, rel=0.01)


def test_a_script_that_fails_is_one_line_after_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('on purpose')\n")
    answer = thinwire("compare", "--ranks=2", script)
    assert answer.returncode == 1
    assert "ValueError: on purpose" in answer.stderr, answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("thinwire: the script ended with status 1")


def test_images_train() -> None:
    pytest.importorskip("sklearn", reason="--data digits needs scikit-learn")
    answer = thinwire(
        "run",
        "--replace",
        "gloo",
        "--nproc-per-node=2",
        "examples/train_images.py",
        "--data=digits",
        "--steps=4",
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].startswith("step 4/4 loss ")


def test_the_autopilot_reports() -> None:
    command = "run", "--nproc-per-node=2", "examples/train_autopilot.py", "--steps=10", "--width=64"
    answer = thinwire(*command, "--fidelity=quantize(bits=4)")
    assert answer.returncode == 0, answer.stderr
    assert "step 10/10 loss " in answer.stdout
    assert "fidelity quantize(bits=4)" in answer.stdout
    assert "from step 1: plan 1: as asked for" in answer.stdout


def test_a_sharded_model_reports_gradients_and_parameters() -> None:
    answer = thinwire("run", "--nproc-per-node=2", "examples/train_fsdp.py", "--steps=10", "--width=64")
    assert answer.returncode == 0, answer.stderr
    assert "step 10/10 loss " in answer.stdout
    assert "sent as quantize(bits=4)" in answer.stdout
    assert "sent as parameters, cast(" in answer.stdout


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 80
