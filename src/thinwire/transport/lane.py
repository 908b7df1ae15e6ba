"""A lane: one connected socket of a link, with a thread that reads it and a thread that writes it.

A lane is *claimed* by whoever writes to it: for a moment by the thread that called ``send``, which writes what the
kernel takes at once (no thread switch, which is what makes small frames fast), or by the lane's own writer thread,
which may block. The link hands out claims; a lane without a claim has nothing to write.

The reader closes the socket when it ends, under the lock that every write holds. Until then a broken lane is only
shut down, so that no thread ever touches a file descriptor that has become another's.

Not here: which frame comes next, and what a broken lane means (``link``).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinwire.errors import LinkError, ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.protocol.reader import BY_REFERENCE, FrameReader, Piece, pack_pieces
from thinwire.transport.admission import CrossMemory
from thinwire.transport.base import OnSent
from thinwire.transport.crossmemory import address_of
from thinwire.transport.tcp_info import TcpInfo, tcp_info

if TYPE_CHECKING:
    from thinwire.transport.link import SocketLink

_LOG = logging.getLogger("thinwire.transport")

# Up to this size the thread that called `send` copies the payload into the kernel itself.
DIRECT_SEND_BYTES = 64 << 10
# One wait for this much of a payload. On a slow link no frame is so large, so that progress shows there too; on a fast
# one, waiting less often took a fifth off the user time of 64 MiB over TCP.
_WAIT_BYTES = 4 << 20
# Pulled bytes after which the peer is told at the latest that it may use its memory again.
_UNTOLD_BYTES_MAX = 1 << 20
# A read that returns sooner has not waited.
_AT_ONCE_S = 20e-6
_BUFFERS_PER_CALL = 1024  # Linux's IOV_MAX

Buffers = list[bytes | memoryview]


class Outgoing:
    """One frame on its way out."""

    __slots__ = ("by_reference", "header", "on_sent", "payload")

    def __init__(
        self, header: Header, payload: Sequence[memoryview] = (), on_sent: OnSent | None = None
    ) -> None:
        self.header = header
        self.payload = payload
        self.on_sent = on_sent
        self.by_reference = False

    def done(self, error: BaseException | None = None) -> None:
        if self.on_sent is not None:
            self.on_sent(error)


class Lane:
    """One socket of ``link``. ``said_goodbye`` and ``unpulled`` belong to the link, and to its lock."""

    def __init__(
        self, link: SocketLink, index: int, connection: socket.socket, cross_memory: CrossMemory
    ) -> None:
        self.index = index
        self.can_refer = cross_memory.by_reference
        self.said_goodbye = False
        self.unpulled: deque[Outgoing] = deque()  # sent by reference, and the peer has not copied them yet
        self.bytes_sent = self.frames_sent = 0
        self.bytes_received = self.frames_received = 0
        self.bytes_timed = 0  # of those received: what came while a frame was coming
        self.last_sent_s = self.last_received_s = link.clock.now_s()
        self._link = link
        self._socket = connection
        connection.settimeout(None)  # the deadline of its admission is met
        self._writing = threading.Lock()
        self._work: queue.SimpleQueue[tuple[Outgoing, Buffers] | None] = queue.SimpleQueue()
        self._heard_goodbye = False
        self._puller = cross_memory.puller
        self._reader = FrameReader(self._on_header, self._on_frame, self._pull if self._puller else None)
        self._untold_frames = self._untold_bytes = 0  # pulled, and the peer has not been told
        self._is_timed = False  # between the first byte of a frame and the end of the last that has come
        self._waits_from_s = 0.0

    # Writing, with the claim.

    def send_now(self, frame: Outgoing) -> None:
        """Write what can be written without blocking, from this thread; the writer thread does the rest."""
        buffers = self._encode(frame)
        if frame.by_reference or frame.header.length <= DIRECT_SEND_BYTES:
            try:
                buffers = self._write(buffers, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                self._write_failed(frame, error)
                return
        if buffers:
            self._hand_over(frame, buffers)
            return
        following = self._written(frame)
        if following is not None:
            self._hand_over(following, self._encode(following))
        self._free_payload(frame)

    def write_forever(self) -> None:
        """The writer thread: until the link ends."""
        try:
            while (work := self._work.get()) is not None:
                frame, buffers = work
                while True:
                    try:
                        while buffers:
                            buffers = self._write(buffers)
                    except OSError as error:
                        self._write_failed(frame, error)
                        break
                    following = self._written(frame)
                    self._free_payload(frame)
                    if following is None:
                        break
                    frame, buffers = following, self._encode(following)
        except Exception as error:
            self._surface(error)

    def stop_writing(self) -> None:
        """Let the writer thread end after what it has in hand. Under the link's lock."""
        self._work.put(None)

    def tcp_info(self) -> TcpInfo | None:
        """What the kernel knows of the connection; None unless it is TCP, on Linux, and open."""
        return tcp_info(self._socket)

    def acknowledge(self) -> None:
        """Have the kernel acknowledge what has been read, without waiting some 40 ms for something to send along."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # no TCP, or closed
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def shut_down(self, how: int) -> None:
        """End one or both directions, waking whoever blocks in them."""
        with self._link.lock, contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def _hand_over(self, frame: Outgoing, buffers: Buffers) -> None:
        """Give the claim, and what is left of ``frame``, to the writer thread, unless that has ended."""
        with self._link.lock:
            ended = self._link.ended
            if not ended:
                self._work.put((frame, buffers))
        if ended:
            self._write_failed(frame, BrokenPipeError("the link has ended"))

    def _encode(self, frame: Outgoing) -> Buffers:
        header, counter = frame.header, self.frames_sent & 0xFFFFFFFF
        if not frame.by_reference:
            return [header.pack(counter), *frame.payload]
        header = header._replace(flags=header.flags | BY_REFERENCE)
        pieces = [Piece(address_of(view), view.nbytes) for view in frame.payload if view.nbytes]
        return [header.pack(counter) + pack_pieces(pieces)]

    def _write(self, buffers: Buffers, flags: int = 0) -> Buffers:
        """Write once; what is left."""
        with self._writing:
            sent = self._socket.sendmsg(buffers[:_BUFFERS_PER_CALL], (), flags)
        self.last_sent_s = self._link.clock.now_s()
        for index, buffer in enumerate(buffers):
            if sent < len(buffer):
                return [memoryview(buffer)[sent:], *buffers[index + 1 :]]
            sent -= len(buffer)
        return []

    def _written(self, frame: Outgoing) -> Outgoing | None:
        """Count it, and ask for the next frame; without one the claim is gone."""
        self.frames_sent += 1
        self.bytes_sent += HEADER_BYTES + frame.header.length
        if frame.header.kind is Kind.GOODBYE:
            self._link.goodbye_said()
        return self._link.release(self)

    def _write_failed(self, frame: Outgoing, error: OSError) -> None:
        failure = self._link.end(f"writing to it failed: {error.strerror or error}")
        if not frame.by_reference:  # the others were in `unpulled`
            frame.done(failure)

    def _free_payload(self, frame: Outgoing) -> None:
        if not frame.by_reference:
            frame.done()

    # Reading.

    def read_forever(self) -> None:
        """The reader thread: until the connection ends."""
        link = self._link
        try:
            while count := self._receive_timed():
                self.bytes_received += count
                self.last_received_s = link.clock.now_s()
                self._reader.advance(count)
                if self._untold_frames:
                    self._tell_pulled()
            if self._reader.between_frames:
                link.end("it closed the connection without a goodbye")
            else:
                link.refusals.count(
                    "truncated", f"endpoint {link.peer}", "the connection ended inside a frame"
                )
                link.end("its connection ended inside a frame")
        except ProtocolError as error:
            link.refusals.count("frame", f"endpoint {link.peer}", str(error))
            link.end(f"it broke the protocol: {error}")
        except LinkError as error:
            link.end(str(error))
        except Exception as error:
            self._surface(error)
        finally:
            if self._is_timed:
                link.receiving.end()
            self.shut_down(socket.SHUT_RDWR)
            with self._writing, link.lock:
                self._socket.close()

    def _receive_timed(self) -> int:
        """Read once, and note whether that waited for a frame to begin, which says nothing of the link."""
        link = self._link
        if not self._reader.between_frames:
            count = self._receive()
            self.bytes_timed += count
            return count
        if self._is_timed:
            self._waits_from_s = link.receiving.end()
            self._is_timed = False
        count = self._receive()
        if count:
            self._is_timed = True
            if link.receiving.begin() - self._waits_from_s < _AT_ONCE_S:  # it had come already
                self.bytes_timed += count
        return count

    def _receive(self) -> int:
        target = self._reader.target()
        try:
            if self._reader.direct():
                return self._socket.recv_into(target[:_WAIT_BYTES], 0, socket.MSG_WAITALL)
            return self._socket.recv_into(target)
        except OSError as error:
            raise LinkError(f"reading from it failed: {error.strerror or error}") from error

    def _on_header(self, header: Header) -> Sequence[memoryview]:
        if header.kind is Kind.GOODBYE or header.kind is Kind.PULLED:
            raise ProtocolError(f"{header.kind.name} with a payload of {header.length} bytes")
        return self._link.receiver.on_header(self._link.peer, header)

    def _on_frame(self, header: Header, payload: Sequence[memoryview]) -> None:
        self.frames_received += 1
        if header.kind is Kind.PULLED:
            self._link.pulled(header.segment, header.signature)
        elif self._heard_goodbye:
            raise ProtocolError(f"{header.kind.name} after GOODBYE")
        elif header.kind is Kind.GOODBYE:
            self._heard_goodbye = True
            self._link.goodbye_heard(header)
        else:
            self._link.receiver.on_frame(self._link.peer, header, payload)

    def _pull(self, pieces: Sequence[Piece], views: Sequence[memoryview]) -> None:
        """Copy a payload out of the peer's memory, and tell it so."""
        assert self._puller is not None
        try:
            self._puller.pull(pieces, views)
            # Sends nothing, but fails if the peer has given up this connection: then the memory may have been in other
            # use while it was read.
            self._socket.send(b"")
        except OSError as error:
            raise LinkError(f"reading its memory failed: {error.strerror or error}") from error
        length = sum(piece.length for piece in pieces)
        self.bytes_received += length
        self.bytes_timed += length
        self._untold_frames += 1
        self._untold_bytes += length
        if self._untold_bytes >= _UNTOLD_BYTES_MAX or not self._reader.buffered_frame:
            self._tell_pulled()

    def _tell_pulled(self) -> None:
        self._link.tell_pulled(self.index, self._untold_frames)
        self._untold_frames = self._untold_bytes = 0

    def _surface(self, error: Exception) -> None:
        """An exception that is no fault of the peer: a bug, in a callback or here."""
        _LOG.error(
            "endpoint %s: closing the link because of a bug in this process", self._link.peer, exc_info=error
        )
        self._link.end(f"our side failed: {type(error).__name__}: {error}")
