"""Write the measured tables of documents from the results in ``benchmarks/results``, which programs wrote.

    thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json > benchmarks/results/all_reduce.json
    python benchmarks/codec_quality.py > benchmarks/results/codec_quality.json
    python benchmarks/codec_speed.py > benchmarks/results/codec_speed.json
    python benchmarks/readme.py

Tests compare the documents with this, so they show what the results say and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from thinwire.cli.measurement import Measurement, Report, speedup
from thinwire.units import format_bytes, format_rate, format_seconds

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CODECS = ROOT / "docs" / "guides" / "codecs.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SHOWN_RANKS = 4


def filled(document: Path) -> str:
    """The text of ``document`` with the block between the markers written anew."""
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([before + BEGIN, *BLOCKS[document](), END + after])


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


def _codecs() -> Iterator[str]:
    yield "Error of normal values, as a share of their squared norm, and the least there can be:\n"
    yield "| codec | bits a value | error | least | ratio | bound |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for row in msgspec.json.decode((RESULTS / "codec_quality.json").read_bytes()):
        yield (
            f"| `{row['codec']}` | {row['bits_per_value']:.3f} | {row['nmse']:.4g} | {row['optimum']:.4g} "
            f"| {row['ratio']:.3f} | {row['bound']} |"
        )
    yield "\nSpeed on one core, 64 MiB of float32; the ratio is to `numpy.copyto` of them in the same run:\n"
    yield "| codec | what | float32 input | ratio | bound |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for row in msgspec.json.decode((RESULTS / "codec_speed.json").read_bytes()):
        missed = ", missed" if row["ratio"] < row["bound"] else ""
        yield (
            f"| `{row['codec']}` | {row['what']} | {format_rate(row['input_bytes_per_s'])} "
            f"| {row['ratio']:.2f} | {row['bound'] or 'none'}{missed} |"
        )


BLOCKS: dict[Path, Callable[[], Iterator[str]]] = {README: _all_reduce, CODECS: _codecs}

if __name__ == "__main__":
    for document in BLOCKS:
        document.write_text(filled(document), encoding="utf-8")
