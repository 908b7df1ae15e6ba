"""Who gets in: handshakes over real sockets, with transports on one side and strangers on the other."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.transport.house import House, refused
from tests.transport.strangers import ENDPOINT, PATIENCE_S, Listener, introduce, is_closed, knock, receive
from thinwire.protocol.frame import HEADER_BYTES, VERSION, Header, Kind
from thinwire.protocol.handshake import CHALLENGE_BYTES, HELLO_BYTES, PROOF_BYTES, Verdict


def test_two_jobs_do_not_mix(house: House, caplog: pytest.LogCaptureFixture) -> None:
    ours, other = house.owner(), house.owner(secret=b"the secret of another job")
    other.send(ours.contact, 1, b"let me in")
    reason = house.wait_for_loss(other)
    assert f"no connection to {ours.contact.host}" in reason
    assert "give every rank of the job the same secret" in reason
    assert refused(ours) == {"secret": 1}
    assert "(secret): the dialer does not know the job's secret" in caplog.text
    assert not ours.losses
    assert not ours.frames
    assert len(other.sent) == 1
    assert "same secret" in str(other.sent[0])


def test_nothing_is_said_to_who_does_not_know_the_secret(house: House) -> None:
    owner = house.owner()
    connection = house.keep(knock(owner.contact))
    challenge = receive(connection, CHALLENGE_BYTES)
    hello = b"thinwire" + VERSION.to_bytes(2, "little")
    connection.sendall(hello.ljust(HELLO_BYTES, b"x") + b"a guess".ljust(PROOF_BYTES) + b"frames" * 100)
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""
    assert challenge.startswith(hello)
    assert refused(owner) == {"secret": 1}


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        (b"GET / HTTP/1.1\r\n\r\n".ljust(HELLO_BYTES), "not a thinwire endpoint: it begins with b'GET / HT'"),
        (b"thinwire\xff\xff".ljust(HELLO_BYTES), "the other side speaks protocol version 65535"),
    ],
)
def test_other_protocols_are_refused(
    house: House, caplog: pytest.LogCaptureFixture, words: bytes, detail: str
) -> None:
    owner = house.owner()
    connection = house.keep(knock(owner.contact))
    connection.sendall(words)
    assert is_closed(connection)
    assert refused(owner) == {"handshake": 1}
    assert detail in caplog.text


def test_a_handshake_cut_short_is_refused(house: House) -> None:
    owner = house.owner()
    with knock(owner.contact) as connection:
        connection.sendall(b"thin")
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)
    assert refused(owner) == {"handshake": 1}


def test_a_silent_connection_is_closed_at_the_deadline(house: House) -> None:
    owner = house.owner(handshake_timeout_s=0.05)
    connection = house.keep(knock(owner.contact))
    assert is_closed(connection)
    assert refused(owner) == {"deadline": 1}


def test_the_deadline_ends_with_the_handshake(house: House) -> None:
    one, other = house.owner(handshake_timeout_s=0.05), house.owner(handshake_timeout_s=0.05)
    one.send(other.contact, 1)
    house.wait_until(other.heard)
    with house.news:
        assert not house.news.wait_for(lambda: one.losses or other.losses, 0.2), "an idle link was given up"


def test_only_so_many_connections_may_be_unproved(house: House) -> None:
    owner = house.owner(unauthenticated_max=2)
    silent = [house.keep(knock(owner.contact)) for _ in range(2)]
    for connection in silent:
        receive(connection, CHALLENGE_BYTES)
    third = house.keep(knock(owner.contact))
    third.settimeout(0.1)
    with pytest.raises(TimeoutError):
        third.recv(1)
    third.settimeout(PATIENCE_S)
    silent[0].close()
    assert introduce(third, owner.contact) is Verdict.WELCOME


def test_who_looks_for_another_endpoint_is_told(house: House) -> None:
    owner = house.owner()
    connection = house.keep(knock(owner.contact))
    assert introduce(connection, owner.contact, looking_for="cd" * 16) is Verdict.STRANGER
    assert is_closed(connection)
    assert refused(owner) == {"stranger": 1}


def test_a_lane_is_taken_once(house: House) -> None:
    owner = house.owner()
    first, second, third = (house.keep(knock(owner.contact)) for _ in range(3))
    assert introduce(first, owner.contact, lanes=2) is Verdict.WELCOME
    assert introduce(second, owner.contact, lanes=2) is Verdict.DUPLICATE
    assert introduce(third, owner.contact, lane=1, lanes=3) is Verdict.DUPLICATE
    assert is_closed(second)
    assert is_closed(third)
    assert refused(owner) == {"duplicate": 2}
    assert not owner.losses


def test_a_lost_endpoint_does_not_come_back(house: House) -> None:
    owner = house.owner()
    with knock(owner.contact) as connection:
        assert introduce(connection, owner.contact) is Verdict.WELCOME
    house.wait_for_loss(owner)
    again = house.keep(knock(owner.contact))
    assert introduce(again, owner.contact) is Verdict.DUPLICATE


def test_an_endpoint_of_another_version_is_named(house: House) -> None:
    owner = house.owner()
    listener = house.listener(owner)
    owner.send(listener.contact, 1)
    house.keep(listener.accept()).sendall(b"thinwire\xff\xff".ljust(CHALLENGE_BYTES))
    assert "the other side speaks protocol version 65535" in house.wait_for_loss(owner)


def test_an_impostor_is_not_trusted(house: House) -> None:
    owner = house.owner()
    listener = house.listener(owner)
    owner.send(listener.contact, 1, b"for the real one only")
    connection = house.keep(listener.welcome(secret=b"guessed, and wrongly"))
    assert "does not know the job's secret" in house.wait_for_loss(owner)
    assert is_closed(connection)


@pytest.mark.parametrize("refusal", [Verdict.YIELD, Verdict.STRANGER])
def test_refusals_that_may_pass_are_tried_again(house: House, refusal: Verdict) -> None:
    owner = house.owner()
    listener = house.listener(owner)
    owner.send(listener.contact, 7)
    listener.welcome(refusal).close()
    listener.accept().close()
    connection = house.keep(listener.welcome())
    assert Header.parse(receive(connection, HEADER_BYTES), 0) == Header(Kind.DATA, operation=7)


def test_a_peer_that_is_closing_is_not_dialled_again(house: House) -> None:
    owner = house.owner()
    listener = house.listener(owner)
    owner.send(listener.contact, 1)
    house.keep(listener.welcome(Verdict.LEAVING))
    assert "it answered LEAVING" in house.wait_for_loss(owner)


def test_nobody_there(house: House) -> None:
    """Known at once, not when the time for connecting is over: who has a contact has listened before."""
    owner = house.owner(connect_timeout_s=1000.0)
    listener = house.listener(owner)
    listener.socket.close()
    owner.send(listener.contact, 1)
    reason = house.wait_for_loss(owner)
    assert f"no connection to stranger ({listener.contact.addresses['tcp']}: Connection refused)" in reason
    house.wait_until(lambda: owner.sent)
    assert "Connection refused" in str(owner.sent[0])


def test_no_transport_in_common(house: House) -> None:
    tcp, unix = house.owner(), house.owner(prefer="unix")
    unix.send(tcp.contact, 1)
    reason = house.wait_for_loss(unix)
    assert reason.startswith(f"no way to {tcp.contact.host}: it listens on {tcp.contact.addresses}")


def test_the_smaller_endpoint_keeps_its_own_connection(house: House) -> None:
    """While its dial is in the handshake, the other's is told to yield; a larger one gives way."""
    owner = house.owner()
    for endpoint, verdict in (("ff" * 16, Verdict.YIELD), ("00" * 16, Verdict.WELCOME)):
        listener = Listener(owner.contact.host_key, endpoint)
        house.keep(listener.socket)
        owner.send(listener.contact, 1)
        dialled = house.keep(listener.accept())
        receive(dialled, HELLO_BYTES)  # the owner is in the handshake now
        dialling = house.keep(knock(owner.contact))
        assert introduce(dialling, owner.contact, endpoint=endpoint) is verdict
    assert receive(dialling, HEADER_BYTES) == Header(Kind.DATA, operation=1).pack(0)


def test_a_short_wait_is_enough_for_a_peer_that_starts_late(house: House) -> None:
    owner = house.owner()
    early = Listener(owner.contact.host_key, ENDPOINT)
    early.socket.close()
    owner.send(early.contact, 3)
    port = int(early.contact.addresses["tcp"].rpartition(":")[2])
    listener = house.listener(owner)
    listener.socket.close()
    listener.socket = house.keep(socket.create_server(("127.0.0.1", port)))
    connection = house.keep(listener.welcome())
    assert receive(connection, HEADER_BYTES) == Header(Kind.DATA, operation=3).pack(0)
