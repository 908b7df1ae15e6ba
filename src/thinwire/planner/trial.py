"""Checks predictions against life: a plan that lost more than the one before must have made steps shorter.

For ``ROUNDS`` observations after a more lossy plan came into force it is on trial; if steps are then, at the median of
these, no shorter than at that of as many before, the form is forbidden for ``HOLD`` observations. A codec may be slower
than its calibration says, because cores are shared, or the wire was not what training waited for: whatever the reason,
it did not help. Where the wire has just become slower, the steps before say nothing, and there is no trial.

Pure. Not here: whether training suffers (``guard``).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

from thinwire.units import format_seconds

ROUNDS = 3
HOLD = 75
NO_GAIN = 0.97
SLOWER = 0.75


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What must be remembered.

    Attributes:
        floor: the last rung that may be used; None: all.
        complaint: why, in words; empty if nothing is forbidden.
        held: for how many observations more the floor stays, unless the wire becomes slower.
        floor_bytes_per_s: of the wire on which it was found.
        rung, bytes_per_s: of the last observation.
        steps_s: of the last ``ROUNDS`` at most that may be compared with each other: of one rung and one wire.
        rung_before, before_s: before the plan on trial; the median of steps.
        rounds_left: of the trial; 0: no trial.
    """

    floor: int | None = None
    complaint: str = ""
    held: int = 0
    floor_bytes_per_s: float = 0.0
    rung: int = 0
    bytes_per_s: float = 0.0
    steps_s: tuple[float, ...] = ()
    rung_before: int = 0
    before_s: float = 0.0
    rounds_left: int = 0


def observe(trial: Trial, name: str, rung: int, step_s: float, bytes_per_s: float) -> Trial:
    """Take an observation of the plan in force, whose most lossy form has that name and rung.

    Args:
        step_s: from step to step, exposed communication included.
        bytes_per_s: of the wire.

    >>> trial = observe(Trial(), "8 bits", rung=1, step_s=0.13, bytes_per_s=1e8)
    >>> for _ in range(ROUNDS + 1):
    ...     trial = observe(trial, "6 bits", rung=2, step_s=0.168, bytes_per_s=1e8)
    >>> trial.floor, trial.complaint
    (1, '6 bits: steps took 168 ms, and 130 ms before')
    """
    is_comparable = bytes_per_s >= SLOWER * trial.bytes_per_s
    steps_s = (*(trial.steps_s if rung == trial.rung and is_comparable else ()), step_s)[-ROUNDS:]
    seen = replace(
        trial,
        rung=rung,
        steps_s=steps_s if is_comparable else (),
        bytes_per_s=bytes_per_s,
        held=max(0, trial.held - 1),
    )
    if seen.floor is not None and (not seen.held or bytes_per_s < SLOWER * seen.floor_bytes_per_s):
        seen = replace(seen, floor=None, complaint="")
    if rung > trial.rung:
        if not trial.steps_s:
            return seen
        if trial.rounds_left:  # further down: against the same
            return replace(seen, rounds_left=ROUNDS)
        before_s = statistics.median(trial.steps_s)
        return replace(seen, rung_before=trial.rung, before_s=before_s, rounds_left=ROUNDS)
    if rung < trial.rung:  # back some way, it is still on trial against what was before
        is_on_trial = trial.rounds_left and rung > trial.rung_before
        return replace(seen, rounds_left=ROUNDS if is_on_trial else 0)
    if not trial.rounds_left:
        return seen
    seen = replace(seen, rounds_left=trial.rounds_left - 1)
    found_s = statistics.median(steps_s)
    if seen.rounds_left or found_s <= NO_GAIN * trial.before_s:
        return seen
    complaint = f"{name}: steps took {format_seconds(found_s)}, and {format_seconds(trial.before_s)} before"
    return replace(
        seen, floor=trial.rung_before, complaint=complaint, held=HOLD, floor_bytes_per_s=bytes_per_s
    )
