"""Admission: what a fresh connection goes through before its first frame, on either side, within a deadline.

Drives ``protocol.handshake`` over a blocking socket. Over a Unix socket the two sides then settle, for each
direction, whether payloads may travel by reference: each tells the address of its nonce (0: "not from me"), tries to
read the other's nonce there, and says in one byte whether it could.

Not here: listening, dialling, and what follows.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import NamedTuple

from thinwire.clock import Clock
from thinwire.errors import ProtocolError
from thinwire.protocol.handshake import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    NONCE_BYTES,
    PROOF_BYTES,
    VERDICT_BYTES,
    Acceptor,
    Dialer,
    Introduction,
    Verdict,
)
from thinwire.transport.crossmemory import Puller, probe, supported

_ADDRESS = struct.Struct("<Q")


class CrossMemory(NamedTuple):
    """What the two sides of a connection may read of each other.

    Attributes:
        puller: reads the peer's memory; None if this process cannot or shall not.
        by_reference: whether the peer can read ours, so that payloads may be sent by reference.
    """

    puller: Puller | None = None
    by_reference: bool = False


class Deadline:
    """A limit for a conversation as a whole, however slowly its bytes trickle in."""

    __slots__ = ("_clock", "_end_s")

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._end_s = clock.now_s() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end_s - self._clock.now_s())

    def limit(self, connection: socket.socket) -> None:
        """Make the socket's next call respect the deadline.

        Raises:
            TimeoutError: it has passed.
        """
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(remaining_s)


class HungUp(EOFError):
    """The other side closed the connection; ``received`` bytes of its message had come."""

    def __init__(self, received: int, size: int) -> None:
        super().__init__(f"it hung up after {received} of {size} bytes of a message of the handshake")
        self.received = received


def dial(connection: socket.socket, dialer: Dialer, deadline: Deadline) -> Verdict:
    """The dialling side of the handshake.

    Raises:
        ProtocolError: the other side is not thinwire, of another version, or does not know the secret.
        HungUp: it did.
        OSError: the connection broke, or (TimeoutError) the deadline passed.
    """
    deadline.limit(connection)
    connection.sendall(dialer.hello)
    challenge = _receive(connection, CHALLENGE_BYTES, deadline)
    connection.sendall(dialer.prove(challenge))
    try:
        verdict = _receive(connection, VERDICT_BYTES, deadline)
    except HungUp:
        raise ProtocolError(
            "it hung up on our proof of the job's secret: give every rank of the job the same secret"
        ) from None
    return dialer.conclude(verdict)


def accept(connection: socket.socket, acceptor: Acceptor, deadline: Deadline) -> Introduction:
    """The accepting side, up to the verdict, which is the caller's to find and send.

    Raises:
        ProtocolError: the other side is not thinwire, of another version, or does not know the secret.
        HungUp: it did.
        OSError: the connection broke, or (TimeoutError) the deadline passed.
    """
    deadline.limit(connection)
    connection.sendall(acceptor.challenge)
    acceptor.hear(_receive(connection, HELLO_BYTES, deadline))
    return acceptor.verify(_receive(connection, PROOF_BYTES, deadline))


def settle_cross_memory(
    connection: socket.socket, handshake: Dialer | Acceptor, deadline: Deadline, *, wanted: bool
) -> CrossMemory:
    """Find out, together with the peer, who can read whose memory. Nobody can but over a Unix socket.

    Raises:
        HungUp: the peer did.
        OSError: the connection broke, or (TimeoutError) the deadline passed.
    """
    if connection.family != socket.AF_UNIX:
        return CrossMemory()
    wanted = wanted and supported()
    shown = ctypes.create_string_buffer(handshake.nonce, NONCE_BYTES)
    deadline.limit(connection)
    connection.sendall(_ADDRESS.pack(ctypes.addressof(shown) if wanted else 0))
    (address,) = _ADDRESS.unpack(_receive(connection, _ADDRESS.size, deadline))
    puller = probe(connection, address, handshake.peer_nonce) if wanted and address else None
    connection.sendall(b"\1" if puller else b"\0")
    return CrossMemory(puller, _receive(connection, 1, deadline) == b"\1")


def _receive(connection: socket.socket, size: int, deadline: Deadline) -> bytes:
    """Exactly ``size`` bytes and not one more: what follows may belong to the frames."""
    received = bytearray()
    while len(received) < size:
        deadline.limit(connection)
        more = connection.recv(size - len(received))
        if not more:
            raise HungUp(len(received), size)
        received += more
    return bytes(received)
