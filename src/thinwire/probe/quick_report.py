"""The topology that the reports of a quick probe make, and what is missing and why. Pure: all ranks make the same.

Not here: how the reports came (``quick``, ``quick_member``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import msgspec

from thinwire.probe.experiment import Card, Reached, TrainReport
from thinwire.probe.findings import findings
from thinwire.probe.quick_member import LIMIT_S
from thinwire.probe.quick_messages import Pair, QuickCard, unpack_report
from thinwire.probe.survey import Survey
from thinwire.topology import Topology


class QuickOutcome(msgspec.Struct, frozen=True):
    """All that is known when a quick probe ends.

    Attributes:
        cards: by rank; None for those that did not come. absent: rank -> why.
        reports: rank -> what it saw, packed.
        measured_at: wall time, in words.
    """

    cards: list[QuickCard | None]
    absent: dict[int, str]
    reports: dict[int, bytes]
    measured_at: str


def topology_of(outcome: QuickOutcome) -> Topology:
    """What all reports say together."""
    reports, failures = _reports(outcome)
    joined: list[Card | str] = []
    for rank, card in enumerate(outcome.cards):
        if card is None:
            joined.append(outcome.absent.get(rank, "it did not come"))
        else:
            addresses = tuple(address for address, _ in card.addresses)
            joined.append(
                Card(host=card.host, host_key=card.host_key, sink="", addresses=addresses, unix="", port=0)
            )
    survey = Survey(joined)
    for rank, reason in failures.items():
        survey.miss(survey.names[rank], reason)
    for host, pairs in reports.items():
        for pair in pairs:
            card = outcome.cards[pair.peer]
            if pair.peer not in reports or card is None:
                continue
            path = host, pair.peer
            if pair.num_received:
                survey.reached[path] = [_reached(pair, card, outcome.cards[host], reports[pair.peer], host)]
            survey.idle[path] = _train_report(pair)
            for reason in _reasons(pair):
                survey.miss(survey.arrow(path[::-1]), reason)
    return survey.topology("quick", outcome.measured_at, findings(survey))


def _reports(outcome: QuickOutcome) -> tuple[dict[int, list[Pair]], dict[int, str]]:
    """What each rank saw; and why something is missing, of those that are there."""
    reports, failures = {}, {}
    for rank, card in enumerate(outcome.cards):
        if card is None:
            continue
        try:
            reports[rank] = unpack_report(outcome.reports[rank])
        except (KeyError, struct.error):
            failures[rank] = f"it did not report within {LIMIT_S} s after the plan"
    return reports, failures


def _reached(
    pair: Pair, card: QuickCard, own: QuickCard | None, seen_there: Sequence[Pair], host: int
) -> Reached:
    """The address at which a peer was reached, and the interface at which that saw this host."""
    address = card.addresses[min(pair.place, len(card.addresses) - 1)][0]
    places = [seen.place for seen in seen_there if seen.peer == host]
    own_addresses = own.addresses if own else ()
    source, interface = own_addresses[places[0]] if places and own_addresses else ("", "")
    return Reached(address=address, source=source, interface=interface, rtt_s=_number(pair.rtt_min_s) or 0.0)


def _train_report(pair: Pair) -> TrainReport:
    return TrainReport(
        num_sent=pair.num_sent,
        num_received=pair.num_received,
        num_expected=pair.num_expected,
        has_jumped=bool(pair.has_jumped),
        jitter_s=None if math.isnan(pair.jitter_s) else pair.jitter_s,
        rtt_min_s=_number(pair.rtt_min_s),
        rtt_median_s=_number(pair.rtt_median_s),
        rtt_p99_s=_number(pair.rtt_p99_s),
        burst_bytes_per_s=_number(pair.rate),
        burst_low_bytes_per_s=_number(pair.low),
        burst_high_bytes_per_s=_number(pair.high),
    )


def _reasons(pair: Pair) -> Iterable[str]:
    """Why something of the way from a peer is missing."""
    if not pair.num_received:
        yield f"no datagram arrived within {LIMIT_S} s: a firewall may drop UDP, or the way is longer"
    elif pair.has_jumped:
        yield "a clock jumped: bandwidth and jitter are unknown"
    elif math.isnan(pair.low):
        yield "no train of datagrams arrived in time: bandwidth is unknown"
    elif math.isnan(pair.rtt_median_s):
        yield "no answer in time: the round trip is unknown"


def _number(value: float) -> float | None:
    """None for what was not seen, and for what has no limit."""
    return value if math.isfinite(value) and value else None
