"""The command line is a promise: an option appears, changes or goes only together with the list below."""

from __future__ import annotations

from collections.abc import Iterator

import typer.core
import typer.main

from thinwire.cli.app import app

FROZEN = {
    "thinwire": {"--help", "-h", "--version"},
    "thinwire run": {"--help", "-h", "--replace", "--trace"},
    "thinwire bench": {"--help", "-h"},
    "thinwire bench link": {"--help", "-h", "--seconds", "--json"},
    "thinwire bench collective": {
        *("--help", "-h", "--ranks", "--min-bytes", "--max-bytes", "--factor", "--against", "--pairs"),
        *("--algorithm", "--transport", "--congestion-control", "--json"),
    },
    "thinwire lab": {"--help", "-h"},
    "thinwire lab run": {"--help", "-h", "--hosts", "--congestion-control", "--name", "--keep-going"},
    "thinwire lab up": {"--help", "-h", "--hosts", "--congestion-control", "--name"},
    "thinwire lab exec": {"--help", "-h", "--name"},
    "thinwire lab status": {"--help", "-h", "--json"},
    "thinwire lab down": {"--help", "-h", "--all"},
    "thinwire lab list": {"--help", "-h"},
    "thinwire probe": {"--help", "-h", "--quick", "--budget-s", "--join-s", "--output", "--plot", "--json"},
    "thinwire schedule": {"--help", "-h", "--ranks", "--algorithm", "--bytes", "--view"},
    "thinwire compare": {"--help", "-h", "--ranks"},
}


def _options(
    name: str, command: typer.core.TyperCommand | typer.core.TyperGroup
) -> Iterator[tuple[str, set[str]]]:
    options = {"--help", "-h"}
    for parameter in command.params:
        options.update(word for word in parameter.opts + parameter.secondary_opts if word.startswith("-"))
    yield name, options
    for inner, inner_command in getattr(command, "commands", {}).items():
        yield from _options(f"{name} {inner}", inner_command)


def test_options_are_those_promised() -> None:
    assert dict(_options("thinwire", typer.main.get_command(app))) == FROZEN
