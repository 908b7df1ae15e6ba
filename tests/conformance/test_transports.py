"""Every transport of the house passes the published kit."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from thinwire.sim.network import LinkProfile, SimulatedNetwork
from thinwire.testing.transports import CHECKS, Check, MakeNetwork, Network
from thinwire.transport.memory import MemoryNetwork
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

SECRET = b"shared by this test alone"


def over_sockets(options: SocketOptions) -> MakeNetwork:
    @contextlib.contextmanager
    def make_network(size: int) -> Iterator[Network]:
        transports = [SocketTransport(SECRET, options) for _ in range(size)]

        def kill(index: int) -> None:
            """Break its connections without a goodbye, as the kernel does for a process that dies."""
            for link in list(transports[index]._links.values()):
                link.abort()

        yield Network(transports=transports, kill=kill, is_ordered=options.lanes == 1)

    return make_network


@contextlib.contextmanager
def over_memory(size: int) -> Iterator[Network]:
    network = MemoryNetwork()
    yield Network(transports=[network.transport() for _ in range(size)], kill=network.kill)
    network.close()


@contextlib.contextmanager
def simulated(size: int) -> Iterator[Network]:
    profile = LinkProfile(latency_s=0.010, bandwidth_bytes_per_s=1e9)
    network = SimulatedNetwork(np.random.default_rng(0), profile)
    transports = [network.transport() for _ in range(size)]
    yield Network(transports=transports, kill=network.kill, run=network.run)
    network.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


TRANSPORTS = {
    "memory": over_memory,
    "simulated": simulated,
    "tcp": over_sockets(SocketOptions(prefer="tcp")),
    "tcp-3-lanes": over_sockets(SocketOptions(prefer="tcp", lanes=3)),
    "tcp-ipv6": over_sockets(SocketOptions(prefer="tcp", interface="::1")),
    "unix": over_sockets(SocketOptions(cross_memory=False)),
    "unix-cross-memory": over_sockets(SocketOptions()),
    "unix-cross-memory-2-lanes": over_sockets(SocketOptions(lanes=2)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_transport(transport: str, check: Check) -> None:
    if transport == "tcp-ipv6" and not has_ipv6():
        pytest.skip("this host has no IPv6")
    check(TRANSPORTS[transport])
