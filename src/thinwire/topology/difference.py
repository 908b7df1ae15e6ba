"""What changed from one topology to another: hosts and links that came or went, and numbers that moved.

Not here: whether a change matters to a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from thinwire.topology.model import Host, Link, Topology

_FLOORS = {"loss": 0.002, "jitter_s": 0.0005, "queue_s": 0.005, "rtt": 0.0003}  # below these, noise


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was.

    Attributes:
        what: ``"host0"`` or ``"host0 -> host1"``.
        field: of ``Host`` or ``Link``; empty if the whole thing came or went.
        before, after: the values; None where there is none.
    """

    what: str
    field: str = ""
    before: str | float | None = None
    after: str | float | None = None

    def __str__(self) -> str:
        """
        >>> str(Difference(what="a -> b", field="loss", before=0.0, after=0.02))
        'a -> b: loss was 0, is 0.02'
        """
        if not self.field:
            return f"{self.what} is {'new' if self.before is None else 'gone'}"
        return f"{self.what}: {self.field} was {_shown(self.before)}, is {_shown(self.after)}"


def diff(before: Topology, after: Topology, *, tolerance: float = 0.1) -> tuple[Difference, ...]:
    """Everything that differs by more than measurements do.

    Args:
        before, after: two measurements of what may be the same network.
        tolerance: numbers differ if their ratio is beyond 1 + ``tolerance``, and they are not both tiny (losses
            below 0.2 %, times that one cannot measure twice alike).

    >>> one = Topology(hosts=(Host(name="a"),))
    >>> [str(difference) for difference in diff(one, Topology(hosts=(Host(name="a"), Host(name="b"))))]
    ['b is new']
    """
    return (
        *_changes({host.name: host for host in before.hosts}, {host.name: host for host in after.hosts}, tolerance),
        *_changes(
            {" -> ".join(link.ends): link for link in before.links},
            {" -> ".join(link.ends): link for link in after.links},
            tolerance,
        ),
    )  # fmt: skip


def _changes(
    before: Mapping[str, Host | Link], after: Mapping[str, Host | Link], tolerance: float
) -> Iterator[Difference]:
    for what in dict.fromkeys((*before, *after)):
        if what not in before:
            yield Difference(what=what, after=what)
        elif what not in after:
            yield Difference(what=what, before=what)
        else:
            for field in type(before[what]).__struct_fields__:
                was, now = getattr(before[what], field), getattr(after[what], field)
                if _differs(field, was, now, tolerance):
                    yield Difference(what=what, field=field, before=was, after=now)


def _differs(field: str, was: str | float | None, now: str | float | None, tolerance: float) -> bool:
    if isinstance(was, float | int) and isinstance(now, float | int):
        floor = next((floor for name, floor in _FLOORS.items() if name in field), 0.0)
        return not math.isclose(was, now, rel_tol=tolerance / (1 + tolerance), abs_tol=floor)
    return was != now


def _shown(value: str | float | None) -> str:
    if value is None:
        return "not measured"
    return value if isinstance(value, str) else f"{value:.4g}"
