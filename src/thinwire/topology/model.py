"""The nouns: ``Host``, ``Link``, ``Bottleneck``, ``Gap`` and the ``Topology`` they make, frozen and checked.

Bandwidths are bytes of payload a second, as a program sees them: TCP's and Ethernet's headers are already paid for. A
field that was not measured is None, and never a guess.

Not here: the text form (``text``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from thinwire.errors import UsageError

Ends = tuple[str, str]  # (source, destination)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One end of links: a process on a machine.

    Attributes:
        name: unique in the topology.
        address: where its peers reach it; empty if nobody did.
        interface: the network interface that has the address; empty if unknown.
        uplink_bytes_per_s: what it sent to several peers at once. Its uplink carries at least that.
        downlink_bytes_per_s: what it received from several peers at once.
    """

    name: str
    address: str = ""
    interface: str = ""
    uplink_bytes_per_s: float | None = None
    downlink_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("a host needs a name")
        _check_positive(self.name, self, "uplink_bytes_per_s", "downlink_bytes_per_s")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The way from one host to another. The round trip is of small datagrams there and back.

    Attributes:
        source, destination: names of hosts.
        one_stream_bytes_per_s: what one TCP stream reaches.
        several_streams_bytes_per_s: what several TCP streams reach together.
        burst_bytes_per_s: what short bursts of datagrams came through at, of the quick form; None where only the
            interval is known.
        burst_low_bytes_per_s, burst_high_bytes_per_s: the interval that it is in; None where it has no such end.
        rtt_min_s, rtt_median_s, rtt_p99_s: the round trip while the link is otherwise idle.
        jitter_s: standard deviation of the one-way delay while idle.
        loss: the fraction of datagrams lost while idle.
        queue_s: how long packets wait on top of the idle delay while one stream fills the link.
        loaded_loss: the fraction of datagrams lost while one stream fills the link.
    """

    source: str
    destination: str
    one_stream_bytes_per_s: float | None = None
    several_streams_bytes_per_s: float | None = None
    burst_bytes_per_s: float | None = None
    burst_low_bytes_per_s: float | None = None
    burst_high_bytes_per_s: float | None = None
    rtt_min_s: float | None = None
    rtt_median_s: float | None = None
    rtt_p99_s: float | None = None
    jitter_s: float | None = None
    loss: float | None = None
    queue_s: float | None = None
    loaded_loss: float | None = None

    def __post_init__(self) -> None:
        what = f"link {self.source} -> {self.destination}"
        if self.source == self.destination:
            raise UsageError(f"{what}: a link has two different ends")
        _check_positive(what, self, "one_stream_bytes_per_s", "several_streams_bytes_per_s")
        _check_positive(what, self, "burst_bytes_per_s", "burst_low_bytes_per_s", "burst_high_bytes_per_s")
        for name in ("rtt_min_s", "rtt_median_s", "rtt_p99_s", "jitter_s", "queue_s"):
            _check_range(what, self, name, math.inf)
        for name in ("loss", "loaded_loss"):
            _check_range(what, self, name, 1.0)

    @property
    def ends(self) -> Ends:
        return self.source, self.destination

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        """The most that any number of streams was seen to reach; without streams, what bursts came through at.

        >>> Link(source="a", destination="b", one_stream_bytes_per_s=3e6).bandwidth_bytes_per_s
        3000000.0
        """
        streams = filter(None, (self.one_stream_bytes_per_s, self.several_streams_bytes_per_s))
        return max(streams, default=self.burst_bytes_per_s)


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """A capacity that several links share: they reach it together, not each.

    Attributes:
        links: (source, destination) of each, ascending; those that were found to share it.
        bandwidth_bytes_per_s: what they carry together.
    """

    links: tuple[Ends, ...]
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if len(self.links) < 2 or list(self.links) != sorted(set(self.links)):
            raise UsageError(f"a bottleneck is shared by two links or more, in ascending order: {self.links}")
        _check_positive("a bottleneck", self, "bandwidth_bytes_per_s")


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something that should have been measured and was not.

    Attributes:
        what: ``"host2"``, ``"host0 -> host2"``, ...
        reason: why, in words.
    """

    what: str
    reason: str


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A network as it was measured.

    Attributes:
        form: how it was measured: ``"full"``, ``"quick"``, ``"learned"`` from traffic.
        measured_at: wall time when the measurement ended, ISO 8601 in UTC; empty if nobody looked.
        hosts: in rank order.
        links: by source, then destination, in the order of the hosts.
        bottlenecks: what links share, besides the uplinks and downlinks of the hosts.
        gaps: what is missing and why; a topology without gaps is complete.
        findings: what stands out, in sentences.
    """

    form: str = "full"
    measured_at: str = ""
    hosts: tuple[Host, ...]
    links: tuple[Link, ...] = ()
    bottlenecks: tuple[Bottleneck, ...] = ()
    gaps: tuple[Gap, ...] = ()
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [host.name for host in self.hosts]
        _check_unique("host", names)
        _check_unique("link", [link.ends for link in self.links])
        for ends in (link.ends for link in self.links):
            for name in ends:
                if name not in names:
                    raise UsageError(f"link {ends[0]} -> {ends[1]}: there is no host {name!r}")
        known = {link.ends for link in self.links}
        for bottleneck in self.bottlenecks:
            for ends in bottleneck.links:
                if ends not in known:
                    raise UsageError(f"a bottleneck is shared by {ends[0]} -> {ends[1]}, which is no link")

    @property
    def num_hosts(self) -> int:
        return len(self.hosts)

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            UsageError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise UsageError(
            f"the topology has no host {name!r}, only {', '.join(host.name for host in self.hosts)}"
        )

    def link(self, source: str, destination: str) -> Link:
        """The link between two hosts.

        Raises:
            UsageError: it is not in the topology.

        >>> link = Link(source="a", destination="b", loss=0.1)
        >>> Topology(hosts=(Host(name="a"), Host(name="b")), links=(link,)).link("a", "b").loss
        0.1
        """
        for link in self.links:
            if link.ends == (source, destination):
                return link
        raise UsageError(f"the topology has no link {source} -> {destination}: it was not measured")


def _check_unique(what: str, names: Iterable[object]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UsageError(f"two {what}s are called {name!r}")
        seen.add(name)


def _check_positive(what: str, value: msgspec.Struct, *names: str) -> None:
    for name in names:
        found = getattr(value, name)
        if found is not None and not 0 < found < math.inf:
            raise UsageError(f"{what}: {name} is {found}: use a positive number, or leave it out")


def _check_range(what: str, value: msgspec.Struct, name: str, largest: float) -> None:
    found = getattr(value, name)
    if found is not None and not (0 <= found <= largest and found < math.inf):
        raise UsageError(
            f"{what}: {name} is {found}: use a number from 0" + (" to 1" if largest == 1 else "")
        )
