"""A network that is computed: it answers a campaign's experiments with what a scenario's pipes would do.

Bandwidth is shared as max-min fairness has it (by progressive filling), delays are those of the pipes, and losses are
exactly the expected number. No time passes.
"""

from __future__ import annotations

from collections.abc import Sequence

from thinwire.lab.network import Network
from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Scenario
from thinwire.probe.campaign import Campaign
from thinwire.probe.experiment import (
    Card,
    Exchange,
    Experiment,
    Flow,
    FlowReport,
    Outcome,
    Reached,
    Report,
    Together,
    TrainReport,
)
from thinwire.topology import Topology

UNLIMITED = 10e9
LAN_DELAY_S = 50e-6


class FluidNetwork:
    """Args: scenario: at rest. silent_from: host -> the number of the experiment from which on it does not answer."""

    def __init__(self, scenario: Scenario, silent_from: dict[int, int] | None = None) -> None:
        self.network: Network = network_of(scenario)
        self.silent_from = silent_from or {}
        self.unreachable: set[tuple[int, int]] = set()
        self.has_udp = True
        self.rate_of_all = UNLIMITED
        self.second_address_rate: dict[int, float] = {}
        self.num_experiments = 0
        self.seconds = 0.0

    def cards(self) -> list[Card | str]:
        return [
            Card(host=name, host_key=name, sink="", addresses=(f"10.0.0.{number}:1",), unix="@", port=1)
            for number, name in enumerate(self.network.hosts)
        ]

    def run(self, campaign: Campaign) -> Topology:
        """Answer experiments until there is a topology."""
        try:
            experiment = next(campaign)
            while True:
                outcome = self.answer(experiment)
                self.num_experiments += 1
                self.seconds += experiment.duration_s
                experiment = campaign.send(outcome)
        except StopIteration as end:
            topology: Topology = end.value
            return topology

    def answer(self, experiment: Experiment) -> Outcome:
        hosts = range(self.network.num_hosts)
        silent = {host for host, step in self.silent_from.items() if self.num_experiments >= step}
        reports = {host: Report() for host in hosts if host not in silent}
        if experiment.greet:
            for host, report in reports.items():
                for peer in hosts:
                    if (host, peer) in self.unreachable or peer in silent:
                        report.failures[peer] = "a firewall"
                    elif peer != host:
                        report.reached[peer] = self._addresses(host, peer)
        rates = self.allocate(experiment.flows)
        for place, (flow, rate) in enumerate(zip(experiment.flows, rates, strict=True)):
            if flow.destination in reports and flow.source in reports:
                reports[flow.destination].received[place] = FlowReport(
                    one_stream_bytes_per_s=rate if experiment.alone_s else None,
                    several_streams_bytes_per_s=rate if experiment.together_s else None,
                )
        for host, report in reports.items():
            out = [place for place, flow in enumerate(experiment.flows) if flow.source == host]
            inward = [place for place, flow in enumerate(experiment.flows) if flow.destination == host]
            report.sent_together, report.received_together = _together(out, rates), _together(inward, rates)
        for exchange in experiment.exchanges:
            self._exchange(exchange, experiment, reports)
        return Outcome(reports=reports, silent=dict.fromkeys(silent, "it is silent"))

    def allocate(self, flows: Sequence[Flow]) -> list[float]:
        """The max-min fair rates of flows that run together."""
        everybodys = len(self.network.pipes)
        paths = [(*self.network.path(flow.source, flow.destination), everybodys) for flow in flows]
        rates_of_pipes = [pipe.rate_bytes_per_s for pipe in self.network.pipes] + [self.rate_of_all]
        left = {pipe: min(rates_of_pipes[pipe], UNLIMITED) for path in paths for pipe in path}
        rates = [0.0] * len(flows)
        growing = set(range(len(flows)))
        while growing:
            users = {pipe: sum(pipe in paths[flow] for flow in growing) for pipe in left}
            step = min(left[pipe] / count for pipe, count in users.items() if count)
            for flow in growing:
                rates[flow] += step
            left = {pipe: rest - step * users[pipe] for pipe, rest in left.items()}
            full = {pipe for pipe, rest in left.items() if rest < 1e-3}
            growing = {flow for flow in growing if not full.intersection(paths[flow])}
        for place, flow in enumerate(flows):
            if flow.address.startswith("10.9."):
                rates[place] = self.second_address_rate[flow.destination]
        return rates

    def delay_s(self, source: int, destination: int) -> float:
        return LAN_DELAY_S + sum(
            self.network.pipes[pipe].delay_s for pipe in self.network.path(source, destination)
        )

    def loss(self, source: int, destination: int) -> float:
        kept = 1.0
        for pipe in self.network.path(source, destination):
            kept *= 1 - self.network.pipes[pipe].loss
        return 1 - kept

    def _addresses(self, host: int, peer: int) -> list[Reached]:
        rtt_s = self.delay_s(host, peer) + self.delay_s(peer, host)
        found = [Reached(address=f"10.0.0.{peer}:1", source=f"10.0.0.{host}", interface="eth0", rtt_s=rtt_s)]
        if peer in self.second_address_rate:
            found.append(
                Reached(address=f"10.9.0.{peer}:1", source="10.9.0.9", interface="eth1", rtt_s=rtt_s)
            )
        return found

    def _exchange(self, exchange: Exchange, experiment: Experiment, reports: dict[int, Report]) -> None:
        ends = (exchange.first, exchange.second)
        num_sent = int(experiment.train_s / experiment.interval_s)
        for host, peer in (ends, ends[::-1]):
            if host not in reports:
                continue
            if peer not in reports or not self.has_udp:
                reports[host].trains[peer] = TrainReport(num_sent=num_sent, num_received=0)
                continue
            rtt_s = self.delay_s(host, peer) + self.delay_s(peer, host)
            is_loaded = any((flow.source, flow.destination) == (peer, host) for flow in experiment.flows)
            delay_s = 1000.0 * (host - peer) + self.delay_s(peer, host)  # clocks differ
            reports[host].trains[peer] = TrainReport(
                num_sent=num_sent,
                num_received=round(num_sent * (1 - self.loss(peer, host))),
                num_expected=num_sent,
                span_s=experiment.train_s,
                delay_min_s=delay_s,
                delay_median_s=delay_s + 0.2 * is_loaded,
                jitter_s=0.0,
                rtt_min_s=rtt_s,
                rtt_median_s=rtt_s,
                rtt_p99_s=rtt_s,
            )


def _together(places: list[int], rates: Sequence[float]) -> Together | None:
    total = sum(rates[place] for place in places)
    return Together(bytes_per_s=total, places=tuple(places)) if len(places) > 1 else None
