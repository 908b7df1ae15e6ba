"""The frame: everything that travels between two endpoints after the handshake.

A frame is a fixed 40-byte header and ``length`` bytes of payload. It describes itself, so segments of one message
may travel over any lane in any order. This module is pure: bytes in, values out.

What a reader of untrusted bytes may rely on: ``Header.parse`` accepts a well-formed header or raises
``ProtocolError``; the payload is never longer than ``max_payload_bytes``; ``counter`` counts the frames of one lane in
one direction, so a lost, repeated or reordered frame is noticed.

Not here: the handshake that comes before the first frame (``handshake``), sockets, and the meaning of the payloads.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from thinwire.errors import ProtocolError

MAGIC = b"tW"
VERSION = 1
_LAYOUT = struct.Struct("<2sBBIQIHHIIQ")
HEADER_BYTES = _LAYOUT.size
MAX_PAYLOAD_BYTES = 8 << 20


class Kind(enum.IntEnum):
    HEARTBEAT = 1  # "I am alive"; no payload
    GOODBYE = 2  # the sender leaves in good order; nothing follows on this lane
    DATA = 3  # consecutive segments of one message of one operation; the length tells how many
    GRANT = 4  # the receiver of an operation is ready: send everything
    ANNOUNCE = 5  # the sender has an operation for you and waits for a GRANT
    CREDIT = 6  # `signature` bytes of eager data have been consumed
    FAIL = 7  # an operation failed: msgpack payload says how; the group is broken
    LOST = 8  # an endpoint was lost: msgpack payload says which and why
    PULLED = 9  # `signature` payloads sent by reference on lane `segment` were taken; between transports only


class Header(NamedTuple):
    """One frame's header.

    Attributes:
        kind: what the frame is.
        group: 64-bit id of the group (or of the point-to-point stream) it belongs to; 0 for none.
        operation: number of the operation in its group.
        tile: which slice of the operation's data.
        message: index of the message among those this sender sends to this receiver in the tile.
        segment: index in its message of the first segment that it carries.
        length: payload bytes.
        signature: 64-bit description of the call, equal on all ranks (DATA, GRANT, ANNOUNCE); an amount (CREDIT).
    """

    kind: Kind
    group: int = 0
    operation: int = 0
    tile: int = 0
    message: int = 0
    segment: int = 0
    length: int = 0
    signature: int = 0
    flags: int = 0

    def pack(self, counter: int) -> bytes:
        """The 40 bytes on the wire; ``counter`` is the number of frames sent before on this lane, mod 2**32."""
        return _LAYOUT.pack(
            MAGIC,
            self.kind | VERSION << 5,
            self.flags,
            counter,
            self.group,
            self.operation,
            self.tile,
            self.message,
            self.segment,
            self.length,
            self.signature,
        )

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, expected_counter: int) -> Header:
        """The header in the first 40 bytes of ``data``.

        Raises:
            ProtocolError: wrong magic, version, kind, counter or an oversized payload.
        """
        magic, kind, flags, counter, group, operation, tile, message, segment, length, signature = (
            _LAYOUT.unpack_from(data)
        )
        if magic != MAGIC or kind >> 5 != VERSION:
            raise ProtocolError(
                f"not a thinwire frame of version {VERSION}: it begins with {bytes(data[:4])!r}"
            )
        if kind & 31 not in _KINDS:
            raise ProtocolError(f"unknown frame kind {kind & 31}")
        if counter != expected_counter:
            raise ProtocolError(
                f"frame number {counter} where {expected_counter} was due: replayed or lost frame"
            )
        if length > MAX_PAYLOAD_BYTES:
            raise ProtocolError(f"payload of {length} bytes exceeds the limit of {MAX_PAYLOAD_BYTES}")
        return cls(_KINDS[kind & 31], group, operation, tile, message, segment, length, signature, flags)


_KINDS = {int(kind): kind for kind in Kind}
