"""The network a scenario stands for: directed pipes, and for every pair of hosts the pipes its packets pass.

This is the one form that everything else works from: ``build`` makes the rates out of kernel parts, ``relay`` the
delays and losses, ``timeline`` changes pipes by number. A packet from a to b passes a's uplink, the link between a and
b if there is one, the pipes between their sites, and b's downlink, in this order.

Not here: how a scenario becomes one of these (``resolve``).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Sequence

import msgspec

from thinwire.errors import ScenarioError
from thinwire.lab.scenario import BurstLoss

Where = tuple[str | int, ...]  # in a scenario file: keys and indices from the top


class Pipe(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of one wire.

    Attributes:
        rate_bytes_per_s: infinite if nothing limits it.
        is_limited: the rate is limited, at least at times.
        is_varying: the rate changes.
        is_delayed, is_lossy: packets are delayed or lost here, at least at times, other than by the queue.
    """

    name: str
    rate_bytes_per_s: float = math.inf
    queue_bytes: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    burst_loss: BurstLoss | None = None
    is_limited: bool = False
    is_varying: bool = False
    is_delayed: bool = False
    is_lossy: bool = False

    @property
    def needs_relay(self) -> bool:
        """Whether the kernel's queues alone cannot make it."""
        return self.is_delayed or self.is_lossy


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
        return any(pipe.needs_relay for pipe in self.pipes)

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

    def can_lose(self, source: int) -> bool:
        """Whether packets that ``source`` sends may be lost, other than by a queue."""
        others = (host for host in range(self.num_hosts) if host != source)
        return any(self.pipes[pipe].is_lossy for host in others for pipe in self.path(source, host))

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


def index_of(name: str, names: Sequence[str], where: Where) -> int:
    """The place of ``name`` in ``names``.

    Raises:
        ScenarioError: it has none; the scenario speaks of it at ``where``.
    """
    try:
        return list(names).index(name)
    except ValueError:
        raise ScenarioError(where, f"{name!r} is not one of {', '.join(names)}") from None
