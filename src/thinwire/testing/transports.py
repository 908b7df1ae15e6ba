"""What every transport must do, as checks that any implementation can run: ours, or one from elsewhere.

A check makes a ``Network`` of transports, uses them only through ``thinwire.transport.base``, and raises
``AssertionError`` with what was expected and what came. Checks wait for conditions, never for time to pass, so they
suit real sockets as well as simulated networks, in which nothing moves but while somebody waits.

Not here: what only some transports have, such as handshakes and interfaces.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from thinwire.errors import LinkError, ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, MAX_PAYLOAD_BYTES, Header, Kind
from thinwire.transport.base import Contact, OnSent, Transport

_PATIENCE_S = 60.0
_FILLER = bytes(range(256)) * (1 << 12)  # 1 MiB
_FILLERS = 48  # more of them than any transport should take before the other side reads
_SIZES = (0, 1, 39, 40, 41, 4095, 4096, 4097, 16_383, 16_384, 65_536, 65_537, 1 << 20, MAX_PAYLOAD_BYTES)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Transports that can reach each other.

    Attributes:
        transports: none of them started.
        kill: ends the transport of this index as if its process had died.
        run: lets the network run until a condition holds, where nothing moves otherwise; None for transports that
            have threads of their own.
        is_ordered: frames of equal priority on one link arrive in the order in which they were sent (one lane).
    """

    transports: Sequence[Transport]
    kill: Callable[[int], None]
    run: Callable[[Callable[[], bool]], None] | None = None
    is_ordered: bool = True


MakeNetwork = Callable[[int], AbstractContextManager[Network]]
Check = Callable[[MakeNetwork], None]


def check_transport(make_network: MakeNetwork) -> None:
    """Run every check.

    Args:
        make_network: a context manager that makes a network of so many transports, and cleans up behind it.

    Raises:
        AssertionError: the transport does not do what ``thinwire.transport.base`` says.

    >>> from thinwire.transport.memory import MemoryNetwork
    >>> @contextlib.contextmanager
    ... def make_network(size):
    ...     network = MemoryNetwork()
    ...     yield Network(transports=[network.transport() for _ in range(size)], kill=network.kill)
    ...     network.close()
    >>> check_transport(make_network)
    """
    for check in CHECKS:
        check(make_network)


class Owner:
    """A started transport and all that it has heard: a ``Receiver`` that remembers."""

    def __init__(self, transport: Transport, news: threading.Condition) -> None:
        self.transport = transport
        self.frames: list[tuple[str, Header, bytes]] = []
        self.losses: list[tuple[str, str]] = []
        self.sent: list[BaseException | None] = []
        self.gate = threading.Event()  # while it is closed, on_frame holds up every frame with a payload
        self.gate.set()
        self.refuses = False
        self.answers: Callable[[str, Header], None] | None = None
        self._news = news
        self.contact = transport.start(self)

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        if self.refuses:
            raise ProtocolError("refused by the check")
        whole = memoryview(bytearray(header.length))
        cut = header.length // 3
        return [whole[:cut], whole[cut:]]

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        if payload:
            self.gate.wait(_PATIENCE_S)
        with self._news:
            self.frames.append((peer, header, b"".join(payload)))
            self._news.notify_all()
        if self.answers is not None:
            self.answers(peer, header)

    def on_lost(self, peer: str, reason: str) -> None:
        with self._news:
            self.losses.append((peer, reason))
            self._news.notify_all()

    def on_sent(self, error: BaseException | None) -> None:
        """What became of one frame; ``send`` sees to it."""
        with self._news:
            self.sent.append(error)
            self._news.notify_all()

    def send(
        self,
        to: Contact,
        number: int,
        payload: bytes | bytearray = b"",
        *,
        priority: int = 0,
        on_sent: OnSent | None = None,
    ) -> None:
        """Send one DATA frame whose payload is cut in two."""
        half = len(payload) // 2
        views = [memoryview(payload)[:half], memoryview(payload)[half:]] if payload else []
        header = Header(Kind.DATA, operation=number, length=len(payload))
        self.transport.link(to).send(header, views, priority=priority, on_sent=on_sent or self.on_sent)

    def heard(self, kind: Kind = Kind.DATA) -> list[tuple[int, bytes]]:
        """Number and payload of the frames of one kind, in the order of arrival."""
        return [(header.operation, payload) for _, header, payload in self.frames if header.kind is kind]


