"""Write the README's measured table from the results in ``benchmarks/results``, which programs wrote.

    thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json > benchmarks/results/all_reduce.json
    python benchmarks/readme.py

A test compares the README with this, so it shows what the results say and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from thinwire.cli.measurement import Measurement, Report, speedup
from thinwire.units import format_bytes, format_rate, format_seconds

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SHOWN_RANKS = 4


def filled(readme: str) -> str:
    """``readme`` with the block between the markers written anew."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([before + BEGIN, *_block(), END + after])


def _block() -> Iterator[str]:
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


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
