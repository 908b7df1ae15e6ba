"""Processes of one host that work as ranks for a command, and what rank 0 has to say while they do.

A rank that fails ends them all. No process outlives the call. All are forks of one process that has imported torch,
which takes longer than what most commands then do. Not here: jobs over several hosts, which torchrun launches.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from thinwire.errors import ThinwireError

Say = Callable[[Any], None]
Work = Callable[[Say, Any, str], None]


def words_of_rank_0(work: Work, request: Any, num_ranks: int) -> Iterator[Any]:
    """Run ``work(say, request, init_method)`` on every rank; yield what rank 0 says.

    RANK, WORLD_SIZE and the like are set in its environment as torchrun sets them.

    Raises:
        ThinwireError: what a rank raised; or that it failed otherwise, and then what it said is on stderr.
    """
    with _started(work, request, num_ranks) as (processes, ears):
        by_sentinel = {process.sentinel: process for process in processes}
        sources: list[Any] = [*ears, *by_sentinel]
        while sources:
            # What a rank said before it ended comes first.
            for source in sorted(wait(sources), key=lambda ready: isinstance(ready, int)):
                try:
                    if isinstance(source, Connection):
                        yield _checked(source.recv())
                    else:
                        _check_end(by_sentinel[source])  # type: ignore[index]
                        sources.remove(source)
                except EOFError:
                    sources.remove(source)


def _checked(word: Any) -> Any:
    if isinstance(word, ThinwireError):
        raise word
    return word


def _check_end(process: ForkServerProcess) -> None:
    process.join()
    if process.exitcode:
        raise ThinwireError(f"{process.name} failed with status {process.exitcode}; what it said is above")


@contextmanager
def _started(
    work: Work, request: Any, num_ranks: int
) -> Iterator[tuple[list[ForkServerProcess], list[Connection]]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    processes, ears = [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(num_ranks):
                ear, mouth = context.Pipe(duplex=False)
                arguments = (
                    rank,
                    num_ranks,
                    dict(os.environ),
                    mouth,
                    work,
                    request,
                    f"file://{folder}/store",
                )
                process = context.Process(name=f"rank {rank}", target=_be_a_rank, args=arguments)
                process.start()
                mouth.close()
                processes.append(process)
                ears.append(ear)
            yield processes, ears
        finally:
            for process in processes:
                process.kill()
                process.join()


def _be_a_rank(
    rank: int,
    num_ranks: int,
    environment: dict[str, str],
    mouth: Connection,
    work: Work,
    request: Any,
    init_method: str,
) -> None:
    os.environ.update(
        environment,  # that of now; the process that this is a fork of has an older one
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_WORLD_SIZE=str(num_ranks),
    )
    try:
        work(mouth.send if rank == 0 else lambda word: None, request, init_method)
    except ThinwireError as error:
        mouth.send(error)
        sys.exit(1)
