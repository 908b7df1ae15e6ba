"""Makes a network out of kernel parts: namespaces, veth pairs, bridges, token buckets. Nothing of the
machine's own network is touched: everything is made inside the namespace of the calling process and new ones.

Each host is a network namespace whose ``eth0`` is one end of a veth pair; the other end, ``host0``,
``host1``, ..., lies in the fabric, the namespace of the caller. Two sites are joined by a veth pair inside
the fabric. A wire's rate is a token bucket (TBF) where packets leave a device: an uplink on the host's
``eth0``, a downlink on the host's port in the fabric, a pipe between sites on its end at the first site. A
link between two hosts is a class of a hierarchical token bucket (HTB) on the sender's ``eth0``.

Ports are joined by bridges, one a site, or by the relay where packets must also be delayed or lost. Nobody
asks for addresses: neighbour and forwarding entries are permanent. A cut is a wrong neighbour entry: packets
go to a hardware address that swallows them, silently, as on a wire that is broken.

Not here: delay and loss (``relay``), what the pipes are (``network``), when they change (``timeline``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.rtnl import ndmsg

from thinwire.errors import UsageError
from thinwire.lab.environment import INTERFACE
from thinwire.lab.namespaces import network_namespace, new_network_namespace
from thinwire.lab.network import Network
from thinwire.lab.rates import Bucket, limit, shorten_super_packets
from thinwire.lab.scenario import Scenario

_BLACK_HOLE = "02:74:77:ff:ff:ff"
_STATIC = ndmsg.states["noarp"] | ndmsg.states["reachable"]
_MASTER = ndmsg.flags["master"]
_SUBNET = "10.77.0.0/24"
_IPV4 = Path("/proc/sys/net/ipv4")


def address_of(host: int) -> str:
    """The IPv4 address of a host's ``eth0``."""
    return f"10.77.0.{host + 1}"


def hardware_address_of(host: int) -> str:
    """The Ethernet address of a host's ``eth0``, whose last byte the relay reads."""
    return f"02:74:77:00:00:{host:02x}"


@dataclass(slots=True)
class Fabric:
    """A network that stands.

    Attributes:
        namespaces: host -> descriptor of its network namespace.
        ports: names of the devices in the fabric: one a host, then one an end of a pipe between sites.
    """

    network: Network
    namespaces: list[int] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    _control: IPRoute = field(default_factory=IPRoute)
    _host_control: list[IPRoute] = field(default_factory=list)
    _host_device: list[int] = field(default_factory=list)
    _buckets: dict[int, Bucket] = field(default_factory=dict)

    def set_rate(self, pipe: int, rate_bytes_per_s: float) -> None:
        """Change what one pipe carries from now on; what is queued stays queued."""
        self._buckets[pipe].set_rate(rate_bytes_per_s)

    def set_reachable(self, pairs: Iterable[tuple[int, int]], is_reachable: bool) -> None:
        """Let packets from the first host of each pair to the second pass, or vanish."""
        for source, destination in pairs:
            self._host_control[source].neigh(
                "replace",
                dst=address_of(destination),
                lladdr=hardware_address_of(destination) if is_reachable else _BLACK_HOLE,
                ifindex=self._host_device[source],
                state="permanent",
            )


def build(network: Network, scenario: Scenario) -> Fabric:
    """Make the network in the calling thread's network namespace, which must be new and empty.

    Raises:
        UsageError: the kernel lacks a part, or the congestion control.
    """
    fabric = Fabric(network)
    _disable_ipv6()
    for host in range(network.num_hosts):
        _add_host(fabric, host, scenario)
    for (first, second), pipe in network.site_pipes.items():
        back = network.site_pipes[second, first]
        if pipe < back:
            fabric._control.link("add", ifname=f"pipe{pipe}", kind="veth", peer={"ifname": f"pipe{back}"})
            fabric.ports += [f"pipe{pipe}", f"pipe{back}"]
    for port in fabric.ports:
        fabric._control.link("set", ifname=port, state="up")
    if not network.needs_relay:
        _bridge(fabric)
    _limit(fabric)
    return fabric


def _disable_ipv6() -> None:
    """Nobody in a lab speaks IPv6; its chatter would only take part in the measurements."""
    with contextlib.suppress(OSError):  # a kernel without IPv6, or a read-only /proc: chatter then
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")


