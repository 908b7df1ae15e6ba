"""The handshake: two endpoints prove to each other that they know the job's secret, before the first frame.

Four messages of fixed size, each side with a fresh nonce of 32 bytes::

    dialer                                                   acceptor
      HELLO      version, lane, lanes, both endpoints, nonce   ->
      <-                               version, nonce   CHALLENGE     (does not wait for HELLO)
      PROOF      HMAC(secret, "dialer", transcript)            ->
      <-     verdict, HMAC(secret, "acceptor", verdict, transcript)   VERDICT

The transcript is HELLO and CHALLENGE as they travelled, so both proofs bind the protocol version, the two endpoints,
the lane and the number of lanes, and neither can be replayed (nonces) or reflected (roles). The acceptor
reads nothing of HELLO but its version before PROOF has been verified, and shows nothing derived from the secret
before that. Every version begins HELLO and CHALLENGE with the same ten bytes, so a mismatch is named as such.
This module is pure: bytes in, bytes out, no sockets and no clock; whoever drives it sets the deadline.

What it protects: a rank neither reads frames from, nor sends frames to, a process that does not know the secret, on
whatever network and under whatever address it appears.

What it does not: nothing is encrypted, and nothing after the handshake is authenticated, so whoever can change packets
on the path can read and alter an established connection; the secret itself must be shared over a channel that
is trusted, and must be long and random, for a listener on the path can test guesses against a proof it saw. There is no
forward secrecy because there is no secrecy. TLS joins by wrapping the socket before HELLO; its exported keying material
(RFC 9266) then belongs at the head of the transcript, which binds these proofs to that channel.

HMAC is RFC 2104 with SHA-256.
"""

from __future__ import annotations

import enum
import hmac
import struct
from typing import NamedTuple

from thinwire.errors import AuthenticationError, ProtocolError, UsageError
from thinwire.protocol.frame import VERSION

NONCE_BYTES = 32
SECRET_BYTES_MIN = 16
LANES_MAX = 64
_PROOF_BYTES = 32
_PREFIX = struct.Struct("<8sH")
_MAGIC = b"thinwire"
_HELLO = struct.Struct(f"<{_PREFIX.size}sHH16s16s{NONCE_BYTES}s")
_CHALLENGE = struct.Struct(f"<{_PREFIX.size}s{NONCE_BYTES}s")
_VERDICT = struct.Struct(f"<B{_PROOF_BYTES}s")

HELLO_BYTES = _HELLO.size
CHALLENGE_BYTES = _CHALLENGE.size
PROOF_BYTES = _PROOF_BYTES
VERDICT_BYTES = _VERDICT.size


class Verdict(enum.IntEnum):
    """What the acceptor does with a dialer that has proved itself."""

    WELCOME = 1  # frames may follow
    YIELD = 2  # the acceptor is dialling this dialer at the same time, and its connection goes first
    STRANGER = 3  # the dialer looks for another endpoint than this one
    DUPLICATE = 4  # this lane of this dialer is connected already, or was
    LEAVING = 5  # the acceptor is closing


class Introduction(NamedTuple):
    """Who dialled, proved: the endpoint's id (hex), which of how many lanes, and whom it looks for."""

    dialer: str
    acceptor: str
    lane: int
    lanes: int


class Dialer:
    """The side that opened the connection. Send ``hello``, then answer what arrives.

    Args:
        secret: the job's secret, at least 16 bytes.
        introduction: both endpoints (32 hex digits each), lane and lanes.
        nonce: 32 bytes never used before.
    """

    __slots__ = ("_secret", "_transcript", "hello", "nonce", "peer_nonce")

    def __init__(self, secret: bytes, introduction: Introduction, nonce: bytes) -> None:
        self._secret = check_secret(secret)
        self.nonce = nonce
        self.hello = _HELLO.pack(
            _PREFIX.pack(_MAGIC, VERSION),
            introduction.lane,
            introduction.lanes,
            bytes.fromhex(introduction.dialer),
            bytes.fromhex(introduction.acceptor),
            nonce,
        )

    def prove(self, challenge: bytes) -> bytes:
        """PROOF, for this CHALLENGE.

        Raises:
            ProtocolError: not thinwire, or another version of it.
        """
        _check_size("CHALLENGE", challenge, CHALLENGE_BYTES)
        _check_prefix(challenge)
        self.peer_nonce = bytes(challenge[-NONCE_BYTES:])
        self._transcript = self.hello + bytes(challenge)
        return _prove(self._secret, b"dialer", self._transcript)

    def conclude(self, verdict: bytes) -> Verdict:
        """What the acceptor said, once it has proved itself too.

        Raises:
            AuthenticationError: it does not know the secret.
            ProtocolError: it knows the secret and says something unknown.
        """
        _check_size("VERDICT", verdict, VERDICT_BYTES)
        code, proof = _VERDICT.unpack(verdict)
        if not hmac.compare_digest(
            _prove(self._secret, b"acceptor", bytes([code]) + self._transcript), proof
        ):
            raise AuthenticationError("the endpoint that answered does not know the job's secret")
        try:
            return Verdict(code)
        except ValueError:
            raise ProtocolError(f"unknown verdict {code}") from None


