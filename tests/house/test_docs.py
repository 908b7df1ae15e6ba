"""What the documents say is what the code does: generated pages, commands, environment variables, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from torch.distributed.run import get_args_parser

from docs.generate import pages
from tests.house.tree import ROOT, modules
from thinwire.cli.app import app

TORCHRUN_OPTIONS = (
    "--nproc-per-node --nnodes --node-rank --rdzv-endpoint --rdzv-backend --rdzv-id --max-restarts"
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_generated_pages_are_up_to_date() -> None:
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_every_environment_variable_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    used = {
        name
        for path in [*modules().values(), *DOCUMENTS]
        for name in re.findall(r"THINWIRE_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert not {name for name in used if f"`{name}`" not in page}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    named = re.findall(r"`((?:src|tests|docs|examples|benchmarks|experiments)/[\w./-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def _commands(document: Path) -> list[str]:
    """The lines of the ``sh`` blocks of a document."""
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_shown_can_be_typed(document: Path) -> None:
    """Targets of make exist; commands and options of thinwire and torchrun exist; files named exist."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in _commands(document):
        words = [word for word in line.split() if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        if words[0] == "make":
            assert set(words[1:]) <= targets, line
        elif words[0] == "thinwire":
            _parse_command(words[1:])
        assert all((ROOT / word).exists() for word in words if word.startswith("examples/")), line


def _parse_command(words: list[str]) -> None:
    """Let the parsers of thinwire and of torchrun take the words, without running anything."""
    group = typer.main.get_command(app)
    context = group.make_context("thinwire", list(words))
    assert isinstance(group, typer.core.TyperGroup)
    name, command, rest = group.resolve_command(context, list(words))
    assert command
    inner = command.make_context(name, rest, parent=context)
    if name == "run":
        options = get_args_parser().parse_args(inner.args)
        if options.module:
            _parse_command(options.training_script_args)
