"""When to send more than the gradients, because what they take no longer tells how fast the wire is; and how much.

A kernel counts in ticks of 4 ms, and acknowledgements are waited for about as long. So a lossy plan that keeps a wire
busy for a few milliseconds a step tells little of it, and nothing of its becoming faster. Then, every ``EVERY``
observations, follows a *look*: bytes without a meaning, sent when the gradients of a step have arrived and the wire has
nothing to do until those of the next. There are as many as fill most of that time if the wire carries what is believed;
where it carries more, which is what there is to find out, they take less. While a belief rises, looks follow each
other, also because TCP takes its time to use what there is.

Where gradients take long they tell enough, and where they travel exactly more of a wire would change nothing.

Pure. Not here: what is concluded of the bytes (``training.wire_meter``), and sending them (``training.looks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinwire.planner.cost import on_wire_s
from thinwire.planner.forms import Form
from thinwire.planner.workload import Wire, Workload

CLEAR_S = 0.016  # on the wire in a step: so long that gradients tell enough
CLEAR_RISING_S = 0.04  # and so long where the belief has just risen
RISE = 1.25
EVERY = 2  # observations, of which one follows a look at once
FILLED = 0.75  # of the time between a backward pass and the next
MOST_BYTES = 4 << 20  # of a rank, to all others together


@dataclass(frozen=True, kw_only=True)
class Lookout:
    """What must be remembered from one observation to the next.

    Attributes:
        num_bytes: that each rank sends to each other one for a look, after this step; 0: no look.
        bytes_per_s: least belief since the last look; 0: none yet.
        waited: observations since.
    """

    num_bytes: int = 0
    bytes_per_s: float = 0.0
    waited: int = 0


def watch_for_more(lookout: Lookout, workload: Workload, forms: Sequence[Form], wire: Wire) -> Lookout:
    """Take an observation of what is in force.

    Args:
        forms: of each bucket.
        wire: as it is believed to be.

    >>> from thinwire.planner.workload import Bucket
    >>> workload = Workload(
    ...     buckets=(Bucket(num_values=100_000, ready_s=0.06),), backward_s=0.06, step_s=0.1, num_ranks=2
    ... )
    >>> lookout, lossy = Lookout(), [Form(name="half", error=0.1)]
    >>> looks = []
    >>> for mbit in (25, 25, 100, 250, 250, 250, 250):
    ...     lookout = watch_for_more(lookout, workload, lossy, Wire(rank_bytes_per_s=(mbit * 125e3,) * 2))
    ...     looks.append(lookout.num_bytes)
    >>> looks
    [0, 0, 375000, 937500, 0, 937500, 0]
    """
    believed = wire.bottleneck_bytes_per_s
    wire_s = sum(
        on_wire_s(bucket, form, wire, workload.num_ranks)
        for bucket, form in zip(workload.buckets, forms, strict=True)
    )
    least = min(lookout.bytes_per_s or believed, believed)
    waited = lookout.waited + 1
    is_due = wire_s < CLEAR_S and waited >= EVERY
    is_rising = believed >= RISE * least and wire_s < CLEAR_RISING_S
    if all(form.is_exact for form in forms) or not (is_due or is_rising):
        return Lookout(bytes_per_s=least, waited=waited)
    free_s = max(0.0, workload.step_s - workload.backward_s)
    to_all = min(FILLED * free_s * believed, MOST_BYTES)
    return Lookout(num_bytes=int(to_all / (workload.num_ranks - 1)), bytes_per_s=believed)
