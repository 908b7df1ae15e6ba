"""``thinwire bench link``: every protocol between two hosts in one table, with a recommendation.

What a user runs first on a network that disappoints. Not here: the measuring (``thinwire.probe.link_test``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from thinwire.cli.bench import bench
from thinwire.cli.terminal import data, talk
from thinwire.errors import UsageError
from thinwire.units import three_digits

if TYPE_CHECKING:
    from rich.table import Table

    from thinwire.probe.link_test import LinkTest


def link(
    way_s: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", help="How long each way is tried, at least.")
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare TCP with each congestion control and 1 to 8 streams, Unix sockets and UDP from rank 0 to rank 1.

    Alone it starts two local ranks. Between two hosts it is started as a rank of a job of two:
    `thinwire run --nnodes 2 --node-rank 0 --master-addr 10.0.0.1 -m thinwire bench link` on each, or in a lab
    `thinwire lab run SCENARIO --hosts 2 -- thinwire bench link`.

    The round trips are those of small datagrams that travel at the same time. Errors are, of streams, bytes sent again;
    of UDP, datagrams lost.
    """
    in_a_job = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    with talk().status("starting") as status:

        def hear(word: Any) -> None:
            if isinstance(word, str):
                status.update(word)
            else:
                heard.append(word)

        heard: list[LinkTest] = []
        if in_a_job:
            if os.environ["WORLD_SIZE"] != "2":
                raise UsageError(
                    f"a link has two ends, but this job has {os.environ['WORLD_SIZE']} ranks: launch two, one a host"
                )
            _be_a_rank(hear if os.environ["RANK"] == "0" else lambda word: None, way_s, "env://")
        else:
            from thinwire.cli.local_ranks import words_of_rank_0

            for word in words_of_rank_0(_be_a_rank, way_s, 2):
                hear(word)
    for test in heard:
        if json:
            print(msgspec.json.format(msgspec.json.encode(test)).decode())
        else:
            console = data()
            console.print(_table(test))
            settings = " ".join(f"{name}={value}" for name, value in test.settings.items())
            console.print(f"use {test.recommended}: {settings}", soft_wrap=True)
            console.print(f"because {test.reason}", soft_wrap=True)


def _be_a_rank(say: Callable[[Any], None], way_s: float, init_method: str) -> None:
    from thinwire.cli.probe_worker import try_link

    say(try_link(init_method, way_s, say))


def _table(test: LinkTest) -> Table:
    from rich.table import Table

    table = Table(f"{test.source} to {test.destination}", box=None, header_style="bold")
    for heading in ("Mbit/s", "round trip\nms", "p99\nms", "p99.9\nms", "errors\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in test.results:
        if result.failure:
            table.add_row(str(result.way), result.failure)
            continue
        values = [
            (result.bytes_per_s, 8e-6),
            (result.rtt_median_s, 1e3),
            (result.rtt_p99_s, 1e3),
            (result.rtt_p999_s, 1e3),
            (result.error_rate, 100),
        ]
        cells = ["-" if value is None else three_digits(value * scale) for value, scale in values]
        mark = "bold" if result.way == test.recommended else None
        table.add_row(str(result.way), *cells, style=mark)
    return table


class _LinkOrCollective(TyperGroup):
    """``bench link``, or else ``bench COLLECTIVE`` with its options before or after it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["collective", *args])


benchmarks = typer.Typer(
    name="bench",
    cls=_LinkOrCollective,
    help="Measure a collective, or every way over a link.",
    no_args_is_help=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
benchmarks.command()(link)
benchmarks.command("collective")(bench)
