"""Streams of meaningless bytes, for measuring: a source that fills a path, a sink that notes what arrives when.

A stream begins with a preamble that says which flow it belongs to; a token in it, known to those who measure together,
keeps strangers out. One thread is the sink of all streams, because what matters is when bytes arrive, not whose thread
is awake. Time is read here and not in the caller, for the same reason.

Not here: what is concluded from arrivals (``probe``), and frames (``lane``), whose cost is not the network's.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import threading
from dataclasses import dataclass, field

from thinwire.clock import Clock
from thinwire.errors import LinkError
from thinwire.transport import tcp, unix
from thinwire.transport.addresses import family_of, split_address
from thinwire.transport.options import SocketOptions
from thinwire.transport.tcp_info import TcpInfo, tcp_info

TOKEN_BYTES = 16
_NAME_BYTES = 16
SAMPLE_S = 0.005
FIRST_TRY_S = 0.3  # to connect

_PREAMBLE = struct.Struct(f"<{TOKEN_BYTES}sIIB")  # token, experiment, flow, stream
_GREETING = 0xFFFFFFFF  # a flow that wants no sink, only the name of who listens
_CHUNK_BYTES = 256 << 10
_BUFFER_BYTES = 1 << 20
_STREAMS_MAX = 512
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: what is still buffered is not wanted any more

FlowKey = tuple[int, int]  # (experiment, flow)


def new_token() -> bytes:
    """A token that nobody can guess."""
    return secrets.token_bytes(TOKEN_BYTES)


class Progress:
    """How many bytes had got how far at which time.

    Attributes:
        times_s: ascending.
        totals: bytes since the beginning, at those times.
        joined: the place of the first time at which there was more than one stream; None if there never was.
    """

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.totals: list[int] = []
        self.joined: int | None = None

    def note(self, now_s: float, total: int, *, is_joined: bool) -> None:
        """The next moment. Moments less than ``SAMPLE_S`` after the one before replace it, but for the first few."""
        if is_joined and self.joined is None:
            self.joined = len(self.times_s)
        elif (
            len(self.times_s) > 1
            and now_s - self.times_s[-2] < SAMPLE_S
            and self.joined != len(self.times_s) - 1
        ):
            self.times_s.pop()
            self.totals.pop()
        self.times_s.append(now_s)
        self.totals.append(total)


@dataclass(slots=True)
class _Arriving:
    """A flow at its sink."""

    progress: Progress = field(default_factory=Progress)
    num_bytes: int = 0
    num_streams: int = 0  # that began and have not ended

    @property
    def first_s(self) -> float | None:
        return self.progress.times_s[0] if self.progress.times_s else None


@dataclass(slots=True)
class _Stream:
    """An accepted connection."""

    head: bytearray = field(default_factory=bytearray)
    key: FlowKey | None = None
    number: int = 0


class BulkSink:
    """Accepts streams over TCP, and over a Unix socket, until it is closed.

    Args:
        token: what streams have to begin with.
        interface: network interface or address to listen on; None: all.
        clock: tells when bytes arrive.

    Attributes:
        name: random bytes that greetings are answered with: they tell a peer that it reached this sink and no other.
        addresses: where it listens over TCP. unix_address: the same within this machine.

    Raises:
        UsageError: no such interface.
    """

    def __init__(self, token: bytes, interface: str | None, clock: Clock) -> None:
        self._token, self._clock = token, clock
        self.name = secrets.token_bytes(_NAME_BYTES)
        self._flows: dict[FlowKey, _Arriving] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        listeners, self.addresses = tcp.listen(SocketOptions(interface=interface))
        listeners.append(unix.listen(secrets.token_hex(16)))
        self.unix_address = unix.address_of(listeners[-1])
        for listener in listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._waker, self._wakened = socket.socketpair()
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="thinwire-bulk-sink", daemon=True)
        self._thread.start()

    def arrivals(self, key: FlowKey, *, duration_s: float, deadline_s: float) -> Progress:
        """What has arrived of a flow once its streams have ended, or ``duration_s`` after its first byte.

        Waits until ``deadline_s`` on the clock for that, and forgets the flow.
        """

        def wait_s() -> float:
            first_s = self._flow(key).first_s
            return (
                min(deadline_s, deadline_s if first_s is None else first_s + duration_s) - self._clock.now_s()
            )

        with self._changed:
            while wait_s() > 0 and not self._has_ended(key):
                self._changed.wait(wait_s())
            return self._flows.pop(key).progress

    def close(self) -> None:
        """Stop listening and close every stream."""
        self._closing = True
        self._waker.close()
        self._thread.join()

    def _flow(self, key: FlowKey) -> _Arriving:
        return self._flows.setdefault(key, _Arriving())

    def _has_ended(self, key: FlowKey) -> bool:
        flow = self._flow(key)
        return flow.first_s is not None and flow.num_streams == 0

    def _run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with self._selector:
            while not self._closing:
                for event, _ in self._selector.select():
                    source = event.fileobj
                    assert isinstance(source, socket.socket)
                    if isinstance(event.data, _Stream):
                        self._read(source, event.data, buffer)
                    elif source is not self._wakened:
                        self._accept(source)
            for event in list(self._selector.get_map().values()):
                assert isinstance(event.fileobj, socket.socket)
                event.fileobj.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if len(self._selector.get_map()) > _STREAMS_MAX:
                connection.close()
                return
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Stream())

    def _read(self, connection: socket.socket, stream: _Stream, buffer: memoryview) -> None:
        try:
            if stream.key is None:
                is_alive = self._read_preamble(connection, stream)
            else:
                num_bytes = connection.recv_into(buffer)
                is_alive = num_bytes > 0
                with self._changed:
                    flow = self._flows.get(stream.key)
                    if flow is not None and is_alive:
                        flow.num_bytes += num_bytes
                        flow.progress.note(self._clock.now_s(), flow.num_bytes, is_joined=stream.number > 0)
        except BlockingIOError:
            return
        except OSError:
            is_alive = False
        if not is_alive:
            self._selector.unregister(connection)
            connection.close()
            with self._changed:
                if stream.key in self._flows:
                    self._flows[stream.key].num_streams -= 1
                    self._changed.notify_all()

    def _read_preamble(self, connection: socket.socket, stream: _Stream) -> bool:
        """Read on until the preamble is complete. False if nothing good can come of this connection."""
        read = connection.recv(_PREAMBLE.size - len(stream.head))
        stream.head += read
        if len(stream.head) < _PREAMBLE.size:
            return bool(read)
        token, experiment, flow, stream.number = _PREAMBLE.unpack(stream.head)
        if not secrets.compare_digest(token, self._token):
            return False
        if flow == _GREETING:
            connection.send(self.name)
            return False
        stream.key = experiment, flow
        with self._changed:
            self._flow(stream.key).num_streams += 1
            self._changed.notify_all()
        return True


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a sink: its address, the address it is reached from, and the round trip."""

    address: str
    source: str
    rtt_s: float


