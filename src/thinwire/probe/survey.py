"""What a campaign knows so far: who is there, who reaches whom and where, and what was measured. Makes the topology.

Not here: which experiments are made (``campaign``, ``sharing``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thinwire.probe.experiment import (
    Card,
    Exchange,
    Experiment,
    Flow,
    FlowReport,
    Outcome,
    Reached,
    Report,
    TrainReport,
)
from thinwire.probe.matchings import Pair
from thinwire.topology import Bottleneck, Gap, Host, Link, Topology
from thinwire.transport.addresses import split_address

Path = tuple[int, int]  # (source, destination)

_RECEIVED_LEAST = 2


class Survey:
    """Collects outcomes.

    Args:
        joined: for each host its card, or why there is none.
    """

    def __init__(self, joined: Sequence[Card | str]) -> None:
        self.num_hosts = len(joined)
        self.cards = [card if isinstance(card, Card) else None for card in joined]
        self.names = _names(self.cards)
        self.alive = {host for host, card in enumerate(self.cards) if card is not None}
        self.reached: dict[Path, list[Reached]] = {}
        self.flows: dict[Path, FlowReport] = {}
        self.idle: dict[Path, TrainReport] = {}  # (who saw it, the peer)
        self.loaded: dict[Path, TrainReport] = {}  # of a flow: what its destination saw beside it
        self.uplinks: dict[int, float] = {}
        self.downlinks: dict[int, float] = {}
        self.full_wires: set[tuple[int, bool]] = set()  # (host, is it the uplink)
        self.alternatives: dict[
            int, dict[str, float]
        ] = {}  # host -> its IP address -> rate; first the one in use
        self.shared: list[tuple[list[Path], float]] = []
        self._gaps: dict[str, str] = {}
        for host, card in enumerate(joined):
            if isinstance(card, str):
                self.miss(self.names[host], card)

    def miss(self, what: str, reason: str) -> None:
        """Remember that something is missing; the first reason counts."""
        self._gaps.setdefault(what, reason)

    def take(self, outcome: Outcome) -> None:
        """What every outcome may tell: addresses, and who is not there any more."""
        for host, report in outcome.reports.items():
            for peer, reached in report.reached.items():
                self.reached[host, peer] = reached
            for peer, reason in report.failures.items():
                self.miss(self.arrow((host, peer)), reason)
        for host, reason in outcome.silent.items():
            self.alive.discard(host)
            self.miss(self.names[host], reason)

    def take_flows(self, experiment: Experiment, outcome: Outcome) -> dict[Path, FlowReport]:
        """What the flows of an experiment reached, by path; those that failed left out.

        Their sources know it better: what arrives behind a lost packet counts for a destination only later.
        """
        self.take(outcome)
        found = {}
        nobody = Report()
        for place, flow in enumerate(experiment.flows):
            source, destination = (
                outcome.reports.get(end, nobody) for end in (flow.source, flow.destination)
            )
            if place in destination.received:
                path = flow.source, flow.destination
                found[path] = source.sent.get(place, destination.received[place])
        return found

    def take_trains(self, outcome: Outcome) -> dict[Path, TrainReport]:
        """What every end of every exchange saw: (who saw it, the peer)."""
        self.take(outcome)
        found = {
            (host, peer): train
            for host, report in outcome.reports.items()
            for peer, train in report.trains.items()
        }
        for path, train in found.items():
            if train.has_jumped:
                self.miss(self.arrow(path[::-1]), "a clock jumped: jitter and queue are unknown")
        return found

    def flow(self, source: int, destination: int) -> Flow:
        return Flow(source, destination, self.reached[source, destination][0].address)

    def flows_of(self, paths: Iterable[Path]) -> tuple[Flow, ...]:
        """Flows on those paths that are open."""
        return tuple(self.flow(*path) for path in paths if self.is_open(path))

    def exchanges_of(self, pairs: Iterable[Pair]) -> tuple[Exchange, ...]:
        """Exchanges of those pairs that reach each other."""
        found = []
        for first, second in pairs:
            if self.is_open((first, second)) and self.is_open((second, first)):
                ips = [self._ip(second, first), self._ip(first, second)]
                found.append(Exchange(first, second, *ips))
        return tuple(found)

    def is_open(self, path: Path) -> bool:
        """Both hosts are there, and the first reaches the second."""
        return self.alive.issuperset(path) and path in self.reached

    def rtt_s(self, paths: Iterable[Path]) -> float:
        """The longest round trip of any of them."""
        return max((self.reached[path][0].rtt_s for path in paths if path in self.reached), default=0.0)

    def rate(self, path: Path) -> float:
        """The bandwidth of a path; 0 if it was not measured."""
        return rate_of(self.flows[path]) or 0.0 if path in self.flows else 0.0

    def is_local(self, path: Path) -> bool:
        """Both ends share a machine."""
        first, second = (self.cards[host] for host in path)
        return first is not None and second is not None and first.host_key == second.host_key

    def arrow(self, path: Path) -> str:
        return f"{self.names[path[0]]} -> {self.names[path[1]]}"

    def topology(self, form: str, measured_at: str, findings: tuple[str, ...] = ()) -> Topology:
        """Everything that is known."""
        paths = [
            (source, destination)
            for source in range(self.num_hosts)
            for destination in range(self.num_hosts)
            if source != destination
        ]
        return Topology(
            form=form,
            measured_at=measured_at,
            hosts=tuple(self._host(host) for host in range(self.num_hosts)),
            links=tuple(self._link(path) for path in paths if path in self.reached),
            bottlenecks=tuple(self._bottleneck(links, rate) for links, rate in self.shared),
            gaps=tuple(Gap(what=what, reason=reason) for what, reason in self._gaps.items()),
            findings=findings,
        )

    def _ip(self, source: int, destination: int) -> str:
        return ip_of(self.reached[source, destination][0].address)

    def _host(self, host: int) -> Host:
        seen = [reached[0] for path, reached in self.reached.items() if path[1] == host]
        used = [reached[0] for path, reached in self.reached.items() if path[0] == host]
        return Host(
            name=self.names[host],
            address=ip_of(seen[0].address) if seen else "",
            interface=used[0].interface if used else "",
            uplink_bytes_per_s=self.uplinks.get(host),
            downlink_bytes_per_s=self.downlinks.get(host),
        )

    def _link(self, path: Path) -> Link:
        source, destination = path
        flow = self.flows.get(path)
        here, there = self.idle.get(path), self.idle.get((destination, source))
        receiver = self.loaded.get(path)
        return Link(
            source=self.names[source],
            destination=self.names[destination],
            one_stream_bytes_per_s=flow.one_stream_bytes_per_s if flow else None,
            several_streams_bytes_per_s=flow.several_streams_bytes_per_s if flow else None,
            burst_bytes_per_s=there.burst_bytes_per_s if there else None,
            burst_low_bytes_per_s=there.burst_low_bytes_per_s if there else None,
            burst_high_bytes_per_s=there.burst_high_bytes_per_s if there else None,
            rtt_min_s=here.rtt_min_s if here else None,
            rtt_median_s=here.rtt_median_s if here else None,
            rtt_p99_s=here.rtt_p99_s if here else None,
            jitter_s=there.jitter_s if there else None,
            loss=loss_of(there),
            queue_s=_queue_s(there, receiver),
            loaded_loss=loss_of(receiver),
        )

    def _bottleneck(self, paths: Sequence[Path], rate: float) -> Bottleneck:
        links = sorted((self.names[source], self.names[destination]) for source, destination in paths)
        return Bottleneck(links=tuple(links), bandwidth_bytes_per_s=rate)


def rate_of(flow: FlowReport) -> float | None:
    """The most that any number of streams reached."""
    return max(filter(None, (flow.one_stream_bytes_per_s, flow.several_streams_bytes_per_s)), default=None)


def ip_of(address: str) -> str:
    """
    >>> ip_of("10.0.0.1:4000")
    '10.0.0.1'
    """
    return split_address(address)[0]


def loss_of(receiver: TrainReport | None) -> float | None:
    """None too if next to nothing arrived: that is a firewall, not a loss."""
    if not receiver or receiver.num_received < _RECEIVED_LEAST:
        return None
    return 1 - receiver.num_received / receiver.num_expected


def _queue_s(idle: TrainReport | None, loaded: TrainReport | None) -> float | None:
    """How much later datagrams come under load than at best; the clocks' difference is in both, and drops out."""
    if not idle or not loaded or idle.delay_min_s is None or loaded.delay_median_s is None:
        return None
    return max(0.0, loaded.delay_median_s - idle.delay_min_s)


def _names(cards: Sequence[Card | None]) -> list[str]:
    """Host names; where several ranks share one, with the rank."""
    hosts = [card.host if card else "" for card in cards]
    return [
        (host if hosts.count(host) == 1 else f"{host}:{rank}") if host else f"rank{rank}"
        for rank, host in enumerate(hosts)
    ]
