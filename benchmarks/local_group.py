"""A thinwire group without torch.distributed's front end, for benchmarks whose ranks are processes of this machine.

Not here: starting them (``thinwire.cli.local_ranks``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch
from torch._C._distributed_c10d import FileStore

from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.endpoint import Endpoint
from thinwire.runtime.process_group import ThinwireProcessGroup


@contextmanager
def local_group(name: str, init_method: str) -> Iterator[tuple[ThinwireProcessGroup, Endpoint]]:
    """This rank's group and its endpoint, open until the block ends.

    Args:
        name: of the benchmark, 16 characters at most.
        init_method: a file that all ranks see, as ``words_of_rank_0`` passes it.
    """
    torch.set_num_threads(1)  # as torchrun does: the ranks of one host share its cores
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = FileStore(f"{init_method.removeprefix('file://')}-thinwire", num_ranks)
    with closing(Endpoint.open(name.encode().ljust(16), RuntimeConfig.from_environment())) as endpoint:
        group = ThinwireProcessGroup(store, rank, num_ranks, endpoint=endpoint)
        yield group, endpoint
        group.shutdown()