def greet(address: str, token: bytes, name: bytes, timeout_s: float, clock: Clock) -> Route:
    """Find out whether the sink called ``name`` listens at ``address``.

    Raises:
        LinkError: it does not, and why.
    """
    began_s = clock.now_s()
    try:
        with _connected(address, timeout_s, None, clock) as connection:
            rtt_s = _round_trip_s(connection, clock.now_s() - began_s)
            source = str(connection.getsockname()[0]) if family(address) != socket.AF_UNIX else ""
            connection.sendall(_PREAMBLE.pack(token, 0, _GREETING, 0))
            answer = connection.recv(len(name), socket.MSG_WAITALL)
    except OSError as error:
        raise LinkError(f"{address}: {_reason(error, timeout_s)}") from error
    if answer != name:
        raise LinkError(f"{address}: somebody else answered there")
    return Route(address, source, rtt_s)


def _round_trip_s(connection: socket.socket, connect_s: float) -> float:
    """By the kernel, if it knows: what connecting took has the waiting for lost packets in it."""
    info = tcp_info(connection)
    return min(connect_s, info.min_rtt_s) if info and info.min_rtt_s > 0 else connect_s


@dataclass(frozen=True, slots=True)
class Poured:
    """What a source has done.

    Attributes:
        delivered: what reached the other side, by its acknowledgements, which do not wait for what got lost as the
            reader there does; nothing where the kernel does not tell.
        infos: what the kernel says of each stream at the end.
    """

    delivered: Progress
    infos: tuple[TcpInfo, ...]