class _World:
    """A network whose transports are started."""

    def __init__(self, network: Network) -> None:
        self.news = threading.Condition()
        self.network = network
        self.owners = [Owner(transport, self.news) for transport in network.transports]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        if self.network.run is not None:
            self.network.run(condition)
            return
        with self.news:
            assert self.news.wait_for(condition, _PATIENCE_S), f"waited {_PATIENCE_S} s in vain for {what}"

    def at_once(self, works: Iterable[Callable[[], None]]) -> None:
        """Do several things at the same time; one after the other where the network has no threads."""
        if self.network.run is not None:
            for work in works:
                work()
            return
        threads = [threading.Thread(target=work) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads), "a call to a transport blocks"

    @contextlib.contextmanager
    def unread(self, owner: Owner) -> Iterator[None]:
        """While ``owner`` does not read; where nothing moves by itself, that is so anyway."""
        if self.network.run is None:
            owner.gate.clear()
        try:
            yield
        finally:
            owner.gate.set()


@contextlib.contextmanager
def _started(make_network: MakeNetwork, size: int) -> Iterator[_World]:
    with make_network(size) as network:
        world = _World(network)
        try:
            yield world
        finally:
            for transport in network.transports:
                transport.close()


def check_frames_arrive_whole(make_network: MakeNetwork) -> None:
    """Frames of every size arrive as they were sent, both ways at once."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        for number, size in enumerate(_SIZES):
            payload = _bytes_of(number, size)
            one.send(other.contact, number, payload)
            other.send(one.contact, number, payload)
        expected = [(number, _bytes_of(number, size)) for number, size in enumerate(_SIZES)]
        world.wait_until(
            lambda: len(one.heard()) == len(other.heard()) == len(_SIZES), "frames of every size"
        )
        world.wait_until(lambda: len(one.sent) == len(other.sent) == len(_SIZES), "on_sent of every frame")
        for owner in (one, other):
            assert sorted(owner.heard()) == expected, "a frame was changed on the way"
            assert not any(owner.sent), f"on_sent tells of errors: {owner.sent}"
            assert not owner.losses


def check_headers_arrive_whole(make_network: MakeNetwork) -> None:
    """Every field of a header arrives; so does who sent it."""
    header = Header(
        Kind.ANNOUNCE, (1 << 64) - 1, (1 << 32) - 2, 65_535, 65_534, (1 << 32) - 3, 0, 1 << 63, 0x7F
    )
    with _started(make_network, 2) as world:
        one, other = world.owners
        one.transport.link(other.contact).send(header)
        world.wait_until(lambda: bool(other.frames), "a frame")
        assert other.frames == [(one.contact.endpoint, header, b"")]


def check_order(make_network: MakeNetwork) -> None:
    """Frames of equal priority arrive in the order in which they were sent, large and small mixed."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        numbers = list(range(600))
        for number in numbers:
            one.send(other.contact, number, _FILLER[: (number % 7) * 30_000])
        world.wait_until(lambda: len(other.heard()) == len(numbers), "600 frames")
        arrived = [number for number, _ in other.heard()]
        assert (arrived if world.network.is_ordered else sorted(arrived)) == numbers


def check_priorities(make_network: MakeNetwork) -> None:
    """What waits to be sent leaves in the order of priority."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        with world.unread(other):
            for number in range(_FILLERS):
                one.send(other.contact, number, _FILLER)
            for number in range(100, 110):
                one.send(other.contact, number, b"late", priority=-1)
            for number in range(200, 210):
                one.send(other.contact, number, b"urgent", priority=1)
        world.wait_until(lambda: len(other.heard()) == _FILLERS + 20, "all frames")
        arrived = [number for number, _ in other.heard()]
        urgent, rest = [n for n in arrived if n >= 200], [n for n in arrived if n < 200]
        if world.network.is_ordered:
            assert urgent == list(range(200, 210)), "urgent frames overtook each other"
            assert rest == [*range(_FILLERS), *range(100, 110)], "late frames overtook others"
            assert arrived.index(209) < arrived.index(_FILLERS - 1), "urgent frames came after all others"


def check_many_small_frames(make_network: MakeNetwork) -> None:
    """Thousands of small frames, from several threads in both directions."""
    senders, each = 4, 500
    with _started(make_network, 2) as world:
        one, other = world.owners

        def talk(owner: Owner, to: Owner, first: int) -> None:
            for number in range(first, first + each):
                owner.send(to.contact, number, number.to_bytes(4, "little"))

        pairs = [(one, other, each * index) for index in range(senders)]
        pairs += [(other, one, first) for _, _, first in pairs]
        world.at_once([functools.partial(talk, *pair) for pair in pairs])
        world.wait_until(lambda: len(one.heard()) == len(other.heard()) == senders * each, "small frames")
        for owner in (one, other):
            heard = owner.heard()
            assert sorted(heard) == [
                (number, number.to_bytes(4, "little")) for number in range(senders * each)
            ]
            for first in range(0, senders * each, each):
                arrived = [number for number, _ in heard if first <= number < first + each]
                assert arrived == sorted(arrived) or not world.network.is_ordered, "one thread's frames"


def check_payload_is_free_once_sent(make_network: MakeNetwork) -> None:
    """After ``on_sent`` the sender may write to the payload's memory: what was sent still arrives."""
    sizes = [size for size in (100, 20_000, 70_000, 1 << 20) for _ in range(25)]
    with _started(make_network, 2) as world:
        one, other = world.owners
        for number, size in enumerate(sizes):
            payload = bytearray(_bytes_of(number, size))

            def overwrite(error: BaseException | None, payload: bytearray = payload) -> None:
                payload[:] = bytes(len(payload))
                one.on_sent(error)

            one.send(other.contact, number, payload, on_sent=overwrite)
        world.wait_until(lambda: len(other.heard()) == len(one.sent) == len(sizes), "all frames")
        assert sorted(other.heard()) == [
            (number, _bytes_of(number, size)) for number, size in enumerate(sizes)
        ]


