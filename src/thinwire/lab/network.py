"""The network a scenario stands for: directed pipes, and for every pair of hosts the pipes its packets pass.

This is the one form that everything else works from: ``build`` makes the rates out of kernel parts, ``relay``
the delays and losses, ``changes`` alters pipes by number. A packet from a to b passes a's uplink, the link
between a and b if there is one, the pipes between their sites, and b's downlink, in this order.

``network_of`` also refuses what cannot be built: names that stand for nothing, hosts in two sites, sites that
no pipe connects. Pure: no file, no kernel, no time.
"""

from __future__ import annotations

import fnmatch
import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import UNSET

from thinwire.errors import UsageError
from thinwire.lab.scenario import Between, BurstLoss, Scenario, Trace, Wire

QUEUE_S = 0.05
MIN_QUEUE_BYTES = 32_000


class ScenarioError(UsageError):
    """A scenario contradicts itself.

    Attributes:
        path: where in the file: keys and indices from the top, e.g. ``("pipe", 0, "between")``.
    """

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.path = path


class Pipe(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of one wire.

    Attributes:
        rate_bytes_per_s: infinite if nothing limits it. is_varying: a trace changes the rate, so that the
            kernel must hold a limit even where there is none yet. has_relay_stage: packets are delayed or
            lost here, at least at times.
    """

    name: str
    rate_bytes_per_s: float = math.inf
    queue_bytes: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    burst_loss: BurstLoss | None = None
    is_varying: bool = False
    has_relay_stage: bool = False

    @property
    def is_limited(self) -> bool:
        return self.is_varying or math.isfinite(self.rate_bytes_per_s)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts, sites and pipes by number.

    Attributes:
        hosts: names, in rank order.
        sites: names.
        site_of: host -> site.
        pipes: first every host's uplink, then every host's downlink, then the rest.
        site_pipes: ``(site, site)`` -> pipe, for sites that a pipe connects directly.
        next_site: ``(site, destination site)`` -> the site to go to next.
        links: ``(host, host)`` -> pipe.
    """

    hosts: tuple[str, ...]
    site_of: tuple[int, ...]
    sites: tuple[str, ...]
    pipes: tuple[Pipe, ...]
    site_pipes: dict[tuple[int, int], int]
    next_site: dict[tuple[int, int], int]
    links: dict[tuple[int, int], int]

    @property
    def num_hosts(self) -> int:
        return len(self.hosts)

    @property
    def needs_relay(self) -> bool:
        """Whether the kernel's queues alone cannot make this network."""
        return any(pipe.has_relay_stage for pipe in self.pipes)

    def uplink(self, host: int) -> int:
        return host

    def downlink(self, host: int) -> int:
        return self.num_hosts + host

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """The pipes that packets from ``source`` to ``destination`` pass, in order."""
        passed = [self.uplink(source)]
        if (source, destination) in self.links:
            passed.append(self.links[source, destination])
        site, last_site = self.site_of[source], self.site_of[destination]
        while site != last_site:
            following = self.next_site[site, last_site]
            passed.append(self.site_pipes[site, following])
            site = following
        return (*passed, self.downlink(destination))

    def pipes_named(self, patterns: Iterable[str]) -> list[int]:
        """The numbers of the pipes whose name matches one of the patterns."""
        return [
            number
            for number, pipe in enumerate(self.pipes)
            if any(fnmatch.fnmatchcase(pipe.name, pattern) for pattern in patterns)
        ]

    def hosts_named(self, names: Collection[str]) -> set[int]:
        """The numbers of the hosts called so, or in a site called so."""
        return {
            host
            for host, name in enumerate(self.hosts)
            if name in names or self.sites[self.site_of[host]] in names
        }


def network_of(scenario: Scenario) -> Network:
    """The network that ``scenario`` describes.

    Raises:
        ScenarioError: it contradicts itself.
    """
    hosts = scenario.host_names
    for index, name in enumerate(hosts):
        if name in hosts[:index]:
            raise ScenarioError(("hosts",), f"two hosts are called {name!r}")
    site_names = [site.name for site in scenario.site] or ["all"]
    site_of = _sites(scenario, hosts, site_names)

    pipes: list[Pipe] = []
    for direction in ("up", "down"):
        for host in hosts:
            wires: list[Wire] = [scenario.access, getattr(scenario.access, direction)]
            for override in scenario.host:
                if host in override.names:
                    wires += [override, getattr(override, direction)]
            pipes.append(_pipe(f"{host}.{direction}", wires))

    def add(table: str, places: Sequence[str], wires: Sequence[Between]) -> dict[tuple[int, int], int]:
        numbers: dict[tuple[int, int], int] = {}
        for index, wire in enumerate(wires):
            first, second = (_index(places, name, (table, index, "between")) for name in wire.between)
            if first == second or (first, second) in numbers:
                problem = "connects a place with itself" if first == second else "exists already"
                raise ScenarioError(
                    (table, index, "between"), f"the {table} {' - '.join(wire.between)} {problem}"
                )
            for ends, direction in (((first, second), wire.there), ((second, first), wire.back)):
                numbers[ends] = len(pipes)
                pipes.append(_pipe(f"{places[ends[0]]}>{places[ends[1]]}", [wire, direction]))
        return numbers

    site_pipes = add("pipe", site_names, scenario.pipe)
    links = add("link", hosts, scenario.link)
    network = Network(
        hosts=hosts,
        site_of=site_of,
        sites=tuple(site_names),
        pipes=tuple(pipes),
        site_pipes=site_pipes,
        next_site=_next_sites(site_names, site_pipes),
        links=links,
    )
    _check_traces(scenario, network)
    _check_cuts(scenario, network)
    _check_background(scenario, network)
    varied = [
        _with_changes(pipe, [trace for trace in scenario.trace if number in network.pipes_named(trace.on)])
        for number, pipe in enumerate(network.pipes)
    ]
    return msgspec.structs.replace(network, pipes=tuple(varied))


def _index(names: Sequence[str], name: str, path: tuple[str | int, ...]) -> int:
    try:
        return list(names).index(name)
    except ValueError:
        raise ScenarioError(path, f"{name!r} is not one of {', '.join(names)}") from None


def _sites(scenario: Scenario, hosts: tuple[str, ...], site_names: list[str]) -> tuple[int, ...]:
    for index, override in enumerate(scenario.host):
        for name in override.names:
            _index(hosts, name, ("host", index, "names"))
    if not scenario.site:
        return (0,) * len(hosts)
    home: dict[str, int] = {}
    for number, site in enumerate(scenario.site):
        if site.name in hosts or site.name in site_names[:number]:
            raise ScenarioError(("site", number, "name"), f"two places are called {site.name!r}")
        for name in site.hosts:
            _index(hosts, name, ("site", number, "hosts"))
            if name in home:
                raise ScenarioError(("site", number, "hosts"), f"{name!r} is in two sites")
            home[name] = number
    for name in hosts:
        if name not in home:
            raise ScenarioError(("site",), f"host {name!r} is in no site; with sites, every host needs one")
    return tuple(home[name] for name in hosts)


def _pipe(name: str, wires: Sequence[Wire]) -> Pipe:
    """The pipe of one direction, later wires overriding earlier ones key by key."""
    said = {
        key: value
        for wire in wires
        for key in Wire.__struct_fields__
        if (value := getattr(wire, key)) is not UNSET
    }
    rate = said.get("rate_mbit", math.inf) * 1e6 / 8
    queue_kb = said.get("queue_kb")
    return Pipe(
        name=name,
        rate_bytes_per_s=rate,
        queue_bytes=int(queue_kb * 1000) if queue_kb else default_queue_bytes(rate),
        delay_s=said.get("delay_ms", 0.0) / 1e3,
        jitter_s=said.get("jitter_ms", 0.0) / 1e3,
        loss=said.get("loss", 0.0),
        burst_loss=said.get("burst_loss"),
        has_relay_stage=any(said.get(key) for key in ("delay_ms", "jitter_ms", "loss", "burst_loss")),
    )


def default_queue_bytes(rate_bytes_per_s: float) -> int:
    """The queue of a wire whose scenario says nothing of it; 0 if nothing limits the rate."""
    if math.isinf(rate_bytes_per_s):
        return 0
    return max(MIN_QUEUE_BYTES, int(rate_bytes_per_s * QUEUE_S))


def _with_changes(pipe: Pipe, traces: Sequence[Trace]) -> Pipe:
    rates = [rate * 1e6 / 8 for trace in traces for rate in trace.rate_mbit or ()]
    return msgspec.structs.replace(
        pipe,
        is_varying=bool(rates),
        queue_bytes=pipe.queue_bytes or default_queue_bytes(max(rates, default=math.inf)),
        has_relay_stage=pipe.has_relay_stage
        or any(trace.delay_ms or trace.jitter_ms or trace.loss for trace in traces),
    )


def _next_sites(names: Sequence[str], site_pipes: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """Where to go next on a way with the fewest pipes, for every pair of sites."""
    following: dict[tuple[int, int], int] = {}
    for goal in range(len(names)):
        reached = {goal}
        frontier = deque([goal])
        while frontier:
            here = frontier.popleft()
            for there in [first for first, second in site_pipes if second == here and first not in reached]:
                following[there, goal] = here
                reached.add(there)
                frontier.append(there)
        if len(reached) < len(names):
            lonely = next(name for number, name in enumerate(names) if number not in reached)
            raise ScenarioError(("site",), f"no pipe leads from site {lonely!r} to site {names[goal]!r}")
    return following


def _check_traces(scenario: Scenario, network: Network) -> None:
    for index, trace in enumerate(scenario.trace):
        for pattern in trace.on:
            if not network.pipes_named([pattern]):
                known = ", ".join(pipe.name for pipe in network.pipes)
                raise ScenarioError(("trace", index, "on"), f"{pattern!r} matches none of the wires {known}")
        changed = [key for key in ("rate_mbit", "delay_ms", "jitter_ms", "loss") if getattr(trace, key)]
        if not changed:
            raise ScenarioError(
                ("trace", index), "a trace changes rate_mbit, delay_ms, jitter_ms or loss; this one none"
            )
        for key in changed:
            if len(getattr(trace, key)) != len(trace.at_s):
                raise ScenarioError(
                    ("trace", index, key),
                    f"{key} has {len(getattr(trace, key))} values, at_s has {len(trace.at_s)}: they pair up",
                )
        if any(later <= earlier for earlier, later in zip(trace.at_s, trace.at_s[1:], strict=False)):
            raise ScenarioError(("trace", index, "at_s"), "at_s must ascend")
        if trace.every_s is not None and trace.at_s[-1] >= trace.every_s:
            raise ScenarioError(
                ("trace", index, "every_s"), f"it begins again before its last change at {trace.at_s[-1]} s"
            )


def _check_cuts(scenario: Scenario, network: Network) -> None:
    for index, cut in enumerate(scenario.cut):
        for side, names in enumerate(cut.between):
            for name in names:
                _index([*network.hosts, *network.sites], name, ("cut", index, "between"))
            if side == 0 and not names:
                raise ScenarioError(("cut", index, "between"), "the first of the two lists is empty")
        if cut.every_s is not None and cut.for_s >= cut.every_s:
            raise ScenarioError(("cut", index, "every_s"), "it comes again before it has ended")
        first, second = (network.hosts_named(names) for names in cut.between)
        if first & second:
            both = network.hosts[min(first & second)]
            raise ScenarioError(("cut", index, "between"), f"{both!r} is on both sides")


def _check_background(scenario: Scenario, network: Network) -> None:
    for index, background in enumerate(scenario.background):
        source = _index(network.hosts, background.from_, ("background", index, "from"))
        if source == _index(network.hosts, background.to, ("background", index, "to")):
            raise ScenarioError(
                ("background", index, "to"), "a host does not need the network to reach itself"
            )
        if (background.on_s is None) != (background.off_s is None):
            raise ScenarioError(("background", index), "on_s and off_s go together")
