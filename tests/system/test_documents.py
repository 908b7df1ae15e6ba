"""The Python blocks of the documents run, and their measured numbers are those of the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.readme import PAGES, README, filled
from tests.house.tree import ROOT

pytestmark = pytest.mark.system

BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in [README, *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_runs(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    if "the lab needs root" in answer.stderr:
        pytest.skip(answer.stderr.splitlines()[-1])
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == filled(text), "run `python -m benchmarks.readme`"
