"""Which links share a bottleneck that is no host's own wire: found by running flows alone and in company.

A link is suspect if it carried less than the wires of its two hosts did with others. One of the suspects that were busy
at one time is run alone. If it is faster alone, it was held back by company: by all of them, if their rates add up to
what it reaches alone; otherwise by those that slow it down when they run beside it. Sets found at different times are
one if a flow of each, run together, slow each other down.

If no link is suspect, one is run alone all the same, because a bottleneck that everybody shares makes all equally slow.

A generator of experiments, like ``campaign``; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from thinwire.probe.experiment import Experiment, FlowReport, Outcome
from thinwire.probe.survey import Path, Survey, rate_of

SUSPECT = 0.8  # of what the hosts' wires carry
FASTER_ALONE = 1.2
SLOWED = 0.65  # of the sum of what two flows reach alone
ADDS_UP = 0.2
_TIMES_TO_BELIEVE = 2  # where groups have no host in common: a flow may have a bad start by itself
_LONGER = 1.5  # two flows that begin together take longer to settle than one

FlowTimes = Callable[[Sequence[Path]], tuple[float, float]]
Running = Generator[Experiment, Outcome, dict[Path, FlowReport]]


def find_bottlenecks(
    survey: Survey, together: Sequence[Sequence[Path]], times: FlowTimes, budget_s: float
) -> Generator[Experiment, Outcome, None]:
    """Look for shared bottlenecks, and correct the bandwidth of links that were measured in company.

    Args:
        survey: knows what flows reached; bandwidths are corrected there, and bottlenecks added.
        together: the paths of each experiment that was made.
        times: how long flows on some paths should be alone and together.
        budget_s: how long all of it may take.
    """
    search = _Search(survey, times, budget_s)
    best_up, best_down = _best(survey, 0), _best(survey, 1)
    suspects = [
        [
            path
            for path in paths
            if path in survey.flows
            and not survey.is_local(path)
            and survey.rate(path) < SUSPECT * min(best_up[path[0]], best_down[path[1]])
        ]
        for paths in together
    ]
    if not any(suspects):
        suspects = yield from _everybody_is_slow(survey, search, together)
    groups: list[_Group] = []
    for paths in suspects:
        open_paths = [path for path in paths if survey.is_open(path)]
        if open_paths and not (yield from _join_likely(search, groups, open_paths)):
            for group in (yield from _groups_of(search, open_paths)):
                if not (yield from _join(search, groups, group)):
                    groups.append(group)
    for group in groups:
        for path in group.paths:
            survey.flows[path] = search.alone.get(path, group.alone)
        if len(group.paths) > 1:
            survey.shared.append((sorted(group.paths), group.bandwidth))
    if search.num_skipped:
        survey.miss(
            "shared bottlenecks",
            f"{search.num_skipped} tests did not fit the budget of time: give more, or probe fewer hosts",
        )


class _Group:
    """Paths that share a bottleneck, and what one of them reaches alone."""

    def __init__(self, paths: list[Path], alone: FlowReport) -> None:
        self.paths, self.alone = paths, alone
        self.bandwidth = rate_of(alone) or 0.0

    def hosts_in_common(self, other: _Group) -> int:
        """How many sources and destinations: the more, the more likely it is the same bottleneck."""
        return sum(
            len({path[end] for path in self.paths} & {path[end] for path in other.paths}) for end in (0, 1)
        )


class _Search:
    """Runs flows while the budget lasts."""

    def __init__(self, survey: Survey, times: FlowTimes, budget_s: float) -> None:
        self.survey = survey
        self.times = times
        self.left_s = budget_s
        self.num_skipped = 0
        self.alone: dict[Path, FlowReport] = {}

    def run_alone(self, path: Path) -> Generator[Experiment, Outcome, FlowReport | None]:
        """What a flow reaches alone; None if that could not be measured."""
        if path not in self.alone:
            alone_s, together_s = self.times([path])
            self.alone |= yield from self._run([path], alone_s, together_s)
        return self.alone.get(path)

    def slow_each_other(self, first: _Group, second: _Group) -> Generator[Experiment, Outcome, bool]:
        """Whether flows of two groups do, where their hosts' own wires would not make them."""
        pairs = [
            (one, other)
            for one in first.paths
            for other in second.paths
            if not self._wires_conflict(one, other, first.bandwidth + second.bandwidth)
        ]
        if not pairs:
            return False
        alone_s, together_s = self.times(pairs[0])
        is_likely = first.hosts_in_common(second) > 0
        for _ in range(1 if is_likely else _TIMES_TO_BELIEVE):
            found = yield from self._run(pairs[0], 0.0, _LONGER * max(alone_s, together_s))
            total = sum(rate_of(flow) or 0.0 for flow in found.values())
            if len(found) < 2 or total >= SLOWED * (first.bandwidth + second.bandwidth):
                return False
        return True

    def _wires_conflict(self, one: Path, other: Path, wanted: float) -> bool:
        totals = (self.survey.uplinks, self.survey.downlinks)
        return any(
            one[end] == other[end] and totals[end].get(one[end], 0.0) < SUSPECT * wanted for end in (0, 1)
        )

    def _run(self, paths: Sequence[Path], alone_s: float, together_s: float) -> Running:
        flows = self.survey.flows_of(paths)
        if len(flows) < len(paths):
            return {}
        if self.left_s < alone_s + together_s:
            self.num_skipped += 1
            return {}
        self.left_s -= alone_s + together_s
        experiment = Experiment(
            purpose="looking for shared bottlenecks", flows=flows, alone_s=alone_s, together_s=together_s
        )
        return self.survey.take_flows(experiment, (yield experiment))


