"""Two libraries that train over slow networks, as others would use them: torchft's DiLoCo and hivemind.

They are installed beside torch into an environment of their own, whose Python ``--peers-python`` names::

    python -m venv peers && peers/bin/pip install torch==2.13.0 torchft hivemind
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.autopilot.models import Task

MODULES = {"torchft DiLoCo": "torchft", "hivemind": "hivemind"}
SYNC_EVERY = 20  # steps; the paper's 500 would be more than all of ours


def diloco(task: Task) -> Iterator[tuple[Any, Any]]:
    """A. Douillard et al., "DiLoCo", 2023: ranks train alone, and average what they learned every 20 steps.

    The outer optimizer is the paper's: SGD with Nesterov momentum 0.9, learning rate 0.7.
    """
    from torchft import Manager, ProcessGroupGloo
    from torchft.coordination import LighthouseServer
    from torchft.local_sgd import DiLoCo

    own = os.environ["THINWIRE_LAB_ADDRESS"]
    lighthouse, where = None, [""]
    if dist.get_rank() == 0:
        lighthouse = LighthouseServer(bind=f"{own}:0", min_replicas=dist.get_world_size())
        where = [f"http://{own}:{lighthouse.address().rsplit(':', 1)[1]}"]
    dist.broadcast_object_list(where, 0)
    store = dist.TCPStore(own, 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=60)),
        load_state_dict=None,
        state_dict=None,
        min_replica_size=dist.get_world_size(),
        use_async_quorum=False,
        rank=0,
        world_size=1,
        store_addr=own,
        store_port=store.port,
        lighthouse_addr=where[0],
        replica_id=f"rank{dist.get_rank()}",
        hostname=own,
    )
    outer = torch.optim.SGD(task.network.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    try:
        with DiLoCo(manager, [task.network], task.optimizer, outer, sync_every=SYNC_EVERY):
            yield task.network, task.optimizer
        dist.barrier()
    finally:
        manager.shutdown(wait=False)
        if lighthouse is not None:
            lighthouse.shutdown()


def hivemind(task: Task) -> Iterator[tuple[Any, Any]]:
    """M. Ryabinin et al., "Moshpit SGD", 2021: gradients averaged among whoever is found, float16 on the wire."""
    from hivemind import DHT, Optimizer
    from hivemind.compression import Float16Compression

    own, num_ranks = os.environ["THINWIRE_LAB_ADDRESS"], dist.get_world_size()
    listen = {"host_maddrs": [f"/ip4/{own}/tcp/0"], "start": True, "use_ipfs": False}
    first: list[Any] = [None]
    dht = None
    if dist.get_rank() == 0:
        dht = DHT(**listen)
        first = [[str(address) for address in dht.get_visible_maddrs()]]
    dist.broadcast_object_list(first, 0)
    dht = dht or DHT(initial_peers=first[0], **listen)
    optimizer = Optimizer(
        dht=dht,
        run_id="benchmark",
        params=task.network.parameters(),
        optimizer=lambda parameters: type(task.optimizer)(parameters, **task.optimizer.defaults),
        batch_size_per_step=1,
        target_batch_size=num_ranks,  # one step of everybody is one step of the optimizer
        matchmaking_time=0.5,
        averaging_timeout=60.0,
        grad_compression=Float16Compression(),
        averager_opts={"target_group_size": num_ranks, "min_group_size": num_ranks, "request_timeout": 0.4},
    )
    yield task.network, optimizer
    dist.barrier()
    for process in multiprocessing.active_children():
        process.kill()  # a shutdown would wait for ranks that are gone
