"""Start a command inside a host of a lab: ``python -m thinwire.lab.enter KEEPER_PID NAMESPACE_FD HOST COMMAND
...``.

The process joins the keeper's namespaces and the host's network, takes the host's name, and starts the
command as its child, because a process namespace is only entered by children. It hands on the signals it
gets, dies with its parent, takes the command with it, and ends with the command's exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from thinwire.lab import namespaces

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # the exit statuses by which shells say so
_HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Join, start the command, and end as it ends."""
    keeper_pid, namespace_fd, host, *command = sys.argv[1:]
    directory = os.getcwd()
    _join(int(keeper_pid), int(namespace_fd))
    namespaces.unshare(namespaces.NEW_UTS | namespaces.NEW_MOUNT)
    namespaces.set_host_name(host)
    with contextlib.suppress(OSError):  # not allowed everywhere; then /sys shows the machine's devices
        namespaces.mount("sysfs", Path("/sys"))
    with contextlib.suppress(OSError):
        os.chdir(directory)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)  # until there is somebody to hand them on to
    child = os.fork()
    if child == 0:
        namespaces.die_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
        _execute(command)
    for number in _HANDED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


def _join(keeper_pid: int, namespace_fd: int) -> None:
    """Enter all namespaces of the keeper but its network, and the host's network."""
    keeper = Path(f"/proc/{keeper_pid}")
    names = ["ipc", "pid", "mnt"]
    if (keeper / "ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino:
        names.insert(0, "user")
    descriptors = [os.open(keeper / "ns" / name, os.O_RDONLY) for name in names]
    descriptors.append(os.open(keeper / "fd" / str(namespace_fd), os.O_RDONLY))
    for descriptor in descriptors:
        namespaces.enter(descriptor)
        os.close(descriptor)


def _execute(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        print(f"{command[0]}: no such command", file=sys.stderr)
        os._exit(_NOT_FOUND)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(_NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
