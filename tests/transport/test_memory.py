"""The memory transport carried by threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import pytest

from thinwire.errors import LinkError, ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.transport.base import Receiver, Transport
from thinwire.transport.memory import MemoryNetwork, MemoryTransport

PATIENCE_S = 20.0


class Recorder:
    """A receiver that puts what it hears into queues."""

    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[tuple[str, Header, bytes]] = queue.SimpleQueue()
        self.losses: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        data = memoryview(bytearray(header.length))
        return [data[:3], data[3:]]

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        self.frames.put((peer, header, b"".join(payload)))

    def on_lost(self, peer: str, reason: str) -> None:
        self.losses.put((peer, reason))


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    network = MemoryNetwork()
    yield network
    network.close()


def started(network: MemoryNetwork, receiver: Receiver, host: str = "memory") -> MemoryTransport:
    transport = network.transport(host)
    transport.start(receiver)
    return transport


def data(payload: bytes, operation: int = 0) -> tuple[Header, list[memoryview]]:
    return Header(Kind.DATA, operation=operation, length=len(payload)), [memoryview(payload)]


def test_it_is_a_transport(network: MemoryNetwork) -> None:
    transport: Transport = network.transport()
    assert transport.start(Recorder()).addresses == {"memory": "0"}


def test_bytes_are_copied_however_they_are_cut(network: MemoryNetwork) -> None:
    a, b = Recorder(), Recorder()
    sender, target = started(network, a), started(network, b)
    sent: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    header = Header(Kind.DATA, group=7, operation=1, tile=2, message=3, segment=4, length=10, signature=99)
    pieces = [memoryview(b"01234"), memoryview(b""), memoryview(b"56789")]
    sender.link(target.contact).send(header, pieces, on_sent=sent.put)
    assert b.frames.get(timeout=PATIENCE_S) == (sender.contact.endpoint, header, b"0123456789")
    assert sent.get(timeout=PATIENCE_S) is None


def test_statistics_count_both_directions(network: MemoryNetwork) -> None:
    a, b = Recorder(), Recorder()
    left, right = started(network, a), started(network, b)
    left.link(right.contact).send(*data(b"four"))
    b.frames.get(timeout=PATIENCE_S)
    right.link(left.contact).send(Header(Kind.HEARTBEAT))
    a.frames.get(timeout=PATIENCE_S)
    statistics = left.link(right.contact).statistics()
    assert (statistics.bytes_sent, statistics.frames_sent) == (HEADER_BYTES + 4, 1)
    assert (statistics.bytes_received, statistics.frames_received) == (HEADER_BYTES, 1)


def test_a_link_is_made_once(network: MemoryNetwork) -> None:
    left, right = started(network, Recorder()), started(network, Recorder())
    assert left.link(right.contact) is left.link(right.contact)
    assert right.link(left.contact) is left.link(right.contact).reverse


def test_frames_sent_by_a_receiver_do_not_pile_up_on_the_stack(network: MemoryNetwork) -> None:
    bounces = 3000
    done = threading.Event()

    class Bouncer(Recorder):
        transport: MemoryTransport
        other: MemoryTransport

        def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
            if header.operation == bounces:
                done.set()
            else:
                self.transport.link(self.other.contact).send(*data(b"ping", header.operation + 1))

    a, b = Bouncer(), Bouncer()
    a.transport = b.other = started(network, a)
    b.transport = a.other = started(network, b)
    a.transport.link(b.transport.contact).send(*data(b"ping"))
    assert done.wait(PATIENCE_S)


def test_a_protocol_error_breaks_the_connection_at_both_ends(network: MemoryNetwork) -> None:
    class Refusing(Recorder):
        def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
            raise ProtocolError("no such operation")

    a, b = Recorder(), Refusing()
    sender, target = started(network, a), started(network, b)
    sender.link(target.contact).send(*data(b"x"))
    assert a.losses.get(timeout=PATIENCE_S) == (target.contact.endpoint, "protocol error: no such operation")
    assert b.losses.get(timeout=PATIENCE_S) == (sender.contact.endpoint, "protocol error: no such operation")


def test_a_failing_receiver_breaks_its_connection_only(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Recorder):
        def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
            raise ZeroDivisionError("a bug")

    a, b, c = Recorder(), Failing(), Recorder()
    sender, failing, healthy = (started(network, receiver) for receiver in (a, b, c))
    sender.link(failing.contact).send(*data(b"x"))
    peer, reason = a.losses.get(timeout=PATIENCE_S)
    assert (peer, reason) == (failing.contact.endpoint, "its owner failed: ZeroDivisionError('a bug')")
    assert "a receiver failed" in caplog.text
    sender.link(healthy.contact).send(*data(b"y"))
    assert c.frames.get(timeout=PATIENCE_S)[2] == b"y"


def test_peers_of_a_killed_endpoint_lose_it_once(network: MemoryNetwork) -> None:
    receivers = [Recorder() for _ in range(3)]
    dead, peer, stranger = (started(network, receiver) for receiver in receivers)
    dead.link(peer.contact)
    network.kill(dead.index)
    lost, reason = receivers[1].losses.get(timeout=PATIENCE_S)
    assert (lost, reason) == (dead.contact.endpoint, "connection reset: its process has ended")
    stranger.link(dead.contact)
    assert receivers[2].losses.get(timeout=PATIENCE_S)[1] == "connection refused: nobody listens there"
    assert all(receiver.losses.empty() for receiver in receivers)


def test_sending_over_a_broken_link_says_so(network: MemoryNetwork) -> None:
    a, b = Recorder(), Recorder()
    sender, target = started(network, a), started(network, b, host="left-behind")
    link = sender.link(target.contact)
    network.kill(target.index)
    a.losses.get(timeout=PATIENCE_S)
    errors: list[BaseException | None] = []
    link.send(*data(b"x"), on_sent=errors.append)
    assert isinstance(errors[0], LinkError)
    assert str(errors[0]) == "no way to left-behind: connection reset: its process has ended"


def test_closing_sends_what_is_queued_and_is_no_loss(network: MemoryNetwork) -> None:
    a, b = Recorder(), Recorder()
    leaving, staying = started(network, a, host="leaver"), started(network, b)
    for number in range(100):
        leaving.link(staying.contact).send(*data(b"x", number))
    leaving.close()
    heard = [b.frames.get(timeout=PATIENCE_S)[1] for _ in range(101)]
    assert [header.operation for header in heard[:100]] == list(range(100))
    assert heard[100].kind is Kind.GOODBYE
    errors: list[BaseException | None] = []
    staying.link(leaving.contact).send(*data(b"x"), on_sent=errors.append)
    assert str(errors[0]) == "no way to leaver: leaver has left"
    assert b.losses.empty()
    leaving.close()


def test_closing_does_not_wait_for_the_dead(network: MemoryNetwork) -> None:
    a, b = Recorder(), Recorder()
    leaving, dead = started(network, a), started(network, b)
    leaving.link(dead.contact)
    network.kill(dead.index)
    leaving.close(linger_s=PATIENCE_S)


def test_64_endpoints_talk_to_each_other_at_once(network: MemoryNetwork) -> None:
    receivers = [Recorder() for _ in range(64)]
    transports = [started(network, receiver) for receiver in receivers]

    def talk(index: int) -> None:
        for target in transports:
            if target.index != index:
                transports[index].link(target.contact).send(*data(index.to_bytes(4, "little")))

    threads = [threading.Thread(target=talk, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, receiver in enumerate(receivers):
        senders = {int.from_bytes(receiver.frames.get(timeout=PATIENCE_S)[2], "little") for _ in range(63)}
        assert senders == set(range(64)) - {own}
