"""Runs: consecutive segments of one op that travel in one frame, because a frame costs a core more than its bytes do.

Ranks agree where a chunk is cut, not how many of the segments a frame carries: the sender chooses that anew for each
frame, by what it knows of the link, and the frame's length tells the receiver. So nobody has to agree on how fast a
link is, and a wrong guess costs time, not a failure.

A frame holds up what is more urgent, and the next step begins only when it has come whole. Hence the limits: what
leaves in ``LONGEST_S`` at the pace of the link, and, so that no gap is left at the end of a phase, three quarters
of what is left unless that goes in ``SHORTEST_S``. Where the job seldom waits for the link, both may last longer. A
link of unknown pace carries single segments.

Not here: cutting (``lowering``), and pace (``link_watch``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from thinwire.runtime.lowering import Piece

LONGEST_S = 4e-3
SHORTEST_S = 2e-3
HELD_SHARE_MIN = 0.05  # less is taken for so much
# However fast the link was: if it becomes slow, progress must still show, and memory for what comes early is bounded.
FRAME_BYTES_MAX = 4 << 20


class Pace(NamedTuple):
    """How fast a link is, as far as traffic has taught.

    Attributes:
        bytes_per_s: what it carries; 0: nothing is known.
        held_share: for how much of the time it was what the job waited for. Full cores make a link look slow, but not
            so slow that they wait for it.
    """

    bytes_per_s: float = 0.0
    held_share: float = 1.0


class Landed:
    """The payload of a frame that came before all of its segments could be applied, until they are.

    Attributes:
        run: its segments.
        content: their bytes, one after the other.
        num_left: how many segments have not been applied.
    """

    __slots__ = ("content", "num_left", "run")

    def __init__(self, run: range, content: memoryview) -> None:
        self.run = run
        self.content = content
        self.num_left = len(run)


def frame_bytes(left_bytes: int, pace: Pace) -> int:
    """How much of what is ready for one peer the next frame should carry at most; at least one segment goes anyway.

    >>> [frame_bytes(left_bytes, Pace(125e6)) for left_bytes in (1_500_000, 375_000, 250_000)]
    [500000, 281250, 250000]
    >>> frame_bytes(1_500_000, Pace(125e6, held_share=0.1))
    1500000
    """
    rate = pace.bytes_per_s / max(pace.held_share, HELD_SHARE_MIN)
    wanted = max(min(left_bytes * 3 // 4, rate * LONGEST_S), rate * SHORTEST_S)
    return min(left_bytes, FRAME_BYTES_MAX, int(wanted))


def joined(segments: Sequence[tuple[Piece, ...]]) -> list[Piece]:
    """The elements of consecutive segments of one op, in as few pieces as possible."""
    first, last = segments[0], segments[-1]
    if first and first[0][:2] == last[-1][:2]:  # one chunk, cut in its order
        return [first[0]._replace(end=last[-1].end)]
    found: list[Piece] = []
    for piece in chain.from_iterable(segments):
        if found and found[-1][:2] == piece[:2]:
            found[-1] = found[-1]._replace(end=piece.end)
        else:
            found.append(piece)
    return found
