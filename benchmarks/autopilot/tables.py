"""What the runs say, as the tables of the guide to the autopilot. Not here: pictures (``plots``)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.autopilot.measure import ADAPTIVE, EXACT, NETWORKS, exact_in
from benchmarks.autopilot.models import Quality
from benchmarks.autopilot.runs import FIRST_STEPS, Results, Run
from benchmarks.autopilot.ways import WAYS
from thinwire.lab import load
from thinwire.units import format_seconds

TITLES = {
    "images": "Convolutional network, 1.6 million parameters, Fashion-MNIST",
    "text": "Transformer, 3.2 million parameters, source text of Python's standard library",
}
GOALS = {
    "loopback": 1.0,
    "unlimited": 1.0,
    "lan-1g": 1.03,
    "office-100m": 1.1,
    "ten-megabit": 1.5,
    "fading": 1.15,
}


def tables(results: Results) -> Iterator[str]:
    """Markdown, line by line."""
    yield f"Four ranks on {results.surroundings}, {results.surroundings.day}.\n"
    if not all(run.is_quiet or run.failure for run in results.runs):
        yield "**The machine was not quiet, which flatters slow ways: to be measured again with `--missing`.**\n"
    for model, title in TITLES.items():
        runs = [run for run in results.runs if run.model == model]
        if runs:
            yield f"### {title}\n"
            yield from _step_times(runs)
            yield ""
            yield from _qualities(runs)
            yield ""
            yield from _plans(runs)
            yield ""
    yield "Made by `python -m benchmarks.autopilot` and `benchmarks/readme.py`."


def _step_times(runs: Sequence[Run]) -> Iterator[str]:
    """Ways by networks."""
    infinite = {each for run in runs for each in run.infinite}
    medians_s = sorted(each.median_s for each in infinite)
    disturbed = [run.disturbed for run in runs if not run.failure]
    networks = [network for network in NETWORKS if any(run.network == network for run in runs)]
    yield (
        f"Step time against infinite ({format_seconds(statistics.median(medians_s))}; from "
        f"{format_seconds(medians_s[0])} to {format_seconds(medians_s[-1])} in {len(medians_s)} runs): the "
        f"median of the second half of the steps, and in brackets the mean of all but the first {FIRST_STEPS}. "
        f"Other programs took up to {max(disturbed, default=0):.0%} of the cores meanwhile, on the mean "
        f"{_mean(disturbed or [0]):.0%}.\n"
    )
    yield f"| way | {' | '.join(f'`{each}`' for each in networks)} |"
    yield f"| --- |{' ---: |' * len(networks)}"
    for way in WAYS:
        cells = [_ratio([run for run in runs if run.way == way and run.network == each]) for each in networks]
        if any(cells):
            yield f"| {way} | {' | '.join(cells)} |"
    yield f"| *goal* | {' | '.join(f'{GOALS[each]:.2f}x' for each in networks)} |"


def _ratio(runs: Sequence[Run]) -> str:
    """Of one way in one network, over seeds."""
    if failed := [run.failure for run in runs if run.failure]:
        return failed[0].split(":")[0]
    if not runs:
        return ""
    ratios = [run.against_infinite() for run in runs]
    median, mean = (statistics.mean(column) for column in zip(*ratios, strict=True))
    return f"{_times(median)} ({_times(mean)})"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def _qualities(runs: Sequence[Run]) -> Iterator[str]:
    """What was trained to the end, against the exact training with the same seed."""
    whole = [run for run in runs if run.quality]
    exact = {(run.network, run.seed): run.quality for run in whole if run.way == EXACT and run.quality}
    spread = _spread([quality for (network, _), quality in exact.items() if network == "unlimited"])
    num_seeds = sum(network == "unlimited" for network, _ in exact)
    told = (
        f"From the worst to the best of {num_seeds} seeds of exact training: "
        f"{spread.accuracy:.2f} points of accuracy, {spread.loss:.1%} of the loss."
        if spread
        else f"The spread of exact training takes three seeds to tell, and {num_seeds} ran."
    )
    yield f"At the end of {runs[0].num_steps} steps, on what no rank was trained on. {told}\n"
    yield "| trained to the end | seeds | accuracy | loss | against exact, same seeds | goal | MB a step |"
    yield "| --- | ---: | ---: | ---: | --- | --- | ---: |"
    for way in WAYS:
        for network in NETWORKS:
            same = [run for run in whole if run.way == way and run.network == network]
            qualities = {run.seed: run.quality for run in same if run.quality}
            if not qualities:
                continue
            same_seeds = {seed: exact.get((exact_in(network), seed)) for seed in sorted(qualities)}
            away = _away([(qualities[seed], base) for seed, base in same_seeds.items() if base])
            judged = _judged(network, away, spread) if way == ADAPTIVE and away else ""
            yield (
                f"| {f'{way}, `{network}`' if way == ADAPTIVE or network == 'loopback' else way} | {len(qualities)} "
                f"| {_mean([each.accuracy for each in qualities.values()]):.2%} "
                f"| {_mean([each.loss for each in qualities.values()]):.4f} "
                f"| {_difference(away) if way != EXACT else ''} | {judged} "
                f"| {_mean([run.bytes_a_step() for run in same]) / 1e6:.3g} |"
            )


def _spread(qualities: Sequence[Quality]) -> Quality | None:
    """Worst to best, in points and as a share; None of fewer than three."""
    if len(qualities) < 3:
        return None
    accuracies, losses = zip(*qualities, strict=True)
    return Quality(100 * (max(accuracies) - min(accuracies)), (max(losses) - min(losses)) / _mean(losses))


def _away(pairs: Sequence[tuple[Quality, Quality]]) -> Quality | None:
    """How far the first of each pair is from the second, on the mean: in points, and as a share."""
    if not pairs:
        return None
    return Quality(
        _mean([100 * (own.accuracy - base.accuracy) for own, base in pairs]),
        _mean([own.loss / base.loss - 1 for own, base in pairs]),
    )


def _difference(away: Quality | None) -> str:
    if away is None:
        return ""
    return f"{away.accuracy:+.2f} points, loss {away.loss:+.1%}" if any(away) else "identical"


def _judged(network: str, away: Quality, spread: Quality | None) -> str:
    """Against the goal of this network; being better than exact misses nothing."""
    if network == exact_in(network):
        goal, is_met = "identical", not any(away)
    elif network == "ten-megabit":
        goal, is_met = "0.5 points, loss 1 %", away.accuracy >= -0.5 and away.loss <= 0.01
    elif spread is None:
        return "within the spread"
    else:
        goal, is_met = "within the spread", away.accuracy >= -spread.accuracy and away.loss <= spread.loss
    return f"{goal}: {'met' if is_met else '**missed**'}"


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values)


def _plans(runs: Sequence[Run]) -> Iterator[str]:
    """Which forms the autopilot used, and how soon after a change of the network it had another plan."""
    first_seed = min(run.seed for run in runs)
    own = {run.network: run for run in runs if run.way == ADAPTIVE and run.seed == first_seed and run.plans}
    for network in (each for each in NETWORKS if each in own):
        shares = sorted(_steps_by_plan(own[network]).items(), key=lambda each: -each[1])
        yield f"- `{network}`, steps by plan: {'; '.join(f'{share:.0%} {plan}' for plan, share in shares)}"
        if network == "fading":
            yield f"  New plan after each change of the rate: {_reactions(own[network])}"


def _steps_by_plan(run: Run) -> dict[str, float]:
    """Forms of the buckets -> share of the steps."""
    begins = [each.step for each in run.plans] + [len(run.losses) + 1]
    shares: dict[str, float] = {}
    for plan, (start, end) in zip(run.plans, pairwise(begins), strict=True):
        name = " and ".join(f"`{form}`" for form in dict.fromkeys(plan.forms))
        shares[name] = shares.get(name, 0.0) + (end - start) / len(run.losses)
    return {name: share for name, share in shares.items() if share >= 0.01}


def _reactions(run: Run) -> str:
    """For each change of the scenario's first minute: when the next plan began, if before the next change."""
    trace = load(run.network).trace[0]
    begun_s = [run.began_s + (0.0, *run.ends_s)[each.step - 1] for each in run.plans]
    end_s = run.began_s + run.ends_s[-1]
    changes = [
        (at_s, rate) for at_s, rate in zip(trace.at_s, trace.rate_mbit, strict=True) if 0 < at_s < end_s
    ]
    told = []
    for (at_s, rate), next_s in zip(changes, [at_s for at_s, _ in changes[1:]] + [end_s], strict=True):
        after = [each - at_s for each in begun_s if at_s <= each < next_s]
        told.append(f"{rate:g} Mbit/s {f'{after[0]:.1f} s' if after else 'kept'}")
    return ", ".join(told)