def _join(search: _Search, groups: Sequence[_Group], found: _Group) -> Generator[Experiment, Outcome, bool]:
    """Add ``found`` to the one of ``groups`` that it shares its bottleneck with; False if there is none."""
    for group in sorted(groups, key=found.hosts_in_common, reverse=True):
        if (yield from search.slow_each_other(found, group)):
            group.paths += found.paths
            group.bandwidth = max(group.bandwidth, found.bandwidth)
            return True
    return False


def _join_likely(
    search: _Search, groups: Sequence[_Group], paths: list[Path]
) -> Generator[Experiment, Outcome, bool]:
    """Add paths that were busy together to a group whose bandwidth their rates add up to, if it is theirs."""
    total = sum(map(search.survey.rate, paths))
    likely = [group for group in groups if abs(total / group.bandwidth - 1) < ADDS_UP]
    return bool(likely) and (yield from _join(search, likely, _Group(paths, likely[0].alone)))


def _groups_of(search: _Search, suspects: list[Path]) -> Generator[Experiment, Outcome, list[_Group]]:
    """The groups among paths that were busy at one time."""
    survey = search.survey
    rest = list(suspects)
    groups = []
    while rest:
        path = rest.pop(0)
        in_company = survey.rate(path)
        alone = yield from search.run_alone(path)
        if alone is None:
            continue
        group = _Group([path], alone)
        if group.bandwidth > FASTER_ALONE * in_company:
            total = in_company + sum(survey.rate(other) for other in rest)
            if abs(total / group.bandwidth - 1) < ADDS_UP:
                group.paths, rest = [path, *rest], []
            else:
                for other in list(rest):
                    other_alone = yield from search.run_alone(other)
                    if other_alone and (
                        yield from search.slow_each_other(group, _Group([other], other_alone))
                    ):
                        group.paths.append(other)
                        rest.remove(other)
        groups.append(group)
    return groups


def _everybody_is_slow(
    survey: Survey, search: _Search, together: Sequence[Sequence[Path]]
) -> Generator[Experiment, Outcome, list[list[Path]]]:
    """If one flow of the first company is faster alone, all are suspect."""
    companies = [
        [path for path in paths if path in survey.flows and not survey.is_local(path)] for paths in together
    ]
    for paths in companies:
        if len(paths) > 1:
            fastest = max(paths, key=survey.rate)
            alone = yield from search.run_alone(fastest)
            is_faster = alone is not None and (rate_of(alone) or 0.0) > FASTER_ALONE * survey.rate(fastest)
            return companies if is_faster else []
    return []


def _best(survey: Survey, end: int) -> dict[int, float]:
    """What each host reached with any other: as source (``end`` 0) or destination (1)."""
    best: dict[int, float] = {}
    for path in survey.flows:
        best[path[end]] = max(best.get(path[end], 0.0), survey.rate(path))
    return best
