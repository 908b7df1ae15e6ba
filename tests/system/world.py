"""A world of worker processes that tests share: each runs what it is given, on every rank at once.

Importing torch costs seconds, a check milliseconds: so all processes are forks of one that has imported whatever they
may need. A world that failed a check may be out of step, so it is thrown away and the next test gets a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT_S = 60.0
IMPORTED = ["torch", "torch._dynamo", "thinwire.codec.text"]  # DistributedDataParallel imports the second


class World:
    """``num_ranks`` processes, with RANK and WORLD_SIZE as a launcher sets them.

    They are in one default group of ``backend``; with None in none.
    """

    def __init__(self, num_ranks: int, backend: str | None = "thinwire") -> None:
        self.num_ranks = num_ranks
        self.healthy = True
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        store = Path(self._folder.name) / "store"
        self._connections = []
        self._processes = []
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            arguments = (theirs, dict(os.environ), backend, f"file://{store}", rank, num_ranks)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results of ``function(*arguments)`` from every rank. It must be a function of a module."""
        self.healthy = False
        for connection in self._connections:
            connection.send((function, arguments))
        answers = [self._answer(rank) for rank in range(self.num_ranks)]
        complaints = [f"rank {rank}:\n{answer}" for rank, (ok, answer) in enumerate(answers) if not ok]
        assert not complaints, "\n".join(complaints)
        self.healthy = True
        return [answer for _, answer in answers]

    def close(self) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            if self.healthy:
                connection.send(None)
            else:
                process.kill()
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join(LIMIT_S)
            connection.close()
        self._folder.cleanup()

    def _answer(self, rank: int) -> tuple[bool, Any]:
        if not self._connections[rank].poll(LIMIT_S):
            return False, f"no answer in {LIMIT_S} s"
        try:
            return self._connections[rank].recv()
        except EOFError:
            self._processes[rank].join()
            return False, f"the process ended with status {self._processes[rank].exitcode}"


def _serve(
    connection: Connection,
    environment: dict[str, str],
    backend: str | None,
    init_method: str,
    rank: int,
    num_ranks: int,
) -> None:
    import torch
    import torch.distributed as dist

    import thinwire  # noqa: F401

    torch.set_num_threads(1)
    # The process that this is a fork of has the environment of the first test.
    os.environ |= {**environment, "RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
    if backend is not None:
        timeout = timedelta(seconds=LIMIT_S / 2)
        dist.init_process_group(backend, init_method, timeout, num_ranks, rank)
    while (request := connection.recv()) is not None:
        function, arguments = request
        try:
            answer = True, function(*arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        connection.send(answer)
    if dist.is_initialized():
        dist.destroy_process_group()
