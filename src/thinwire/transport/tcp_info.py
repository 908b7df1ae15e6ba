"""What the kernel knows of a TCP connection (``TCP_INFO``), as a value: Linux only, read in a microsecond.

The layout is ``struct tcp_info`` of ``linux/tcp.h``, which only ever grows at its end.

Not here: what to conclude from it (``probe``).
"""

from __future__ import annotations

import socket
import struct
import sys

import msgspec

_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
# Offsets.
_FLAGS, _RTT, _ACKED, _UNSENT, _MIN_RTT, _SEGMENTS_OUT, _RATE = 7, 68, 120, 144, 148, 156, 160
_BUSY, _RECEIVER_LIMITED, _BUFFER_LIMITED, _DELIVERED, _SENT, _RETRANSMITTED = 168, 176, 184, 192, 200, 208
_LENGTH = 256
_UNKNOWN = 0xFFFFFFFF
_APP_LIMITED = 0x01  # the lowest bit of the flags


class TcpInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One connection at one moment.

    Attributes:
        rtt_s: the smoothed round trip. min_rtt_s: the least of late, as the kernel keeps it; 0 before any.
        delivery_rate_bytes_per_s: what arrived lately, by the peer's acknowledgements; 0 before any.
        is_app_limited: that rate was limited by the sender having nothing to send.
        bytes_sent, bytes_retransmitted: since the connection stands, retransmissions in both.
        bytes_delivered: what has reached the peer, also behind a gap that still has to be filled: the segments
            delivered, times their mean size.
        bytes_acked: what the peer has without a gap.
        busy_s: how long there was something to send, or not yet acknowledged.
        receiver_limited_s: how much of that the peer's window was full, because nobody read there.
        buffer_limited_s: how much of that the socket's own buffer was too small for what is on its way.
        bytes_unsent: what waits in the kernel and has not been sent once.
    """

    rtt_s: float
    min_rtt_s: float
    delivery_rate_bytes_per_s: float
    is_app_limited: bool
    bytes_sent: int
    bytes_retransmitted: int
    bytes_delivered: int
    bytes_acked: int
    busy_s: float
    receiver_limited_s: float
    buffer_limited_s: float
    bytes_unsent: int


def tcp_info(connection: socket.socket) -> TcpInfo | None:
    """What the kernel knows of ``connection``; None where there is no such thing (not TCP, not Linux, closed)."""
    if sys.platform != "linux" or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    except OSError:
        return None
    if len(raw) < _RETRANSMITTED + _U64.size:
        return None  # a kernel before 4.19
    min_rtt_us = _U32.unpack_from(raw, _MIN_RTT)[0]
    sent, segments_sent = _U64.unpack_from(raw, _SENT)[0], _U32.unpack_from(raw, _SEGMENTS_OUT)[0]
    segments_delivered = max(0, _U32.unpack_from(raw, _DELIVERED)[0] - 1)  # the handshake counts as one
    return TcpInfo(
        rtt_s=_U32.unpack_from(raw, _RTT)[0] / 1e6,
        min_rtt_s=0.0 if min_rtt_us == _UNKNOWN else min_rtt_us / 1e6,
        delivery_rate_bytes_per_s=float(_U64.unpack_from(raw, _RATE)[0]),
        is_app_limited=bool(raw[_FLAGS] & _APP_LIMITED),
        bytes_sent=sent,
        bytes_retransmitted=_U64.unpack_from(raw, _RETRANSMITTED)[0],
        bytes_delivered=round(segments_delivered * sent / segments_sent) if segments_sent else 0,
        bytes_acked=_U64.unpack_from(raw, _ACKED)[0],
        busy_s=_U64.unpack_from(raw, _BUSY)[0] / 1e6,
        receiver_limited_s=_U64.unpack_from(raw, _RECEIVER_LIMITED)[0] / 1e6,
        buffer_limited_s=_U64.unpack_from(raw, _BUFFER_LIMITED)[0] / 1e6,
        bytes_unsent=_U32.unpack_from(raw, _UNSENT)[0],
    )
