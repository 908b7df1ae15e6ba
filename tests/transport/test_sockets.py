"""Links over real sockets: bad input, loss, closing, and what is left behind. What all transports have in common is
in ``tests/conformance``."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
import threading
from collections.abc import Sequence

import pytest

from tests.transport.house import OVER_TCP, House, refused
from tests.transport.strangers import ENDPOINT, PATIENCE_S, SECRET, introduce, is_closed, knock, receive
from thinwire.errors import AbortedError, LinkError, UsageError
from thinwire.protocol.frame import HEADER_BYTES, MAX_PAYLOAD_BYTES, Header, Kind
from thinwire.protocol.handshake import Verdict
from thinwire.protocol.reader import BY_REFERENCE, Piece, pack_pieces
from thinwire.testing.transports import Owner
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

DATA = Header(Kind.DATA, length=4)
GOODBYE = Header(Kind.GOODBYE)


def guest(house: House, owner: Owner, transport: str = "tcp") -> socket.socket:
    """A connection of a stranger who knows the secret; over a Unix socket, without cross-memory."""
    connection = house.keep(knock(owner.contact, transport))
    assert introduce(connection, owner.contact) is Verdict.WELCOME
    if transport == "unix":
        receive(connection, 8)
        connection.sendall(bytes(8))
        assert receive(connection, 1) == b"\0"
        connection.sendall(b"\0")
    return connection


BAD_FRAMES = {
    "garbage": (b"\xa5" * HEADER_BYTES, "not a thinwire frame"),
    "another protocol": (b"GET / HTTP/1.1\r\nHost: rank-0\r\nAccept: */*\r\n\r\n", "begins with b'GET '"),
    "unknown kind": (DATA.pack(0)[:2] + b"\x3f" + DATA.pack(0)[3:], "unknown frame kind 31"),
    "replayed": (2 * (DATA.pack(0) + b"once"), "frame number 0 where 1 was due: replayed or lost frame"),
    "lost": (DATA.pack(3) + b"late", "frame number 3 where 0 was due"),
    "oversized": (Header(Kind.DATA, length=MAX_PAYLOAD_BYTES + 1).pack(0), "exceeds the limit"),
    "goodbye with payload": (
        Header(Kind.GOODBYE, length=1).pack(0) + b"x",
        "GOODBYE with a payload of 1 bytes",
    ),
    "pulled nothing": (
        Header(Kind.PULLED, signature=1).pack(0),
        "1 payloads pulled on lane 0, where 0 were due",
    ),
    "pulled on no lane": (Header(Kind.PULLED, segment=7).pack(0), "0 payloads pulled on lane 7"),
    "by reference": (
        Header(Kind.DATA, length=4, flags=BY_REFERENCE).pack(0) + pack_pieces([Piece(4096, 4)]),
        "where none was agreed upon",
    ),
}


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_end_their_connection_and_no_other(
    house: House, caplog: pytest.LogCaptureFixture, name: str, transport: str
) -> None:
    stream, detail = BAD_FRAMES[name]
    owner, friend = house.owner(prefer=None), house.owner(prefer=None)
    friend.send(owner.contact, 1)
    connection = guest(house, owner, transport)
    connection.sendall(stream)
    assert is_closed(connection)
    house.wait_until(
        lambda: refused(owner) == {"frame": 1}
    )  # a goodbye closes before what follows it is read
    assert detail in caplog.text
    reason = house.wait_for_loss(owner)
    assert reason.startswith("it broke the protocol: ")
    assert detail in reason
    friend.send(owner.contact, 2)
    house.wait_until(lambda: [number for number, payload in owner.heard() if not payload] == [1, 2])
    assert not friend.losses


def test_a_connection_that_ends_inside_a_frame_is_counted(house: House) -> None:
    owner = house.owner()
    with guest(house, owner) as connection:
        connection.sendall(DATA.pack(0) + b"ha")
    assert house.wait_for_loss(owner) == "its connection ended inside a frame"
    assert refused(owner) == {"truncated": 1}
    assert not owner.frames


def test_a_connection_that_just_ends_is_a_loss_and_nothing_else(house: House) -> None:
    owner = house.owner()
    guest(house, owner).close()
    assert house.wait_for_loss(owner) == "it closed the connection without a goodbye"
    assert refused(owner) == {}


def test_a_reset_connection_is_a_loss(house: House) -> None:
    owner = house.owner()
    connection = guest(house, owner)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    assert house.wait_for_loss(owner) == "reading from it failed: Connection reset by peer"


def test_one_lane_of_several_is_enough_to_lose_a_link(house: House) -> None:
    owner = house.owner()
    lanes = [house.keep(knock(owner.contact)) for _ in range(3)]
    for index, connection in enumerate(lanes):
        assert introduce(connection, owner.contact, lane=index, lanes=3) is Verdict.WELCOME
    lanes[1].close()
    house.wait_for_loss(owner)
    assert all(is_closed(lanes[index]) for index in (0, 2))


def test_a_goodbye_counts_when_every_lane_has_said_it(house: House) -> None:
    owner = house.owner()
    lanes = [house.keep(knock(owner.contact)) for _ in range(2)]
    for index, connection in enumerate(lanes):
        assert introduce(connection, owner.contact, lane=index, lanes=2) is Verdict.WELCOME
    lanes[0].sendall(GOODBYE.pack(0))
    lanes[1].sendall(DATA.pack(0) + b"last" + GOODBYE.pack(1))
    for connection in lanes:
        assert receive(connection, HEADER_BYTES) == GOODBYE.pack(0)
        assert connection.recv(1) == b""
    assert [header.kind for _, header, _ in owner.frames] == [Kind.DATA, Kind.GOODBYE]
    assert not owner.losses


def test_nothing_may_follow_a_goodbye(house: House) -> None:
    owner = house.owner()
    lanes = [house.keep(knock(owner.contact)) for _ in range(2)]
    for index, connection in enumerate(lanes):
        assert introduce(connection, owner.contact, lane=index, lanes=2) is Verdict.WELCOME
    lanes[0].sendall(GOODBYE.pack(0) + DATA.pack(1) + b"more")
    assert house.wait_for_loss(owner) == "it broke the protocol: DATA after GOODBYE"
    assert refused(owner) == {"frame": 1}


def test_frames_wait_for_all_lanes(house: House) -> None:
    owner = house.owner(lanes=2)
    listener = house.listener(owner)
    owner.send(listener.contact, 5)
    first = house.keep(listener.welcome())
    second = house.keep(listener.accept())
    first.settimeout(0.05)
    with pytest.raises(TimeoutError):
        first.recv(1)
    second.close()
    house.keep(listener.welcome())
    first.settimeout(PATIENCE_S)
    listener.socket.close()
    house.wait_until(lambda: owner.sent)
    assert owner.sent == [None]


class Failing(Owner):
    """An owner with a bug."""

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        raise ZeroDivisionError("a bug")


def test_a_bug_in_the_receiver_surfaces(house: House, caplog: pytest.LogCaptureFixture) -> None:
    sound = house.owner()
    transport = SocketTransport(SECRET, SocketOptions(**OVER_TCP))
    failing = Failing(transport, house.news)
    sound.send(failing.contact, 1)
    assert house.wait_for_loss(failing) == "our side failed: ZeroDivisionError: a bug"
    house.wait_for_loss(sound)
    assert "closing the link because of a bug in this process" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    transport.close()


@pytest.mark.parametrize("size", [10, 1 << 20], ids=["from the sender's thread", "from the writer's thread"])
def test_a_bug_in_on_sent_surfaces(house: House, caplog: pytest.LogCaptureFixture, size: int) -> None:
    one, other = house.owner(), house.owner()
    one.send(other.contact, 1)
    house.wait_until(lambda: one.sent)  # whoever wrote the first frame has given the lane back

    def buggy(error: BaseException | None) -> None:
        if error is None:
            raise ZeroDivisionError("a bug")

    if size == 10:
        with pytest.raises(ZeroDivisionError):
            one.send(other.contact, 2, bytes(size), on_sent=buggy)
        assert not one.losses
    else:
        one.send(other.contact, 2, bytes(size), on_sent=buggy)
        assert house.wait_for_loss(one) == "our side failed: ZeroDivisionError: a bug"


def test_closing_gives_up_on_a_peer_that_does_not_read(house: House) -> None:
    one, deaf = house.owner(), house.owner()
    deaf.gate.clear()
    for number in range(64):
        one.send(deaf.contact, number, bytes(1 << 20))
    one.transport.close(linger_s=0.05)
    deaf.gate.set()
    assert len(one.sent) == 64
    assert any(error is not None for error in one.sent)
    assert all("not everything could be sent in the 0.05 s" in str(error) for error in one.sent if error)
    assert not one.losses


def test_closing_does_not_wait_for_who_was_never_reached(house: House) -> None:
    one = house.owner()
    listener = house.listener(one)
    listener.socket.close()
    one.transport.link(listener.contact)
    one.transport.close(linger_s=PATIENCE_S)
    assert not one.losses


def test_a_closed_transport_makes_no_links(house: House) -> None:
    one, other = house.owner(), house.owner()
    one.transport.close()
    with pytest.raises(AbortedError, match="the transport is closed"):
        one.transport.link(other.contact)


def test_an_endpoint_has_no_link_to_itself(house: House) -> None:
    one = house.owner()
    with pytest.raises(UsageError, match="needs no link to itself"):
        one.transport.link(one.contact)


def test_a_transport_that_was_not_started_can_be_closed() -> None:
    SocketTransport(SECRET).close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("how", ["orderly", "broken"])
def test_nothing_is_left_behind(house: House, how: str) -> None:
    def live() -> None:
        owners = [
            Owner(
                SocketTransport(SECRET, SocketOptions(lanes=2, interface="127.0.0.1", **options)), house.news
            )
            for options in ({"prefer": "tcp"}, {"prefer": "tcp"}, {}, {})
        ]
        for one, other in (owners[:2], owners[2:]):
            one.send(other.contact, 1, bytes(100_000))
            house.wait_until(other.heard)
            if how == "broken":
                for link in one.transport._links.values():  # type: ignore[attr-defined]
                    link.abort()
        for owner in owners:
            owner.transport.close()

    live()
    threads, files = threading.active_count(), open_files()
    for _ in range(20):
        live()
    assert (threading.active_count(), open_files()) == (threads, files)


def test_statistics_name_the_links(house: House) -> None:
    one, other = house.owner(lanes=2), house.owner()
    one.send(other.contact, 1, bytes(1000))
    house.wait_until(lambda: other.frames)
    other.send(one.contact, 1, b"")  # leaves when all lanes stand, the frame before needed only one of them
    house.wait_until(lambda: one.frames)
    assert isinstance(other.transport, SocketTransport)
    [(peer, link)] = other.transport.statistics().links.items()
    assert peer == one.contact.endpoint
    assert (link.transport, link.lanes) == ("tcp", 2)
    assert (link.frames_received, link.bytes_received) == (1, HEADER_BYTES + 1000)


@pytest.mark.parametrize(
    ("ours", "theirs", "transport"),
    [
        ({}, {}, "unix+cross-memory"),
        ({}, {"cross_memory": False}, "unix"),
        ({"prefer": "tcp"}, {}, "tcp"),
        ({}, {"prefer": "tcp"}, "tcp"),
        ({"prefer": "unix"}, {}, "unix+cross-memory"),
    ],
)
def test_the_way_is_chosen_by_what_both_sides_have(
    house: House, ours: dict[str, object], theirs: dict[str, object], transport: str
) -> None:
    one, other = house.owner(**{"prefer": None, **ours}), house.owner(**{"prefer": None, **theirs})
    one.send(other.contact, 1)
    house.wait_until(other.heard)
    assert one.transport.link(other.contact).statistics().transport == transport


def test_the_interface_is_listened_on_and_published(house: House) -> None:
    owner = house.owner(interface="127.0.0.1")
    [address] = owner.contact.addresses["tcp"].split(",")
    assert address.startswith("127.0.0.1:")
    with pytest.raises(UsageError, match="no interface or address 'eth77' on this host: use one of lo "):
        house.owner(interface="eth77")


def test_congestion_control_can_be_chosen(house: House) -> None:
    one, other = house.owner(congestion_control="reno"), house.owner(congestion_control="reno")
    one.send(other.contact, 1)
    house.wait_until(other.heard)
    for owner in (one, other):
        [link] = owner.transport._links.values()  # type: ignore[attr-defined]
        [lane] = link._lanes
        chosen = lane._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert chosen.rstrip(b"\0") == b"reno"
        assert lane._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    with pytest.raises(UsageError, match="congestion control 'pigeon' is not available here"):
        house.owner(congestion_control="pigeon")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lanes", 0, "lanes is 0: use 1 to 64"),
        ("lanes", 65, "lanes is 65: use 1 to 64"),
        ("prefer", "udp", "prefer is 'udp': use 'tcp', 'unix' or nothing"),
        ("connect_timeout_s", 0, "connect_timeout_s is 0: use more than 0"),
        ("unauthenticated_max", -1, "unauthenticated_max is -1: use more than 0"),
    ],
)
def test_impossible_options_are_the_callers_mistake(option: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SocketOptions(**{option: value})  # type: ignore[arg-type]


def test_sends_to_who_has_left_say_so(house: House) -> None:
    one, other = house.owner(), house.owner()
    one.send(other.contact, 1)
    house.wait_until(other.heard)
    one.transport.close()
    house.wait_until(lambda: other.heard(Kind.GOODBYE))
    other.send(one.contact, 2, b"too late")
    assert isinstance(other.sent[0], LinkError)
    assert str(other.sent[0]) == f"endpoint {one.contact.endpoint}: it has left"


def test_the_first_words_of_a_guest_reach_the_owner(house: House) -> None:
    """Its lane is read before the endpoint has ever asked for a link to it."""
    owner = house.owner()
    connection = guest(house, owner)
    connection.sendall(DATA.pack(0) + b"here")
    house.wait_until(owner.heard)
    assert owner.frames == [(ENDPOINT, DATA, b"here")]
    assert logging.getLogger("thinwire.transport").handlers == []


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
def test_a_peer_that_will_not_answer_soon_can_have_what_it_got_acknowledged_at_once(house: House) -> None:
    """After some conversation a kernel waits for an answer that takes the acknowledgement along."""
    owner, friend = house.owner(), house.owner()
    sent = itertools.count(1)

    def tell(what: bytes) -> None:
        number = next(sent)
        friend.send(owner.contact, number, what)
        house.wait_until(lambda: len(owner.heard()) == number)

    def is_acknowledged_at_once() -> bool:
        for _ in range(5):
            tell(b"some")
            heard = len(friend.heard())
            owner.send(friend.contact, heard, b"more")
            house.wait_until(lambda due=heard + 1: len(friend.heard()) == due)
        tell(b"last")
        owner.transport.link(friend.contact).acknowledge()
        traffic = friend.transport.link(owner.contact).traffic()
        return traffic.delivered_bytes >= traffic.sent_bytes > 0

    assert any(
        is_acknowledged_at_once() for _ in range(5)
    )  # on a busy machine the kernel may be late with it