class Acceptor:
    """The side that was connected to. Send ``challenge`` at once, then take HELLO, PROOF and answer.

    >>> secret, nonce = bytes(range(32)), bytes(32)
    >>> me = Introduction("0a" * 16, "0b" * 16, 0, 1)
    >>> dialer, acceptor = Dialer(secret, me, nonce), Acceptor(secret, nonce)
    >>> acceptor.hear(dialer.hello)
    >>> acceptor.verify(dialer.prove(acceptor.challenge)) == me
    True
    >>> dialer.conclude(acceptor.answer(Verdict.WELCOME)).name
    'WELCOME'
    """

    __slots__ = ("_hello", "_secret", "_transcript", "challenge", "nonce", "peer_nonce")

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        self._secret = check_secret(secret)
        self.nonce = nonce
        self.challenge = _CHALLENGE.pack(_PREFIX.pack(_MAGIC, VERSION), nonce)

    def hear(self, hello: bytes) -> None:
        """Take HELLO; only its version is looked at.

        Raises:
            ProtocolError: not thinwire, or another version of it.
        """
        _check_size("HELLO", hello, HELLO_BYTES)
        _check_prefix(hello)
        self._hello = bytes(hello)
        self._transcript = self._hello + self.challenge

    def verify(self, proof: bytes) -> Introduction:
        """Who dialled, if PROOF proves that it knows the secret.

        Raises:
            AuthenticationError: it does not.
            ProtocolError: it does, and makes no sense.
        """
        if not hmac.compare_digest(_prove(self._secret, b"dialer", self._transcript), bytes(proof)):
            raise AuthenticationError("the dialer does not know the job's secret")
        _, lane, lanes, dialer, acceptor, self.peer_nonce = _HELLO.unpack(self._hello)
        if not lane < lanes <= LANES_MAX:
            raise ProtocolError(f"lane {lane} of {lanes} where 0..{LANES_MAX - 1} of 1..{LANES_MAX} was due")
        return Introduction(dialer.hex(), acceptor.hex(), lane, lanes)

    def answer(self, verdict: Verdict) -> bytes:
        """VERDICT. Only for a dialer that ``verify`` accepted."""
        return _VERDICT.pack(verdict, _prove(self._secret, b"acceptor", bytes([verdict]) + self._transcript))


def check_secret(secret: bytes) -> bytes:
    """The secret itself.

    Raises:
        UsageError: shorter than 16 bytes.
    """
    if len(secret) < SECRET_BYTES_MIN:
        raise UsageError(
            f"the job's secret must have at least {SECRET_BYTES_MIN} bytes and has {len(secret)}: "
            "use secrets.token_bytes(32)"
        )
    return secret


def _prove(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, b"thinwire " + role + b"\0" + transcript, "sha256")


def _check_size(name: str, message: bytes, size: int) -> None:
    if len(message) != size:
        raise ProtocolError(f"{name} of {len(message)} bytes where {size} were due")


def _check_prefix(message: bytes) -> None:
    magic, version = _PREFIX.unpack_from(message)
    if magic != _MAGIC:
        raise ProtocolError(f"not a thinwire endpoint: it begins with {magic!r}")
    if version != VERSION:
        raise ProtocolError(
            f"the other side speaks protocol version {version}, this side {VERSION}: "
            "install the same thinwire on every host"
        )
