"""The link test: every way in which bytes can get from the first host to the second, compared, and a recommendation.

Beside each stream small datagrams travel there and back: their round trip is what other messages feel meanwhile.

Pure: a campaign like those of ``campaign``. Not here: printing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import msgspec

from thinwire.errors import LinkError
from thinwire.probe.experiment import Card, Experiment, Flow, Outcome, TrainReport
from thinwire.probe.survey import Survey, loss_of, rate_of
from thinwire.units import format_bit_rate, format_seconds

STREAMS = (1, 2, 4, 8)
DATAGRAM_BYTES = 1400
_THERE, _BACK = (0, 1), (1, 0)
_PING_INTERVAL_S = 0.001
# Of the best stream's rate, offered in datagrams: enough to fill the link, not enough to drown it.
_OFFER = 1.05
_AS_FAST = 0.95
_ROUND_TRIPS = 30  # half of them to get to speed
_LEAST_SPAN = 0.2  # of the time, that datagrams have to come for
_DATAGRAM_INTERVAL_LEAST_S = 2e-5  # what one thread can send


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to send bytes.

    Attributes:
        protocol: ``"tcp"``, ``"unix"``, ``"udp"``, or ``"idle"`` for nothing but the small datagrams.
        congestion_control: of TCP; empty elsewhere.
        num_streams: at once; 0 where there are none.
    """

    protocol: str
    congestion_control: str = ""
    num_streams: int = 0

    def __str__(self) -> str:
        """
        >>> str(Way(protocol="tcp", congestion_control="bbr", num_streams=4))
        'TCP bbr, 4 streams'
        """
        if self.protocol == "idle":
            return "nothing else"
        if self.protocol == "udp":
            return "UDP datagrams"
        name = {"tcp": f"TCP {self.congestion_control}".strip(), "unix": "Unix socket"}[self.protocol]
        return f"{name}, {self.num_streams} stream{'s' if self.num_streams > 1 else ''}"


class WayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one way reached.

    Attributes:
        bytes_per_s: throughput; None for ``"idle"``, and if it failed.
        rtt_median_s, rtt_p99_s, rtt_p999_s: of small datagrams meanwhile.
        error_rate: of streams, bytes sent again; of datagrams, datagrams lost; each as a fraction.
        failure: why there is nothing to tell.
    """

    way: Way
    bytes_per_s: float | None = None
    rtt_median_s: float | None = None
    rtt_p99_s: float | None = None
    rtt_p999_s: float | None = None
    error_rate: float | None = None
    failure: str = ""


class LinkTest(msgspec.Struct, frozen=True, kw_only=True):
    """All ways from one host to another.

    Attributes:
        recommended: the way to choose. reason: why, in a sentence.
        settings: environment variables that choose it.
    """

    source: str
    destination: str
    results: tuple[WayResult, ...]
    recommended: Way
    reason: str
    settings: dict[str, str]


def link_test(
    joined: Sequence[Card | str], *, congestion_controls: Sequence[str], way_s: float
) -> Generator[Experiment, Outcome, LinkTest]:
    """The campaign: about ``way_s`` for each way, from the first host to the second; longer where round trips are so
    long that a stream would not get to its speed.

    Raises:
        LinkError: the second cannot be reached.
    """
    survey = Survey(joined)
    survey.take((yield Experiment(purpose="finding addresses", greet=True)))
    if not survey.is_open(_THERE) or not survey.is_open(_BACK):
        gaps = "; ".join(f"{gap.what}: {gap.reason}" for gap in survey.topology("", "").gaps)
        raise LinkError(f"no link to test between {survey.names[0]} and {survey.names[1]}: {gaps}")
    way_s = max(way_s, _ROUND_TRIPS * survey.rtt_s([_THERE]))
    ways = [Way(protocol="idle")]
    ways += [
        Way(protocol="tcp", congestion_control=name, num_streams=streams)
        for name in congestion_controls or [""]
        for streams in STREAMS
    ]
    if survey.is_local(_THERE):
        ways += [Way(protocol="unix", num_streams=streams) for streams in STREAMS]
    results = []
    for way in ways:
        results.append((yield from _try(survey, way, way_s)))
    fastest = max((result.bytes_per_s or 0.0 for result in results), default=0.0)
    if fastest:
        results.append((yield from _try_datagrams(survey, fastest, way_s)))
    way, reason = recommend(results)
    return LinkTest(
        source=survey.names[0],
        destination=survey.names[1],
        results=tuple(results),
        recommended=way,
        reason=reason,
        settings=_settings(way),
    )


def recommend(results: Sequence[WayResult]) -> tuple[Way, str]:
    """The way to choose, and why: of those as fast as the fastest stream, that with the fewest streams, and of these
    the one beside which other messages wait least.

    Raises:
        LinkError: nothing worked.
    """
    streams = [result for result in results if result.bytes_per_s and result.way.num_streams]
    if not streams:
        failures = "; ".join(dict.fromkeys(result.failure for result in results if result.failure))
        raise LinkError(f"no stream got through: {failures}")
    fastest = max(streams, key=_rate)
    fast = [result for result in streams if _rate(result) >= _AS_FAST * _rate(fastest)]
    fewest = min(result.way.num_streams for result in fast)
    best = min((result for result in fast if result.way.num_streams == fewest), key=_waiting_s)
    reason = f"{best.way} reaches {format_bit_rate(_rate(best))}"
    others = [result for result in streams if result.way.num_streams == fewest and result.way != best.way]
    slower = [result for result in others if result not in fast]
    waiting = [result for result in others if result in fast and _waiting_s(result) > 2 * _waiting_s(best)]
    one = [result for result in streams if result.way.num_streams == 1]
    if fewest > 1:
        reason += f"; one stream reaches {format_bit_rate(max(map(_rate, one), default=0.0))} at most"
    elif len(streams) > len(one):
        reason += "; more streams add less than 5 %"
    if slower:
        worst = min(slower, key=_rate)
        reason += f"; {worst.way} reaches {format_bit_rate(_rate(worst))}"
    if waiting:
        worst = max(waiting, key=_waiting_s)
        reason += (
            f"; beside {worst.way} other messages take {format_seconds(_waiting_s(worst))}, beside this "
            f"{format_seconds(_waiting_s(best))}"
        )
    return best.way, reason


def _try(survey: Survey, way: Way, way_s: float) -> Generator[Experiment, Outcome, WayResult]:
    card = survey.cards[1]
    assert card is not None
    flows = () if way.protocol == "idle" else survey.flows_of([_THERE])
    if way.protocol == "unix":
        flows = (Flow(*_THERE, card.unix),)
    experiment = Experiment(
        purpose=str(way),
        flows=flows,
        alone_s=way_s if way.num_streams == 1 else 0.0,
        together_s=way_s if way.num_streams > 1 else 0.0,
        num_streams=way.num_streams,
        congestion_control=way.congestion_control or None,
        exchanges=survey.exchanges_of([_THERE]),
        train_s=way_s,
        interval_s=_PING_INTERVAL_S,
    )
    outcome = yield experiment
    report = survey.take_flows(experiment, outcome).get(_THERE)
    train = survey.take_trains(outcome).get(_THERE)
    failure = ""
    if flows and report is None:
        failure = (
            outcome.silent.get(1) or outcome.reports[0].failures.get(1) or "too little got through to measure"
        )
    return _result(
        way, train, rate_of(report) if report else None, report.retransmitted if report else None, failure
    )


def _try_datagrams(survey: Survey, rate: float, way_s: float) -> Generator[Experiment, Outcome, WayResult]:
    way = Way(protocol="udp")
    experiment = Experiment(
        purpose=str(way),
        exchanges=survey.exchanges_of([_THERE]),
        train_s=way_s,
        interval_s=max(_DATAGRAM_INTERVAL_LEAST_S, DATAGRAM_BYTES / (_OFFER * rate)),
        datagram_bytes=DATAGRAM_BYTES,
    )
    trains = survey.take_trains((yield experiment))
    sent, received = trains.get(_THERE), trains.get(_BACK)
    if not sent or not received or not received.num_received:
        return WayResult(way=way, failure="no datagram arrived: a firewall may drop UDP")
    rate = received.num_received * DATAGRAM_BYTES / max(received.span_s, _LEAST_SPAN * way_s)
    return _result(way, sent, rate, loss_of(received), "")


def _result(
    way: Way, train: TrainReport | None, rate: float | None, error_rate: float | None, failure: str
) -> WayResult:
    return WayResult(
        way=way,
        bytes_per_s=rate,
        rtt_median_s=train.rtt_median_s if train else None,
        rtt_p99_s=train.rtt_p99_s if train else None,
        rtt_p999_s=train.rtt_p999_s if train else None,
        error_rate=error_rate,
        failure=failure,
    )


def _rate(result: WayResult) -> float:
    return result.bytes_per_s or 0.0


def _waiting_s(result: WayResult) -> float:
    return float("inf") if result.rtt_median_s is None else result.rtt_median_s


def _settings(way: Way) -> dict[str, str]:
    settings = {"THINWIRE_TRANSPORT": way.protocol, "THINWIRE_LANES": str(way.num_streams)}
    if way.congestion_control:
        settings["THINWIRE_CONGESTION_CONTROL"] = way.congestion_control
    return settings
