"""What the arrival of a train of datagrams says of the way it came: a rate, and an interval that it is in. Pure.

A wire lets the first of a train pass faster than it does in the long run (token buckets, of the lab and of many a
provider), so the second half counts, and only as much of it as is even: a train that still becomes slower towards its
end tells nothing. Other traffic makes a train slower and never faster. A train that came no slower than
it left tells of its sender, and nothing of the way: that may have been a bucket too.

Not here: who sends which train when (``quick_exchange``).
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DATAGRAM_BYTES = 1400  # with every header it fits the frames of nearly any network
LEAST = 6  # datagrams of a train that something can be told from
# What a TCP stream gets of a wire that datagrams of a train, whose frames are shorter, get some of.
STREAM_SHARE = (1448 / 1514) / (DATAGRAM_BYTES / (DATAGRAM_BYTES + 42))
_STAMP_S = 15e-6  # how true time stamps are
_SHORTEST_S = 0.0004  # of what a rate is concluded from
_JITTERS = 5  # usual ones, by which the ends of a train may be off
_AS_FAST_AS_SENT = 0.85
_STILL_FASTER = 1.15
_BESIDE = 1.04  # what small datagrams of others take from a wire meanwhile
_LUMP = 0.25  # of the mean distance: what comes closer than that came together
_AS_LONG = 0.5  # of the longest train: shorter ones tell less
_AGREE = 1.2
_CERTAIN = 1.5  # an interval that is wider has no value in it that one could state


class Rate(NamedTuple):
    """Bytes a second as a TCP stream would have them.

    Attributes:
        value: None where only the interval is known.
        low, high: the interval; from 0, or to infinity, where nothing is known.
        span_s: how long what it is told from took.
        is_crowded: others' trains came at the same time.
    """

    value: float | None
    low: float
    high: float
    span_s: float
    is_crowded: bool = False


def rate_of_train(
    came_s: Sequence[float],
    *,
    jitter_s: float = 0.0,
    others_s: Sequence[float] = (),
    left_bytes_per_s: float = math.inf,
) -> Rate | None:
    """What one train says; None if there is too little of it.

    Args:
        came_s: when its datagrams came, ascending.
        jitter_s: how much delays vary usually.
        others_s: when datagrams of others' trains came here, ascending.
        left_bytes_per_s: how fast trains leave there.

    >>> rate = rate_of_train([number * 1e-4 for number in range(32)])
    >>> round(rate.value / STREAM_SHARE), rate.low < rate.value < rate.high
    (14000000, True)
    """
    if len(came_s) < LEAST:
        return None
    # The second half, the last quarter, the last eighth.
    ends = [
        part for share in (2, 4, 8) if (part := _passed(came_s[-(-len(came_s) * (share - 1) // share) :]))
    ]
    rates = [num_bytes / span_s for num_bytes, span_s in ends]
    if not rates:
        return None
    if rates[0] > _AS_FAST_AS_SENT * left_bytes_per_s:
        return Rate(None, 0.0, math.inf, ends[0][1])
    steps = itertools.pairwise(rates[:3])
    first = next((place for place, (one, other) in enumerate(steps) if one <= _STILL_FASTER * other), None)
    blur_s = _STAMP_S + _JITTERS * jitter_s
    if first is None and len(rates) > 1:
        return Rate(None, 0.0, math.inf, ends[-1][1])
    num_bytes, span_s = ends[first or 0]
    rate, even = rates[first or 0], rates[first or 0 : (first or 0) + 2]
    low = min([*even, num_bytes / (span_s + blur_s)]) / _BESIDE
    high = max([*even, _fastest(num_bytes, span_s, blur_s)]) * _BESIDE
    crowd = bisect.bisect(others_s, came_s[-1]) - bisect.bisect_left(others_s, came_s[len(came_s) // 2])
    if crowd:  # their way may be the one that is full, or this one's; one of them may have been under way
        high *= 1 + (crowd + 1) * DATAGRAM_BYTES / num_bytes
    return Rate(
        value=rate * STREAM_SHARE if high <= _CERTAIN * low else None,
        low=low * STREAM_SHARE,
        high=high * STREAM_SHARE,
        span_s=span_s,
        is_crowded=crowd > 0,
    )


def agreed(rates: Iterable[Rate | None]) -> Rate | None:
    """What the trains over one way say together: the fastest of the long ones that came alone. If they disagree, all
    they say is possible. A short one shows at most how fast the way is not: a busy kernel, or a bucket, may have let it
    pass at once.
    """
    known = [
        rate if rate.span_s >= _SHORTEST_S else rate._replace(value=None, low=0.0)
        for rate in rates
        if rate is not None
    ]
    alone = [rate for rate in known if not rate.is_crowded] or known
    longest_s = max((rate.span_s for rate in alone), default=0.0)
    long = [rate for rate in alone if rate.span_s >= _AS_LONG * longest_s]
    certain = [rate for rate in long if rate.value is not None]
    if not certain:
        return max(long, key=lambda rate: rate.low, default=None)
    best = max(certain, key=lambda rate: rate.value or 0.0)
    low, high = min(rate.low for rate in certain), max(rate.high for rate in certain)
    if (best.value or 0.0) <= _AGREE * min(rate.value or 0.0 for rate in certain):
        return best
    return best._replace(value=best.value if high <= _CERTAIN * low else None, low=low, high=high)


def _fastest(num_bytes: int, span_s: float, blur_s: float) -> float:
    """What the rate may be if the ends are off by ``blur_s``."""
    return num_bytes / (span_s - blur_s) if span_s > 2 * blur_s else math.inf


def _passed(at_s: Sequence[float]) -> tuple[int, float] | None:
    """How many bytes passed after the first moment until the last, and how long that took. What comes close together
    came at one moment: a wire is not always held to its rate frame by frame.
    """
    if len(at_s) < 2 or at_s[-1] <= at_s[0]:
        return None
    closest_s = _LUMP * (at_s[-1] - at_s[0]) / (len(at_s) - 1)
    begins = [place for place in range(1, len(at_s)) if at_s[place] - at_s[place - 1] > closest_s]
    span_s = at_s[begins[-1]] - at_s[0]
    return (len(at_s) - begins[0]) * DATAGRAM_BYTES, span_s
