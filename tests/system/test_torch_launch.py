"""How a job begins and ends: stores and init methods, torchrun, import order, replacing Gloo, leaving."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

import thinwire
from tests.system.world import World
from thinwire.runtime.process_group import ThinwireProcessGroup

pytestmark = pytest.mark.system

SHORT = timedelta(seconds=20)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def check_sum() -> None:
    tensor = torch.full((5,), float(dist.get_rank() + 1))
    dist.all_reduce(tensor)
    assert tensor.tolist() == [sum(range(1, dist.get_world_size() + 1))] * 5


# Stores and init methods ----------------------------------------------------------------------------------------


def check_init(kind: str, port: int, path: str) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    stores: dict[str, Any] = {
        "TCPStore": lambda: dist.TCPStore("127.0.0.1", port, size, is_master=rank == 0, timeout=SHORT),
        "FileStore": lambda: dist.FileStore(path, size),
    }
    if kind in stores:
        store = stores[kind]()
        arguments = {"store": store, "rank": rank, "world_size": size}
    elif kind == "env://":
        arguments = {"init_method": kind}
    else:
        url = {"tcp://": f"tcp://127.0.0.1:{port}", "file://": f"file://{path}"}[kind]
        arguments = {"init_method": url, "rank": rank, "world_size": size}
    dist.init_process_group("thinwire", timeout=SHORT, **arguments)
    check_sum()
    dist.destroy_process_group()
    if kind in stores:  # a second time, through a store that still holds what the first left
        dist.init_process_group("thinwire", timeout=SHORT, **arguments)
        check_sum()
        dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["env://", "tcp://", "file://", "TCPStore", "FileStore"])
def test_init(ungrouped_world: World, tmp_path: Path, kind: str) -> None:
    ungrouped_world.run(check_init, kind, free_port(), str(tmp_path / "store"))


# Replacing Gloo -------------------------------------------------------------------------------------------------


def check_replaced(backend: str | None, path: str) -> None:
    original = distributed_c10d.ProcessGroupGloo
    thinwire.replace("gloo")
    try:
        dist.init_process_group(
            backend, init_method=f"file://{path}", rank=int(os.environ["RANK"]), world_size=2
        )
        assert isinstance(dist.group.WORLD, ThinwireProcessGroup)
        assert dist.get_backend() == (backend or "undefined")
        check_sum()
        group = dist.new_group(backend="gloo")
        assert isinstance(group, ThinwireProcessGroup)
        assert dist.get_backend(group) == "gloo"
        dist.monitored_barrier(group, SHORT)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2), process_group=group)
        model(torch.ones(1, 2)).sum().backward()
        dist.destroy_process_group()
    finally:
        distributed_c10d.ProcessGroupGloo = original


@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo", "cpu:gloo,cuda:nccl", None])
def test_replace(ungrouped_world: World, tmp_path: Path, backend: str | None) -> None:
    ungrouped_world.run(check_replaced, backend, str(tmp_path / "store"))


# Scripts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package counts as installed, with its entry points."""
    info = tmp_path / "thinwire-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thinwire\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[torch.backends]\nthinwire = thinwire.runtime.registration:register\n"
    )
    source = str(Path(thinwire.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), source])}


def run(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("imports", ["thinwire, torch", "torch, thinwire", "torch"])
def test_backend_is_known_after_importing(installed: dict[str, str], imports: str) -> None:
    script = f"import {imports}\nassert 'thinwire' in torch.distributed.Backend.backend_list"
    assert run("-c", script, environment=installed).returncode == 0


def test_backend_is_known_where_torch_does_not_load_it(installed: dict[str, str]) -> None:
    script = "import thinwire, torch\nassert 'thinwire' in torch.distributed.Backend.backend_list"
    environment = {**installed, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    assert run("-c", script, environment=environment).returncode == 0


def test_importing_leaves_torch_to_whoever_needs_it(installed: dict[str, str]) -> None:
    script = "import sys, thinwire\nassert 'torch' not in sys.modules\nassert 'numba' not in sys.modules"
    assert run("-c", script, environment=installed).returncode == 0


def test_torchrun_without_importing_or_destroying(installed: dict[str, str], tmp_path: Path) -> None:
    """A careless script: it never names the package, and leaves its group open."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import torch
            import torch.distributed as dist

            dist.init_process_group("thinwire")
            for step in range(50):
                tensor = torch.ones(1000)
                dist.all_reduce(tensor)
            assert tensor[0] == 3
            dist.barrier(dist.new_group([0, 1])) if dist.get_rank() < 2 else dist.new_group([0, 1])
            """
        )
    )
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", str(script)]
    answer = run(*words, environment={**installed, "OMP_NUM_THREADS": "1"})
    assert answer.returncode == 0, answer.stderr
    assert "Error" not in answer.stderr
    assert "lost" not in answer.stderr
