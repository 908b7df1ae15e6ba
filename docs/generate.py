"""Write the pages of ``docs/reference`` and the pictures from the code they describe.

    make docs

A test compares the pages in the tree with what this makes, so they cannot drift.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from docs.blocks import filled
from docs.networks import network_picture
from docs.picture import all_reduce_picture
from docs.scenario_file import scenario_file
from thinwire import errors
from thinwire.lab import shipped
from thinwire.lab.environment import MEANINGS
from thinwire.runtime.config import RuntimeConfig, variable_of
from thinwire.runtime.rendezvous import SECRET_VARIABLE

DOCS = Path(__file__).resolve().parent
LAB_GUIDE = DOCS / "guides" / "lab.md"
_SECRET = (
    "what the processes of the job prove to each other that they know, at least 16 characters, the same for all; "
    "else one rank draws it and the others read it from torch's store."
)
_WRITTEN_BY = "<!-- Written by docs/generate.py from {source}: change that, then run `make docs`. -->\n\n"


def pages() -> dict[Path, str]:
    """Every generated page and what should be in it."""
    reference = DOCS / "reference"
    return {
        reference / "errors.md": _page("src/thinwire/errors.py", _errors()),
        reference / "environment.md": _page("src/thinwire/runtime/config.py", _environment()),
        reference / "scenario.md": _page("src/thinwire/lab/scenario.py", scenario_file(_attributes)),
        DOCS / "all_reduce.svg": all_reduce_picture(),
        **{
            DOCS / "networks" / f"{name}.svg": network_picture(network) for name, network in shipped().items()
        },
        LAB_GUIDE: filled(LAB_GUIDE.read_text(encoding="utf-8"), "scenarios", _scenarios()),
    }


def _page(source: str, lines: Iterator[str]) -> str:
    return _WRITTEN_BY.format(source=source) + "\n".join(lines).rstrip() + "\n"


def _errors() -> Iterator[str]:
    yield "# Errors\n"
    yield "Every error that thinwire raises, from the root of the tree down. Each message says what was expected, what"
    yield "was found and what to do. On the command line each becomes one line on stderr.\n"
    yield "| error | also a | raised when |"
    yield "| --- | --- | --- |"
    for name, value in vars(errors).items():
        if not (inspect.isclass(value) and issubclass(value, errors.ThinwireError)):
            continue
        bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
        yield f"| `{name}` | {bases} | {_first_paragraph(value.__doc__ or '')} |"


def _environment() -> Iterator[str]:
    yield "# Environment variables\n"
    yield "They are read when the first process group is made. All but the last override a field of"
    yield "`thinwire.runtime.config.RuntimeConfig`; none changes the result of a collective.\n"
    yield "| variable | default | meaning |"
    yield "| --- | --- | --- |"
    meanings = _attributes(RuntimeConfig.__doc__ or "")
    for field in msgspec.structs.fields(RuntimeConfig):
        default = "" if field.default is None else f"`{field.default}`".lower()
        yield f"| `{variable_of(field.name)}` | {default} | {meanings[field.name]} |"
    yield f"| `{SECRET_VARIABLE}` |  | {_SECRET} |"
    yield "\n## Inside a host of a lab\n"
    yield "Set by `thinwire lab run` and `exec` for the command, so that scripts written for torchrun run unchanged.\n"
    yield "| variable | what it holds |"
    yield "| --- | --- |"
    for name, meaning in MEANINGS.items():
        yield f"| `{name}` | {meaning} |"


def _scenarios() -> Iterator[str]:
    for name, scenario in shipped().items():
        yield f"\n### {name}\n\n{scenario.summary}.\n"
        yield f"![{scenario.summary}](../networks/{name}.svg)"
    yield ""


def _first_paragraph(docstring: str) -> str:
    return " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())


def _attributes(docstring: str) -> dict[str, str]:
    """The ``name: meaning`` entries under "Attributes:"."""
    body = inspect.cleandoc(docstring).split("Attributes:\n", 1)[1]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", body, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
