"""The handshake, both sides in one thread, no sockets."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import AuthenticationError, ProtocolError, UsageError
from thinwire.protocol.frame import VERSION
from thinwire.protocol.handshake import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    LANES_MAX,
    PROOF_BYTES,
    VERDICT_BYTES,
    Acceptor,
    Dialer,
    Introduction,
    Verdict,
)

SECRET = b"known to all ranks of the job"
US = Introduction(dialer="0a" * 16, acceptor="0b" * 16, lane=2, lanes=3)
NONCES = b"d" * 32, b"a" * 32


def both(dialer_secret: bytes = SECRET, acceptor_secret: bytes = SECRET) -> tuple[Dialer, Acceptor]:
    return Dialer(dialer_secret, US, NONCES[0]), Acceptor(acceptor_secret, NONCES[1])


def admit(acceptor: Acceptor, hello: bytes, proof: bytes) -> Introduction:
    acceptor.hear(hello)
    return acceptor.verify(proof)


def conversation() -> tuple[bytes, bytes, bytes, bytes]:
    """The four messages of a handshake that went well."""
    dialer, acceptor = both()
    acceptor.hear(dialer.hello)
    proof = dialer.prove(acceptor.challenge)
    acceptor.verify(proof)
    return dialer.hello, acceptor.challenge, proof, acceptor.answer(Verdict.WELCOME)


@pytest.mark.parametrize("verdict", Verdict)
def test_who_knows_the_secret_gets_in(verdict: Verdict) -> None:
    dialer, acceptor = both()
    acceptor.hear(dialer.hello)
    assert acceptor.verify(dialer.prove(acceptor.challenge)) == US
    assert dialer.conclude(acceptor.answer(verdict)) is verdict
    assert (dialer.peer_nonce, acceptor.peer_nonce) == (acceptor.nonce, dialer.nonce)


def test_messages_have_the_sizes_they_promise() -> None:
    assert [len(message) for message in conversation()] == [
        HELLO_BYTES,
        CHALLENGE_BYTES,
        PROOF_BYTES,
        VERDICT_BYTES,
    ]


def test_messages_are_these_bytes() -> None:
    hello, challenge, proof, verdict = conversation()
    version = VERSION.to_bytes(2, "little")
    assert hello == b"thinwire" + version + b"\2\0\3\0" + b"\x0a" * 16 + b"\x0b" * 16 + b"d" * 32
    assert challenge == b"thinwire" + version + b"a" * 32
    assert proof == hmac.digest(SECRET, b"thinwire dialer\0" + hello + challenge, "sha256")
    assert verdict == b"\1" + hmac.digest(
        SECRET, b"thinwire acceptor\0" + b"\1" + hello + challenge, "sha256"
    )


def test_a_dialer_without_the_secret_is_refused() -> None:
    dialer, acceptor = both(dialer_secret=b"guessed by a stranger")
    acceptor.hear(dialer.hello)
    with pytest.raises(AuthenticationError, match="the dialer does not know the job's secret"):
        acceptor.verify(dialer.prove(acceptor.challenge))


def test_an_acceptor_without_the_secret_is_refused() -> None:
    dialer, acceptor = both()
    _, impostor = both(acceptor_secret=b"guessed by a stranger")
    for side in (acceptor, impostor):
        side.hear(dialer.hello)
    dialer.prove(impostor.challenge)
    with pytest.raises(AuthenticationError, match="that answered does not know"):
        dialer.conclude(impostor.answer(Verdict.WELCOME))


def test_a_proof_cannot_be_replayed() -> None:
    hello, _, proof, _ = conversation()
    acceptor = Acceptor(SECRET, b"fresh nonce".ljust(32))
    acceptor.hear(hello)
    with pytest.raises(AuthenticationError):
        acceptor.verify(proof)


def test_a_proof_cannot_be_reflected() -> None:
    """An attacker who sends our own nonce and proof back to us proves nothing."""
    dialer = Dialer(SECRET, US, NONCES[0])
    proof = dialer.prove(Acceptor(SECRET, NONCES[0]).challenge)
    with pytest.raises(AuthenticationError):
        dialer.conclude(bytes([Verdict.WELCOME]) + proof)


def test_a_verdict_cannot_be_altered() -> None:
    dialer, acceptor = both()
    acceptor.hear(dialer.hello)
    dialer.prove(acceptor.challenge)
    with pytest.raises(AuthenticationError):
        dialer.conclude(bytes([Verdict.WELCOME]) + acceptor.answer(Verdict.YIELD)[1:])


@given(st.integers(0, HELLO_BYTES - 1), st.integers(1, 255))
def test_no_byte_of_the_introduction_can_be_altered(position: int, difference: int) -> None:
    dialer, acceptor = both()
    hello = bytearray(dialer.hello)
    hello[position] ^= difference
    with pytest.raises(ProtocolError):  # of which AuthenticationError is one
        admit(acceptor, bytes(hello), dialer.prove(acceptor.challenge))


def test_another_version_is_named_on_both_sides() -> None:
    dialer, acceptor = both()
    other = (VERSION + 1).to_bytes(2, "little")
    message = f"the other side speaks protocol version {VERSION + 1}, this side {VERSION}: install the same"
    with pytest.raises(ProtocolError, match=message):
        dialer.prove(acceptor.challenge[:8] + other + acceptor.challenge[10:])
    with pytest.raises(ProtocolError, match=message):
        acceptor.hear(dialer.hello[:8] + other + dialer.hello[10:])


@pytest.mark.parametrize(("lane", "lanes"), [(0, 0), (3, 3), (0, LANES_MAX + 1)])
def test_impossible_lanes_are_refused(lane: int, lanes: int) -> None:
    dialer = Dialer(SECRET, US._replace(lane=lane, lanes=lanes), NONCES[0])
    acceptor = Acceptor(SECRET, NONCES[1])
    acceptor.hear(dialer.hello)
    with pytest.raises(ProtocolError, match=f"lane {lane} of {lanes}"):
        acceptor.verify(dialer.prove(acceptor.challenge))


@given(st.binary(max_size=2 * HELLO_BYTES), st.binary(max_size=2 * PROOF_BYTES))
def test_whatever_a_dialer_says_is_accepted_or_a_protocol_error(hello: bytes, proof: bytes) -> None:
    acceptor = Acceptor(SECRET, NONCES[1])
    with pytest.raises(ProtocolError):
        admit(acceptor, hello, proof)


@given(st.binary(max_size=2 * CHALLENGE_BYTES), st.binary(max_size=2 * VERDICT_BYTES))
def test_whatever_an_acceptor_says_is_accepted_or_a_protocol_error(challenge: bytes, verdict: bytes) -> None:
    dialer, acceptor = both()
    with pytest.raises(ProtocolError):
        dialer.prove(challenge)
    dialer.prove(acceptor.challenge)
    with pytest.raises(ProtocolError):
        dialer.conclude(verdict)


@given(st.integers(0, 255))
def test_unknown_verdicts_are_refused(code: int) -> None:
    dialer, acceptor = both()
    acceptor.hear(dialer.hello)
    dialer.prove(acceptor.challenge)
    answer = acceptor.answer(code)  # type: ignore[arg-type]  # a future acceptor may know more verdicts
    if code in list(Verdict):
        assert dialer.conclude(answer) == code
    else:
        with pytest.raises(ProtocolError, match=f"unknown verdict {code}"):
            dialer.conclude(answer)


def test_a_short_secret_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="must have at least 16 bytes and has 5"):
        Acceptor(b"short", NONCES[1])
