"""Write the measured tables of the README and the guides from ``benchmarks/results``, which programs wrote.

    thinwire bench all-reduce --ranks 2,3,4,8 --against gloo --json > benchmarks/results/all_reduce.json
    (the same with --ranks 4 --transport tcp --congestion-control bbr: all_reduce_tcp_bbr.json)
    python benchmarks/shaped.py > benchmarks/results/shaped.json
    python benchmarks/ddp.py > benchmarks/results/ddp.json
    python -m benchmarks.overhead > benchmarks/results/overhead.json
    python -m benchmarks.trace_overhead > benchmarks/results/trace_overhead.json
    python benchmarks/lab_fidelity.py --json
    python benchmarks/probe_accuracy.py
    python benchmarks/links_learned.py
    python benchmarks/forecast.py
    python benchmarks/codec_quality.py > benchmarks/results/codec_quality.json
    python benchmarks/codec_speed.py > benchmarks/results/codec_speed.json
    python -m benchmarks.autopilot --append benchmarks/results/autopilot.json (and --model text, --seeds 0,1,2)
    python -m benchmarks.autopilot --plot docs
    python benchmarks/codec_limits.py > benchmarks/results/codec_limits.json
    python benchmarks/codec_stages.py > benchmarks/results/codec_stages.json
    python benchmarks/coded_all_reduce.py > benchmarks/results/coded_all_reduce.json
    python -m benchmarks.readme

A table stands between ``<!-- measured: NAME -->`` and ``<!-- measured: end -->``. A test compares the pages with this,
so they show what the results say and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec

from benchmarks import forecast, lab_fidelity, links_learned, probe_accuracy
from benchmarks.autopilot import runs as autopilot_runs
from benchmarks.autopilot.tables import tables as autopilot_tables
from benchmarks.ddp import DdpReport
from benchmarks.overhead import OverheadReport
from benchmarks.shaped import Share
from benchmarks.trace_overhead import TraceReport
from thinwire.cli.measurement import Measurement, Report, speedup
from thinwire.units import format_bytes, format_rate, format_seconds, three_digits

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
GUIDES = ROOT / "docs" / "guides"
GUIDES_MEASURED = ("getting-started", "lab", "probe", "codecs", "sparse-codecs", "fidelity", "autopilot")
PAGES = (README, *(GUIDES / f"{name}.md" for name in GUIDES_MEASURED))
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(\n<!-- measured: end -->)", re.DOTALL)
SHOWN_RANKS = 4
T = TypeVar("T")


def filled(page: str) -> str:
    """``page`` with every block between markers written anew."""
    return BLOCK.sub(lambda block: block[1] + "\n".join(BLOCKS[block[2]]()) + block[3], page)


def _all_reduce() -> Iterator[str]:
    report = _result("all_reduce", Report)
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


def _tcp() -> Iterator[str]:
    report = _result("all_reduce_tcp_bbr", Report)
    ratios = [speedup(*pair) for pair in zip(report.rows[::2], report.rows[1::2], strict=True)]
    sizes = [format_bytes(row.size_bytes) for row in report.rows[::2]]
    yield (
        "Within one host ranks read each other's memory, whatever the congestion control. Made to use TCP with "
        f"BBR, like Gloo, thinwire is this many times faster with {report.rows[0].num_ranks} ranks: "
        + ", ".join(f"{ratio:.2f} ({size})" for ratio, size in zip(ratios, sizes, strict=True))
        + ". Both then spend their time in the kernel, copying."
    )


def _shaped() -> Iterator[str]:
    yield "`all_reduce` of 16 MiB, 4 ranks, links shaped; the share of what they allow, headers included:\n"
    yield "| network | the system's congestion control | thinwire | Gloo |"
    yield "| --- | --- | ---: | ---: |"
    shares = _result("shaped", list[Share])
    for ours, theirs in zip(shares[::2], shares[1::2], strict=True):
        yield (
            f"| `{ours.scenario}` | {ours.congestion_control} | {ours.share_of_link:.1%} | {theirs.share_of_link:.1%} |"
        )


def _ddp() -> Iterator[str]:
    report = _result("ddp", DdpReport)
    yield (
        f"A step of DistributedDataParallel, links unlimited, {report.rows[0].num_ranks} ranks on "
        f"{report.surroundings}; medians of {len(report.rows[0].gloo_s)} pairs of runs:\n"
    )
    yield "| model | thinwire | Gloo | thinwire needs |"
    yield "| --- | ---: | ---: | ---: |"
    for row in report.rows:
        ours, theirs = (format_seconds(median(times_s)) for times_s in (row.thinwire_s, row.gloo_s))
        yield f"| {row.model} | {ours} | {theirs} | {row.ratio:.2f}x |"
    yield "\nMade by `benchmarks/shaped.py` and `benchmarks/ddp.py`."


def _overhead() -> Iterator[str]:
    report = _result("overhead", OverheadReport)
    yield (
        f"Processor time of one `all_reduce` on one of {report.num_ranks} ranks, and how often one of its threads went "
        "to sleep, without torch.distributed's Python front end:\n"
    )
    yield "| size | thinwire: user, system | Gloo: user, system | sleeps: thinwire, Gloo | thinwire's frames |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for ours, theirs in zip(report.rows[::2], report.rows[1::2], strict=True):
        times = (f"{format_seconds(cost.user_s)}, {format_seconds(cost.system_s)}" for cost in (ours, theirs))
        yield (
            f"| {format_bytes(ours.size_bytes)} | {' | '.join(times)} "
            f"| {ours.num_sleeps:.0f}, {theirs.num_sleeps:.0f} | {ours.num_frames:.1f} |"
        )
    yield "\nMade by `benchmarks/overhead.py`."


def _trace() -> Iterator[str]:
    report = _result("trace_overhead", TraceReport)
    yield (
        f"What recording adds to an `all_reduce` of {report.num_ranks} ranks, {report.surroundings}: by the clock, "
        f"recording on and off in {len(report.rows[0].on_s)} pairs of turns, and by counting what it does:\n"
    )
    yield "| size | by the clock | counted |"
    yield "| ---: | ---: | ---: |"
    for row in report.rows:
        yield (
            f"| {format_bytes(row.size_bytes)} | {row.measured:+.1%} ± {row.spread:.1%} "
            f"| {row.counted:.3%} ({row.spans_a_call:.0f} span of {format_seconds(row.span_s)}) |"
        )
    yield "\nWithout `--trace` nothing is recorded. Made by `benchmarks/trace_overhead.py`."


def _result(name: str, shape: type[T]) -> T:
    return msgspec.json.decode((RESULTS / f"{name}.json").read_bytes(), type=shape)


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


def _probe_accuracy() -> Iterator[str]:
    results = probe_accuracy.load()
    days = sorted({result.surroundings.day for result in results})
    yield f"Made by `benchmarks/probe_accuracy.py` in the lab, {results[0].surroundings}, {' to '.join(days)}."
    yield "Truth, and after it the link that is farthest from it; a bound that is broken is **bold**.\n"
    yield (
        "| scenario, hosts | Mbit/s | round trip, ms | loss, % | named | full, s | quick form, Mbit/s | stated | "
        "truth outside the interval by | quick, s |"
    )
    yield "| --- | --- | --- | --- | --- | ---: | --- | ---: | ---: | ---: |"
    for result in results:
        rows = {row.demand: row for row in result.rows}
        cells = [
            _told(rows.get("bandwidth")),
            _told(rows.get("round trip")),
            _told(rows.get("loss"), 100),
            "rightly" if rows["what stands out"].is_met else f"**{rows['what stands out'].measured}**",
            f"{result.full_s:.1f}",
            *_quick(rows),
        ]
        yield f"| `{result.scenario}`, {result.num_hosts} | {' | '.join(cells)} |"


def _quick(rows: dict[str, probe_accuracy.Row]) -> Iterator[str]:
    """The columns of the quick form: what it states, of which part of the links, and how true the intervals are."""
    seconds, interval = rows.get("seconds, quick form"), rows.get("interval, quick form")
    if seconds is None or interval is None:  # a result of before there was one
        yield from ("not measured yet", "", "", "")
        return
    yield _told(rows["bandwidth, quick form"])
    yield f"{rows['stated, quick form'].measured:.0%}".replace("%", " %")
    yield _marked(f"{interval.error:.0%}".replace("%", " %"), is_met=interval.is_met)
    yield _marked(f"{seconds.error:.2f}", is_met=seconds.is_met)


def _marked(text: str, *, is_met: bool) -> str:
    return text if is_met else f"**{text}**"


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


def _autopilot() -> Iterator[str]:
    if not autopilot_runs.RESULTS.exists():
        yield "Not measured on this tree yet, for want of a quiet machine; `python -m benchmarks.autopilot` does it."
        return
    yield from autopilot_tables(autopilot_runs.load())
    for model in ("images", "text"):
        if (ROOT / "docs" / f"autopilot_{model}.png").exists():
            yield f"\n![{model}: loss against seconds and bytes, a column a network](../autopilot_{model}.png)"


def _codec_limits() -> Iterator[str]:
    yield "| what | measured | least there can be | ratio | bound |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for row in msgspec.json.decode((RESULTS / "codec_limits.json").read_bytes()):
        yield (
            f"| {row['what']} | {row['figure']:.4g} {row['unit']} | {row['optimum']:.4g} "
            f"| {row['ratio']:.3f} | {row['bound']} |"
        )


def _codec_stages() -> Iterator[str]:
    yield "| what | throughput | ratio to copying | asked |"
    yield "| --- | ---: | ---: | ---: |"
    for row in msgspec.json.decode((RESULTS / "codec_stages.json").read_bytes()):
        asked = ""
        if "bound" in row:
            is_rate = row["bound_is_of"] != "ratio"
            asked = format_rate(row["bound"] * 1e6) if is_rate else f"a ratio of {row['bound']}"
            asked += ", missed" if row[row["bound_is_of"]] < row["bound"] else ""
        rate = format_rate(row["megabytes_per_s"] * 1e6)
        yield f"| {row['what']} | {rate} | {row['ratio']:.2f} | {asked} |"


def _coded_all_reduce() -> Iterator[str]:
    yield "An all-reduce of 25 MB of float32 among four ranks on two cores, with error feedback, from the barrier"
    yield "before the call to the slowest rank's end; the share of what the links allow for the bytes that travel:\n"
    yield "| network | fidelity | time | share of the link | a rank's cores | the call itself |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for row in msgspec.json.decode((RESULTS / "coded_all_reduce.json").read_bytes()):
        share = f"{row['share_of_link']:.0%}" if row["share_of_link"] is not None else ""
        times = (format_seconds(row[name]) for name in ("cpu_s", "submit_s"))
        yield (
            f"| `{row['network']}` | `{row['fidelity']}` | {format_seconds(row['time_s'])} | {share} "
            f"| {' | '.join(times)} |"
        )


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "all_reduce": _all_reduce,
    "all_reduce_tcp": _tcp,
    "shaped": _shaped,
    "ddp": _ddp,
    "overhead": _overhead,
    "trace": _trace,
    "lab_fidelity": _lab_fidelity,
    "probe_accuracy": _probe_accuracy,
    "links_learned": lambda: links_learned.table(links_learned.load()),
    "forecast": _forecast,
    "codecs": _codecs,
    "autopilot": _autopilot,
    "codec_limits": _codec_limits,
    "codec_stages": _codec_stages,
    "coded_all_reduce": _coded_all_reduce,
}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
