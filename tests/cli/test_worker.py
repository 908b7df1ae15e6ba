"""Inside a worker a script is as it would be under ``python SCRIPT``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import neighbour

print(json.dumps([__name__, __file__, sys.argv, sys.path[0], neighbour.NAME]))
"""


def worker(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thinwire.cli.worker", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "neighbour.py").write_text("NAME = 'neighbour'\n")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "broken.py").write_text("def fail():\n    raise ValueError('on purpose')\n\n\nfail()\n")
    return folder


def test_a_script_is_main_with_its_own_arguments_and_path(scripts: Path) -> None:
    answer = worker("scripts/script.py", "--steps", "3", cwd=scripts.parent)
    assert answer.returncode == 0, answer.stderr
    expected = [
        "__main__",
        "scripts/script.py",
        ["scripts/script.py", "--steps", "3"],
        str(scripts),
        "neighbour",
    ]
    assert json.loads(answer.stdout) == expected


def test_a_module_is_main_with_its_own_arguments(scripts: Path) -> None:
    answer = worker("-m", "script", "--steps", "3", cwd=scripts)
    assert answer.returncode == 0, answer.stderr
    name, file, argv, path, _ = json.loads(answer.stdout)
    assert (name, file, argv[1:], path) == (
        "__main__",
        str(scripts / "script.py"),
        ["--steps", "3"],
        str(scripts),
    )


def test_a_traceback_shows_the_script_only(scripts: Path) -> None:
    answer = worker("scripts/broken.py", cwd=scripts.parent)
    assert answer.returncode == 1
    frames = [line for line in answer.stderr.splitlines() if line.strip().startswith("File ")]
    assert [frame.split('"')[1] for frame in frames] == ["scripts/broken.py", "scripts/broken.py"]
    assert answer.stderr.endswith("ValueError: on purpose\n")
