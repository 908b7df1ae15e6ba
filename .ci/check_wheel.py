"""Build the wheel, install it into an empty environment, and use it from there.

Everything but torch comes through pip from the wheel's own metadata. torch's files (hundreds of megabytes that this
check is not about) are linked from the environment that runs this script, metadata included, so that pip sees the
same version installed and resolves torch's own dependencies as usual.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def call(*command: str | Path, cwd: Path) -> None:
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(command, cwd=cwd, env=environment, check=True)


def build(into: Path) -> Path:
    """The wheel, checked to be pure Python and to hold the package and nothing else."""
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, ROOT, cwd=into)
    (wheel,) = into.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"thinwire"}, f"the wheel holds {tops}"
    assert "thinwire/py.typed" in names, "the wheel lacks py.typed"
    return wheel


def link_torch(site_packages: Path) -> None:
    """Make this interpreter's torch appear installed in ``site_packages``."""
    torch = importlib.metadata.distribution("torch")
    source = Path(str(torch.locate_file("")))
    tops = {Path(file).parts[0] for file in torch.files or () if not str(file).startswith("..")}
    for top in tops - {"__pycache__"}:
        (site_packages / top).symlink_to(source / top)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder)
        wheel = build(empty)
        home = empty / "venv"
        venv.create(home, with_pip=True)
        link_torch(Path(sysconfig.get_path("purelib", "venv", {"base": str(home)})))
        python, thinwire = home / "bin" / "python", home / "bin" / "thinwire"
        constraints = ROOT / "constraints.txt"
        call(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, wheel, cwd=empty)
        call(python, "-m", "pip", "check", cwd=empty)
        call(thinwire, "--version", cwd=empty)
        call(thinwire, "bench", "all-reduce", "--ranks", "2", "--max-bytes", "1KiB", cwd=empty)
        call(thinwire, "run", "--nproc-per-node=2", ROOT / "examples" / "all_reduce.py", cwd=empty)
    print("the wheel works in an empty environment")


if __name__ == "__main__":
    main()
