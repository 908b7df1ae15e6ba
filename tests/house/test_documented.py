"""Every module says what it is; every public class and function says what it does; every doctest is true."""

from __future__ import annotations

import ast
import doctest
import importlib

import pytest

from tests.house.tree import PACKAGE, modules, syntax

# Their members are their documentation.
SELF_EXPLAINING_BASES = {"enum.Enum", "enum.IntEnum", "enum.StrEnum", "enum.IntFlag"}


def _public_definitions(tree: ast.Module) -> list[ast.ClassDef | ast.FunctionDef]:
    return [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]


def _explains_itself(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        ast.unparse(base) in SELF_EXPLAINING_BASES for base in node.bases
    )


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(PACKAGE)) for path in modules().values() if not ast.get_docstring(syntax(path))
    ]
    silent = [name for name in silent if PACKAGE.joinpath(name).stat().st_size]
    assert not silent


def test_every_public_name_is_documented() -> None:
    silent = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in modules().values()
        for node in _public_definitions(syntax(path))
        if not ast.get_docstring(node) and not _explains_itself(node)
    ]
    assert not silent


@pytest.mark.parametrize(
    "name", [name for name, path in modules().items() if ">>> " in path.read_text("utf-8")]
)
def test_every_docstring_example_is_true(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
