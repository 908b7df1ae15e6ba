"""``thinwire bench``: a table of one collective over sizes, in the terms of nccl-tests.

Alone it starts local ranks; under torchrun it measures over that job's ranks. Not here: the measuring itself
(``bench_worker``) and its definitions (``measurement``).
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from thinwire.cli.measurement import (
    BenchKind,
    BenchRequest,
    Measurement,
    Report,
    Surroundings,
    sizes_between,
    speedup,
)
from thinwire.cli.terminal import talk
from thinwire.errors import UsageError
from thinwire.runtime.config import variable_of
from thinwire.units import format_bytes, format_seconds, parse_bytes


class Rival(enum.StrEnum):
    GLOO = "gloo"


def bench(
    kind: Annotated[BenchKind, typer.Argument(metavar="COLLECTIVE", show_default=False)],
    ranks: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Numbers of local ranks to measure with. [default: 4]"),
    ] = None,
    min_bytes: Annotated[str, typer.Option(metavar="SIZE", help="The smallest size.")] = "1KiB",
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="The largest size.")] = "256MiB",
    factor: Annotated[int, typer.Option(metavar="N", min=2, help="From one size to the next.")] = 4,
    against: Annotated[
        Rival | None, typer.Option(metavar="BACKEND", help="Measure gloo too, in turn with thinwire.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many turns each backend has at each size.")
    ] = 7,
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this algorithm at every size (ring, direct, ...).")
    ] = None,
    transport: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this transport between all ranks (tcp, unix).")
    ] = None,
    congestion_control: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of thinwire's TCP connections (cubic, bbr, ...). [default: by round trip]"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure COLLECTIVE: all-reduce, reduce-scatter, all-gather, broadcast, all-to-all or send-recv.

    Values are float32, and the sum where one is taken. Times are medians over the turns, with half of their
    interquartile range; `wrong` counts elements that differ from the exact result; `ratio` is how many times faster
    thinwire is, the median over pairs of turns. algbw and busbw are defined as in nccl-tests.

    Started by torchrun (or `thinwire run -m thinwire bench ...`), it measures over the ranks of that job.
    """
    sizes = sizes_between(parse_bytes(min_bytes), parse_bytes(max_bytes), factor)
    if not sizes or sizes[0] < 4:
        raise UsageError(
            f"no size from --min-bytes {min_bytes} to --max-bytes {max_bytes}; 4 bytes is the least"
        )
    for field, value in (
        ("algorithm", algorithm),
        ("transport", transport),
        ("congestion_control", congestion_control),
    ):
        if value:
            os.environ[variable_of(field)] = value
    backends = ("thinwire", against.value) if against else ("thinwire",)
    choices = (
        f"algorithm {algorithm or 'by size'}, transport {transport or 'by host'}, "
        f"thinwire's congestion control {congestion_control or 'by round trip'}"
    )
    printer = _Printer(backends, choices, json)
    for num_ranks in _ranks(ranks):
        request = BenchRequest(
            kind=kind, num_ranks=num_ranks, sizes_bytes=sizes, backends=backends, pairs=pairs
        )
        printer.begin(request)
        _measure(request, printer.hear)
    printer.end()


def _in_a_job() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _ranks(ranks: str | None) -> list[int]:
    if _in_a_job():
        if ranks:
            raise UsageError("--ranks starts local ranks, but this is a rank of a job already: leave it out")
        return [int(os.environ["WORLD_SIZE"])]
    words = (ranks or "4").split(",")
    if not all(word.isdecimal() and int(word) >= 2 for word in words):
        raise UsageError(f"--ranks {ranks}: expected numbers from 2 up, separated by commas, as in 2,4,8")
    return [int(word) for word in words]


def _measure(request: BenchRequest, hear: Callable[[Measurement | str], None]) -> None:
    """Let ``hear`` know what rank 0 measures, as it comes; on the other ranks of a job, nothing."""
    if _in_a_job():
        _be_a_rank(hear if os.environ["RANK"] == "0" else lambda word: None, request, "env://")
        return
    from thinwire.cli.local_ranks import words_of_rank_0

    for word in words_of_rank_0(_be_a_rank, request, request.num_ranks):
        hear(word)


def _be_a_rank(say: Callable[[Measurement | str], None], request: BenchRequest, init_method: str) -> None:
    from thinwire.cli.bench_worker import measure

    measure(say, request, init_method)


class _Printer:
    """Prints what is measured, as it comes: progress on stderr; on stdout the table, or JSON at the end."""

    def __init__(self, backends: tuple[str, ...], choices: str, json: bool) -> None:
        self.backends = backends
        self.choices = choices
        self.surroundings = Surroundings.of_this_machine()
        self.json = json
        self.is_speaker = os.environ.get("RANK", "0") == "0"
        self.rows: list[Measurement] = []
        self.status = talk().status("")

    def begin(self, request: BenchRequest) -> None:
        if not self.is_speaker:
            return
        if not self.json:
            print(
                f"# {request.kind} of float32, {request.num_ranks} ranks; {self.choices}; {self.surroundings}"
            )
            print(self._heading(), flush=True)
        self.status.update(f"starting {request.num_ranks} ranks")
        self.status.start()

    def hear(self, word: Measurement | str) -> None:
        if isinstance(word, str):
            self.status.update(word)
            return
        self.rows.append(word)
        if not self.json and len(self.rows) % len(self.backends) == 0:
            print(self._line(self.rows[-len(self.backends) :]), flush=True)

    def end(self) -> None:
        self.status.stop()
        if self.json and self.is_speaker:
            report = Report(surroundings=self.surroundings, choices=self.choices, rows=tuple(self.rows))
            print(msgspec.json.format(msgspec.json.encode(report)).decode())

    def _heading(self) -> str:
        columns = "".join(
            f" | {name:>9} {'±':>4} {'algbw':>7} {'busbw':>7} {'wrong':>5}" for name in self.backends
        )
        return f"# {'size':>8}{columns}{' | ratio' if len(self.backends) == 2 else ''}   (bandwidths in GB/s)"

    def _line(self, rows: list[Measurement]) -> str:
        columns = "".join(
            f" | {format_seconds(row.time_s):>9} {row.spread:>4.0%}"
            f" {row.algbw / 1e9:>7.3f} {row.busbw / 1e9:>7.3f} {row.num_wrong:>5}"
            for row in rows
        )
        ratio = f" | {speedup(*rows):.2f}x" if len(rows) == 2 else ""
        return f"{format_bytes(rows[0].size_bytes):>10}{columns}{ratio}"
