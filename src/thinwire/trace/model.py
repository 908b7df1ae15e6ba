"""A Trace as a value: for each rank its spans, and the anchor that puts them on the time axis of all.

Times of a rank are read off its own monotonic clock; an ``Anchor`` is one instant read off that clock and the wall
clock. So ranks line up as well as the wall clocks of their hosts agree, and durations are exact.
"""

from __future__ import annotations

import msgspec

Argument = str | int | float | bool


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time.

    Attributes:
        name: what, e.g. ``"all_reduce"``.
        start_s, end_s: when, on the rank's clock.
        track: what it is drawn beside: a group, a lane.
        arguments: more about it.
    """

    name: str
    start_s: float
    end_s: float
    track: str
    arguments: dict[str, Argument]


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The same instant on a rank's clock and on the wall (seconds since the Unix epoch)."""

    clock_s: float
    wall_s: float


class RankTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank recorded.

    Attributes:
        rank, host: who.
        anchor: puts its times on the wall.
        spans: in the order in which they ended.
        num_dropped: spans that came when the recorder was full.
    """

    rank: int
    host: str
    anchor: Anchor
    spans: tuple[Span, ...]
    num_dropped: int = 0


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What all ranks recorded."""

    ranks: tuple[RankTrace, ...]
