"""Who may import what, beyond the layers that import-linter checks; and importing does nothing else."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import PACKAGE, imports, modules

# Where a foreign library may appear: folders of the package, and single files.
ALLOWED = {
    "torch": (
        "codec/",
        "runtime/",
        "training/",
        "federated/",
        "serving/",
        "cli/run.py",
        "cli/bench_worker.py",
        "cli/probe_worker.py",
    ),
    "socket": ("transport/", "lab/"),
    "random": (),
    "secrets": ("transport/", "runtime/", "probe/"),
    "time": ("clock.py",),
    "triton": ("codec/device/kernels/",),
    "typer": ("cli/",),
    "rich": ("cli/", "training/live.py"),
}
# What may be missing, and the modules that then cannot be imported.
OPTIONAL = {"triton": "thinwire.codec.device.kernels"}
ASIDE = ("thinwire.sim", "thinwire.testing")


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_stays_in_its_rooms(library: str) -> None:
    strays = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in modules().values()
        for name, line in imports(path)
        if name.split(".")[0] == library and not str(path.relative_to(PACKAGE)).startswith(ALLOWED[library])
    ]
    assert not strays, f"{library} may be imported in {ALLOWED[library] or 'no file'} only, not in {strays}"


def test_nothing_but_the_command_line_uses_the_simulator_or_the_kits() -> None:
    users = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for name, path in modules().items()
        if not name.startswith(ASIDE) and not name.startswith("thinwire.cli")
        for imported, line in imports(path)
        if imported.startswith(ASIDE)
    ]
    assert not users


def test_importing_a_module_has_no_effect() -> None:
    """Each module, first in its own process: it imports, starts no thread, opens no file, configures nothing."""
    probe = Path(__file__).with_name("import_probe.py")
    missing = tuple(room for library, room in OPTIONAL.items() if importlib.util.find_spec(library) is None)
    names = [name for name in modules() if not name.endswith("__main__") and not name.startswith(missing)]
    command = [sys.executable, str(probe), *names]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, timeout=100)
    assert answer.returncode == 0, answer.stderr
    effects = json.loads(answer.stdout)
    assert set(effects) == set(names)
    assert {name: effect for name, effect in effects.items() if effect} == {}
