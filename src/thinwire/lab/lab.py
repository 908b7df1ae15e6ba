"""A lab from its owner's side: start it, run commands in its hosts, take it down.

    with Lab("office-100m") as lab:
        worker = lab.popen("host1", [sys.executable, "worker.py"])

Not here: what the keeper does with the scenario (``keeper``), one command on all hosts (``run``).
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from thinwire.errors import ScenarioError, ThinwireError, UsageError
from thinwire.lab import library, state
from thinwire.lab.environment import environment
from thinwire.lab.messages import Reply, Request
from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Scenario
from thinwire.lab.state import LabRecord

_END_TIMEOUT_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PACKAGE_ROOT = str(Path(__file__).parents[2])


class Lab:
    """An emulated network on this machine, for as long as this object is open, or this process lives.

    Args:
        scenario: a shipped scenario's name, a TOML file's path, or a ``Scenario``.
        name: how ``thinwire lab status`` shows it and ``exec`` finds it. Default: the scenario's name and, if
            that is taken, a number.
        num_hosts: instead of the scenario's number of hosts.
        congestion_control: instead of the scenario's.

    Raises:
        UsageError: no such scenario, one that cannot be built, or no privilege to build it.

    >>> lab = Lab("ten-megabit", num_hosts=2)
    >>> lab.scenario.host_names
    ('host0', 'host1')
    """

    def __init__(
        self,
        scenario: str | Path | Scenario,
        *,
        name: str | None = None,
        num_hosts: int | None = None,
        congestion_control: str | None = None,
    ) -> None:
        self.scenario = scenario if isinstance(scenario, Scenario) else library.load(scenario)
        stem = "lab" if isinstance(scenario, Scenario) else Path(scenario).stem
        self.scenario_name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip(".-") or "lab"
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a lab's name; it begins with a letter or digit and has letters, digits, ., _ and -"
            )
        if num_hosts is not None:
            self.scenario = msgspec.structs.replace(self.scenario, hosts=num_hosts)
        if congestion_control is not None:
            self.scenario = msgspec.structs.replace(self.scenario, congestion_control=congestion_control)
        try:  # again, because it may have been changed, or made in Python, where nothing has looked at its values
            self.scenario = msgspec.convert(msgspec.to_builtins(self.scenario), Scenario)
            network_of(self.scenario)
        except (msgspec.ValidationError, ScenarioError) as error:
            raise UsageError(f"scenario {self.scenario_name}: {error}") from error
        self._name = name
        self._keeper: subprocess.Popen[bytes] | None = None
        self._record: LabRecord | None = None

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def record(self) -> LabRecord:
        """What is known of the running lab."""
        if self._record is None:
            raise UsageError("the lab is not up; enter it first: with Lab(...) as lab")
        return self._record

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts, in rank order."""
        return self.scenario.host_names

    def start(self, *, ends_with_owner: bool = True) -> LabRecord:
        """Build the network. With ``ends_with_owner=False`` it outlives this process, until ``take_down``."""
        state.running()  # sweeps up
        request = Request(
            name=self._name,
            scenario_name=self.scenario_name,
            scenario=self.scenario,
            ends_with_owner=ends_with_owner,
        )
        self._keeper = subprocess.Popen(
            _python("keeper"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if ends_with_owner else subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            reply = self._ask(request)
        except BaseException:  # an interrupt, say: a keeper that still builds is told to go
            self.close()
            raise
        if reply.record is None:
            self.close()
            if reply.mistake:
                raise UsageError(reply.mistake)
            raise ThinwireError(f"the lab could not be built: {reply.failure}")
        if not ends_with_owner:
            self.close()  # of our ends of the pipes; the keeper stays
        self._record = reply.record
        return reply.record

    def _ask(self, request: Request) -> Reply:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(msgspec.json.encode(request) + b"\n")
        self._keeper.stdin.flush()
        line = self._keeper.stdout.readline()
        return msgspec.json.decode(line, type=Reply) if line else Reply(failure="it ended without a word")

    def popen(
        self, host: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` inside ``host``, as ``subprocess.Popen`` would here.

        ``env`` is added to the environment of this process and that of the host (see ``environment``).
        """
        return popen(self.record, host, command, env=env, **options)

    def close(self) -> None:
        """Take the lab down, with everything that runs in it. May be called again."""
        if self._keeper is None:
            return
        keeper, self._keeper, self._record = self._keeper, None, None
        for pipe in (keeper.stdin, keeper.stdout):
            assert pipe is not None
            pipe.close()
        try:
            keeper.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()


def popen(
    record: LabRecord,
    host: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start ``command`` inside ``host`` of a running lab, this process's or another's.

    Raises:
        UsageError: no such host, or no command.
    """
    if not command:
        raise UsageError("a command is needed; write it after --")
    known = record.host(host)
    return subprocess.Popen(
        [*_python("enter"), str(record.keeper_pid), str(known.namespace_fd), host, *command],
        env={**os.environ, **environment(record, host), **(env or {})},
        **options,
    )


def take_down(record: LabRecord) -> None:
    """End a running lab, with everything that runs in it.

    Raises:
        ThinwireError: it did not end.
    """
    try:
        keeper = os.pidfd_open(record.keeper_pid)
    except ProcessLookupError:
        return
    try:
        if state.start_ticks(record.keeper_pid) != record.keeper_started:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(keeper, number)
            if select.select([keeper], [], [], _END_TIMEOUT_S)[0]:
                state.running()
                return
    finally:
        os.close(keeper)
    raise ThinwireError(
        f"lab {record.name!r} (process {record.keeper_pid}) does not end, not even when killed"
    )


def _python(module: str) -> list[str]:
    """The command that runs a module of this package, from wherever this one was imported."""
    program = (
        f"import sys; sys.path.insert(0, {_PACKAGE_ROOT!r}); from thinwire.lab.{module} import main; main()"
    )
    return [sys.executable, "-P", "-c", program]
