"""One command on every host of a lab, its output shown line by line with the host's name.

Not here: starting a single process (``lab``).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, TextIO

from thinwire.clock import SYSTEM_CLOCK
from thinwire.lab.lab import popen
from thinwire.lab.state import LabRecord

GRACE_S = 10.0
_POLL_S = 0.05


def run_everywhere(
    record: LabRecord,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    keep_going: bool = False,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> dict[str, int]:
    """Run ``command`` on all hosts at once until it has ended on all.

    When it fails on one host, the others get ``GRACE_S`` seconds to notice; then they are told to stop
    (``keep_going``: they are left alone). An interrupt is handed on, with the same grace, and raised again.

    Returns:
        host -> exit status (128 + the signal's number if a signal ended it).
    """
    width = max(len(host.name) for host in record.hosts)
    lock = threading.Lock()
    processes: dict[str, subprocess.Popen[bytes]] = {}
    readers = []
    for host in record.hosts:
        process = processes[host.name] = popen(
            record,
            host.name,
            command,
            env={"PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for source, sink in ((process.stdout, stdout or sys.stdout), (process.stderr, stderr or sys.stderr)):
            assert source is not None
            reader = threading.Thread(
                target=_show,
                args=(source, sink, f"{host.name:{width}}| ", lock),
                name=f"lab-output-{host.name}",
            )
            reader.start()
            readers.append(reader)
    try:
        _wait(processes, keep_going)
    except BaseException:
        _stop(processes, signal.SIGINT)
        raise
    finally:
        for reader in readers:
            reader.join()
    return {name: process.returncode for name, process in processes.items()}


def _wait(processes: Mapping[str, subprocess.Popen[bytes]], keep_going: bool) -> None:
    while not all(process.poll() is not None for process in processes.values()):
        if not keep_going and any(process.returncode for process in processes.values()):
            _await_end(processes, GRACE_S)
            _stop(processes, signal.SIGTERM)
            return
        _await_end(processes, _POLL_S)


def _await_end(processes: Mapping[str, subprocess.Popen[bytes]], timeout_s: float) -> None:
    """Wait until all have ended, but not longer than that."""
    end_s = SYSTEM_CLOCK.now_s() + timeout_s
    for process in processes.values():
        try:
            process.wait(max(0.0, end_s - SYSTEM_CLOCK.now_s()))
        except subprocess.TimeoutExpired:
            return


def _stop(processes: Mapping[str, subprocess.Popen[bytes]], first_signal: int) -> None:
    """Ask those that still run to stop, then make them."""
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(first_signal)
    _await_end(processes, GRACE_S)
    for process in processes.values():
        if process.poll() is None:
            process.kill()
    for process in processes.values():
        process.wait()


def _show(source: IO[bytes], sink: TextIO, prefix: str, lock: threading.Lock) -> None:
    with source:
        for line in source:
            with lock:
                sink.write(prefix + line.decode(errors="replace").rstrip("\n") + "\n")
                sink.flush()
