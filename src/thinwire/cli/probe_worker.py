"""What every rank of ``thinwire probe`` and ``thinwire bench link`` does: meet the others at a store, and measure.

Not here: launching, and showing the topology.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import cast

from torch._C._distributed_c10d import TCPStore
from torch.distributed.rendezvous import rendezvous

from thinwire.errors import LinkError, UsageError
from thinwire.probe import bench_link, probe
from thinwire.probe.coordinator import JOIN_S
from thinwire.probe.link_test import LinkTest
from thinwire.probe.store import Store
from thinwire.runtime.config import RuntimeConfig
from thinwire.topology import Topology


def measure(form: str, budget_s: float, join_s: float, progress: Callable[[str], None]) -> Topology:
    """Probe with the other ranks of the job that the environment describes, as torchrun sets it.

    Raises:
        UsageError: there is only one rank, or the environment makes no sense.
        LinkError: the store at MASTER_ADDR cannot be reached.
    """
    rank, num_ranks = (_number(name) for name in ("RANK", "WORLD_SIZE"))
    if num_ranks < 2:
        raise UsageError(
            "a probe needs two ranks or more: launch them with torchrun's options, as in "
            "`thinwire probe --nnodes 2 --node-rank 0 --master-addr 10.0.0.1`"
        )
    return probe(
        _store("env://", rank, num_ranks, join_s),
        rank,
        num_ranks,
        form=form,
        budget_s=budget_s,
        join_s=join_s,
        interface=RuntimeConfig.from_environment().interface,
        progress=progress,
    )


def try_link(init_method: str, way_s: float, progress: Callable[[str], None]) -> LinkTest:
    """Test the link with the other of two ranks.

    Raises:
        UsageError, LinkError: see ``measure``.
    """
    rank = _number("RANK")
    return bench_link(
        _store(init_method, rank, 2, JOIN_S),
        rank,
        way_s=way_s,
        interface=RuntimeConfig.from_environment().interface,
        progress=progress,
    )


def _store(init_method: str, rank: int, num_ranks: int, timeout_s: float) -> Store:
    timeout = timedelta(seconds=timeout_s)
    try:
        if init_method == "env://":
            # Not torch's rendezvous, which waits until all have come: a probe goes on without those who do not.
            is_host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), _number("MASTER_PORT")
            made = TCPStore(
                address, port, num_ranks, is_host, timeout, wait_for_workers=False, multi_tenant=True
            )
            return cast(Store, made)
        return cast(Store, next(rendezvous(init_method, rank, num_ranks, timeout=timeout))[0])
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LinkError(
            f"no rendezvous at {where}: {error}; check the address, and that rank 0 runs"
        ) from error


def _number(name: str) -> int:
    word = os.environ.get(name, "")
    if not word.isdecimal():
        raise UsageError(
            f"{name}={word} in the environment is not a number: unset it, or launch with torchrun"
        )
    return int(word)
