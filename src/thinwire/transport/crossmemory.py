"""Cross-memory: a process of the same host reads a payload straight out of the sender's memory.

Linux's ``process_vm_readv`` copies between two address spaces once, where a Unix socket copies twice and wakes twice.
The frame then carries addresses instead of bytes. Reading needs the kernel's permission (same user, one
PID namespace, no Yama restriction), which is not asked for but tried: each side reads a nonce that the other
has just drawn, and each direction that fails keeps copying through the socket. Nothing is ever written into another
process, and the only process read is the one at the other end of an authenticated Unix socket.

A peer may die while it is read, or take its memory back after it gave up the connection. The first makes the read
fail; ``Puller`` raises ``OSError`` for it. The second is the lane's to notice before it hands the payload on.

Not here: the frame that carries the addresses (``protocol.reader``) and when the sender may use its memory again
(``lane``).
"""

from __future__ import annotations

import ctypes
import hmac
import os
import socket
import struct
import sys
from collections.abc import Sequence

import numpy as np

from thinwire.protocol.reader import PIECES_MAX, Piece

# Below this the two extra frames cost more than the copies saved; measured by benchmarks/transport.py.
REFERENCE_BYTES_MIN = 32 << 10
_IOV_MAX = 1024
_IOVEC = struct.Struct("PN")  # struct iovec: base, length
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def supported() -> bool:
    """Whether this kernel and C library have ``process_vm_readv`` at all."""
    return sys.platform == "linux" and _IOVEC.size == 16 and hasattr(_libc(), "process_vm_readv")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def address_of(view: memoryview) -> int:
    """Where the bytes of a contiguous view are in this process.

    >>> buffer = ctypes.create_string_buffer(b"abc")
    >>> ctypes.string_at(address_of(memoryview(buffer)), 3)
    b'abc'
    """
    if not view.readonly:  # the fast way, which does not take others
        return ctypes.addressof(ctypes.c_char.from_buffer(view))
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a Unix socket, as this process may name it; 0 if it cannot."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


class Puller:
    """Reads the memory of one process. For one thread at a time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._read = _libc().process_vm_readv
        self._read.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_ulong,
        )
        self._read.restype = ctypes.c_ssize_t
        self._remote = ctypes.create_string_buffer(PIECES_MAX * _IOVEC.size)

    def pull(self, pieces: Sequence[Piece], views: Sequence[memoryview]) -> None:
        """Fill ``views`` with the bytes of at most ``PIECES_MAX`` ``pieces``, which have the same length in all.

        Raises:
            OSError: the process is gone, its memory is, or the kernel does not permit it.
        """
        if len(views) > _IOV_MAX:
            self._pull_and_scatter(pieces, views)
            return
        due = 0
        for index, piece in enumerate(pieces):
            _IOVEC.pack_into(self._remote, index * _IOVEC.size, *piece)
            due += piece[1]
        local = b"".join(_IOVEC.pack(address_of(view), view.nbytes) for view in views if view.nbytes)
        copied = self._read(self._pid, local, len(local) // _IOVEC.size, self._remote, len(pieces), 0)
        if copied < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"reading the memory of process {self._pid}: {os.strerror(code)}")
        if copied != due:
            raise OSError(f"read {copied} of {due} bytes from the memory of process {self._pid}")

    def _pull_and_scatter(self, pieces: Sequence[Piece], views: Sequence[memoryview]) -> None:
        """For more views than the kernel takes at once."""
        rest = memoryview(bytearray(sum(view.nbytes for view in views)))
        self.pull(pieces, [rest])
        for view in views:
            view[:], rest = rest[: view.nbytes], rest[view.nbytes :]


def probe(connection: socket.socket, address: int, expected: bytes) -> Puller | None:
    """A puller for the process at the other end, if it can read the ``expected`` bytes at ``address`` there."""
    pid = peer_pid(connection)
    if not pid:
        return None
    found = bytearray(len(expected))
    puller = Puller(pid)
    try:
        puller.pull([Piece(address, len(expected))], [memoryview(found)])
    except OSError:
        return None
    return puller if hmac.compare_digest(bytes(found), expected) else None
