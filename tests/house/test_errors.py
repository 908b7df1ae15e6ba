"""Every error of the catalogue is raised by the package, named by a test, and explained in the reference."""

from __future__ import annotations

import ast
import inspect

import pytest

from tests.house.tree import PACKAGE, ROOT, modules, syntax
from thinwire import errors

CATALOGUE = [
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.ThinwireError)
]


def _made_in_package() -> set[str]:
    """Names that are called anywhere in the package: an error is raised by being made."""
    calls = (
        node for path in modules().values() for node in ast.walk(syntax(path)) if isinstance(node, ast.Call)
    )
    return {node.func.id for node in calls if isinstance(node.func, ast.Name)}


def test_no_error_class_lives_outside_the_catalogue() -> None:
    strays = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in modules().values()
        if path.name != "errors.py"
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
    ]
    assert not strays


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_error_is_raised(name: str) -> None:
    assert name in _made_in_package(), f"{name} is in errors.py but nothing raises it"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_error_is_tested(name: str) -> None:
    others = (path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "house")
    assert any(name in path.read_text(encoding="utf-8") for path in others), f"no test names {name}"


def test_every_error_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    missing = [name for name in CATALOGUE if f"`{name}`" not in page]
    assert not missing, "run `make docs`"
