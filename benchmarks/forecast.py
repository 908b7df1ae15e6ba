"""How good the forecast is on seeded series shaped like the lab's scenarios that change over time.

    python benchmarks/forecast.py

It prints a table, and puts it into ``benchmarks/results/forecast.json``, which the guide's table is made from.

Each series is the bandwidth (Mbit/s) or the round trip (ms) of one link, observed every half second: what the scenario
says, with measurement noise. Published bounds: the mixture errs at most 5 % more than the predictor that is the best
in hindsight; a change by a factor of 2 is flagged within 3 s; a steady link raises no alarm in 10 minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from thinwire.forecast.forecaster import CHANGE, Forecaster
from thinwire.forecast.predictors import PREDICTORS
from thinwire.lab import library

RESULTS = Path(__file__).resolve().parent / "results" / "forecast.json"
INTERVAL_S = 0.5
DURATION_S = 600.0
ERROR_BOUND, DELAY_BOUND_S = 1.05, 3.0
Array = np.ndarray


class Series(NamedTuple):
    """What a link truly does, and what is observed of it, every ``INTERVAL_S``."""

    truth: Array
    observed: Array


class Result(msgspec.Struct, frozen=True):
    """Errors are mean distances of the logarithms; ``delays_s`` from each change by 2 to its flag."""

    mixture: float
    best: float
    best_name: str
    delays_s: list[float]
    num_missed: int
    num_false: int
    coverage: float

    @property
    def ratio(self) -> float:
        """Of the mixture's error to the best predictor's."""
        return self.mixture / self.best


def times_s() -> Array:
    return np.arange(0, DURATION_S, INTERVAL_S)


def scenario_rate(name: str) -> Array:
    """What the first wire that the scenario changes, or cuts, carries; Mbit/s."""
    scenario = library.load(name)
    rate = np.full(times_s().size, float(scenario.access.rate_mbit or 0))
    for trace in scenario.trace:
        at_s = times_s() % (trace.every_s or np.inf)
        place = np.searchsorted(trace.at_s, at_s, side="right") - 1
        rate = np.where(place >= 0, np.array(trace.rate_mbit)[place], rate)
    for cut in scenario.cut:
        since_s = (times_s() - cut.at_s) % (cut.every_s or np.inf)
        rate = np.where((times_s() >= cut.at_s) & (since_s < cut.for_s), rate / 1000, rate)
    return rate


def noisy(
    truth: Array, noise: float, seed: int, *, correlation: float = 0.0, outliers: float = 0.0
) -> Series:
    """Multiply by log-normal noise, each value's a part of the one before's; and by 3 at random, now and then."""
    draw = np.random.default_rng(seed)
    logs = draw.normal(size=truth.size) * noise
    for index in range(1, truth.size):
        logs[index] = correlation * logs[index - 1] + np.sqrt(1 - correlation**2) * logs[index]
    logs += np.where(draw.random(truth.size) < outliers, np.log(3), 0)
    return Series(truth, truth * np.exp(logs))


def all_series(seed: int = 0) -> dict[str, Series]:
    steady = np.full(times_s().size, 100.0)
    swing = 100 * np.exp(0.25 * np.sin(2 * np.pi * times_s() / 120))
    steps = np.where((times_s() // 45) % 2 == 0, 100.0, 50.0)
    return {
        "steady, 3 % noise": noisy(steady, 0.03, seed),
        "steady, 10 % noise": noisy(steady, 0.10, seed + 1),
        "steady, 10 % correlated noise": noisy(steady, 0.10, seed + 2, correlation=0.8),
        "steady, outliers of 3x": noisy(steady, 0.05, seed + 3, outliers=0.02),
        "mobile, round trip": noisy(np.full(times_s().size, 50.0), 0.12, seed + 4, correlation=0.3),
        "slow swing": noisy(swing, 0.05, seed + 5),
        "steps of 2x": noisy(steps, 0.05, seed + 6),
        "fading": noisy(scenario_rate("fading"), 0.05, seed + 7),
        "flapping": noisy(scenario_rate("flapping"), 0.05, seed + 8),
    }


def assess(series: Series) -> Result:
    forecaster = Forecaster()
    singles = {name: make() for name, make in PREDICTORS.items()}
    errors = dict.fromkeys(singles, 0.0)
    mixture, covered, count = 0.0, 0, 0
    anchor, due_index = float(series.truth[0]), None
    delays_s: list[float] = []
    num_missed = num_false = 0
    for index, (truth, value) in enumerate(zip(series.truth.tolist(), series.observed.tolist(), strict=True)):
        log = float(np.log(value))
        if index:
            forecast = forecaster.forecast()
            mixture += abs(float(np.log(forecast.value)) - log)
            covered += forecast.low <= value <= forecast.high
            count += 1
            for name, single in singles.items():
                errors[name] += abs(single.predict() - log)
        for single in singles.values():
            single.observe(log)
        ratio = max(truth / anchor, anchor / truth)
        if due_index is None and ratio >= CHANGE * 0.999:
            due_index = index
        elif due_index is not None and ratio < CHANGE * 0.999:
            num_missed += 1
            due_index = None
        if forecaster.observe(value):
            if due_index is not None:
                # The value at a change is the first that tells of it: it took one interval to come.
                delays_s.append((index - due_index + 1) * INTERVAL_S)
            elif ratio < 1.2:
                num_false += 1
            anchor, due_index = truth, None
    best_name = min(errors, key=lambda name: errors[name])
    return Result(
        mixture / count,
        errors[best_name] / count,
        best_name,
        delays_s,
        num_missed,
        num_false,
        covered / count,
    )


def load() -> dict[str, Result]:
    """What the program found when it ran."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Result])


def main() -> int:
    results = {}
    table = Table(
        *[
            "series",
            "mixture errs",
            "best single",
            "which",
            "ratio",
            "in interval",
            "2x flagged",
            "missed",
            "false",
        ]
    )
    all_met = True
    for name, series in all_series().items():
        result = assess(series)
        results[name] = result
        slowest_s = max(result.delays_s, default=0.0)
        all_met &= result.ratio <= ERROR_BOUND and slowest_s <= DELAY_BOUND_S
        all_met &= not (result.num_missed or result.num_false)
        table.add_row(
            name,
            f"{result.mixture:.2%}",
            f"{result.best:.2%}",
            result.best_name,
            f"{result.ratio:.3f}",
            f"{result.coverage:.0%}",
            f"{len(result.delays_s)}, slowest {slowest_s:g} s" if result.delays_s else "",
            str(result.num_missed),
            str(result.num_false),
        )
    Console(width=140).print(table)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