def check_a_receiver_that_does_not_read(make_network: MakeNetwork) -> None:
    """Sending to it does not block, other links go on, and everything arrives when it reads again."""
    with _started(make_network, 3) as world:
        sender, deaf, third = world.owners

        def fill() -> None:
            for number in range(_FILLERS):
                sender.send(deaf.contact, number, _FILLER)

        with world.unread(deaf):
            world.at_once([fill])
            sender.send(third.contact, 1, _FILLER)
            third.send(sender.contact, 2, _FILLER)
            world.wait_until(lambda: bool(third.heard() and sender.heard()), "frames on the other link")
        world.wait_until(lambda: len(deaf.heard()) == _FILLERS, "frames that were not read at first")
        assert all(payload == _FILLER for _, payload in deaf.heard())


def check_one_link_serves_both_directions(make_network: MakeNetwork) -> None:
    """Who is connected to can answer, from ``on_frame`` too, over the link that there is."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        other.answers = lambda peer, header: other.send(one.contact, header.operation + 1, b"answer")
        one.send(other.contact, 1, b"question")
        world.wait_until(lambda: bool(one.heard()), "an answer")
        assert one.heard() == [(2, b"answer")]
        for owner, peer in ((one, other), (other, one)):
            link = owner.transport.link(peer.contact)
            assert link is owner.transport.link(peer.contact), "two links to one peer"
            assert link.peer == peer.contact.endpoint


def check_both_connect_at_once(make_network: MakeNetwork) -> None:
    """However the two connections meet, one link remains, and nothing is lost or doubled."""
    for _ in range(10):
        with _started(make_network, 2) as world:
            _connect_both_ways(world, *world.owners)


def _connect_both_ways(world: _World, one: Owner, other: Owner) -> None:
    world.at_once([lambda: one.send(other.contact, 1, b"x"), lambda: other.send(one.contact, 2, b"y")])
    world.wait_until(lambda: bool(one.heard() and other.heard()), "a frame each way")
    one.send(other.contact, 3)
    world.wait_until(lambda: len(other.heard()) == 2, "another frame")
    assert (one.heard(), sorted(other.heard())) == ([(2, b"y")], [(1, b"x"), (3, b"")])
    assert not one.losses
    assert not other.losses


def check_everybody_talks_to_everybody(make_network: MakeNetwork) -> None:
    """Six endpoints, all pairs, all at once."""
    with _started(make_network, 6) as world:

        def talk(owner: Owner) -> None:
            for peer in world.owners:
                if peer is not owner:
                    owner.send(peer.contact, world.owners.index(owner), _FILLER[:100_000])

        world.at_once([functools.partial(talk, owner) for owner in world.owners])
        world.wait_until(lambda: all(len(owner.heard()) == 5 for owner in world.owners), "all frames")
        for index, owner in enumerate(world.owners):
            assert {number for number, _ in owner.heard()} == set(range(6)) - {index}


def check_statistics(make_network: MakeNetwork) -> None:
    """Both ends count at least what was sent, and the time of the last byte."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        for number in range(10):
            one.send(other.contact, number, _FILLER)
        world.wait_until(lambda: len(one.sent) == len(other.heard()) == 10, "ten frames")
        sent = one.transport.link(other.contact).statistics()
        received = other.transport.link(one.contact).statistics()
        due = 10 * (HEADER_BYTES + len(_FILLER))
        assert sent.frames_sent >= 10, f"counted {sent.frames_sent} frames sent"
        assert received.frames_received >= 10, f"counted {received.frames_received} frames received"
        assert sent.bytes_sent >= due, f"counted {sent.bytes_sent} of {due} bytes sent"
        assert received.bytes_received >= due, f"counted {received.bytes_received} of {due} bytes received"
        assert sent.lanes == received.lanes >= 1
        one.send(other.contact, 10)
        world.wait_until(lambda: len(other.heard()) == 11, "one more frame")
        assert other.transport.link(one.contact).statistics().last_received_s >= received.last_received_s


