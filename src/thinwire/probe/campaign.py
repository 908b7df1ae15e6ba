"""Which experiments make a topology: campaigns as generators, which yield experiments and are sent their outcomes.

So a campaign does not know how hosts are reached; a test drives it with a computed network. The full form:

1. every host finds the addresses at which it reaches the others;
2. in rounds where each host is busy with one other, flows in one direction and then in the other, with a thin train of
   datagrams beside them that feels the queue; flows that one stream began are joined by more;
3. in the same rounds, trains alone: round trips, jitter and loss, thin enough for the bandwidths just measured, and
   longer where packets get lost, until enough were lost to tell how many do;
4. in small teams, all send to one and one sends to all, in turn: what the wires of single hosts carry;
5. where a host is reached through several interfaces, a flow over each of the others;
6. where links carried less than the wires of their two hosts, one more look at what they share (``sharing``).

Not here: sockets, waiting, time; the quick form (``quick_member``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import msgspec

from thinwire.errors import UsageError
from thinwire.probe.estimate import longer_train
from thinwire.probe.experiment import Card, Experiment, Flow, Outcome, TrainReport
from thinwire.probe.findings import findings
from thinwire.probe.matchings import rounds, teams
from thinwire.probe.sharing import find_bottlenecks
from thinwire.probe.survey import Path, Survey, ip_of, loss_of, rate_of
from thinwire.topology import Topology

Campaign = Generator[Experiment, Outcome, Topology]

BUDGET_S = 11.0
MIN_BUDGET_S = 1.0
FRAME_BYTES = 64 + 42  # a datagram with its headers on Ethernet
# What is enough for each part; all are shortened if the budget does not allow it.
_TRAIN_S, _ALONE_S, _TOGETHER_S, _FAN_S = 1.8, 0.5, 0.3, 0.3
_LEAST_S = 0.05
_LOSS_LEAST = 0.003  # worth a closer look
_LOSSES_ENOUGH = 160  # lost datagrams of a link: their number is true within 8 % then, two times in three
_LONGER_S = 4.0  # a round's trains at most
_LONGER_SHARE = 0.68  # of the budget, on top of it, for all longer trains
_ROUND_TRIPS_TO_SPEED = 20  # of a stream's start: some ten doublings and a settled rest
_ROUND_TRIPS_TOGETHER = 16  # until streams that join have settled
_TRAIN_INTERVAL_S = 0.00025
_TRAIN_SHARE = 0.2  # of a link's bandwidth, for a train
_LOADED_INTERVAL_S = 0.005
# Beside others that fill a queue, a first packet may be lost for some 0.2 s, or twice that.
_FAN_AGAIN_S = (0.6, 1.5)
_FAN_LEAST_S = 0.2  # so that flows of busy hosts, which begin late, are together for most of it
_FAN_BYTES = 600_000  # through the slowest wire, to tell what each of several sources gets of it
# Of what flows reach one by one: if they reach less together, their hub's wire is what holds them.
_FULL = 0.9
_SHARING_SHARE = 0.34  # of the budget, kept to find what links share
_LONGEST_SEARCH = 0.5  # of the budget, if that takes longer


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long the parts of experiments last."""

    train_s: float
    alone_s: float
    together_s: float
    fan_s: float

    @classmethod
    def within(cls, budget_s: float, num_hosts: int) -> Times:
        """As long as is enough, or all shorter by one factor so that everything fits the budget.

        >>> Times.within(12.5, 2).alone_s, round(Times.within(12.5, 16).alone_s, 2)
        (0.5, 0.08)
        """
        num_rounds = len(rounds(num_hosts))
        wanted_s = num_rounds * (_TRAIN_S + 2 * (_ALONE_S + _TOGETHER_S)) + 2 * _team_size(num_hosts) * _FAN_S
        factor = min(1.0, (1 - _SHARING_SHARE) * budget_s / wanted_s)
        return cls(
            train_s=max(_LEAST_S, factor * _TRAIN_S),
            alone_s=max(_LEAST_S, factor * _ALONE_S),
            together_s=max(_LEAST_S, factor * _TOGETHER_S),
            fan_s=max(_LEAST_S, factor * _FAN_S),
        )


