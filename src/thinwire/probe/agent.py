"""One host's part in a probe: it does what experiments say and reports what it saw.

A thread for each thing that this host sends; the sink has its own. Every step has a time limit: an agent may come
back with less than it was asked for, but it comes back.

Not here: which experiments, and how orders arrive (``coordinator``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import ifaddr

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import LinkError
from thinwire.probe.estimate import flow_report, together, train_report
from thinwire.probe.experiment import Card, Experiment, Flow, Reached, Report
from thinwire.transport.addresses import by_route, host_key
from thinwire.transport.bulk import TOKEN_BYTES, BulkSink, Progress, greet, pour
from thinwire.transport.datagrams import DatagramPort

_ADDRESSES_MAX = 4  # of a peer, to try


class Agent:
    """Takes part in experiments until it is closed.

    Args:
        number: this host's.
        host: its name.
        token: what all agents of this probe know, and nobody else.
        interface: network interface or address to use; None: all.
        clock: tells the time.

    Raises:
        UsageError: no such interface.
    """

    def __init__(
        self, number: int, host: str, token: bytes, interface: str | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        assert len(token) == TOKEN_BYTES
        self._number, self._token, self._clock = number, token, clock
        self._sink = BulkSink(token, interface, clock)
        self._datagrams = DatagramPort(token, number, interface, clock)
        self.card = Card(
            host=host,
            host_key=host_key(),
            sink=self._sink.name.hex(),
            addresses=tuple(self._sink.addresses),
            unix=self._sink.unix_address,
            port=self._datagrams.port,
        )

    def close(self) -> None:
        """Leave: nobody reaches this agent any more."""
        self._sink.close()
        self._datagrams.close()

    def perform(self, step: int, experiment: Experiment, cards: Sequence[Card | None]) -> Report:
        """Do this host's part of an experiment. ``step`` is its number, ``cards`` are those of all hosts, None
        for those that did not come.

        Raises:
            UsageError: there is no such congestion control here.
        """
        report = Report()
        sent: dict[int, Progress] = {}
        received: dict[int, Progress] = {}
        begun_s = self._clock.now_s()
        threads = len(cards) + len(experiment.flows) + 1  # nothing waits for anything else
        with ThreadPoolExecutor(threads, thread_name_prefix="thinwire-probe") as pool:
            tasks = []
            if experiment.greet:
                for peer, card in enumerate(cards):
                    if card is not None and peer != self._number:
                        tasks.append(pool.submit(self._greet, peer, card, experiment, report))
            for place, flow in enumerate(experiment.flows):
                if flow.source == self._number:
                    tasks.append(pool.submit(self._pour, step, place, flow, experiment, report, sent))
            partners = {}
            for exchange in experiment.exchanges:
                if self._number in (exchange.first, exchange.second):
                    peer, ip = exchange.other_of(self._number)
                    card = cards[peer]
                    assert card is not None
                    partners[peer] = (ip, card.port)
            if partners:
                tasks.append(pool.submit(self._exchange, step, partners, experiment, report))
            deadline_s = begun_s + experiment.duration_s + experiment.patience_s
            for place, flow in enumerate(experiment.flows):
                if flow.destination == self._number:
                    arrivals = self._sink.arrivals(
                        (step, place), duration_s=experiment.duration_s, deadline_s=deadline_s
                    )
                    arrived = flow_report(arrivals)
                    if arrived is not None:
                        report.received[place] = arrived
                        received[place] = arrivals
            for task in tasks:
                task.result()
        if experiment.flows:
            report.sent_together = together(sent, experiment.duration_s)
            report.received_together = together(received, experiment.duration_s)
        return report

    def _greet(self, peer: int, card: Card, experiment: Experiment, report: Report) -> None:
        same_host = card.host_key == self.card.host_key
        reached, reasons = [], []
        for address in by_route(card.addresses, same_host=same_host)[:_ADDRESSES_MAX]:
            try:
                route = greet(
                    address, self._token, bytes.fromhex(card.sink), experiment.patience_s, self._clock
                )
            except LinkError as error:
                reasons.append(str(error))
                continue
            reached.append(
                Reached(
                    address=address,
                    source=route.source,
                    interface=_interface_of(route.source),
                    rtt_s=route.rtt_s,
                )
            )
        if reached:
            report.reached[peer] = reached
        else:
            report.failures[peer] = "; ".join(reasons) or f"no route to any of {', '.join(card.addresses)}"

    def _pour(
        self,
        step: int,
        place: int,
        flow: Flow,
        experiment: Experiment,
        report: Report,
        sent: dict[int, Progress],
    ) -> None:
        try:
            poured = pour(
                flow.address,
                self._token,
                (step, place),
                alone_s=experiment.alone_s,
                together_s=experiment.together_s,
                num_streams=experiment.num_streams,
                congestion_control=experiment.congestion_control,
                timeout_s=experiment.patience_s,
                clock=self._clock,
            )
        except LinkError as error:
            report.failures[flow.destination] = str(error)
            return
        num_bytes = sum(info.bytes_sent for info in poured.infos)
        again = sum(info.bytes_retransmitted for info in poured.infos)
        delivered = flow_report(poured.delivered, again / num_bytes if num_bytes else None)
        if delivered is not None:
            report.sent[place] = delivered
            sent[place] = poured.delivered

    def _exchange(
        self,
        step: int,
        partners: dict[int, tuple[str, int]],
        experiment: Experiment,
        report: Report,
    ) -> None:
        trains = self._datagrams.exchange(
            partners,
            step,
            interval_s=experiment.interval_s,
            duration_s=experiment.train_s,
            linger_s=experiment.linger_s,
            size_bytes=experiment.datagram_bytes,
        )
        for peer, train in trains.items():
            report.trains[peer] = train_report(train)


def _interface_of(ip: str) -> str:
    for adapter in ifaddr.get_adapters():
        if any(ip == (known.ip if isinstance(known.ip, str) else known.ip[0]) for known in adapter.ips):
            return str(adapter.name)
    return ""
