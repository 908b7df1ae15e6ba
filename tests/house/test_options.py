"""The command line is a promise: an option appears, changes or goes only together with the list below."""

from __future__ import annotations

import typer.main

from thinwire.cli.app import app

FROZEN = {
    "thinwire": {"--help", "-h", "--version"},
    "thinwire run": {"--help", "-h", "--replace", "--trace"},
    "thinwire bench": {
        *("--help", "-h", "--ranks", "--min-bytes", "--max-bytes", "--factor", "--against", "--pairs"),
        *("--algorithm", "--transport", "--json"),
    },
    "thinwire schedule": {"--help", "-h", "--ranks", "--algorithm", "--bytes", "--view"},
    "thinwire compare": {"--help", "-h", "--ranks"},
}


def test_options_are_those_promised() -> None:
    group = typer.main.get_command(app)
    found = {}
    for name, command in {"": group, **group.commands}.items():
        options = {"--help", "-h"}
        for parameter in command.params:
            options.update(word for word in parameter.opts + parameter.secondary_opts if word.startswith("-"))
        found[f"thinwire {name}".strip()] = options
    assert found == FROZEN
