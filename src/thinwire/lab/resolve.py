"""From a scenario to the network it stands for.

Refuses what cannot be built: names that stand for nothing, hosts in two sites, sites that no pipe connects. Pure: no
file, no kernel, no time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from thinwire.errors import ScenarioError
from thinwire.lab.network import Network, Pipe, Where, index_of
from thinwire.lab.scenario import Between, Scenario, Trace, Wire
from thinwire.lab.timeline import check_changes

QUEUE_S = 0.05
MIN_QUEUE_BYTES = 32_000


def network_of(scenario: Scenario) -> Network:
    """The network that ``scenario`` describes.

    Raises:
        ScenarioError: it contradicts itself.

    >>> from thinwire.lab.scenario import Access
    >>> network = network_of(Scenario(summary="", hosts=2, access=Access(rate_mbit=8)))
    >>> [(pipe.name, pipe.rate_bytes_per_s) for pipe in (network.pipes[number] for number in network.path(0, 1))]
    [('host0.up', 1000000.0), ('host1.down', 1000000.0)]
    """
    hosts = scenario.host_names
    for index, name in enumerate(hosts):
        if name in hosts[:index]:
            raise ScenarioError(("hosts",), f"two hosts are called {name!r}")
    sites = tuple(site.name for site in scenario.site) or ("all",)
    site_of = _sites(scenario, hosts, sites)
    pipes = _access(scenario, hosts)
    site_pipes = _between("pipe", scenario.pipe, sites, pipes)
    links = _between("link", scenario.link, hosts, pipes)
    network = Network(
        hosts=hosts,
        sites=sites,
        site_of=site_of,
        pipes=tuple(pipes),
        site_pipes=site_pipes,
        next_site=_next_sites(sites, site_pipes),
        links=links,
    )
    check_changes(scenario, network)
    for trace in scenario.trace:
        for number in network.pipes_named(trace.on):
            pipes[number] = _with_trace(pipes[number], trace)
    return msgspec.structs.replace(network, pipes=tuple(pipes))


def _sites(scenario: Scenario, hosts: Sequence[str], sites: Sequence[str]) -> tuple[int, ...]:
    """The site of each host."""
    if not scenario.site:
        return (0,) * len(hosts)
    home: dict[str, int] = {}
    for number, site in enumerate(scenario.site):
        if site.name in (*hosts, *sites[:number]):
            raise ScenarioError(("site", number, "name"), f"two places are called {site.name!r}")
        for name in site.hosts:
            index_of(name, hosts, ("site", number, "hosts"))
            if name in home:
                raise ScenarioError(("site", number, "hosts"), f"{name!r} is in two sites")
            home[name] = number
    for name in hosts:
        if name not in home:
            raise ScenarioError(("site", 0), f"host {name!r} is in no site; with sites, every host needs one")
    return tuple(home[name] for name in hosts)


def _access(scenario: Scenario, hosts: Sequence[str]) -> list[Pipe]:
    """The uplinks of all hosts, then their downlinks."""
    wires: dict[str, list[Wire]] = {host: [scenario.access] for host in hosts}
    path: dict[str, Where] = dict.fromkeys(hosts, ("access",))
    for index, override in enumerate(scenario.host):
        for name in override.names:
            index_of(name, hosts, ("host", index, "names"))
            wires[name].append(override)
            path[name] = ("host", index)
    return [
        _pipe(
            f"{host}.{way}", [part for wire in wires[host] for part in (wire, getattr(wire, way))], path[host]
        )
        for way in ("up", "down")
        for host in hosts
    ]


def _between(
    table: str, wires: Sequence[Between], places: Sequence[str], pipes: list[Pipe]
) -> dict[tuple[int, int], int]:
    """Add both directions of each wire to ``pipes``.

    Returns:
        ``(place, place)`` -> pipe.
    """
    numbers: dict[tuple[int, int], int] = {}
    for index, wire in enumerate(wires):
        path = (table, index)
        first, second = (index_of(name, places, (*path, "between")) for name in wire.between)
        if first == second:
            raise ScenarioError((*path, "between"), f"the {table} connects {wire.between[0]!r} with itself")
        if (first, second) in numbers:
            raise ScenarioError((*path, "between"), f"a {table} between these two exists already")
        for ends, way in (((first, second), wire.there), ((second, first), wire.back)):
            numbers[ends] = len(pipes)
            pipes.append(_pipe(f"{places[ends[0]]}>{places[ends[1]]}", [wire, way], path))
    return numbers


def _pipe(name: str, wires: Sequence[Wire], path: Where) -> Pipe:
    """The pipe of one direction: later wires override earlier ones, key by key."""
    keys = Wire.__struct_fields__
    said = {key: getattr(wire, key) for wire in wires for key in keys if getattr(wire, key) is not UNSET}
    rate_mbit, delay_ms, jitter_ms = (said.get(key, 0.0) for key in ("rate_mbit", "delay_ms", "jitter_ms"))
    if jitter_ms > delay_ms / 2:
        raise ScenarioError(
            (*path, "jitter_ms"),
            f"{name} has a jitter of {jitter_ms} ms and a delay of {delay_ms} ms; jitter is a standard deviation "
            "and may be half of the delay at most, because no packet arrives before it was sent",
        )
    burst = said.get("burst_loss")
    if burst is not None and burst.share > burst.packets / (burst.packets + 1):
        raise ScenarioError(
            (*path, "burst_loss"),
            f"{name} cannot be bad for {burst.share:g} of the packets, {burst.packets:g} at a time: with one good "
            f"packet between two stays the share is {burst.packets / (burst.packets + 1):.3g} at most",
        )
    rate = rate_mbit * 1e6 / 8 if rate_mbit else math.inf
    return Pipe(
        name=name,
        rate_bytes_per_s=rate,
        queue_bytes=int(said.get("queue_kb", 0) * 1000) or _default_queue_bytes(rate),
        delay_s=delay_ms / 1e3,
        jitter_s=jitter_ms / 1e3,
        loss=said.get("loss", 0.0),
        burst_loss=burst,
        is_limited=math.isfinite(rate),
        is_delayed=delay_ms > 0,
        is_lossy=bool(said.get("loss") or burst),
    )


def _default_queue_bytes(rate_bytes_per_s: float) -> int:
    """The queue of a wire whose scenario says nothing of it; 0 if nothing limits the rate."""
    if math.isinf(rate_bytes_per_s):
        return 0
    return max(MIN_QUEUE_BYTES, int(rate_bytes_per_s * QUEUE_S))


def _with_trace(pipe: Pipe, trace: Trace) -> Pipe:
    fastest = max(trace.rate_mbit or (), default=math.inf) * 1e6 / 8
    return msgspec.structs.replace(
        pipe,
        queue_bytes=pipe.queue_bytes or _default_queue_bytes(fastest),
        is_limited=pipe.is_limited or bool(trace.rate_mbit),
        is_varying=pipe.is_varying or bool(trace.rate_mbit),
        is_delayed=pipe.is_delayed or any((*(trace.delay_ms or ()), *(trace.jitter_ms or ()))),
        is_lossy=pipe.is_lossy or any(trace.loss or ()),
    )


def _next_sites(sites: Sequence[str], site_pipes: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """Where to go next on a way with the fewest pipes, for every pair of sites."""
    following: dict[tuple[int, int], int] = {}
    for goal, goal_name in enumerate(sites):
        reached = {goal}
        frontier = deque([goal])
        while frontier:
            here = frontier.popleft()
            for there in [first for first, second in site_pipes if second == here and first not in reached]:
                following[there, goal] = here
                reached.add(there)
                frontier.append(there)
        for number, name in enumerate(sites):
            if number not in reached:
                raise ScenarioError(
                    ("site", number), f"no pipe leads from site {name!r} to site {goal_name!r}"
                )
    return following
