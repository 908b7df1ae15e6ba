"""Finding and reading scenarios: those shipped with thinwire by name, others by path; mistakes with line and
reason.

Not here: what a scenario may say (``scenario``) and whether it makes sense (``network``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

from thinwire.errors import ScenarioError, UsageError
from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Scenario

_TABLE = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-.\"']+)\s*=")
_WHERE = re.compile(r" - at `\$?\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")

_SHIPPED = resources.files("thinwire.lab") / "scenarios"


def shipped() -> dict[str, Scenario]:
    """Every scenario that comes with thinwire, by name, in the order of the names."""
    files = sorted(
        (file for file in _SHIPPED.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name
    )
    return {file.name.removesuffix(".toml"): parse(file.read_text(), file.name) for file in files}


def load(name_or_path: str | Path) -> Scenario:
    """The scenario of that name, or in that file (anything that ends in ``.toml`` is a file).

    Raises:
        UsageError: there is none, or it cannot be built: with the line and the reason.

    >>> load("lan-1g").hosts
    4
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        try:
            return parse(Path(text).read_text(), text)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the scenario {text} cannot be read: {error}") from error
    file = _SHIPPED / f"{text}.toml"
    if "/" in text or not file.is_file():
        raise UsageError(
            f"no scenario is called {text!r}; there are {', '.join(shipped())}, or give a .toml file"
        )
    return parse(file.read_text(), file.name)


def parse(text: str, file: str) -> Scenario:
    """The scenario in ``text``; ``file`` is its name in messages.

    Raises:
        UsageError: ``file:line: reason``.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
        network_of(scenario)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: {error}") from error
    except msgspec.ValidationError as error:
        reason = str(error)
        where = _WHERE.search(reason)
        unknown = _UNKNOWN.search(reason)
        path = _path(where["path"] if where else "") + ([unknown["key"]] if unknown else [])
        raise UsageError(f"{file}:{line_of(text, path)}: {_WHERE.sub('', reason)}") from error
    except ScenarioError as error:
        raise UsageError(f"{file}:{line_of(text, error.path)}: {error}") from error
    return scenario


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line of the TOML ``text`` that says most of ``path``: its table, its key, or what the key is part
    of.

    >>> line_of("a = 1\\n[[b]]\\nc = 2\\n[[b]]\\nc = 3", ("b", 1, "c"))
    5
    """
    best_line, best_length = 1, 0
    table: list[str | int] = []
    counts: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            *outer, last = _keys(header[2])
            table = []
            for part in outer:
                table.append(part)
                if tuple(table) in counts:
                    table.append(counts[tuple(table)])
            table.append(last)
            if header[1] == "[[":
                index = counts[tuple(table)] = counts.get(tuple(table), -1) + 1
                table.append(index)
            said = table
        elif key := _KEY.match(line):
            said = table + _keys(key[1])
        else:
            continue
        length = len(said) if list(path[: len(said)]) == said else 0
        if length > best_length:
            best_line, best_length = number, length
    return best_line


def _keys(dotted: str) -> list[str | int]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _path(text: str) -> list[str | int]:
    """``pipe[0].there.rate_mbit`` in parts."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", text)]
