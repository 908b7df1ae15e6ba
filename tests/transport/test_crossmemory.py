"""Reading another process's memory: in one process with itself, and between real ones."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.transport.house import House
from tests.transport.strangers import NONCE, introduce, is_closed, knock, receive
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.protocol.handshake import NONCE_BYTES, Verdict
from thinwire.protocol.reader import BY_REFERENCE, Piece, pack_pieces
from thinwire.testing.transports import Owner
from thinwire.transport import admission
from thinwire.transport.crossmemory import (
    REFERENCE_BYTES_MIN,
    Puller,
    address_of,
    peer_pid,
    probe,
    supported,
)

pytestmark = pytest.mark.skipif(not supported(), reason="this system has no process_vm_readv")

SIZE = REFERENCE_BYTES_MIN


@pytest.mark.parametrize("memory", [b"read-only", bytearray(b"writable!")])
def test_addresses_are_those_of_the_bytes(memory: bytes | bytearray) -> None:
    assert ctypes.string_at(address_of(memoryview(memory)[3:]), 4) == memory[3:7]


@pytest.mark.parametrize("num_views", [1, 5, 1500])
def test_pieces_are_read_into_views_however_both_are_cut(num_views: int) -> None:
    source = bytes(range(256)) * 40
    target = memoryview(bytearray(10_000))
    bounds = [10_000 * index // num_views for index in range(num_views + 1)]
    views = [target[start:end] for start, end in itertools.pairwise(bounds)]
    start = address_of(memoryview(source))
    Puller(os.getpid()).pull([Piece(start + 7, 4000), Piece(start + 9, 6000)], views)
    assert bytes(target) == source[7:4007] + source[9:6009]


def unmapped() -> int:
    """An address with nothing there."""
    hole = mmap.mmap(-1, 1 << 20)
    address = address_of(memoryview(hole))
    hole.close()
    return address


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match=r"reading the memory of process \d+: Bad address"):
        Puller(os.getpid()).pull([Piece(unmapped(), 10)], [memoryview(bytearray(10))])


def test_memory_that_ends_early_is_an_error() -> None:
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as pages:
        start = address_of(memoryview(pages))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        size = 2 * mmap.PAGESIZE
        with pytest.raises(OSError, match=f"read {mmap.PAGESIZE} of {size} bytes"):
            Puller(os.getpid()).pull([Piece(start, size)], [memoryview(bytearray(size))])


def test_a_process_that_is_gone_is_an_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(OSError, match="No such process"):
        Puller(gone.pid).pull([Piece(4096, 10)], [memoryview(bytearray(10))])


def test_a_probe_believes_only_what_it_was_told_to_find() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_pid(one) == os.getpid()
        shown = ctypes.create_string_buffer(NONCE, NONCE_BYTES)
        assert probe(one, ctypes.addressof(shown), NONCE) is not None
        assert probe(one, ctypes.addressof(shown), bytes(NONCE_BYTES)) is None
        assert probe(one, unmapped(), NONCE) is None


def test_without_permission_payloads_are_copied(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "probe", lambda *_: None)
    one, other = house.owner(prefer="unix"), house.owner(prefer="unix")
    one.send(other.contact, 1, b"x" * SIZE)
    house.wait_until(other.heard)
    assert other.heard() == [(1, b"x" * SIZE)]
    assert one.transport.link(other.contact).statistics().transport == "unix"


def test_pulled_bytes_are_counted(house: House) -> None:
    one, other = house.owner(prefer="unix"), house.owner(prefer="unix")
    one.send(other.contact, 1, b"x" * SIZE)
    house.wait_until(lambda: other.heard() and one.sent)
    sent = one.transport.link(other.contact).statistics()
    received = other.transport.link(one.contact).statistics()
    assert sent.transport == received.transport == "unix+cross-memory"
    assert sent.bytes_sent == HEADER_BYTES + SIZE
    assert received.bytes_received > SIZE


def test_urgent_frames_overtake_payloads_that_wait_to_be_pulled(house: House) -> None:
    """Only so much may wait at the receiver; the rest is still in the queue, where priorities count."""
    one, other = house.owner(prefer="unix"), house.owner(prefer="unix")
    other.gate.clear()
    for number in range(40):
        one.send(other.contact, number, bytes(1 << 20))
    one.send(other.contact, 100, priority=1)
    other.gate.set()
    house.wait_until(lambda: len(other.heard()) == 41)
    assert [number for number, _ in other.heard()].index(100) < 20


def guest(house: House, owner: Owner) -> socket.socket:
    """A stranger's connection that sends payloads by reference, out of this process."""
    connection = house.keep(knock(owner.contact, "unix"))
    assert introduce(connection, owner.contact) is Verdict.WELCOME
    shown = ctypes.create_string_buffer(NONCE, NONCE_BYTES)
    receive(connection, 8)
    connection.sendall(ctypes.addressof(shown).to_bytes(8, "little"))
    assert receive(connection, 1) == b"\1"
    connection.sendall(b"\0")
    return connection


def by_reference(address: int, length: int) -> bytes:
    header = Header(Kind.DATA, length=length, flags=BY_REFERENCE)
    return header.pack(0) + pack_pieces([Piece(address, length)])


def test_a_payload_that_cannot_be_read_loses_the_link(house: House) -> None:
    owner = house.owner(prefer="unix")
    connection = guest(house, owner)
    connection.sendall(by_reference(unmapped(), 100))
    assert "reading its memory failed: " in house.wait_for_loss(owner)
    assert house.wait_for_loss(owner).endswith("Bad address")
    assert is_closed(connection)
    assert not owner.frames


def test_a_payload_is_dropped_if_its_sender_gave_up_meanwhile(house: House) -> None:
    """Its memory may have been used for something else while it was read."""
    owner = house.owner(prefer="unix")
    connection = guest(house, owner)
    payload = bytearray(100)
    begin = owner.on_header

    def hang_up_and_begin(peer: str, header: Header) -> Sequence[memoryview]:
        connection.close()
        return begin(peer, header)

    owner.on_header = hang_up_and_begin  # type: ignore[method-assign]
    connection.sendall(by_reference(address_of(memoryview(payload)), 100))
    assert house.wait_for_loss(owner) == "reading its memory failed: Broken pipe"
    assert not owner.frames
