"""What a scenario file says: hosts, their links, shared pipes, changes over time, background traffic.

A scenario is a small TOML file; these are its tables, as frozen values. Numbers carry their unit in their key
(``rate_mbit`` is Mbit/s, ``delay_ms``, ``queue_kb`` is 1000 bytes), a ``loss`` is a fraction. Rates count
Ethernet frames without preamble and checksum, as ``tc`` does. Every wire has two directions; what is said of
the whole wire holds for both, and each direction may override any of it.

Not here: what the words mean for packets (``network``), and where files are found (``library``).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_HOSTS = 250

Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,30}$")]
Mbit = Annotated[float, Meta(ge=0.001, le=30_000)]
Milliseconds = Annotated[float, Meta(ge=0, le=60_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Span = Annotated[float, Meta(ge=0.01, le=1e9)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A TOML table: unknown keys are refused."""


class BurstLoss(Table, frozen=True, kw_only=True):
    """The bad state of a Gilbert-Elliott channel (Gilbert 1960, Elliott 1963): a wire that fails for a while.

    Attributes:
        share: the fraction of packets that meet the bad state; at most ``packets / (packets + 1)``, because between
            two stays there is a packet that does not.
        packets: the mean number of packets that one stay in it lasts.
        loss: the fraction of those packets that is lost.
    """

    share: Annotated[float, Meta(gt=0, lt=1)]
    packets: Annotated[float, Meta(ge=1)]
    loss: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Wire(Table, frozen=True, kw_only=True):
    """One direction of a wire; a key left out is taken from a more general table, or has no effect.

    Attributes:
        rate_mbit: what the wire carries, in Mbit/s. Left out: no limit.
        queue_kb: how much waits before it, in kB, before packets are dropped. Left out: what the rate carries in
            50 ms, and at least 32 kB.
        delay_ms: the mean one-way delay that the wire adds to that of its queue.
        jitter_ms: the standard deviation of that delay. Packets between two hosts stay in order.
        loss: the fraction of packets that is lost at random.
        burst_loss: packets lost in bursts, besides.
    """

    rate_mbit: Mbit | UnsetType = UNSET
    queue_kb: Annotated[float, Meta(ge=3, le=1e6)] | UnsetType = UNSET
    delay_ms: Milliseconds | UnsetType = UNSET
    jitter_ms: Milliseconds | UnsetType = UNSET
    loss: Fraction | UnsetType = UNSET
    burst_loss: BurstLoss | UnsetType = UNSET


class Access(Wire, frozen=True, kw_only=True):
    """The wire between a host and the switch of its site.

    Attributes:
        up: what differs from the host to the switch.
        down: what differs from the switch to the host.
    """

    up: Wire = Wire()
    down: Wire = Wire()


class HostAccess(Access, frozen=True, kw_only=True):
    """What differs from the scenario's ``access`` for some hosts.

    Attributes:
        names: the hosts. Where two of these tables name the same host, the later one counts.
    """

    names: Annotated[list[str], Meta(min_length=1)]


class Site(Table, frozen=True, kw_only=True):
    """Hosts behind one switch. A scenario without sites has all hosts on one.

    Attributes:
        name: what pipes, traces and cuts call it.
        hosts: the hosts behind it; every host is in exactly one site.
    """

    name: Name
    hosts: Annotated[list[str], Meta(min_length=1)]


class Between(Wire, frozen=True, kw_only=True):
    """A wire between two places: two sites (a pipe), or two hosts (a link).

    Attributes:
        between: the two places.
        there: what differs from the first to the second.
        back: what differs from the second to the first.
    """

    between: Annotated[list[str], Meta(min_length=2, max_length=2)]
    there: Wire = Wire()
    back: Wire = Wire()


class Trace(Table, frozen=True, kw_only=True):
    """How the wires in ``on`` change: at each second of ``at_s``, to the value at the same place of each
    list.

    Attributes:
        on: wires by name; ``*`` matches anything. Names are ``host0.up``, ``host0.down``, ``east>west`` (a
            pipe or link in one direction).
        at_s: seconds since the lab is up, ascending.
        every_s: begin again after so many seconds. Left out: the last values stay.
        rate_mbit: the rate from each of these times on.
        delay_ms: the mean delay.
        jitter_ms: its standard deviation.
        loss: the fraction that is lost at random.
    """

    on: Annotated[list[str], Meta(min_length=1)]
    at_s: Annotated[list[Seconds], Meta(min_length=1)]
    every_s: Span | None = None
    rate_mbit: list[Mbit] | None = None
    delay_ms: list[Milliseconds] | None = None
    jitter_ms: list[Milliseconds] | None = None
    loss: list[Fraction] | None = None


class Cut(Table, frozen=True, kw_only=True):
    """Nothing passes between the hosts and sites of the first list and those of the second, in either
    direction.

    Attributes:
        between: two lists of hosts and sites; an empty second list stands for all other hosts.
        at_s: when it begins, in seconds since the lab is up.
        for_s: how long it lasts.
        every_s: it comes again after so many seconds. Left out: it happens once.
    """

    between: Annotated[list[list[str]], Meta(min_length=2, max_length=2)]
    at_s: Seconds
    for_s: Span
    every_s: Span | None = None


class Background(Table, frozen=True, kw_only=True):
    """Datagrams that somebody else sends from one host to another at a steady rate, whoever else wants the
    wire.

    Attributes:
        from_: the sending host (``from`` in the file).
        to: the receiving host.
        rate_mbit: the rate while it sends.
        on_s: it sends for so many seconds ...
        off_s: ... and is silent for so many, again and again. Left out: it never stops.
    """

    from_: str = msgspec.field(name="from")
    to: str
    rate_mbit: Mbit
    on_s: Span | None = None
    off_s: Span | None = None


class Scenario(Table, frozen=True, kw_only=True):
    """One emulated network.

    Attributes:
        summary: one line for the list of scenarios.
        hosts: how many (then they are called host0, host1, ...), or their names. Rank order.
        seed: of all random draws (loss, jitter).
        congestion_control: of TCP on all hosts. Left out: the machine's default.
        tcp_buffer_mb: how far TCP's buffers may grow on all hosts. Left out: the machine's default, which limits one
            connection over a long fast path to a part of the rate, as it does in life.
        access: the wire of every host.
        host: what differs for some hosts.
        site: switches. Left out: one for all.
        pipe: wires between sites, shared by all hosts of a site.
        link: wires between two hosts, which only their traffic to each other passes, besides their access.
        trace: what changes over time.
        cut: who is cut off from whom, and when.
        background: traffic of others.
    """

    summary: str
    hosts: (
        Annotated[int, Meta(ge=1, le=MAX_HOSTS)]
        | Annotated[list[Name], Meta(min_length=1, max_length=MAX_HOSTS)]
    )
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0
    congestion_control: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,15}$")] | None = None
    tcp_buffer_mb: Annotated[float, Meta(gt=0, le=1024)] | None = None
    access: Access = Access()
    host: list[HostAccess] = []
    site: list[Site] = []
    pipe: list[Between] = []
    link: list[Between] = []
    trace: list[Trace] = []
    cut: list[Cut] = []
    background: list[Background] = []

    @property
    def host_names(self) -> tuple[str, ...]:
        if isinstance(self.hosts, int):
            return tuple(f"host{index}" for index in range(self.hosts))
        return tuple(self.hosts)
