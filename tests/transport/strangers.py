"""The other end of a connection, played by hand, so that it can do what no transport of ours would."""

from __future__ import annotations

import socket

from thinwire.protocol.handshake import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    PROOF_BYTES,
    VERDICT_BYTES,
    Acceptor,
    Dialer,
    Introduction,
    Verdict,
)
from thinwire.transport.addresses import family_of, split_address
from thinwire.transport.base import Contact

SECRET = b"shared by these tests alone"
ENDPOINT = "ab" * 16
NONCE = b"never used before, cross my heart"[:32]
PATIENCE_S = 20.0


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    received = b""
    while len(received) < size:
        more = connection.recv(size - len(received))
        assert more, f"hung up after {len(received)} of {size} bytes"
        received += more
    return received


def is_closed(connection: socket.socket) -> bool:
    """Wait for the other side to close the connection; whatever it says before is dropped."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def knock(contact: Contact, transport: str = "tcp") -> socket.socket:
    """A connection to an endpoint, and not a word yet."""
    if transport == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect("\0" + contact.addresses["unix"][1:])
        return connection
    address = split_address(contact.addresses["tcp"].split(",")[0])
    connection = socket.socket(family_of(address[0]))
    connection.settimeout(PATIENCE_S)
    connection.connect(address)
    return connection


def introduce(
    connection: socket.socket,
    contact: Contact,
    *,
    endpoint: str = ENDPOINT,
    looking_for: str | None = None,
    lane: int = 0,
    lanes: int = 1,
) -> Verdict:
    """Prove to know the secret; what the endpoint answers."""
    dialer = Dialer(SECRET, Introduction(endpoint, looking_for or contact.endpoint, lane, lanes), NONCE)
    connection.sendall(dialer.hello)
    connection.sendall(dialer.prove(receive(connection, CHALLENGE_BYTES)))
    return dialer.conclude(receive(connection, VERDICT_BYTES))


class Listener:
    """An endpoint that is only a TCP address, to be dialled by a transport of ours."""

    def __init__(self, host_key: str, endpoint: str = ENDPOINT) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_S)
        port = self.socket.getsockname()[1]
        self.contact = Contact(
            endpoint=endpoint, host="stranger", host_key=host_key, addresses={"tcp": f"127.0.0.1:{port}"}
        )

    def accept(self) -> socket.socket:
        """A connection, and not a word yet."""
        connection, _ = self.socket.accept()
        connection.settimeout(PATIENCE_S)
        return connection

    def welcome(self, verdict: Verdict = Verdict.WELCOME, secret: bytes = SECRET) -> socket.socket:
        """A connection that has got this answer to its proof."""
        connection = self.accept()
        acceptor = Acceptor(secret, NONCE)
        connection.sendall(acceptor.challenge)
        acceptor.hear(receive(connection, HELLO_BYTES))
        proof = receive(connection, PROOF_BYTES)
        if secret == SECRET:
            acceptor.verify(proof)
        connection.sendall(acceptor.answer(verdict))
        return connection
