"""What every rank of ``thinwire probe`` does: meet the others at torch's store, and probe.

Not here: launching, and showing the topology.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

from torch.distributed.rendezvous import rendezvous

from thinwire.errors import LinkError, UsageError
from thinwire.probe import probe
from thinwire.probe.coordinator import JOIN_S
from thinwire.runtime.config import RuntimeConfig
from thinwire.topology import Topology


def measure(form: str, budget_s: float, progress: Callable[[str], None]) -> Topology:
    """Probe with the other ranks of the job that the environment describes, as torchrun sets it.

    Raises:
        UsageError: there is only one rank, or the environment makes no sense.
        LinkError: the store at MASTER_ADDR cannot be reached.
    """
    config = RuntimeConfig.from_environment()
    rank, num_ranks = (_number(name) for name in ("RANK", "WORLD_SIZE"))
    if num_ranks < 2:
        raise UsageError(
            "a probe needs two ranks or more: launch them with torchrun's options, as in "
            "`thinwire probe --nnodes 2 --node-rank 0 --master-addr 10.0.0.1`"
        )
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_S)))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LinkError(
            f"no rendezvous at {where}: {error}; check the address, and that rank 0 runs"
        ) from error
    return probe(
        store,
        rank,
        num_ranks,
        form=form,
        budget_s=budget_s,
        interface=config.interface,
        progress=progress,
    )


def _number(name: str) -> int:
    word = os.environ[name]
    if not word.isdecimal():
        raise UsageError(
            f"{name}={word} in the environment is not a number: unset it, or launch with torchrun"
        )
    return int(word)