def full_form(
    joined: Sequence[Card | str], *, now: Callable[[], str], budget_s: float = BUDGET_S
) -> Campaign:
    """The campaign that measures everything.

    Args:
        joined: for each host its card, or why there is none.
        now: tells the wall time at the end, in words.
        budget_s: about how long it may take where round trips are short and no packets are lost, without the pauses
            between experiments.

    Raises:
        UsageError: the budget is too small to measure anything.
    """
    if not budget_s >= MIN_BUDGET_S:
        raise UsageError(
            f"a budget of {budget_s:g} s is too little to measure anything: give {MIN_BUDGET_S:g} s or more"
        )
    survey = Survey(joined)
    times = Times.within(budget_s, survey.num_hosts)
    survey.take((yield Experiment(purpose="finding addresses", greet=True)))
    conflicts = yield from _flows(survey, times)
    yield from _trains(survey, times, _LONGER_SHARE * budget_s)
    yield from _fans(survey, times)
    yield from _other_addresses(survey, times)
    yield from find_bottlenecks(
        survey, conflicts, _flow_times(survey, times, _ROUND_TRIPS_TOGETHER / 2), _LONGEST_SEARCH * budget_s
    )
    return survey.topology("full", now(), findings(survey))


def _flows(survey: Survey, times: Times) -> Generator[Experiment, Outcome, list[list[Path]]]:
    """Flows between all, in rounds. Returns the paths that were busy together."""
    together = []
    flow_times = _flow_times(survey, times)
    matchings = rounds(survey.num_hosts)
    for number, pairs in enumerate(matchings):
        for paths in (list(pairs), [(second, first) for first, second in pairs]):
            flows = survey.flows_of(paths)
            if not flows:
                continue
            busy = [(flow.source, flow.destination) for flow in flows]
            alone_s, together_s = flow_times(busy)
            experiment = Experiment(
                purpose=f"bandwidth, round {number + 1} of {len(matchings)}",
                flows=flows,
                alone_s=alone_s,
                together_s=together_s,
                exchanges=survey.exchanges_of(pairs),
                train_s=alone_s,
                interval_s=_LOADED_INTERVAL_S,
                linger_s=0.1 + 3 * survey.rtt_s(busy),
            )
            outcome = yield experiment
            survey.flows |= survey.take_flows(experiment, outcome)
            trains = survey.take_trains(outcome)
            survey.loaded |= {path: trains[path[::-1]] for path in busy if path[::-1] in trains}
            together.append(busy)
    return together


def _trains(survey: Survey, times: Times, longer_s: float) -> Generator[Experiment, Outcome, None]:
    """Trains between all, in rounds; ``longer_s`` more in all where packets get lost."""
    matchings = rounds(survey.num_hosts)
    for number, pairs in enumerate(matchings):
        exchanges = survey.exchanges_of(pairs)
        if not exchanges:
            continue
        paths = [path for pair in pairs for path in (pair, pair[::-1])]
        slowest = min((rate for path in paths if (rate := survey.rate(path))), default=math.inf)
        experiment = Experiment(
            purpose=f"round trips and loss, round {number + 1} of {len(matchings)}",
            exchanges=exchanges,
            train_s=max(times.train_s, 4 * survey.rtt_s(paths)),
            interval_s=max(_TRAIN_INTERVAL_S, FRAME_BYTES / (_TRAIN_SHARE * slowest)),
            linger_s=0.1 + 3 * survey.rtt_s(paths),
        )
        found = survey.take_trains((yield experiment))
        missing = max((_datagrams_missing(found, path) for path in paths), default=0.0)
        more_s = min(missing * experiment.interval_s, _LONGER_S, longer_s / (len(matchings) - number))
        if more_s > _LEAST_S:
            longer_s -= more_s
            again = survey.take_trains((yield msgspec.structs.replace(experiment, train_s=more_s)))
            found |= {
                path: longer_train(found[path], train) for path, train in again.items() if path in found
            }
        survey.idle |= found
    for pair in (pair for pairs in matchings for pair in pairs):
        train = survey.idle.get(pair)
        if train and train.num_sent and not train.num_received:
            survey.miss(
                " <-> ".join(survey.names[host] for host in pair),
                "no datagram arrived: a firewall may drop UDP; round trip, jitter and loss are unknown",
            )


