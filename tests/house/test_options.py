"""The command line is a promise: an option appears, changes or goes only together with the list below."""

from __future__ import annotations

import click
import typer.main

from thinwire.cli.app import app

FROZEN = {
    "thinwire": {"--help", "-h", "--version"},
    "thinwire run": {"--help", "-h", "--replace", "--trace"},
    "thinwire schedule": {"--help", "-h", "--algorithm", "--bytes", "--ranks", "--view"},
    "thinwire probe": {"--help", "-h", "--budget-s", "--json", "--output", "--plot", "--quick"},
    "thinwire compare": {"--help", "-h", "--ranks"},
    "thinwire lab": {"--help", "-h"},
    "thinwire lab run": {"--help", "-h", "--congestion-control", "--hosts", "--keep-going", "--name"},
    "thinwire lab up": {"--help", "-h", "--congestion-control", "--hosts", "--name"},
    "thinwire lab exec": {"--help", "-h", "--name"},
    "thinwire lab status": {"--help", "-h", "--json"},
    "thinwire lab down": {"--help", "-h", "--all"},
    "thinwire lab list": {"--help", "-h"},
    "thinwire bench": {"--help", "-h"},
    "thinwire bench link": {"--help", "-h", "--json", "--seconds"},
    "thinwire bench collective": {
        "--help",
        "-h",
        "--against",
        "--algorithm",
        "--factor",
        "--json",
        "--max-bytes",
        "--min-bytes",
        "--pairs",
        "--ranks",
        "--transport",
    },
}


def _options(name: str, command: click.Command) -> dict[str, set[str]]:
    """The options of a command and of everything below it."""
    own = {"--help", "-h"}
    for parameter in command.params:
        own.update(word for word in parameter.opts + parameter.secondary_opts if word.startswith("-"))
    found = {name: own}
    for word, below in getattr(command, "commands", {}).items():
        found |= _options(f"{name} {word}", below)
    return found


def test_options_are_those_promised() -> None:
    assert _options("thinwire", typer.main.get_command(app)) == FROZEN
