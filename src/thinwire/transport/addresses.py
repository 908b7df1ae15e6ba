"""Where endpoints are: this host's addresses, which of a peer's addresses to try first, and who shares a kernel.

Addresses are written ``10.0.0.1:4000`` and ``[fd00::1]:4000``; several are joined by commas. IPv6 link-local addresses
are left out: they mean nothing without a scope, which is local to each machine.

Not here: connecting.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path

import ifaddr

from thinwire.errors import UsageError

_DISCARD_PORT = 9  # connecting a datagram socket sends nothing; the port only has to be one


def host_key() -> str:
    """Equal for two processes that can use Unix sockets with each other.

    On Linux: the kernel's boot and the network namespace, so that namespaces on one machine count as different
    hosts. Elsewhere: host name and hardware address.
    """
    if os.path.exists("/proc/self/ns/net"):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/net').st_ino}"
    return f"{socket.gethostname()}:{uuid.getnode():012x}"


def host_name() -> str:
    """This machine's name, for messages."""
    return socket.gethostname()


def local_addresses(interface: str | None) -> list[str]:
    """This host's IP addresses that a peer could use: of one interface (its name, or one of its addresses), or of all.

    Loopback counts only when it is asked for, or when there is nothing else.

    Raises:
        UsageError: there is no such interface, or it has no usable address.
    """
    found: dict[str, list[str]] = {}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            if not (":" in text and ipaddress.ip_address(text).is_link_local):
                found.setdefault(adapter.name, []).append(text)
    everything = [address for addresses in found.values() for address in addresses]
    if interface is None:
        outside = [address for address in everything if not ipaddress.ip_address(address).is_loopback]
        return outside or everything
    if interface in found:
        return found[interface]
    if interface in everything:
        return [interface]
    known = ", ".join(f"{name} ({' '.join(addresses)})" for name, addresses in found.items())
    raise UsageError(f"no interface or address {interface!r} on this host: use one of {known}")


def join_address(ip: str, port: int) -> str:
    """
    >>> join_address("10.0.0.1", 80), join_address("fd00::1", 80)
    ('10.0.0.1:80', '[fd00::1]:80')
    """
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """
    >>> split_address("[fd00::1]:80")
    ('fd00::1', 80)
    """
    ip, _, port = address.rpartition(":")
    return ip.strip("[]"), int(port)


def family_of(ip: str) -> socket.AddressFamily:
    """Which of the two IP families an address is of."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def by_route(addresses: Iterable[str], *, same_host: bool) -> list[str]:
    """A peer's addresses in the order to try them; those without a route left out.

    First those that share at least half their leading bits with the address this host would send from, IPv4 before
    IPv6 (shorter headers), more bits in common first (rule 9 of RFC 6724). An address that is also ours is the
    peer's only on the same host: two hosts may each have their own ``172.17.0.1``.
    """
    ranked = []
    for address in addresses:
        ip = ipaddress.ip_address(split_address(address)[0])
        source = source_towards(str(ip))
        if source is not None and (same_host or source != ip):
            common_bits = ip.max_prefixlen - (int(source) ^ int(ip)).bit_length()
            ranked.append((common_bits < ip.max_prefixlen // 2, ip.version, -common_bits, address))
    return [address for *_, address in sorted(ranked)]


def source_towards(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that packets to ``ip`` would carry, by the kernel's routes; None without a route."""
    with socket.socket(family_of(ip), socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((ip, _DISCARD_PORT))
        except OSError:
            return None
        return ipaddress.ip_address(asking.getsockname()[0])
