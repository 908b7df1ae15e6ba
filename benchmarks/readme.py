"""Write the measured tables of the README and the guides from ``benchmarks/results``, which programs wrote.

    thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json > benchmarks/results/all_reduce.json
    python benchmarks/probe_accuracy.py
    python benchmarks/forecast.py
    python -m benchmarks.readme

A table stands between ``<!-- measured: NAME -->`` and ``<!-- measured: end -->``. A test compares the pages with this,
so they show what the results say and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks import forecast, probe_accuracy
from thinwire.cli.measurement import Measurement, Report, speedup
from thinwire.units import format_bytes, format_rate, format_seconds, three_digits

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (README, ROOT / "docs" / "guides" / "probe.md")
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(\n<!-- measured: end -->)", re.DOTALL)
SHOWN_RANKS = 4


def filled(page: str) -> str:
    """``page`` with every block between markers written anew."""
    return BLOCK.sub(lambda block: block[1] + "\n".join(BLOCKS[block[2]]()) + block[3], page)


def _all_reduce() -> Iterator[str]:
    report = msgspec.json.decode((RESULTS / "all_reduce.json").read_bytes(), type=Report)
    pairs = list(zip(report.rows[::2], report.rows[1::2], strict=True))
    around = report.surroundings
    yield f"`all_reduce` of float32 over loopback, {SHOWN_RANKS} ranks, {around}, torch's default Gloo; medians of"
    yield f"{len(report.rows[0].times_s)} turns taken one after the other in the same processes, {around.day}:\n"
    yield "| size | thinwire | Gloo | thinwire busbw | Gloo busbw | times faster |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for ours, theirs in pairs:
        if ours.num_ranks == SHOWN_RANKS:
            yield (
                f"| {format_bytes(ours.size_bytes)} | {format_seconds(ours.time_s)} | {format_seconds(theirs.time_s)} "
                f"| {format_rate(ours.busbw)} | {format_rate(theirs.busbw)} | {speedup(ours, theirs):.1f} |"
            )
    yield (
        "\nWith other numbers of ranks, times faster from the least to the most over the same sizes: "
        + "; ".join(
            _range(num_ranks, list(group))
            for num_ranks, group in groupby(pairs, key=lambda pair: pair[0].num_ranks)
        )
    )
    yield "ranks. Made by `thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json` and `benchmarks/readme.py`."


def _range(num_ranks: int, pairs: list[tuple[Measurement, Measurement]]) -> str:
    ratios = [speedup(ours, theirs) for ours, theirs in pairs]
    return f"{min(ratios):.1f} to {max(ratios):.1f} with {num_ranks}"


def _probe_accuracy() -> Iterator[str]:
    results = probe_accuracy.load()
    days = sorted({result.surroundings.day for result in results})
    yield f"Made by `benchmarks/probe_accuracy.py` in the lab, {results[0].surroundings}, {' to '.join(days)}."
    yield "Truth, and after it the link that is farthest from it; a bound that is broken is **bold**.\n"
    yield "| scenario, hosts | Mbit/s | round trip, ms | loss, % | named | quick form, Mbit/s | full, s | quick, s |"
    yield "| --- | --- | --- | --- | --- | --- | ---: | ---: |"
    for result in results:
        rows = {row.demand: row for row in result.rows}
        cells = [
            _told(rows.get("bandwidth")),
            _told(rows.get("round trip")),
            _told(rows.get("loss"), 100),
            "rightly" if rows["what stands out"].is_met else f"**{rows['what stands out'].measured}**",
            _told(rows.get("bandwidth, quick form")),
            f"{result.full_s:.1f}",
            f"{result.quick_s:.2f}",
        ]
        yield f"| `{result.scenario}`, {result.num_hosts} | {' | '.join(cells)} |"


def _told(row: probe_accuracy.Row | None, scale: float = 1.0) -> str:
    if row is None:
        return ""
    if row.truth == row.measured == 0:
        return "says that it cannot tell"
    truth, measured = (
        value if isinstance(value, str) else three_digits(value * scale)
        for value in (row.truth, row.measured)
    )
    return f"{truth}, {measured}" if row.is_met else f"{truth}, **{measured}**"


def _forecast() -> Iterator[str]:
    yield "| series | mixture errs | best single predictor | ratio | in its interval | 2x flagged in | false |"
    yield "| --- | ---: | --- | ---: | ---: | ---: | ---: |"
    for name, result in forecast.load().items():
        slowest = f"{max(result.delays_s):g} s ({len(result.delays_s)} changes)" if result.delays_s else ""
        yield (
            f"| {name} | {result.mixture:.1%} | {result.best:.1%}, {result.best_name} | {result.ratio:.2f} "
            f"| {result.coverage:.0%} | {slowest} | {result.num_false} |"
        ).replace("%", " %")


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "all_reduce": _all_reduce,
    "probe_accuracy": _probe_accuracy,
    "forecast": _forecast,
}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
