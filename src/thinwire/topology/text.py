"""The file a topology is kept in: TOML, a line for each host and each link, so that ``diff`` and people can read it.

    format = 1
    form = "full"

    [hosts]
    host0 = { address = "10.0.0.1", uplink_mbit = 94.9 }

    [links]
    "host0 -> host1" = { one_stream_mbit = 94.9, rtt_median_ms = 0.31, loss = 0 }

Keys carry units people think in: a field ``..._bytes_per_s`` is written ``..._mbit`` (Mbit/s), ``..._s`` becomes
``..._ms``. Numbers have four significant digits, which is more than a measurement is worth.

Not here: the meaning of the fields (``model``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from thinwire.errors import UsageError
from thinwire.topology.model import Bottleneck, Ends, Gap, Host, Link, Topology

FORMAT = 1
ARROW = " -> "
# The field's suffix, the key's, and the key's number over the field's as a fraction, which keeps round numbers round.
_UNITS = (("_bytes_per_s", "_mbit", 8, 1_000_000), ("_s", "_ms", 1000, 1))
_IN_KEY = frozenset({"name", "source", "destination"})  # said by the key of a line, not in it
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Row = TypeVar("Row", Host, Link)


def dumps(topology: Topology) -> str:
    """The file's text. ``loads`` gives the topology back, but for digits beyond the fourth.

    >>> print(dumps(Topology(hosts=(Host(name="a", uplink_bytes_per_s=2.5e6),))).splitlines()[-1])
    a = { uplink_mbit = 20 }
    """
    return "\n".join(_lines(topology)) + "\n"


def loads(text: str, file: str = "topology") -> Topology:
    """The topology in ``text``; ``file`` is its name in messages.

    Raises:
        UsageError: ``file:line: reason``.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: {error}") from error
    reader = _Reader(text, file)
    version = found.pop("format", None)
    if version != FORMAT:
        raise reader.error("format", f"format is {version!r}, this thinwire reads {FORMAT}: probe again")
    for key in found:
        if key not in _SECTIONS:
            raise reader.error(key, f"unknown key {key!r}: the keys are format, {', '.join(_SECTIONS)}")
    hosts = tuple(
        reader.row(Host, {"name": name}, name, row) for name, row in reader.table(found, "hosts").items()
    )
    links = tuple(
        reader.row(Link, dict(zip(("source", "destination"), reader.ends(key, key), strict=True)), key, row)
        for key, row in reader.table(found, "links").items()
    )
    gaps = tuple(Gap(what=what, reason=str(reason)) for what, reason in reader.table(found, "gaps").items())
    bottlenecks = tuple(reader.bottleneck(row) for row in found.get("bottleneck", []))
    try:
        return msgspec.convert(
            {
                "form": found.get("form", "full"),
                "measured_at": found.get("measured_at", ""),
                "hosts": hosts,
                "links": links,
                "bottlenecks": bottlenecks,
                "gaps": gaps,
                "findings": found.get("findings", []),
            },
            Topology,
        )
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{file}: {error}") from error