def _add_host(fabric: Fabric, host: int, scenario: Scenario) -> None:
    namespace = new_network_namespace()
    fabric.namespaces.append(namespace)
    with network_namespace(namespace):
        control = IPRoute()
        _disable_ipv6()
        if scenario.tcp_buffer_mb is not None:
            _widen_tcp_buffers(scenario.tcp_buffer_mb)
    port = f"host{host}"
    fabric._control.link(
        "add",
        ifname=port,
        kind="veth",
        peer={"ifname": INTERFACE, "address": hardware_address_of(host), "net_ns_fd": namespace},
    )
    fabric.ports.append(port)
    device = control.link_lookup(ifname=INTERFACE)[0]
    control.addr("add", index=device, address=address_of(host), prefixlen=24)
    control.link("set", ifname="lo", state="up")
    control.link("set", index=device, state="up")
    if scenario.congestion_control is not None:
        with network_namespace(namespace):
            _choose_congestion_control(scenario.congestion_control, control, device, address_of(host))
    if fabric.network.can_lose(host):
        control.link(
            "set", index=device, gso_max_segs=1
        )  # the relay loses what it gets: let that be single frames
    fabric._host_control.append(control)
    fabric._host_device.append(device)
    fabric.set_reachable(((host, peer) for peer in range(fabric.network.num_hosts) if peer != host), True)


def _widen_tcp_buffers(most_mb: float) -> None:
    try:
        for name in ("tcp_rmem", "tcp_wmem"):
            least, default, _ = (_IPV4 / name).read_text().split()
            (_IPV4 / name).write_text(f"{least} {default} {most_mb * 1e6:.0f}")
    except OSError as error:
        raise UsageError(
            f"tcp_buffer_mb = {most_mb:g} cannot be had: this kernel refuses it ({error.strerror}); leave it out"
        ) from error


def _choose_congestion_control(name: str, control: IPRoute, device: int, address: str) -> None:
    """Make it what TCP uses unless a program asks for another.

    A namespace may not have a default that the machine keeps to privileged programs (see
    ``tcp_allowed_congestion_control``), but a route may name it. Such a connection keeps it even if its program
    asked for another before it connected.
    """
    with contextlib.suppress(OSError):
        (_IPV4 / "tcp_congestion_control").write_text(name)
        return
    try:
        control.route(
            "replace",
            dst=_SUBNET,
            oif=device,
            scope="link",
            proto="kernel",
            prefsrc=address,
            metrics={"cc_algo": name},
        )
    except NetlinkError as error:
        offered = (_IPV4 / "tcp_available_congestion_control").read_text().strip()
        raise UsageError(
            f"TCP has no congestion control {name!r} here; this kernel offers {offered}"
        ) from error


def _bridge(fabric: Fabric) -> None:
    """Join the ports of each site by a bridge that only forwards what it has been told of."""
    network, control = fabric.network, fabric._control
    for site in range(len(network.sites)):
        control.link("add", ifname=f"site{site}", kind="bridge", address=_BLACK_HOLE, br_mcast_snooping=0)
        control.link("set", ifname=f"site{site}", state="up")

    def enslave(port: str, site: int) -> int:
        device: int = control.link_lookup(ifname=port)[0]
        control.link("set", index=device, master=control.link_lookup(ifname=f"site{site}")[0])
        control.brport("set", index=device, learning=0, unicast_flood=0, mcast_flood=0, bcast_flood=0)
        return device

    host_ports = [enslave(f"host{host}", site) for host, site in enumerate(network.site_of)]
    pipe_ports = {ends: enslave(f"pipe{pipe}", ends[0]) for ends, pipe in network.site_pipes.items()}
    for site in range(len(network.sites)):
        for host, home in enumerate(network.site_of):
            port = host_ports[host] if home == site else pipe_ports[site, network.next_site[site, home]]
            control.fdb("add", ifindex=port, lladdr=hardware_address_of(host), flags=_MASTER, state=_STATIC)


def _limit(fabric: Fabric) -> None:
    """Hold every limited pipe to its rate."""
    network, control = fabric.network, fabric._control
    for host in range(network.num_hosts):
        host_control, device = fabric._host_control[host], fabric._host_device[host]
        links = {
            pipe: address_of(peer)
            for (source, peer), pipe in network.links.items()
            if source == host and network.pipes[pipe].is_limited
        }
        uplink = network.pipes[network.uplink(host)]
        _limit_device(fabric, host_control, device, network.uplink(host), links)
        slowest = min(pipe.rate_bytes_per_s for pipe in (uplink, *(network.pipes[link] for link in links)))
        shorten_super_packets(host_control, device, slowest)
        _limit_device(fabric, control, control.link_lookup(ifname=f"host{host}")[0], network.downlink(host))
    for pipe in network.site_pipes.values():
        _limit_device(fabric, control, control.link_lookup(ifname=f"pipe{pipe}")[0], pipe)


def _limit_device(
    fabric: Fabric, control: IPRoute, device: int, number: int, links: Mapping[int, str] | None = None
) -> None:
    """Limit what leaves a device to pipe ``number``'s rate, and what goes to some addresses to their link's."""
    pipes, links = fabric.network.pipes, links or {}
    if links or pipes[number].is_limited:
        addresses = [(pipes[link], address) for link, address in links.items()]
        buckets = limit(control, device, pipes[number], addresses)
        fabric._buckets.update(zip((number, *links), buckets, strict=True))
