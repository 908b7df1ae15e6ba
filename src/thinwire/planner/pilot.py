"""Holds a decision against noise: a new plan only where the old one is wrong even if measured wrongly by a quarter.

The wire is believed within a factor of 1 +- ``MARGIN``. The plan in force stays while it lies between what would be
chosen at both ends of that interval; otherwise the choice for the middle takes its place. Since choices are ordered by
bandwidth, measurements that stay within 10 % of their mean never change a plan. More loss comes at once, less
loss only when ``PATIENCE`` observations in a row ask for it. Exact is left when ``PATIENCE_WITH_EXACT`` do, unless it
exposes a whole step: the first steps of a job are slower than the others, and who leaves exact once has another result.

Not here: how all ranks agree on a plan, and when it is applied (``training.agreement``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from thinwire.planner.cost import exposed_s
from thinwire.planner.decision import Decision, decide
from thinwire.planner.forms import EXACT, Form
from thinwire.planner.workload import Wire, Workload

MARGIN = 0.25
PATIENCE, PATIENCE_WITH_EXACT = 2, 4


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What must be remembered from one observation to the next.

    Attributes:
        number: of the plan in force; each new plan has the next one.
        step: of the plan in force, on the stair of ``decision``.
        num_buckets: of the workload that it was made for; 0: it was made without knowing, and the next takes its place.
        streak: how many observations in a row have asked for another plan, in vain.
    """

    number: int = 0
    step: int = 0
    num_buckets: int = 0
    streak: int = 0


def advance(
    pilot: Pilot,
    workload: Workload,
    rungs: Sequence[Form],
    wire: Wire,
    *,
    target: float = 0.03,
    floor: int | None = None,
    is_exact: bool = False,
) -> tuple[Pilot, Decision | None]:
    """Take an observation.

    Args:
        floor: the last rung that may be used, as for ``decide``.
        is_exact: whether what is in force is, also if it was not made for these buckets.

    Returns:
        What to remember, and the new plan if there is one: with its number in the former.

    >>> from thinwire.planner.forms import EXACT
    >>> from thinwire.planner.workload import Bucket
    >>> workload = Workload(buckets=(Bucket(num_values=9, ready_s=1),), backward_s=1, step_s=1, num_ranks=2)
    >>> pilot, decision = advance(Pilot(), workload, [EXACT], Wire(rank_bytes_per_s=(1e6, 1e6)))
    >>> pilot.number, decision.reason
    (1, '8 Mbit/s: exact hides all but 40 µs a step')
    >>> advance(pilot, workload, [EXACT], Wire(rank_bytes_per_s=(2e6, 2e6)))[1] is None
    True
    """

    def choice(believed: Wire) -> Decision:
        return decide(workload, rungs, believed, target=target, floor=floor)

    num_buckets = len(workload.buckets)
    middle = choice(wire)
    patience = 1
    if is_exact and middle.chosen.step and _exact_s(workload, wire) < workload.step_s:
        patience = PATIENCE_WITH_EXACT
    if num_buckets == pilot.num_buckets:
        least = choice(wire.scaled(1 + MARGIN)).chosen.step
        most = choice(wire.scaled(1 - MARGIN)).chosen.step
        if min(least, middle.chosen.step) <= pilot.step <= max(most, middle.chosen.step):
            return replace(pilot, streak=0), None
        if pilot.step > middle.chosen.step:
            patience = PATIENCE
    if pilot.streak + 1 < patience:
        return replace(pilot, streak=pilot.streak + 1), None
    return Pilot(number=pilot.number + 1, step=middle.chosen.step, num_buckets=num_buckets), middle


def _exact_s(workload: Workload, wire: Wire) -> float:
    return exposed_s(workload, [EXACT] * len(workload.buckets), wire)
