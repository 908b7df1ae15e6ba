"""Linux namespaces through libc: enter, create, name, mount.

The calls are thin: each does what the system call of its name does and turns failure into ``OSError``. The
one decision taken here is ``isolate``: with which privilege a lab gets namespaces of its own.

Not here: what goes into a namespace (``build``), and who keeps it alive (``keeper``).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from thinwire.errors import UsageError

NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000

_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones (``NEW_PID``: for the children only)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def enter(namespace_fd: int) -> None:
    """Move the calling thread into the namespace that the descriptor stands for."""
    _check(_libc.setns(ctypes.c_int(namespace_fd), ctypes.c_int(0)), "setns")


def set_host_name(name: str) -> None:
    """Give the calling process's UTS namespace a host name."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``signal_number`` when the thread that started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl(PDEATHSIG)")


def wake_on_time() -> None:
    """Let the calling thread's waits end within microseconds of their due time (the default slack is 50)."""
    _check(_libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0), "prctl(TIMERSLACK)")


def make_mounts_private() -> None:
    """Keep later mounts of this mount namespace from showing up in the one it came from."""
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)


def mount(filesystem: str, target: Path) -> None:
    """Mount a file system that has no device, such as ``proc``."""
    _mount(filesystem, target, filesystem, 0)


def bind(source: Path, target: Path) -> None:
    """Let ``target`` show what is at ``source``."""
    _mount(str(source), target, None, _MS_BIND)


def _mount(source: str | None, target: Path, filesystem: str | None, flags: int) -> None:
    result = _libc.mount(
        source.encode() if source else None,
        str(target).encode(),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        None,
    )
    _check(result, f"mount on {target}")


def isolate() -> None:
    """Give the calling, single-threaded process network, mount, host-name and IPC namespaces of its own, and
    its children a process namespace.

    As root directly; otherwise inside a new user namespace in which the caller keeps its user and group ids.

    Raises:
        UsageError: the process may do neither.
    """
    own = NEW_NET | NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_PID
    try:
        unshare(own)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        try:
            unshare(NEW_USER | own)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError as error:
            raise UsageError(
                "the lab needs root or unprivileged user namespaces, and has neither "
                f"({error.strerror}): run it as root, or have user namespaces allowed"
            ) from error
    make_mounts_private()


@contextlib.contextmanager
def network_namespace(namespace_fd: int) -> Iterator[None]:
    """Run the body inside a network namespace, and come back: sockets stay where they were opened."""
    home_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace_fd)
        try:
            yield
        finally:
            enter(home_fd)
    finally:
        os.close(home_fd)


def new_network_namespace() -> int:
    """A descriptor of a new network namespace, which lives as long as it or a process inside it."""
    home_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(NEW_NET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            enter(home_fd)
    finally:
        os.close(home_fd)
