"""Which addresses are published, and in which order a peer's are tried."""

from __future__ import annotations

import ipaddress
import socket

import ifaddr
import pytest

from thinwire.errors import UsageError
from thinwire.transport import addresses
from thinwire.transport.addresses import by_route, host_key, join_address, local_addresses, split_address


def adapter(name: str, *ips: str | tuple[str, int, int]) -> ifaddr.Adapter:
    return ifaddr.Adapter(name, name, [ifaddr.IP(ip, 24, name) for ip in ips])


LOOPBACK = adapter("lo", "127.0.0.1", ("::1", 0, 0))
ETHERNET = adapter("eth0", "10.0.0.7", ("fd00::7", 0, 0), ("fe80::7", 0, 2))
BRIDGE = adapter("docker0", "172.17.0.1")
CABLE = adapter("usb0", "169.254.3.4")


def given(monkeypatch: pytest.MonkeyPatch, *adapters: ifaddr.Adapter) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: list(adapters))


def test_all_addresses_but_loopback_and_link_local_ipv6_are_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, LOOPBACK, ETHERNET, BRIDGE, CABLE)
    assert local_addresses(None) == ["10.0.0.7", "fd00::7", "172.17.0.1", "169.254.3.4"]


def test_loopback_is_published_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, LOOPBACK)
    assert local_addresses(None) == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("interface", "expected"),
    [
        ("eth0", ["10.0.0.7", "fd00::7"]),
        ("10.0.0.7", ["10.0.0.7"]),
        ("fd00::7", ["fd00::7"]),
        ("lo", ["127.0.0.1", "::1"]),
    ],
)
def test_an_interface_is_named_or_addressed(
    monkeypatch: pytest.MonkeyPatch, interface: str, expected: list[str]
) -> None:
    given(monkeypatch, LOOPBACK, ETHERNET, BRIDGE)
    assert local_addresses(interface) == expected


def test_an_unknown_interface_is_the_callers_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, LOOPBACK, ETHERNET)
    message = r"no interface or address 'eth1' on this host: use one of lo \(127.0.0.1 ::1\), eth0 \(10.0.0.7 fd00::7\)"
    with pytest.raises(UsageError, match=message):
        local_addresses("eth1")


def test_this_machine_has_addresses() -> None:
    assert local_addresses(None)


@pytest.mark.parametrize(
    ("ip", "port", "joined"), [("10.0.0.1", 80, "10.0.0.1:80"), ("fd00::1", 65535, "[fd00::1]:65535")]
)
def test_addresses_are_written_and_read(ip: str, port: int, joined: str) -> None:
    assert join_address(ip, port) == joined
    assert split_address(joined) == (ip, port)


SOURCES = {  # towards -> from, on a host with 10.0.0.7/24, fd00::7/64, 172.17.0.1/16 and a default route
    "10.0.0.8": "10.0.0.7",
    "172.17.0.1": "172.17.0.1",
    "192.168.5.5": "10.0.0.7",
    "fd00::8": "fd00::7",
    "fd99::8": "fd00::7",
    "10.0.0.7": "10.0.0.7",
}


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    def source_towards(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        return ipaddress.ip_address(SOURCES[ip]) if ip in SOURCES else None

    monkeypatch.setattr(addresses, "source_towards", source_towards)


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (["192.168.5.5:1", "10.0.0.8:1"], ["10.0.0.8:1", "192.168.5.5:1"]),
        (["[fd00::8]:1", "10.0.0.8:1"], ["10.0.0.8:1", "[fd00::8]:1"]),
        (["192.168.5.5:1", "[fd00::8]:1"], ["[fd00::8]:1", "192.168.5.5:1"]),
        (["172.17.0.1:1", "10.0.0.8:1"], ["10.0.0.8:1"]),
        (["203.0.113.9:1", "[fd99::8]:1"], ["[fd99::8]:1"]),
        (["203.0.113.9:1"], []),
    ],
    ids=["same network first", "IPv4 first", "near before IPv4", "not one's own", "with a route", "no route"],
)
def test_a_peers_addresses_are_ranked_by_route(published: list[str], expected: list[str]) -> None:
    assert by_route(published, same_host=False) == expected


@pytest.mark.usefixtures("routed")
def test_ones_own_address_is_the_peers_on_the_same_host() -> None:
    assert by_route(["172.17.0.1:1", "10.0.0.7:1"], same_host=True) == ["10.0.0.7:1", "172.17.0.1:1"]


def test_the_kernel_knows_the_way_to_itself() -> None:
    assert addresses.source_towards("127.0.0.1") == ipaddress.ip_address("127.0.0.1")
    assert addresses.family_of("127.0.0.1") == socket.AF_INET


def test_processes_of_one_host_have_one_key() -> None:
    assert host_key() == host_key()
