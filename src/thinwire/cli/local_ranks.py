"""Processes of one host that work as ranks for a command, and what rank 0 has to say while they do.

A rank that fails ends them all. No process outlives the call. Not here: jobs over several hosts, which torchrun
launches.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from thinwire.errors import ThinwireError

Say = Callable[[Any], None]
Work = Callable[[Say, Any, str], None]


def words_of_rank_0(work: Work, request: Any, num_ranks: int) -> Iterator[Any]:
    """Run ``work(say, request, init_method)`` on every rank; yield what rank 0 says.

    RANK, WORLD_SIZE and the like are set in its environment as torchrun sets them.

    Raises:
        ThinwireError: a rank failed. What it said is on stderr.
    """
    with _started(work, request, num_ranks) as (ranks, ear):
        by_sentinel = {process.sentinel: process for process in ranks}
        sources: list[Any] = [ear, *by_sentinel]
        while sources:
            for ready in wait(sources):
                try:
                    if ready is ear:
                        yield ear.recv()
                    else:
                        sources.remove(ready)
                        _check_end(by_sentinel[ready])  # type: ignore[index]
                except EOFError:
                    sources.remove(ear)


def _check_end(process: SpawnProcess) -> None:
    process.join()
    if process.exitcode:
        raise ThinwireError(f"{process.name} failed with status {process.exitcode}; what it said is above")


@contextmanager
def _started(work: Work, request: Any, num_ranks: int) -> Iterator[tuple[list[SpawnProcess], Connection]]:
    context = multiprocessing.get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(
                name=f"rank {rank}",
                target=_be_a_rank,
                args=(rank, num_ranks, mouth if rank == 0 else None, work, request, f"file://{folder}/store"),
            )
            for rank in range(num_ranks)
        ]
        try:
            for process in ranks:
                process.start()
            mouth.close()
            yield ranks, ear
        finally:
            for process in ranks:
                process.kill()
                process.join()


def _be_a_rank(
    rank: int, num_ranks: int, mouth: Connection | None, work: Work, request: Any, init_method: str
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_WORLD_SIZE=str(num_ranks),
        OMP_NUM_THREADS="1",  # as torchrun sets it: the ranks of one host share its cores
    )
    work(mouth.send if mouth else lambda words: None, request, init_method)
