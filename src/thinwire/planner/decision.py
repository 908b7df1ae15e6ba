"""Chooses the least lossy plan whose predicted exposed communication stays under a target. Pure.

A plan gives each bucket a form. The plans that are considered are the steps of one stair, from everything exact down to
everything in the smallest form: each step moves one bucket from one form to the next smaller one, the bucket that is
ready last first, because it has the least compute left to hide behind. So plans are ordered, and on a faster wire the
one that is chosen is never more lossy.

Time is not all: of the plans down to the first that meets the target, the one is chosen whose steps are shortest when
each is made longer by ``PRICE_OF_LOSS`` times the square of its error after feedback, which is how what is sent late
comes into the bound of a training's convergence (Karimireddy et al. 2019). So a form that loses much is used where it
saves much. And where any value is not to arrive as it is, steps must become shorter by ``PRICE_OF_LEAVING_EXACT`` of
what they last now, so that nobody gets another result than without thinwire for a gain as small as the error of its
prediction. (What each form loses in the end, ``benchmarks/codec_training.py`` measures, one seed: with factors of eight
columns and with four bits a value a CNN ends within 1 % of the loss of exact, with four columns 4 % above it, with two
columns 8 %.)

Not here: when to change a plan (``pilot``), and which forms there are (``forms``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thinwire.errors import UsageError
from thinwire.planner.cost import exposed_s
from thinwire.planner.forms import Form
from thinwire.planner.workload import Wire, Workload
from thinwire.units import format_bit_rate, format_seconds

PRICE_OF_LOSS = 300.0
PRICE_OF_LEAVING_EXACT = 0.1


@dataclass(frozen=True, kw_only=True)
class Option:
    """One plan that was looked at.

    Attributes:
        step: its place on the stair: 0 is all exact, larger ones are more lossy.
        forms: of each bucket.
        exposed_s: predicted.
    """

    step: int
    forms: tuple[Form, ...]
    exposed_s: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(form.name for form in self.forms)

    @property
    def error_corrected(self) -> float:
        """The largest error after feedback of any bucket."""
        return max((form.error_corrected for form in self.forms), default=0.0)

    def __str__(self) -> str:
        kinds = list(dict.fromkeys(self.names))
        return " and ".join(kinds) or "nothing to send"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do, why, and what else there was.

    Attributes:
        chosen: the plan.
        is_on_target: whether its prediction is under the target.
        reason: one line for people.
        runners_up: the chosen rung and its neighbours on the stair, all buckets alike, most faithful first.
    """

    chosen: Option
    is_on_target: bool
    reason: str
    runners_up: tuple[Option, ...]


def decide(
    workload: Workload, rungs: Sequence[Form], wire: Wire, *, target: float = 0.03, floor: int | None = None
) -> Decision:
    """The least lossy plan that hides.

    Args:
        rungs: what is allowed, least lossy first, from ``forms.ladder``.
        target: how much of the step may be exposed communication, a fraction.
        floor: the last rung that may be used, an index; None: the last there is.

    Raises:
        UsageError: no rungs, or a negative target.

    >>> from thinwire.planner.forms import EXACT
    >>> from thinwire.planner.workload import Bucket
    >>> workload = Workload(
    ...     buckets=(Bucket(num_values=1_000_000, ready_s=0.1),), backward_s=0.1, step_s=0.2, num_ranks=4
    ... )
    >>> decide(workload, [EXACT], Wire(rank_bytes_per_s=(12.5e6,) * 4)).reason
    '100 Mbit/s: exact exposes 480 ms a step, and nothing that is allowed would help'
    """
    if not rungs or not target >= 0:
        raise UsageError(
            f"a decision needs a form to choose and a target from 0 up, found {list(rungs)}, {target}"
        )
    last = len(rungs) - 1 if floor is None else max(0, min(floor, len(rungs) - 1))
    num_buckets = max(1, len(workload.buckets))

    def option(step: int) -> Option:
        forms = stair(rungs, len(workload.buckets), step)
        return Option(step=step, forms=forms, exposed_s=exposed_s(workload, forms, wire))

    uniform = [option(rung * num_buckets) for rung in range(last + 1)]
    target_s = target * workload.step_s
    enough = next((i for i, plan in enumerate(uniform) if plan.exposed_s <= target_s), last)
    rung = min(range(enough + 1), key=lambda i: _cost_s(workload, uniform[i]))
    fastest = min(range(last + 1), key=lambda i: uniform[i].exposed_s)
    limit_s = max(target_s, uniform[rung].exposed_s)
    between = [option(step) for step in range(max(0, (rung - 1) * num_buckets + 1), rung * num_buckets)]
    chosen = next((plan for plan in between if plan.exposed_s <= limit_s), uniform[rung])
    neighbours = [i for i in (rung - 1, rung, rung + 1) if 0 <= i <= last]
    return Decision(
        chosen=chosen,
        is_on_target=chosen.exposed_s <= target_s,
        reason=_reason(chosen, uniform[rung - 1] if rung else None, wire, target_s, is_best=rung == fastest),
        runners_up=tuple(uniform[i] for i in neighbours if uniform[i].step != chosen.step),
    )


def stair(rungs: Sequence[Form], num_buckets: int, step: int) -> tuple[Form, ...]:
    """The forms of the buckets at a step of the stair.

    >>> from thinwire.planner.forms import Form
    >>> a, b, c = (Form(name=name) for name in "abc")
    >>> [form.name for form in stair([a, b, c], 3, 4)]
    ['b', 'b', 'c']
    """
    rung, num_lower = divmod(step, max(1, num_buckets))
    lower = rungs[min(rung + 1, len(rungs) - 1)]
    return (rungs[rung],) * (num_buckets - num_lower) + (lower,) * num_lower


def _cost_s(workload: Workload, plan: Option) -> float:
    """How long its steps count, with what is lost in them."""
    step_s = workload.step_s + plan.exposed_s
    leaves_exact_s = PRICE_OF_LEAVING_EXACT * max(workload.step_s, workload.shown_s) if plan.step else 0.0
    return step_s * (1 + PRICE_OF_LOSS * plan.error_corrected**2) + leaves_exact_s


def _reason(chosen: Option, rejected: Option | None, wire: Wire, target_s: float, *, is_best: bool) -> str:
    speed = format_bit_rate(wire.bottleneck_bytes_per_s)
    exposed = format_seconds(_rounded(chosen.exposed_s))
    hides = chosen.exposed_s <= target_s
    why_not_less = "nothing that is allowed would help" if is_best else "less would lose more than it saves"
    if rejected is None:
        if hides:
            return f"{speed}: exact hides all but {exposed} a step"
        return f"{speed}: exact exposes {exposed} a step, and {why_not_less}"
    would = f"{rejected} would expose {format_seconds(_rounded(rejected.exposed_s))} a step"
    does = f"{chosen} hides all but {exposed}" if hides else f"{chosen} exposes {exposed}, and {why_not_less}"
    return f"{speed}: {would}; {does}; error {100 * chosen.error_corrected:.2g} %, corrected by feedback"


def _rounded(duration_s: float) -> float:
    """To the microsecond: nobody reads more, and nanoseconds of a prediction mean nothing."""
    return math.floor(duration_s * 1e6 + 0.5) / 1e6
