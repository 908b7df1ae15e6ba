"""The reference of the scenario file, key by key, from the types that read it and what they say of themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import inspect as types

from thinwire.lab import scenario

TABLES = {
    "the file itself": scenario.Scenario,
    "[access]": scenario.Access,
    "[[host]]": scenario.HostAccess,
    "[[site]]": scenario.Site,
    "[[pipe]] and [[link]]": scenario.Between,
    "[[trace]]": scenario.Trace,
    "[[cut]]": scenario.Cut,
    "[[background]]": scenario.Background,
    "every wire": scenario.Wire,
    "burst_loss": scenario.BurstLoss,
}


def scenario_file(meanings_of: Callable[[str], dict[str, str]]) -> Iterator[str]:
    """The lines of the page; ``meanings_of`` finds the entries of a docstring."""
    yield "# The scenario file\n"
    yield "A TOML file. A key that is not in these tables, a value outside its range and a name that stands for nothing"
    yield "are refused with the line and the reason. `thinwire lab list` shows the scenarios that come with thinwire."
    for title, table in TABLES.items():
        bases = [base for base in reversed(table.__mro__) if "Attributes:\n" in (base.__doc__ or "")]
        meanings = {
            name.rstrip("_"): text for base in bases for name, text in meanings_of(base.__doc__ or "").items()
        }
        yield f"\n## {title}\n"
        yield " ".join(inspect.cleandoc(table.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
        inherited: tuple[str, ...] = ()
        if table is not scenario.Wire and issubclass(table, scenario.Wire):
            inherited = scenario.Wire.__struct_fields__
            yield "Besides these keys it has those of [every wire](#every-wire)."
        yield "\n| key | value | meaning |"
        yield "| --- | --- | --- |"
        info = types.type_info(table)
        assert isinstance(info, types.StructType)
        for field in info.fields:
            if field.name not in inherited:
                need = ", needed" if field.required else ""
                meaning = meanings[field.encode_name].replace("``", "`")
                yield f"| `{field.encode_name}` | {_value(field.type)}{need} | {meaning} |"


def _value(kind: types.Type) -> str:
    """What may stand behind the equals sign.

    >>> _value(types.type_info(scenario.Fraction))
    'number, 0 or more, below 1'
    """
    match kind:
        case types.UnionType():
            return " or ".join(filter(None, map(_value, kind.types)))  # None and UNSET are for keys left out
        case types.FloatType() | types.IntType():
            return ", ".join(
                ["number" if isinstance(kind, types.FloatType) else "whole number", *_range(kind)]
            )
        case types.StrType():
            return "text" if kind.pattern is None else "name of small letters, digits and hyphens"
        case types.ListType() if isinstance(kind.item_type, types.StructType):
            return "tables"
        case types.ListType():
            return f"list ({_value(kind.item_type)})"
        case types.StructType():
            return "table"
        case _:
            return ""


def _range(kind: Any) -> Iterator[str]:
    for limit, words in (
        (kind.gt, "above {}"),
        (kind.ge, "{} or more"),
        (kind.lt, "below {}"),
        (kind.le, "at most {}"),
    ):
        if limit is not None:
            yield words.format(limit)
