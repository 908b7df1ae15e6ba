"""The frame reader: turns one lane's incoming bytes into frames, without copying large payloads.

It is sans-IO: ``target`` says where the connection's next bytes belong, ``advance`` is told how many came. Headers and
small payloads are read ahead into one buffer, so that many small frames cost one system call; what is missing
of a large payload goes straight to where its owner wants it.

A payload may come *by reference*: instead of bytes the frame carries addresses in the sender's memory, and ``pull``
fetches them. The header's flag ``BY_REFERENCE`` is reserved for this and never shown to the owner.

What a caller may rely on: whatever bytes arrive, ``advance`` accepts them or raises ``ProtocolError``; exceptions
of the owner's callbacks pass through. After an exception the reader is spent.

Not here: sockets, and what the frames mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from thinwire.errors import ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, Header

BY_REFERENCE = 0x80
PIECES_MAX = 8
AHEAD_BYTES = 16 << 10
# A rest smaller than this is read ahead together with what follows it: a copy costs less than a system call.
DIRECT_BYTES = 4 << 10

_PIECE = struct.Struct("<QQ")
_PIECES = struct.Struct(f"<{2 * PIECES_MAX}Q")
REFERENCE_BYTES = _PIECES.size

OnHeader = Callable[[Header], Sequence[memoryview]]
OnFrame = Callable[[Header, Sequence[memoryview]], None]


class Piece(NamedTuple):
    """A run of bytes in the memory of the sender's process."""

    address: int
    length: int


Pull = Callable[[Sequence[Piece], Sequence[memoryview]], None]


def pack_pieces(pieces: Sequence[Piece]) -> bytes:
    """What a frame by reference carries: at most ``PIECES_MAX`` pieces, padded with empty ones.

    >>> len(pack_pieces([Piece(4096, 10)])) == REFERENCE_BYTES
    True
    """
    assert len(pieces) <= PIECES_MAX
    return b"".join(_PIECE.pack(*piece) for piece in pieces).ljust(REFERENCE_BYTES, b"\0")


def _unpack_pieces(packed: memoryview) -> tuple[list[Piece], int]:
    """The pieces that are not empty, and their length in all."""
    words = _PIECES.unpack(packed)
    lengths = words[1::2]
    pieces = [Piece(address, length) for address, length in zip(words[::2], lengths, strict=True) if length]
    return pieces, sum(lengths)


class FrameReader:
    """Reads the frames of one lane.

    Args:
        on_header: where a payload goes; views of ``header.length`` bytes in all. Asked once per frame with a payload.
        on_frame: called with each complete frame, in order.
        pull: fetches a payload that came by reference into the views; absent where that was not agreed upon.
    """

    __slots__ = (
        "_ahead",
        "_begin",
        "_counter",
        "_end",
        "_header",
        "_next_view",
        "_on_frame",
        "_on_header",
        "_pull",
        "_rest",
        "_views",
    )

    def __init__(self, on_header: OnHeader, on_frame: OnFrame, pull: Pull | None = None) -> None:
        self._on_header = on_header
        self._on_frame = on_frame
        self._pull = pull
        self._ahead = memoryview(bytearray(AHEAD_BYTES))
        self._begin = self._end = 0  # the part of _ahead that has arrived and is not yet consumed
        self._counter = 0
        self._header: Header | None = None  # the frame whose payload is arriving
        self._views: Sequence[memoryview] = ()
        self._next_view = 0
        self._rest = self._ahead[:0]  # what is missing of the view at hand

    @property
    def between_frames(self) -> bool:
        """Whether the connection may end here."""
        return self._header is None and self._begin == self._end

    @property
    def buffered_frame(self) -> bool:
        """Whether at least one more header has already arrived."""
        return self._end - self._begin >= HEADER_BYTES

    def direct(self) -> bool:
        """Whether ``target`` is the payload's own memory; then filling it whole is worth waiting for."""
        return len(self._rest) >= DIRECT_BYTES

    def target(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._rest if self.direct() else self._ahead[self._end :]

    def advance(self, count: int) -> None:
        """``count`` bytes have been written to ``target``.

        Raises:
            ProtocolError: they break the wire format.
        """
        if self.direct():
            self._rest = self._rest[count:]
        else:
            self._end += count
        while self._header is None or self._fill(self._header):
            if not self._begin_frame():
                break
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin:
            remaining = self._end - self._begin
            self._ahead[:remaining] = self._ahead[self._begin : self._end]
            self._begin, self._end = 0, remaining

    def _begin_frame(self) -> bool:
        """Take one header from what was read ahead, and all of its frame if it has no payload bytes to wait for."""
        available = self._end - self._begin
        if available < HEADER_BYTES:
            return False
        header = Header.parse(self._ahead[self._begin : self._end], self._counter)
        if header.flags & BY_REFERENCE:
            if available < HEADER_BYTES + REFERENCE_BYTES:
                return False
            self._take_reference(header)
            return True
        self._counter = (self._counter + 1) & 0xFFFFFFFF
        self._begin += HEADER_BYTES
        if header.length == 0:
            self._on_frame(header, ())
            return True
        self._views = self._ask(header)
        self._header = header
        self._next_view = 1
        self._rest = self._views[0]
        return True

    def _fill(self, header: Header) -> bool:
        """Copy what was read ahead into the payload at hand; True when the frame is complete and handed over."""
        while True:
            if taken := min(len(self._rest), self._end - self._begin):
                self._rest[:taken] = self._ahead[self._begin : self._begin + taken]
                self._begin += taken
                self._rest = self._rest[taken:]
            if len(self._rest):
                return False
            if self._next_view == len(self._views):
                break
            self._rest = self._views[self._next_view]
            self._next_view += 1
        views, self._views, self._header = self._views, (), None
        self._on_frame(header, views)
        return True

    def _take_reference(self, header: Header) -> None:
        if self._pull is None:
            raise ProtocolError("a payload by reference on a connection where none was agreed upon")
        start = self._begin + HEADER_BYTES
        pieces, referred = _unpack_pieces(self._ahead[start : start + REFERENCE_BYTES])
        if referred != header.length or not referred:
            raise ProtocolError(f"references to {referred} bytes for a payload of {header.length}")
        self._counter = (self._counter + 1) & 0xFFFFFFFF
        self._begin = start + REFERENCE_BYTES
        header = header._replace(flags=header.flags & ~BY_REFERENCE)
        views = self._ask(header)
        self._pull(pieces, views)
        self._on_frame(header, views)

    def _ask(self, header: Header) -> Sequence[memoryview]:
        views = self._on_header(header)
        assert sum(view.nbytes for view in views) == header.length, "on_header's views do not fit the payload"
        return views
