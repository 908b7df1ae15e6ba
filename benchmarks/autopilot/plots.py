"""Pictures of training: loss against seconds and against bytes, a column a network. Not here: tables (``tables``)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from benchmarks.autopilot.measure import EXACT
from benchmarks.autopilot.runs import Results, Run

NETWORKS = {
    "lan-1g": "1 Gbit/s",
    "office-100m": "100 Mbit/s",
    "ten-megabit": "10 Mbit/s",
    "fading": "1 Gbit/s to 50 Mbit/s and back",
}
COLOURS = {
    "thinwire auto": "#3b6fb6",
    "Gloo": "#d9772b",
    "Gloo, fp16 hook": "#4d9a57",
    "torchft DiLoCo": "#9a4f96",
}
INK, FAINT = "#22303c", "#c9d2da"
SMOOTHED = 20  # steps
UNITS = ("seconds", "MB sent by a rank")


def draw(results: Results, model: str, target: Path) -> None:
    """One model's runs with the first seed."""
    from matplotlib.figure import Figure

    runs = [run for run in results.runs if run.model == model and not run.failure]
    runs = [run for run in runs if run.seed == min(each.seed for each in runs)]
    infinite = [run for run in runs if run.network == "unlimited" and run.way == EXACT]
    networks = [each for each in NETWORKS if any(run.network == each for run in runs)]
    if not networks:
        raise SystemExit(
            f"{target}: nothing to draw, no network of {', '.join(NETWORKS)} was measured with {model}"
        )
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": FAINT, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(3.1 * len(networks) + 0.4, 5.6), layout="constrained")
        axes = figure.subplots(2, len(networks), sharey=True, squeeze=False)
        for column, network in enumerate(networks):
            axes[0, column].set_title(NETWORKS[network])
            for row, unit in enumerate(UNITS):
                own = axes[row, column]
                for run in infinite:
                    _line(own, run, row, INK, "exact, unlimited links", "dashed")
                for run in (run for run in runs if run.network == network and run.way in COLOURS):
                    _line(own, run, row, COLOURS[run.way], run.way, "solid")
                own.set(
                    xlabel=unit, xscale="log", xlim=(1, None)
                )  # before the first second or MB nothing is learned
                own.xaxis.set_major_formatter("{x:g}")
                own.grid(color=FAINT, linewidth=0.4)
                own.spines[["top", "right"]].set_visible(False)
        for row in range(2):
            axes[row, 0].set_ylabel(f"training loss, mean of {SMOOTHED} steps")
        lines = [line for own in axes.flat for line in own.get_lines()]
        shown = {str(line.get_label()): line for line in lines}
        figure.legend(
            shown.values(),
            shown.keys(),
            loc="outside lower center",
            ncols=min(len(shown), 2 * len(networks)),
            frameon=False,
        )
        figure.savefig(target, dpi=100)


def _line(axes: mpl.axes.Axes, run: Run, row: int, colour: str, label: str, style: str) -> None:
    along = np.array(run.sent_bytes) / 1e6 if row else np.array(run.ends_s)
    axes.plot(along, _smooth(run.losses), color=colour, label=label, linestyle=style, linewidth=1.4)


def _smooth(losses: Sequence[float]) -> NDArray[np.float64]:
    """The mean of each loss and those before it."""
    total = np.array([0.0, *itertools.accumulate(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - SMOOTHED)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))
