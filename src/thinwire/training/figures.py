"""What a run looks like in figures: a line now and then, and a report in the end. Values and text only.

Not here: measuring, and where the line is shown (``live``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from thinwire.planner.forms import FEEDBACK_STEPS
from thinwire.training.agreement import Plan
from thinwire.units import format_bit_rate, format_bytes, format_seconds


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The last steps of one rank: what the live line, ``logging``, callbacks and the trace get.

    Attributes:
        step: steps so far.
        step_s: from step to step, exposed communication included.
        exposed_s: of that, communication that no compute hid.
        hidden: share of the communication's time that compute hid, 0 to 1.
        plan: number of the plan in force.
        forms: name -> share of the bytes sent in the last step.
        bytes_sent, bytes_saved: since the beginning; saved is against exact.
        bandwidth_bytes_per_s: as last measured; 0: not yet.
    """

    step: int
    step_s: float
    exposed_s: float
    hidden: float
    plan: int
    forms: dict[str, float]
    bytes_sent: int
    bytes_saved: int
    bandwidth_bytes_per_s: float

    def __str__(self) -> str:
        used = ", ".join(
            name if share > 0.995 else f"{name} {share:.0%}" for name, share in self.forms.items()
        )
        speed = format_bit_rate(self.bandwidth_bytes_per_s) if self.bandwidth_bytes_per_s else "speed unknown"
        return (
            f"step {self.step}  {format_seconds(self.step_s)}  {self.hidden:.0%} hidden  {used}  "
            f"{format_bytes(self.bytes_saved)} saved  {speed}"
        )


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """A plan came into force at a step."""

    step: int
    plan: Plan


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, how, why, what it cost and what it saved. Printable.

    Attributes:
        fidelity: what the user asked for.
        figures: the last ones; None before the first step.
        sent: name of a form -> the values that travelled in it, and the bytes of them that this rank sent, to all the
            others together: of an exact all-reduce of n ranks 64 (n - 1) / n bits a value. What was sent to see how
            much the wire carries has no values; see ``planner.lookout``.
        exposed_s: communication that no compute hid, of all steps together.
        switches: every plan and when it began.
        runners_up: what else was considered for the last plan, in words.
        error_corrected: of the lossiest form in force; see ``planner.forms``.
        residual_ratio, cosine: as last measured; see ``planner.guard.Evidence``.
        complaint: why bits were taken back; empty if they were not.
    """

    fidelity: str
    figures: Figures | None
    sent: Mapping[str, tuple[int, int]]
    exposed_s: float
    switches: Sequence[Switch]
    runners_up: Sequence[str] = ()
    error_corrected: float = 0.0
    residual_ratio: float | None = None
    cosine: float | None = None
    complaint: str = ""

    def __str__(self) -> str:
        lines = [f"fidelity {self.fidelity}"]
        if self.figures is not None:
            lines.append(f"  now: {self.figures}")
        for name, (num_values, num_bytes) in self.sent.items():
            bits = f", {8 * num_bytes / num_values:.3g} bits for each value" if num_values else ""
            lines.append(f"  sent as {name}: {format_bytes(num_bytes)}{bits}")
        lines.append(f"  exposed in all: {format_seconds(self.exposed_s)}")
        spent_percent = f"{100 * self.error_corrected:.2g} %"
        spent = f"  accuracy spent: {spent_percent} of the sum of {FEEDBACK_STEPS} gradients, expected"
        if self.residual_ratio is not None:
            spent += f"; the residual is {self.residual_ratio:.2g} times the gradient"
        if self.cosine is not None:
            spent += f"; cosine of meant and sent {self.cosine:.3f}"
        lines.append(spent)
        lines += [
            f"  from step {each.step}: plan {each.plan.number}: {each.plan.reason}" for each in self.switches
        ]
        lines += [f"  also considered: {option}" for option in self.runners_up]
        if self.complaint:
            lines.append(f"  bits taken back: {self.complaint}")
        return "\n".join(lines)
