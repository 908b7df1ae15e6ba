"""TCP sockets: where to listen, and how a connection is set up.

Send and receive buffers are left to the kernel, which sizes them to the path. Nagle's algorithm is off: a frame is
written whole, and nothing is gained by waiting for the next.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from thinwire.errors import UsageError
from thinwire.transport.addresses import family_of, join_address, local_addresses, split_address
from thinwire.transport.options import SocketOptions
from thinwire.transport.tcp_info import tcp_info

# Nearer than this CUBIC is taken, further away the system's default. Measured, 4 ranks, all-reduce of 16 MiB at 100
# Mbit/s: 2.41 s with BBR, which paces in long cycles, 2.13 s with CUBIC. Far away and with loss BBR is the better one.
NEAR_RTT_S = 0.005
_BACKLOG = 1024
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def listen(options: SocketOptions) -> tuple[list[socket.socket], list[str]]:
    """Listening sockets, and the addresses to publish for them.

    Raises:
        UsageError: the interface or the congestion control does not exist here.
    """
    addresses = local_addresses(options.interface)
    with contextlib.ExitStack() as on_error:
        if options.interface is None:
            listeners = [on_error.enter_context(_listen_everywhere())]
            if listeners[0].family == socket.AF_INET:
                addresses = [address for address in addresses if family_of(address) == socket.AF_INET]
            ports = [listeners[0].getsockname()[1]] * len(addresses)
        else:
            listeners = [
                on_error.enter_context(
                    socket.create_server((address, 0), family=family_of(address), backlog=_BACKLOG)
                )
                for address in addresses
            ]
            ports = [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            _choose_congestion_control(listener, options)
        on_error.pop_all()
    return listeners, [join_address(address, port) for address, port in zip(addresses, ports, strict=True)]


def connect(connection: socket.socket, address: str, options: SocketOptions) -> None:
    """Connect a TCP socket of the address's family. Raises ``OSError``."""
    _choose_congestion_control(connection, options)
    if options.interface is not None:
        sources = [ip for ip in local_addresses(options.interface) if family_of(ip) == connection.family]
        if sources:
            connection.bind((sources[0], 0))
    connection.connect(split_address(address))


def congestion_controls() -> tuple[str, ...]:
    """The kernel's algorithms that this program may choose, the default first; none where there is no choice.

    Privileged programs may choose more than the kernel says that it allows, so each is tried.
    """
    names: list[str] = []
    for setting in ("tcp_congestion_control", "tcp_available_congestion_control"):
        file = Path("/proc/sys/net/ipv4", setting)
        names += file.read_text().split() if file.exists() else []
    return tuple(name for name in dict.fromkeys(names) if _may_choose(name))


def _may_choose(congestion_control: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        try:
            tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion_control.encode())
        except OSError:
            return False
    return True


def tune(connection: socket.socket, options: SocketOptions) -> None:
    """Set up a connected socket, dialled or accepted."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, options.unsent_bytes)
    if options.congestion_control is None and _rtt_s(connection) < NEAR_RTT_S:
        with contextlib.suppress(OSError):  # not offered here: what the system takes will do
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def _rtt_s(connection: socket.socket) -> float:
    """The round trip that the kernel measured while connecting; infinite where it does not tell."""
    info = tcp_info(connection)
    return info.rtt_s if info else float("inf")


def _listen_everywhere() -> socket.socket:
    """IPv6 and IPv4 on one socket, or IPv4 alone where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", 0), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("0.0.0.0", 0), backlog=_BACKLOG)


def _choose_congestion_control(connection: socket.socket, options: SocketOptions) -> None:
    if options.congestion_control is None:
        return
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion_control.encode())
    except OSError:
        raise UsageError(
            f"congestion control {options.congestion_control!r} is not available here: see the system's "
            "net.ipv4.tcp_available_congestion_control and net.ipv4.tcp_allowed_congestion_control"
        ) from None
