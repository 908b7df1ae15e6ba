"""What must not be in the tree: paths of one machine, long files without a reason, unfinished work."""

from __future__ import annotations

import re

from tests.house.tree import PACKAGE, ROOT, tracked_files

LINES_WITHOUT_A_REASON = 600
MACHINE_PATH = re.compile(r"(?<![\w.~$}/])/(?:home|root|work|opt|Users)/\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b")
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".svg", ".json", ""}


def _lines_matching(pattern: re.Pattern[str]) -> list[str]:
    own = {ROOT / "tests" / "house" / "test_tree.py", ROOT / "LICENSE"}
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.suffix in TEXT and path not in own
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_one_machine() -> None:
    assert not _lines_matching(MACHINE_PATH)


def test_nothing_is_left_unfinished() -> None:
    assert not _lines_matching(UNFINISHED)


def test_a_long_file_says_why() -> None:
    silent = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LINES_WITHOUT_A_REASON and "one file because" not in text[:3000]:
            silent.append(f"{path.relative_to(PACKAGE)}: {text.count(chr(10))} lines")
    assert not silent, "split it, or say in its docstring: 'one file because ...'"


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
