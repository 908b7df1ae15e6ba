"""A topology for people: a table, a heat map in the terminal or as an image, and JSON for programs.

Not here: measuring, and the file (``thinwire.topology``).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.table import Table
from rich.text import Text

from thinwire.cli.terminal import data
from thinwire.errors import UsageError
from thinwire.topology import Link, Topology
from thinwire.units import three_digits

_LEAST_RANGE = 10
_BRIGHT = 0.5  # of a colour from black to white: where black letters are read better than white ones

_SCALE = (
    "#b2182b",
    "#d6604d",
    "#f4a582",
    "#fddbc7",
    "#d9f0d3",
    "#a6dba0",
    "#5aae61",
    "#1b7837",
)  # slow to fast


def show(topology: Topology) -> None:
    """Print the table, the heat map, what stands out and what is missing."""
    console = data()
    console.print(_table(topology))
    if any(link.bandwidth_bytes_per_s for link in topology.links):
        console.print(_heat_map(topology))
    for finding in topology.findings:
        console.print(f"* {finding}")
    for gap in topology.gaps:
        console.print(f"! not measured: {gap.what}: {gap.reason}")


def as_json(topology: Topology) -> str:
    """All fields of the topology, in base units."""
    return msgspec.json.format(msgspec.json.encode(topology)).decode()


def check_plotting() -> None:
    """Raises ``UsageError`` if images cannot be drawn, before any time is spent on measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("drawing needs matplotlib: install it with `pip install 'thinwire[plot]'`")


def plot(topology: Topology, file: Path) -> None:
    """Draw bandwidths and round trips as two heat maps; what was not measured stays white.

    Raises:
        UsageError: there is no matplotlib, or it does not know this kind of file, or the file cannot be written.
    """
    check_plotting()
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    names = [host.name for host in topology.hosts]
    figure = Figure(figsize=(4 + len(names), 2.5 + 0.45 * len(names)), layout="constrained")
    panels: list[tuple[str, Callable[[Link], float | None], float, str]] = [
        ("bandwidth, Mbit/s", lambda link: link.bandwidth_bytes_per_s, 8e-6, "viridis"),
        ("round trip, ms", lambda link: link.rtt_median_s, 1e3, "viridis_r"),
    ]
    for axes, (title, value_of, scale, colors) in zip(figure.subplots(1, 2), panels, strict=True):
        grid = [[math.nan] * len(names) for _ in names]
        for link in topology.links:
            value = value_of(link)
            if value:
                grid[names.index(link.source)][names.index(link.destination)] = value * scale
        known = [value for row in grid for value in row if not math.isnan(value)]
        is_more_better = not colors.endswith("_r")
        scale_of_colors = LogNorm(*_range(known, is_more_better=is_more_better)) if known else LogNorm(1, 10)
        image = axes.imshow(grid, cmap=colors, norm=scale_of_colors)
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                if not math.isnan(value):
                    red, green, blue, _ = image.cmap(image.norm(value))
                    ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > _BRIGHT else "white"
                    axes.text(column, row, three_digits(value), ha="center", va="center", color=ink)
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("to")
        axes.set_ylabel("from")
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot draw into {file}: {error}") from error


def _table(topology: Topology) -> Table:
    """Bandwidths in Mbit/s, times in milliseconds, loss in percent."""
    table = Table("from", "to", box=None, header_style="bold")
    columns: list[tuple[str, Callable[[Link], float | None], float]] = [
        ("one stream\nMbit/s", lambda link: link.one_stream_bytes_per_s, 8e-6),
        ("several\nMbit/s", lambda link: link.several_streams_bytes_per_s, 8e-6),
        ("bursts\nMbit/s", lambda link: link.burst_bytes_per_s, 8e-6),
        ("at least\nMbit/s", lambda link: link.burst_low_bytes_per_s, 8e-6),
        ("at most\nMbit/s", lambda link: link.burst_high_bytes_per_s, 8e-6),
        ("round trip\nms", lambda link: link.rtt_median_s, 1e3),
        ("p99\nms", lambda link: link.rtt_p99_s, 1e3),
        ("jitter\nms", lambda link: link.jitter_s, 1e3),
        ("loss\n%", lambda link: link.loss, 100),
        ("queue\nms", lambda link: link.queue_s, 1e3),
    ]
    columns = [column for column in columns if any(column[1](link) is not None for link in topology.links)]
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for link in topology.links:
        values = [(value_of(link), scale) for _, value_of, scale in columns]
        cells = ["-" if value is None else three_digits(value * scale) for value, scale in values]
        table.add_row(link.source, link.destination, *cells)
    return table


def _heat_map(topology: Topology) -> Table:
    """Rows send, columns receive."""
    rates = {link.ends: link.bandwidth_bytes_per_s for link in topology.links if link.bandwidth_bytes_per_s}
    slowest, fastest = min(rates.values()), max(rates.values())
    table = Table("Mbit/s", title="from row to column", box=None, title_justify="left", padding=(0, 0))
    for host in topology.hosts:
        table.add_column(f" {host.name} ", justify="center")
    for source in topology.hosts:
        cells = []
        for destination in topology.hosts:
            rate = rates.get((source.name, destination.name))
            cells.append(Text("·") if rate is None else _cell(rate, slowest, fastest))
        table.add_row(f"{source.name} ", *cells)
    return table


def _cell(rate: float, slowest: float, fastest: float) -> Text:
    low, high = _range([slowest, fastest])
    place = (math.log(rate) - math.log(low)) / (math.log(high) - math.log(low))
    color = _SCALE[min(len(_SCALE) - 1, int(place * len(_SCALE)))]
    return Text(f"{three_digits(rate * 8e-6):^7}", style=f"black on {color}")


def _range(values: Sequence[float], *, is_more_better: bool = True) -> tuple[float, float]:
    """What the colours stand for, at least a factor of ten: noise among equals should not look like a mountain."""
    low, high = min(values), max(values)
    return (min(low, high / _LEAST_RANGE), high) if is_more_better else (low, max(high, low * _LEAST_RANGE))
