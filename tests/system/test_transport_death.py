"""A process that dies while it sends is lost to its peer at once, however it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from thinwire.testing.transports import Owner
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

pytestmark = pytest.mark.system

SECRET = b"shared by these tests alone"
PAYLOAD = b"alive" * 200_000
PATIENCE_S = 60.0
AT_ONCE_S = 1.0

SENDER = """
    import os, signal, sys, threading
    import msgspec
    from thinwire.protocol.frame import Header, Kind
    from thinwire.transport.base import Contact
    from thinwire.transport.options import SocketOptions
    from thinwire.transport.sockets import SocketTransport

    class Receiver:
        def on_header(self, peer, header): raise AssertionError
        def on_frame(self, peer, header, payload): pass
        def on_lost(self, peer, reason): pass

    secret, way, contact, forks = sys.argv[1:]
    transport = SocketTransport(secret.encode(), SocketOptions(prefer=way))
    transport.start(Receiver())
    link = transport.link(msgspec.json.decode(contact, type=Contact))
    payload = [memoryview(bytearray(b"alive" * 200_000))]
    sent = threading.Semaphore(0)
    for number in range(10**9):
        link.send(Header(Kind.DATA, length=1_000_000), payload, on_sent=lambda error: sent.release())
        sent.acquire()
        if number == 20 and forks == "forks":
            child = os.fork()
            if child == 0:
                signal.pause()
            print(child, flush=True)
"""


@contextlib.contextmanager
def sending(way: str, forks: str = "") -> Iterator[tuple[Owner, subprocess.Popen[str], threading.Condition]]:
    """An owner that hears a process of its own; the process is gone at the end."""
    news = threading.Condition()
    owner = Owner(SocketTransport(SECRET, SocketOptions(prefer=way)), news)  # type: ignore[arg-type]
    contact = msgspec.json.encode(owner.contact).decode()
    command = [sys.executable, "-c", textwrap.dedent(SENDER), SECRET.decode(), way, contact, forks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        try:
            with news:
                assert news.wait_for(lambda: len(owner.frames) > 20, PATIENCE_S)
            yield owner, sender, news
        finally:
            sender.kill()
            owner.transport.close()


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_killed_process(way: str) -> None:
    with sending(way) as (owner, sender, news):
        sender.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        with news:
            assert news.wait_for(lambda: owner.losses, PATIENCE_S)
        assert time.monotonic() - killed_s < AT_ONCE_S
        assert all(payload == PAYLOAD for _, _, payload in owner.frames)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_killed_process_that_leaves_a_child(way: str) -> None:
    """The child has copies of its sockets, unless it lets go of them."""
    with sending(way, "forks") as (owner, sender, news):
        assert sender.stdout is not None
        child = int(sender.stdout.readline())
        try:
            sender.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
            with news:
                assert news.wait_for(lambda: owner.losses, PATIENCE_S)
            assert time.monotonic() - killed_s < AT_ONCE_S
        finally:
            os.kill(child, signal.SIGKILL)
