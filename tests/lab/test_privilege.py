"""What a lab needs of the machine, and what its helpers load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from thinwire.errors import UsageError
from thinwire.lab import namespaces

SOURCE = Path(__file__).parents[2] / "src"


def test_with_neither_root_nor_user_namespaces_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(flags: int) -> None:
        asked.append(bool(flags & namespaces.NEW_USER))
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(namespaces, "unshare", refuse)
    with pytest.raises(
        UsageError, match="needs root or unprivileged user namespaces, and has neither"
    ) as caught:
        namespaces.isolate()
    assert asked == [False, True]  # first as root, then as anybody
    assert "\n" not in str(caught.value)


def loaded_by(module: str) -> str:
    """Whether importing a module of the lab loads torch, and with how many threads that leaves the process."""
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import thinwire.lab.{module}, os; "
        "print('torch' in sys.modules, len(os.listdir('/proc/self/task')))"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize("module", ["keeper", "enter"])
def test_what_changes_namespaces_loads_no_torch_and_starts_no_thread(module: str) -> None:
    """A process with threads may not change its user namespace."""
    assert loaded_by(module) == "False 1\n"


def test_the_relay_loads_no_torch() -> None:
    """It may have threads: the keeper loads it when it is in its namespaces."""
    assert loaded_by("relay").startswith("False ")
