"""Process groups whose ranks are threads of one process, over memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from torch.distributed import HashStore

from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.endpoint import Endpoint
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.transport.memory import MemoryNetwork

T = TypeVar("T")
Groups = list[ThinwireProcessGroup]
SHORT = timedelta(seconds=20)


def on_each(items: list[T], function: Callable[[T], object]) -> list[object]:
    """What ``function`` returns for each, all at once."""
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


@contextmanager
def groups_of(size: int, options: CallOptions | None = None) -> Iterator[tuple[Groups, MemoryNetwork]]:
    network, store = MemoryNetwork(), HashStore()
    endpoints = [Endpoint(network.transport(), RuntimeConfig()) for _ in range(size)]

    def join(rank: int) -> ThinwireProcessGroup:
        return ThinwireProcessGroup(store, rank, size, SHORT, options=options, endpoint=endpoints[rank])

    with ThreadPoolExecutor(size) as pool:
        groups = list(pool.map(join, range(size)))
    yield groups, network
    for group in groups:
        group.shutdown()
    for endpoint in endpoints:
        endpoint.close(linger_s=0.0)
    network.close()
