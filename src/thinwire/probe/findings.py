"""What stands out in a survey, in sentences that say what follows from it. Pure.

Not here: what is missing and why (the topology's gaps), and plans.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from thinwire.probe.survey import Survey
from thinwire.topology import Link, Topology
from thinwire.units import format_bit_rate, format_seconds

SLOW = 0.67  # of what the others reach
ASYMMETRIC = 1.5
MORE_STREAMS = 1.3
LOSSY = 0.005
LONG_QUEUE_S, LONG_QUEUE_ROUND_TRIPS = 0.05, 3
JITTERY_S, JITTERY_SHARE = 0.002, 0.1

_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 8: "an eighth", 10: "a tenth"}


def findings(survey: Survey) -> tuple[str, ...]:
    """All sentences, the most important first."""
    topology = survey.topology("", "")
    return (
        *_slow_wires(survey),
        *_bottlenecks(topology),
        *_asymmetric_hosts(survey),
        *_asymmetric_links(survey),
        *_interfaces(survey),
        *_streams(topology),
        *_losses(topology),
        *_queues(topology),
        *_jitter(topology),
        *_shared_machines(survey),
    )


def part(ratio: float) -> str:
    """A ratio below 1 in words.

    >>> part(0.21), part(0.5), part(0.33), part(0.03)
    ('a fifth', 'half', 'a third', '3 %')
    """
    nearest = min(_PARTS, key=lambda number: abs(1 / number - ratio))
    return _PARTS[nearest] if abs(nearest * ratio - 1) < 0.12 else f"{ratio:.0%}".replace("%", " %")


def _slow_wires(survey: Survey) -> Iterator[str]:
    for host in sorted({*survey.uplinks, *survey.downlinks}):
        slow = {}
        for wire, totals in (("uplink", survey.uplinks), ("downlink", survey.downlinks)):
            others = [rate for other, rate in totals.items() if other != host]
            is_full = (host, wire == "uplink") in survey.full_wires
            if is_full and len(others) > 1 and totals[host] < SLOW * statistics.median(others):
                slow[wire] = (totals[host], totals[host] / statistics.median(others))
        if slow:
            wires = " and ".join(slow)
            rate, ratio = min(slow.values(), key=lambda found: found[1])
            yield (
                f"{survey.names[host]}'s {wires} {'are' if len(slow) > 1 else 'is'} {format_bit_rate(rate)}, "
                f"{part(ratio)} of the others': an all-reduce with equal shards would run at its speed"
            )


def _bottlenecks(topology: Topology) -> Iterator[str]:
    for bottleneck in topology.bottlenecks:
        sources = sorted({source for source, _ in bottleneck.links})
        destinations = sorted({destination for _, destination in bottleneck.links})
        yield (
            f"the {len(bottleneck.links)} links from {_listed(sources)} to {_listed(destinations)} share "
            f"{format_bit_rate(bottleneck.bandwidth_bytes_per_s)}: send what both sides need across it once"
        )


def _asymmetric_hosts(survey: Survey) -> Iterator[str]:
    found: dict[str, list[int]] = {"receive": [], "send": []}
    for host in sorted(set(survey.uplinks) & set(survey.downlinks)):
        up, down = survey.uplinks[host], survey.downlinks[host]
        if up and down > ASYMMETRIC * up:
            found["receive"].append(host)
        elif down and up > ASYMMETRIC * down:
            found["send"].append(host)
    for faster, hosts in found.items():
        if not hosts:
            continue
        up = statistics.median(survey.uplinks[host] for host in hosts)
        down = statistics.median(survey.downlinks[host] for host in hosts)
        fast, slow = (down, up) if faster == "receive" else (up, down)
        other = "send" if faster == "receive" else "receive"
        who = (
            "all hosts" if len(hosts) == survey.num_hosts else _listed([survey.names[host] for host in hosts])
        )
        is_one = len(hosts) == 1
        yield (
            f"{who} {faster}{'s' if is_one else ''} {format_bit_rate(fast)} or more but {other}{'s' if is_one else ''} "
            f"{format_bit_rate(slow)}: the {'uplink' if faster == 'receive' else 'downlink'} is what to save"
        )


def _asymmetric_links(survey: Survey) -> Iterator[str]:
    """Those that the wires of the two hosts do not explain."""
    for source, destination in sorted(survey.flows):
        there, back = survey.rate((source, destination)), survey.rate((destination, source))
        if not back or there < ASYMMETRIC * back:
            continue
        wires = min(survey.uplinks.get(destination, 0.0), survey.downlinks.get(source, 0.0))
        if back < SLOW * wires:
            yield (
                f"{survey.arrow((source, destination))} carries {format_bit_rate(there)}, the way back "
                f"{format_bit_rate(back)}: a ring should run the faster way"
            )


def _interfaces(survey: Survey) -> Iterator[str]:
    for host, rates in sorted(survey.alternatives.items()):
        used = next(iter(rates))
        best = max(rates, key=lambda address: rates[address])
        if rates[best] > MORE_STREAMS * rates[used]:
            yield (
                f"{survey.names[host]} is reached at {used} with {format_bit_rate(rates[used])}, but at {best} with "
                f"{format_bit_rate(rates[best])}: choose that interface there (THINWIRE_INTERFACE={best})"
            )


def _streams(topology: Topology) -> Iterator[str]:
    links = [
        link
        for link in topology.links
        if (link.several_streams_bytes_per_s or 0)
        > MORE_STREAMS * (link.one_stream_bytes_per_s or float("inf"))
    ]
    if links:
        one = statistics.median(link.one_stream_bytes_per_s or 0 for link in links)
        several = statistics.median(link.several_streams_bytes_per_s or 0 for link in links)
        yield (
            f"one stream reaches {format_bit_rate(one)} where several reach {format_bit_rate(several)} "
            f"({_which(links, topology)}): use more lanes (THINWIRE_LANES=4)"
        )


def _losses(topology: Topology) -> Iterator[str]:
    links = [link for link in topology.links if (link.loss or 0) >= LOSSY]
    if links:
        worst = max(link.loss or 0 for link in links)
        yield f"packets are lost, up to {worst:.1%} ({_which(links, topology)})".replace("%", " %")


def _queues(topology: Topology) -> Iterator[str]:
    links = [
        link
        for link in topology.links
        if (link.queue_s or 0) > max(LONG_QUEUE_S, LONG_QUEUE_ROUND_TRIPS * (link.rtt_median_s or 0))
    ]
    if links:
        worst = max(link.queue_s or 0 for link in links)
        yield (
            f"a stream that fills its link makes packets wait, up to {format_seconds(worst)} "
            f"({_which(links, topology)}): small messages suffer while large ones travel"
        )


def _jitter(topology: Topology) -> Iterator[str]:
    links = [
        link
        for link in topology.links
        if (link.jitter_s or 0) > max(JITTERY_S, JITTERY_SHARE * (link.rtt_median_s or 0))
    ]
    if links:
        worst = max(link.jitter_s or 0 for link in links)
        yield f"delays vary, by up to {format_seconds(worst)} ({_which(links, topology)})"


def _shared_machines(survey: Survey) -> Iterator[str]:
    machines: dict[str, list[str]] = {}
    for card, name in zip(survey.cards, survey.names, strict=True):
        if card is not None:
            machines.setdefault(card.host_key, []).append(name)
    for names in machines.values():
        if len(names) > 1:
            yield f"{_listed(names)} are on one machine: between them its cores are measured, not a network"


def _which(links: Sequence[Link], topology: Topology) -> str:
    if len(links) == len(topology.links):
        return "all links"
    shown = [" -> ".join(link.ends) for link in links[:3]]
    return ", ".join(shown) + (f" and {len(links) - 3} more" if len(links) > 3 else "")


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
