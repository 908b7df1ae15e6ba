"""``thinwire probe``: measure the network between the ranks of a job and show it.

Among the ranks of a job it is one of them; otherwise it launches ranks with torchrun's engine. Not here: the
measuring (``thinwire.probe``) and drawing (``topology_view``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinwire.cli.terminal import talk
from thinwire.errors import UsageError

if TYPE_CHECKING:
    from thinwire.topology import Topology


def probe(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Round trips, jitter and loss only, in under a second.")
    ] = False,
    budget_s: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="About how long to measure; more time, finer figures."),
    ] = 12.5,
    join_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for the other ranks.")
    ] = 30.0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the topology to FILE, for plans and comparisons."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a heat map into FILE (.png, .svg, ...).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> int:
    """Measure every link between the ranks: bandwidth, round trip, jitter, loss, queues, what links share.

    Options of torchrun (--nproc-per-node, --nnodes, --master-addr, ...) after these launch the ranks, one or more on
    each machine. Started as a rank of a job (by torchrun, or `thinwire lab run SCENARIO -- thinwire probe`), it
    measures that job's network.

    The status is 1 if something could not be measured; the topology says what and why.
    """
    for file in (output, plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{file}: there is no folder {file.parent} to write to")
    if plot is not None:
        from thinwire.cli.topology_view import check_plotting

        check_plotting()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return _launch(context.args)
    if context.args:
        raise UsageError(
            f"{context.args[0]}: torchrun's options launch ranks, but this is a rank of a job already"
        )
    topology = _measure("quick" if quick else "full", budget_s, join_s)
    if os.environ["RANK"] == "0":
        _report(topology, output, plot, json)
    return 1 if topology.gaps else 0


def _launch(torchrun_options: list[str]) -> int:
    """Start ranks that are given our own options, as they were typed."""
    from thinwire.cli.run import launch

    words = sys.argv[1:]
    own = words[: len(words) - len(torchrun_options)]
    return launch([*torchrun_options, "-m", "thinwire", *own])


def _measure(form: str, budget_s: float, join_s: float) -> Topology:
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "FATAL"
    )  # else a lost store prints stack traces of its C++ part
    from thinwire.cli.probe_worker import measure

    with talk().status("waiting for the other ranks") as status:
        return measure(form, budget_s, join_s, status.update)


def _report(topology: Topology, output: Path | None, plot: Path | None, json: bool) -> None:
    from thinwire.cli import topology_view
    from thinwire.topology import save

    if json:
        print(topology_view.as_json(topology))
    else:
        topology_view.show(topology)
    if output:
        save(topology, output)
    if plot:
        topology_view.plot(topology, plot)