def load(path: str | Path) -> Topology:
    """The topology in a file.

    Raises:
        UsageError: it cannot be read; with file, line and reason.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the topology {path} cannot be read: {error}") from error
    return loads(text, str(path))


def save(topology: Topology, path: str | Path) -> None:
    """Write a topology to a file.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        Path(path).write_text(dumps(topology), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the topology cannot be written to {path}: {error}") from error


_SECTIONS = ("form", "measured_at", "findings", "hosts", "links", "bottleneck", "gaps")


def _lines(topology: Topology) -> Iterator[str]:
    yield f"format = {FORMAT}"
    yield f"form = {_quoted(topology.form)}"
    if topology.measured_at:
        yield f"measured_at = {_quoted(topology.measured_at)}"
    if topology.findings:
        yield "findings = ["
        yield from (f"    {_quoted(finding)}," for finding in topology.findings)
        yield "]"
    if topology.gaps:
        yield "\n[gaps]"
        yield from (f"{_key(gap.what)} = {_quoted(gap.reason)}" for gap in topology.gaps)
    yield "\n[hosts]"
    yield from (f"{_key(host.name)} = {_inline(host)}" for host in topology.hosts)
    for bottleneck in topology.bottlenecks:
        yield "\n[[bottleneck]]"
        yield f"bandwidth_mbit = {_number(bottleneck.bandwidth_bytes_per_s * 8 / 1e6)}"
        yield f"links = [{', '.join(_quoted(ARROW.join(ends)) for ends in bottleneck.links)}]"
    if topology.links:
        yield "\n[links]"
        yield from (f"{_key(ARROW.join(link.ends))} = {_inline(link)}" for link in topology.links)


def _inline(row: Host | Link) -> str:
    pairs = []
    for field in type(row).__struct_fields__:
        value = getattr(row, field)
        if field in _IN_KEY or value is None or value == "":
            continue
        key, times, per = _with_unit(field)
        shown = _quoted(value) if isinstance(value, str) else _number(value * times / per)
        pairs.append(f"{key} = {shown}")
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


def _with_unit(field: str) -> tuple[str, int, int]:
    for suffix, key_suffix, times, per in _UNITS:
        if field.endswith(suffix):
            return field.removesuffix(suffix) + key_suffix, times, per
    return field, 1, 1


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text if "e" not in text else f"{float(text):.12f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # JSON's strings are TOML's basic strings


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


class _Reader:
    """Turns parsed tables into values, and knows on which line of the file each key stands."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file

    def error(self, key: str, reason: str) -> UsageError:
        """The error to raise about the line of ``key``."""
        starts = (f"{key} ", f"{key}=", f"{_key(key)} ", f"{_key(key)}=", f"[{key}]", f"[[{key}]]")
        for number, line in enumerate(self._text.splitlines(), start=1):
            if line.lstrip().startswith(starts):
                return UsageError(f"{self._file}:{number}: {reason}")
        return UsageError(f"{self._file}: {reason}")

    def table(self, parent: Mapping[str, Any], key: str) -> dict[str, Any]:
        table = parent.get(key, {})
        if not isinstance(table, dict):
            raise self.error(key, f"{key} is {table!r}: expected a table, [{key}]")
        return table

    def ends(self, text: object, key: str) -> Ends:
        source, arrow, destination = str(text).partition(ARROW)
        if not (source and arrow and destination):
            raise self.error(key, f"{text!r} is not a link: expected 'host0{ARROW}host1'")
        return source, destination

    def row(self, kind: type[Row], said: dict[str, str], key: str, row: object) -> Row:
        """A ``Host`` or ``Link`` from the table behind ``key``."""
        if not isinstance(row, dict):
            raise self.error(key, f"{key!r} is {row!r}: expected a table in braces")
        fields = {_with_unit(field)[0]: field for field in kind.__struct_fields__ if field not in _IN_KEY}
        values: dict[str, Any] = {**said}
        for name, value in row.items():
            if name not in fields:
                raise self.error(
                    key, f"{key!r} has an unknown key {name!r}: the keys are {', '.join(fields)}"
                )
            _, times, per = _with_unit(fields[name])
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            values[fields[name]] = value * per / times if is_number else value
        try:
            return msgspec.convert(values, kind)
        except (msgspec.ValidationError, UsageError) as error:
            raise self.error(key, f"{key!r}: {error}") from error

    def bottleneck(self, row: Mapping[str, Any]) -> Bottleneck:
        if not isinstance(row, dict) or set(row) != {"bandwidth_mbit", "links"}:
            raise self.error("bottleneck", f"a bottleneck has bandwidth_mbit and links, this is {row!r}")
        try:
            return Bottleneck(
                links=tuple(self.ends(link, "links") for link in row["links"]),
                bandwidth_bytes_per_s=msgspec.convert(row["bandwidth_mbit"], float) * 1e6 / 8,
            )
        except (msgspec.ValidationError, UsageError, TypeError) as error:
            raise self.error("bottleneck", str(error)) from error
