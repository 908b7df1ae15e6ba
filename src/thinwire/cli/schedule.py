"""``thinwire schedule``: prove an algorithm's schedule and show what travels, step by step.

Not here: the algorithms, the proof and the views, which are ``thinwire.collective``.
"""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from thinwire.cli.terminal import talk
from thinwire.units import parse_bytes


class View(enum.StrEnum):
    STEPS = "steps"
    PROGRAMS = "programs"
    MERMAID = "mermaid"


def schedule(
    kind: Annotated[str, typer.Argument(metavar="COLLECTIVE", show_default=False)],
    ranks: Annotated[int, typer.Option(metavar="N", min=1, help="How many ranks.")] = 4,
    algorithm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="ring, direct, hierarchical:group_size=2, ... [default: by --bytes]"
        ),
    ] = None,
    size: Annotated[
        str, typer.Option("--bytes", metavar="SIZE", help="Of what size to choose the algorithm for.")
    ] = "1MiB",
    view: Annotated[
        View, typer.Option(help="Messages by step, each rank's program, or a Mermaid diagram.")
    ] = View.STEPS,
) -> None:
    """Prove how COLLECTIVE (all-reduce, broadcast, barrier, ...) is done, and show it."""
    from thinwire.collective import Collective, as_mermaid, as_steps, as_text, choose, generate, prove
    from thinwire.collective.algorithms import collective_kind

    what = collective_kind(kind.replace("-", "_"))
    choice = choose(what, ranks, parse_bytes(size), override=algorithm)
    found = generate(Collective(kind=what, num_ranks=ranks), choice.algorithm, **choice.params)
    proof = prove(found)
    draw = {View.STEPS: as_steps, View.PROGRAMS: as_text, View.MERMAID: as_mermaid}[view]
    print(draw(found))
    talk().print(
        f"proved: {proof.steps} steps; the busiest rank sends {max(proof.messages_sent)} messages with "
        f"{proof.bytes_sent_fraction} of the data"
    )
