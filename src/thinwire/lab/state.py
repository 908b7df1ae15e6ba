"""What is known of labs that run: a record on disk for each, removed with it, and swept up if its lab was
killed.

A lab is one process, the keeper, which holds everything by file descriptors. Its record names the process and
when it was started, so that a process number that was given out again is not taken for a lab.

Not here: how a lab is started and ended (``lab``, ``keeper``).
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from thinwire.errors import UsageError

HOSTS_FILE = "hosts"
_RECORD = "lab.json"
_DRAFT = "."  # begins the name of a directory whose record is being written


class LabHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host of a running lab. ``namespace_fd`` is the keeper's descriptor of its network namespace."""

    name: str
    address: str
    namespace_fd: int


class LabRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One running lab.

    Attributes:
        keeper_pid: the process that is the lab.
        keeper_started: when it was started, in the kernel's ticks since boot.
        uses_relay: whether packets pass through the relay, or through the kernel only.
    """

    name: str
    scenario: str
    keeper_pid: int
    keeper_started: int
    hosts: tuple[LabHost, ...]
    uses_relay: bool

    def host(self, name: str) -> LabHost:
        """The host called so.

        Raises:
            UsageError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise UsageError(
            f"lab {self.name!r} has no host {name!r}; it has {', '.join(host.name for host in self.hosts)}"
        )


def directory() -> Path:
    """Where this user's labs are recorded; made if need be, and closed to others."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    path = Path(base) / f"thinwire-lab-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise UsageError(f"{path} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of your own")
    return path


def claim(record: LabRecord, *, is_numbered: bool = False) -> tuple[LabRecord, Path]:
    """A new directory for a lab that is about to be built, with its record in it.

    Args:
        is_numbered: if the name is taken, take it with the first number that is free.

    Returns:
        The record under the name it has now, and the directory.

    Raises:
        UsageError: a lab of that name runs.
    """
    draft = directory() / f"{_DRAFT}{record.keeper_pid}"
    shutil.rmtree(draft, ignore_errors=True)  # of a process that had this number and was killed here
    draft.mkdir()
    try:
        for number in itertools.count(1) if is_numbered else (1,):
            name = record.name if number == 1 else f"{record.name}-{number}"
            claimed = msgspec.structs.replace(record, name=name)
            write(draft, claimed)
            try:
                return claimed, draft.rename(directory() / name)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # it has another name now, or no use
    raise UsageError(f"a lab called {record.name!r} runs already; take it down or choose another name")


def write(path: Path, record: LabRecord) -> None:
    """Put the record into the lab's directory, all at once."""
    draft = path / f"{_RECORD}.new"
    draft.write_bytes(msgspec.json.encode(record))
    draft.rename(path / _RECORD)


def running() -> dict[str, LabRecord]:
    """The labs of this user that run, by name. Sweeps up what killed ones have left."""
    records = {}
    for path in sorted(directory().iterdir()):
        if path.name.startswith(_DRAFT):
            pid = path.name.removeprefix(_DRAFT)
            if pid.isdecimal() and start_ticks(int(pid)) is None:
                shutil.rmtree(path, ignore_errors=True)
            continue
        record = _read(path)
        if record is None or start_ticks(record.keeper_pid) != record.keeper_started:
            shutil.rmtree(path, ignore_errors=True)
        else:
            records[record.name] = record
    return records


def _read(path: Path) -> LabRecord | None:
    try:
        return msgspec.json.decode((path / _RECORD).read_bytes(), type=LabRecord)
    except (OSError, msgspec.DecodeError):
        return None


def start_ticks(pid: int) -> int | None:
    """When the process was started, in ticks since boot; None if there is no such process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])