def _datagrams_missing(found: Mapping[Path, TrainReport], path: Path) -> float:
    """How many datagrams more it takes until enough were lost to tell how many get lost; 0 where none do."""
    train = found.get(path[::-1])
    loss = loss_of(train)
    if train is None or loss is None or loss < _LOSS_LEAST:
        return 0.0
    return max(0.0, _LOSSES_ENOUGH / loss - train.num_expected)


def _fans(survey: Survey, times: Times) -> Generator[Experiment, Outcome, None]:
    """All of a team send to one, then one sends to all; the hub is each in turn."""
    found = teams(sorted(survey.alive))
    slowest = min((rate for path in survey.flows if (rate := survey.rate(path))), default=math.inf)
    fan_s = max(
        times.fan_s,
        _FAN_LEAST_S,
        _ROUND_TRIPS_TO_SPEED * survey.rtt_s(survey.reached),
        min(_FAN_BYTES / slowest, 2 * times.fan_s),
    )
    for turn in range(max(map(len, found), default=0)):
        spokes = [
            (hub, spoke)
            for team in found
            if len(team) > 2 and turn < len(team)
            for hub in [team[turn]]
            for spoke in team
            if spoke != hub
        ]
        for is_out in (True, False):
            flows = survey.flows_of(spokes if is_out else [(spoke, hub) for hub, spoke in spokes])
            if not flows:
                continue
            hubs = {hub for hub, _ in spokes}
            for together_s in (fan_s, *(max(2 * fan_s, again_s) for again_s in _FAN_AGAIN_S)):
                experiment = Experiment(
                    purpose=f"{'uplinks' if is_out else 'downlinks'}, turn {turn + 1}",
                    flows=flows,
                    together_s=together_s,
                )
                if _take_fan(survey, experiment, (yield experiment), hubs, is_out=is_out):
                    break
    for path in survey.flows:
        for totals, host in ((survey.uplinks, path[0]), (survey.downlinks, path[1])):
            totals[host] = max(totals.get(host, 0.0), survey.rate(path))


def _take_fan(
    survey: Survey, experiment: Experiment, outcome: Outcome, hubs: Iterable[int], *, is_out: bool
) -> bool:
    """Note what the wires of hubs carried. False if flows of one of them began too far apart to tell."""
    survey.take(outcome)
    totals = survey.uplinks if is_out else survey.downlinks
    is_complete = True
    for hub in [hub for hub in hubs if hub in outcome.reports]:
        report = outcome.reports[hub]
        total = report.sent_together if is_out else report.received_together
        if total is None:
            is_complete = False
            continue
        totals[hub] = total.bytes_per_s
        flows = [experiment.flows[place] for place in total.places]
        if total.bytes_per_s < _FULL * sum(survey.rate((flow.source, flow.destination)) for flow in flows):
            survey.full_wires.add((hub, is_out))
    return is_complete


def _other_addresses(survey: Survey, times: Times) -> Generator[Experiment, Outcome, None]:
    """A flow to each address of a host that is reached through another interface than the one in use."""
    for path, (used, *others) in sorted(survey.reached.items()):
        source, host = path
        if host in survey.alternatives or survey.is_local(path) or not survey.rate(path):
            continue
        for other in others:
            if other.interface == used.interface or not survey.is_open(path):
                continue
            flow = Flow(source, host, other.address)
            alone_s, together_s = _flow_times(survey, times)([path])
            experiment = Experiment(
                purpose=f"another address of {survey.names[host]}",
                flows=(flow,),
                alone_s=alone_s,
                together_s=together_s,
            )
            found = survey.take_flows(experiment, (yield experiment))
            rates = survey.alternatives.setdefault(host, {ip_of(used.address): survey.rate(path)})
            rates[ip_of(other.address)] = max((rate_of(flow) or 0.0 for flow in found.values()), default=0.0)


def _flow_times(
    survey: Survey, times: Times, round_trips_together: float = _ROUND_TRIPS_TOGETHER
) -> Callable[[Sequence[Path]], tuple[float, float]]:
    """How long a flow on some paths should be alone, and together with more streams."""

    def of(paths: Sequence[Path]) -> tuple[float, float]:
        rtt_s = survey.rtt_s(paths)
        alone_s = max(times.alone_s, _ROUND_TRIPS_TO_SPEED * rtt_s)
        return alone_s, max(times.together_s, round_trips_together * rtt_s)

    return of


def _team_size(num_hosts: int) -> int:
    return max(map(len, teams(range(num_hosts)))) if num_hosts > 2 else 0