def pour(
    address: str,
    token: bytes,
    key: FlowKey,
    *,
    alone_s: float,
    together_s: float,
    num_streams: int,
    congestion_control: str | None,
    timeout_s: float,
    clock: Clock,
) -> Poured:
    """Fill the path to a sink: one stream for ``alone_s``, then ``num_streams`` for ``together_s`` more.

    Whatever is buffered at the end is thrown away, so that the path is free at once.

    Raises:
        LinkError: the sink cannot be reached, or broke off.
        UsageError: there is no such congestion control.
    """
    payload = memoryview(secrets.token_bytes(_CHUNK_BYTES))  # random, lest something on the way compresses it
    streams: list[socket.socket] = []
    try:
        with selectors.DefaultSelector() as selector:
            # All connect before any sends: behind a full queue a connection might take a second.
            for _ in range(num_streams if together_s else 1):
                streams.append(_connected(address, timeout_s, congestion_control, clock))

            def begin(number: int) -> None:
                streams[number].sendall(_PREAMBLE.pack(token, *key, number))
                streams[number].setblocking(False)
                selector.register(streams[number], selectors.EVENT_WRITE)

            begin(0)
            began_s = clock.now_s()
            delivered = Progress()
            _fill(selector, payload, began_s + alone_s, delivered, streams[:1], clock)
            if together_s:
                for number in range(1, num_streams):
                    begin(number)
                _fill(selector, payload, began_s + alone_s + together_s, delivered, streams, clock)
            infos = [tcp_info(stream) for stream in streams]
            return Poured(delivered, tuple(info for info in infos if info))
    except OSError as error:
        raise LinkError(f"{address}: {_reason(error, timeout_s)}") from error
    finally:
        for connection in streams:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            connection.close()


def family(address: str) -> socket.AddressFamily:
    """Of a published address: ``@name`` and paths are Unix sockets."""
    return socket.AF_UNIX if address[0] in "@/" else family_of(split_address(address)[0])


def _fill(
    selector: selectors.BaseSelector,
    payload: memoryview,
    end_s: float,
    delivered: Progress,
    streams: list[socket.socket],
    clock: Clock,
) -> None:
    sample_s = clock.now_s()
    while (now_s := clock.now_s()) < end_s:
        if now_s >= sample_s:
            infos = [tcp_info(stream) for stream in streams]
            if all(infos):
                total = sum(info.bytes_delivered for info in infos if info)
                delivered.note(clock.now_s(), total, is_joined=len(streams) > 1)
            sample_s = now_s + SAMPLE_S
        for event, _ in selector.select(max(0.0, min(end_s, sample_s) - now_s)):
            assert isinstance(event.fileobj, socket.socket)
            with contextlib.suppress(BlockingIOError):
                event.fileobj.send(payload)


def _connected(address: str, timeout_s: float, congestion_control: str | None, clock: Clock) -> socket.socket:
    """A connection. Asks again after ``FIRST_TRY_S``, and then ever later: the kernel would take 1 s to say again what
    was lost, and streams that are to begin together would not."""
    end_s = clock.now_s() + timeout_s
    try_s = FIRST_TRY_S
    while clock.now_s() + try_s < end_s:
        with contextlib.suppress(TimeoutError):
            connection = _connected_at_once(address, try_s, congestion_control)
            break
        try_s *= 2
    else:
        last_s = max(FIRST_TRY_S, end_s - clock.now_s())
        connection = _connected_at_once(address, last_s, congestion_control)
    connection.settimeout(timeout_s)
    return connection


def _connected_at_once(address: str, timeout_s: float, congestion_control: str | None) -> socket.socket:
    connection = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        if connection.family == socket.AF_UNIX:
            unix.connect(connection, address)
        else:
            options = SocketOptions(congestion_control=congestion_control)
            tcp.connect(connection, address, options)
            tcp.tune(connection, options)
    except BaseException:
        connection.close()
        raise
    return connection


def _reason(error: OSError, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:.2g} s: the host is down, or a firewall drops what comes"
    return error.strerror or str(error)
