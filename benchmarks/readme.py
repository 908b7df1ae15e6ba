"""Write the measured tables of the README and the guides from ``benchmarks/results``, which programs wrote.

    thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json > benchmarks/results/all_reduce.json
    python benchmarks/lab_fidelity.py --json
    python -m benchmarks.readme

A test compares the pages with this, so they show what the results say and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks import lab_fidelity
from docs.blocks import filled
from thinwire.cli.measurement import Measurement, Report, speedup
from thinwire.units import format_bytes, format_rate, format_seconds

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LAB_GUIDE = ROOT / "docs" / "guides" / "lab.md"
RESULTS = ROOT / "benchmarks" / "results"
SHOWN_RANKS = 4


def published(page: Path) -> str:
    """``page`` with its block of measurements written anew."""
    return filled(page.read_text(encoding="utf-8"), "measured", BLOCKS[page]())


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


def _lab_fidelity() -> Iterator[str]:
    parts = lab_fidelity.stored()
    missing = lab_fidelity.MEASUREMENTS.keys() - parts.keys()
    if missing:
        raise SystemExit(f"not measured yet: benchmarks/lab_fidelity.py --json {' '.join(sorted(missing))}")
    places = sorted({str(part.surroundings) for part in parts.values()})
    days = sorted({part.surroundings.day for part in parts.values()})
    yield f"Measured on {' and '.join(places)}, {' and '.join(days)}:\n"
    yield "| what | asked | measured | off by | allowed |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, part in parts.items():
        unit = {"delay": "{:.2f} ms", "cost": "", "speed": ""}.get(name, "{:.1%}")
        for row in part.rows:
            off_by, allowed = (unit.format(value) if row.bound else "" for value in (row.error, row.bound))
            yield f"| {row.demand} | {row.asked} | {row.measured} | {off_by} | {allowed} |"
    yield "\nMade by `benchmarks/lab_fidelity.py --json` and `benchmarks/readme.py`."


BLOCKS: dict[Path, Callable[[], Iterator[str]]] = {README: _all_reduce, LAB_GUIDE: _lab_fidelity}

if __name__ == "__main__":
    for page in BLOCKS:
        page.write_text(published(page), encoding="utf-8")