def check_closing_sends_what_is_queued(make_network: MakeNetwork) -> None:
    """A transport that closes leaves nothing behind, says GOODBYE, and is not lost."""
    with _started(make_network, 2) as world:
        _leave(world, *world.owners)
    with _started(make_network, 2) as world:
        _leave(world, *reversed(world.owners))


def _leave(world: _World, leaver: Owner, stayer: Owner) -> None:
    dialer, dialled = world.owners
    dialer.send(dialled.contact, 1000)
    world.wait_until(lambda: bool(dialled.heard()), "a connection")
    for number in range(40):
        leaver.send(stayer.contact, number, _FILLER[: number * 20_000])
    leaver.transport.close()
    world.wait_until(lambda: bool(stayer.heard(Kind.GOODBYE)), "a goodbye")
    assert sorted(n for n, _ in stayer.heard() if n < 1000) == list(range(40)), "closing lost frames"
    assert not any(leaver.sent), f"closing broke frames: {leaver.sent}"
    refused: list[BaseException | None] = []
    stayer.send(leaver.contact, 1, b"too late", on_sent=refused.append)
    assert isinstance(refused[0], LinkError), f"sending to who has left gave {refused}"
    assert len(stayer.heard(Kind.GOODBYE)) == 1
    assert not stayer.losses, f"who left in good order was reported lost: {stayer.losses}"


def check_both_close_at_once(make_network: MakeNetwork) -> None:
    """Nobody is lost, and nobody waits for ever."""
    with _started(make_network, 2) as world:
        one, other = world.owners
        one.send(other.contact, 1, b"x")
        world.wait_until(lambda: bool(other.heard()), "a connection")
        world.at_once([one.transport.close, other.transport.close])
        assert not one.losses
        assert not other.losses


def check_closing_twice_or_unused(make_network: MakeNetwork) -> None:
    """Closing is idempotent, and works before any link was made."""
    with _started(make_network, 1) as world:
        world.owners[0].transport.close()
        world.owners[0].transport.close()


def check_a_dead_peer_is_lost_once(make_network: MakeNetwork) -> None:
    """Each survivor is told once, each frame that had not left is told, and other links are not disturbed."""
    with _started(make_network, 3) as world:
        one, dead, third = world.owners
        for owner in (one, third):
            owner.send(dead.contact, 0)
        world.wait_until(lambda: len(dead.heard()) == 2, "connections")
        with world.unread(dead):
            for number in range(_FILLERS):
                one.send(dead.contact, number, _FILLER)
            world.network.kill(1)
        world.wait_until(lambda: bool(one.losses and third.losses), "word that the peer is lost")
        world.wait_until(lambda: len(one.sent) == _FILLERS + 1, "on_sent of every frame")
        for owner in (one, third):
            assert [peer for peer, _ in owner.losses] == [dead.contact.endpoint]
            refused: list[BaseException | None] = []
            owner.send(dead.contact, 1, b"too late", on_sent=refused.append)
            assert isinstance(refused[0], LinkError), f"sending to the dead gave {refused}"
        one.send(third.contact, 5, _FILLER)
        world.wait_until(lambda: bool(third.heard()), "a frame between the survivors")


def check_a_refused_frame_breaks_the_link(make_network: MakeNetwork) -> None:
    """A ``ProtocolError`` of the receiver closes that link, at both ends, and no other."""
    with _started(make_network, 3) as world:
        sender, refusing, third = world.owners
        sender.send(third.contact, 1, b"x")
        world.wait_until(lambda: bool(third.heard()), "a connection")
        refusing.refuses = True
        sender.send(refusing.contact, 2, b"x")
        world.wait_until(lambda: bool(sender.losses and refusing.losses), "both sides to lose the link")
        assert [peer for peer, _ in sender.losses] == [refusing.contact.endpoint]
        assert [peer for peer, _ in refusing.losses] == [sender.contact.endpoint]
        assert not refusing.frames
        sender.send(third.contact, 3, b"y")
        world.wait_until(lambda: len(third.heard()) == 2, "a frame on the other link")


def _bytes_of(number: int, size: int) -> bytes:
    """A payload that differs from the others."""
    return (number.to_bytes(2, "little") + _FILLER[number:])[:size] + _FILLER[: max(0, size - len(_FILLER))]


CHECKS: tuple[Check, ...] = (
    check_frames_arrive_whole,
    check_headers_arrive_whole,
    check_order,
    check_priorities,
    check_many_small_frames,
    check_payload_is_free_once_sent,
    check_a_receiver_that_does_not_read,
    check_one_link_serves_both_directions,
    check_both_connect_at_once,
    check_everybody_talks_to_everybody,
    check_statistics,
    check_closing_sends_what_is_queued,
    check_both_close_at_once,
    check_closing_twice_or_unused,
    check_a_dead_peer_is_lost_once,
    check_a_refused_frame_breaks_the_link,
)
