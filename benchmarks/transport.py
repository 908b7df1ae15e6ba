"""Two processes of one host: how long a small frame takes, and how fast large ones move in both directions at once.

    python benchmarks/transport.py [--seconds 1.0]

For each way between them (TCP, Unix sockets, Unix sockets with cross-memory): the round trip of a 64-byte frame,
answered from ``on_frame``, and the payload bytes a second that each side receives while both send frames of each
size. Beside them the same over bare blocking sockets from Python, one writer and one reader thread, which is what the
transport cannot beat without cross-memory.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np

from thinwire.protocol.frame import Header, Kind
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

SECRET = b"of this benchmark alone"
WAYS = {
    "tcp": SocketOptions(prefer="tcp", interface="127.0.0.1"),
    "tcp, 2 lanes": SocketOptions(prefer="tcp", interface="127.0.0.1", lanes=2),
    "unix": SocketOptions(prefer="unix", cross_memory=False),
    "unix + cross-memory": SocketOptions(prefer="unix"),
}
SIZES = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 4 << 20]
PINGS = 5000
IN_FLIGHT_BYTES = 16 << 20
PING, DATA, DONE = 1, 2, 3


def memory(size: int) -> memoryview:
    """Touched, and of huge pages where the system allows it, as NumPy asks for when it is more than 4 MiB."""
    return memoryview(np.ones(size, np.uint8))


class Side:
    """One of the two endpoints."""

    def __init__(self, options: SocketOptions, pipe: Connection, *, serves: bool) -> None:
        self.pipe = pipe
        self.serves = serves
        self.transport = SocketTransport(SECRET, options)
        self.home = memory(8 << 20)
        self.bounced_s: list[float] = []
        self.bounces = 0
        self.peer_done = threading.Event()
        pipe.send(self.transport.start(self))
        self.link = self.transport.link(pipe.recv())

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        return [self.home[: header.length]]

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        if header.operation == PING:
            self.bounced_s.append(time.perf_counter())
            if len(self.bounced_s) == self.bounces:
                self.peer_done.set()
            if not (self.serves and self.peer_done.is_set()):
                self.link.send(header, payload)
        elif header.operation == DONE:
            self.peer_done.set()

    def on_lost(self, peer: str, reason: str) -> None:
        raise RuntimeError(reason)

    def meet(self) -> None:
        """Wait for the other side to come to the same point."""
        self.pipe.send(None)
        self.pipe.recv()

    def ping(self, bounces: int) -> list[float]:
        """Seconds between one arrival and the next of a frame that the two sides toss to each other."""
        self.bounces, self.bounced_s = bounces, []
        self.peer_done.clear()
        self.meet()
        payload = [memoryview(bytearray(64))]
        if self.serves:
            self.link.send(Header(Kind.DATA, operation=PING, length=64), payload)
        self.peer_done.wait()
        self.meet()
        return [after - before for before, after in itertools.pairwise(self.bounced_s)]

    def duplex(self, size: int, seconds: float) -> float:
        """Payload bytes a second, while both sides send for so long; each waits for the other's last frame."""
        in_flight = max(2, IN_FLIGHT_BYTES // size)
        sources = memory(in_flight * size)
        header = Header(Kind.DATA, operation=DATA, length=size)
        free = threading.Semaphore(in_flight)
        self.peer_done.clear()
        self.meet()
        start_s = time.perf_counter()
        sent = 0
        while time.perf_counter() < start_s + seconds:
            free.acquire()
            start = sent % in_flight * size
            self.link.send(header, [sources[start : start + size]], on_sent=lambda error: free.release())
            sent += 1
        for _ in range(in_flight):
            free.acquire()
        self.link.send(Header(Kind.DATA, operation=DONE), priority=-1)
        self.peer_done.wait()
        return sent * size / (time.perf_counter() - start_s)


def partner(options: SocketOptions, seconds: float, pipe: Connection) -> None:
    side = Side(options, pipe, serves=False)
    side.ping(PINGS)
    for size in SIZES:
        side.duplex(size, seconds)
    side.meet()
    side.transport.close()


def measure(name: str, options: SocketOptions, seconds: float) -> None:
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=partner, args=(options, seconds, other))
    process.start()
    side = Side(options, pipe, serves=True)
    took_us = sorted(second * 1e6 for second in side.ping(PINGS))
    rates = [side.duplex(size, seconds) / 1e9 for size in SIZES]
    side.meet()
    used = side.link.statistics().transport
    side.transport.close()
    process.join()
    print(
        f"{name:22}{statistics.median(took_us):9.1f}{took_us[len(took_us) * 99 // 100]:9.1f}"
        + "".join(f"{rate:9.2f}" for rate in rates)
        + ("" if name.startswith("bare") else f"   {used}"),
        flush=True,
    )


def bare(family: str, seconds: float) -> None:
    """The same over bare sockets: header and payload by sendmsg, read by recv_into."""
    rates, took_us = [], []
    for size in SIZES:
        one, other = _connected(family)
        child = os.fork()
        connection = other if child == 0 else one
        (one if child == 0 else other).close()
        if size == SIZES[0]:
            took_us = _bare_ping(connection, answers=child == 0)
        rate = _bare_duplex(connection, size, seconds)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        connection.close()
        rates.append(rate / 1e9)
    print(
        f"{'bare ' + family:22}{statistics.median(took_us):9.1f}{took_us[len(took_us) * 99 // 100]:9.1f}"
        + "".join(f"{rate:9.2f}" for rate in rates),
        flush=True,
    )


def _connected(family: str) -> tuple[socket.socket, socket.socket]:
    if family == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for connection in (one, other):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def _bare_ping(connection: socket.socket, *, answers: bool) -> list[float]:
    frame, took_us = bytearray(104), []
    for _ in range(PINGS):
        start_s = time.perf_counter()
        if answers:
            connection.recv_into(frame)
            connection.sendmsg([frame])
        else:
            connection.sendmsg([frame])
            connection.recv_into(frame)
        took_us.append((time.perf_counter() - start_s) * 1e6)
    return sorted(took_us)


def _bare_duplex(connection: socket.socket, size: int, seconds: float) -> float:
    in_flight = max(2, IN_FLIGHT_BYTES // size)
    sources, home, header = memory(in_flight * size), memory(8 << 20)[:size], bytes(40)
    count = int(seconds * 2.5e9 / size)

    def write() -> None:
        for number in range(count):
            start = number % in_flight * size
            source = sources[start : start + size]
            sent = connection.sendmsg([header, source]) - len(header)
            while sent < size:
                sent += connection.send(source[sent:])

    start_s = time.perf_counter()
    writer = threading.Thread(target=write)
    writer.start()
    begin = bytearray(len(header))
    for _ in range(count):
        connection.recv_into(begin, 0, socket.MSG_WAITALL)
        received = 0
        while received < size:
            received += connection.recv_into(home[received:], 0, socket.MSG_WAITALL)
    writer.join()
    return count * size / (time.perf_counter() - start_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each size and way")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    arguments = parser.parse_args()
    print(f"{'':22}{'round trip, us':>18}   received while both send, GB/s, by frame size")
    sizes = "".join(f"{size >> 10:6} KiB"[:9].rjust(9) for size in SIZES)
    print(f"{'':22}{'median':>9}{'p99':>9}{sizes}")
    for family in ("tcp", "unix"):
        bare(family, arguments.seconds)
    for name in arguments.ways:
        measure(name, WAYS[name], arguments.seconds)


if __name__ == "__main__":
    main()
