"""Takes bits back when the training suffers: watches what error feedback keeps, what is sent, and the loss.

Three things are looked at, each against what the form in use leads one to expect (``forms``):

- the residual's norm, as a multiple of the gradient's: it should settle; where it grows past ``RESIDUAL_SLACK`` times
  what is expected, feedback does not keep up. What is expected counts the owner's residual too: of the sum of n ranks'
  gradients, which is n times as long as one where they agree, in the n-th part that this rank owns;
- the cosine between what was meant (gradient plus residual) and what was sent: it should not fall under an eighth of
  what the form's error allows for;
- the loss: its recent mean should not rise above the mean before by ``LOSS_SIGMAS`` of its own noise.

What a smaller form has left behind is paid back over many steps. For ``FEEDBACK_STEPS`` observations only the loss
counts, or a form would be blamed for the one before it, and the next one for both.

What feedback adds up is flatter than a gradient, and harder to send in few values or columns: with few columns the
residual settles at several times what is expected, and the training loses little by it (``experiments/LOG.md``). So it
takes much more than what is expected.

One bad observation says little; ``PATIENCE`` in a row take one rung back, and it stays forbidden for ``HOLD``
observations; each time it is taken back again it stays so twice as long.

Pure. Not here: measuring these (``training.sample``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from thinwire.planner.forms import FEEDBACK_STEPS, Form, residual_ratio

RESIDUAL_SLACK = 10.0
COSINE_SLACK = 8.0
LOSS_SIGMAS = 4.0
PATIENCE = 3
HOLD = 64
_NEGLIGIBLE = 0.1  # a residual that is a tenth of one gradient is nothing
_FAST, _SLOW = 0.2, 0.02  # weights of the newest loss in its recent mean and in the mean before


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen since the last observation. None: not measured.

    Attributes:
        residual_ratio: |residual| / |gradient|, the worst rank's and bucket's.
        cosine: between what was meant and what was sent, the worst.
        loss: the mean over the ranks that told it.
    """

    residual_ratio: float | None = None
    cosine: float | None = None
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What must be remembered.

    Attributes:
        floor: the last rung that may be used; None: all.
        complaint: why, in words; empty if nothing is forbidden.
        streak: bad observations in a row.
        held: for how many observations more the floor stays.
        num_retreats: how often a rung was taken back.
        rung: of the last observation.
        settling: for how many observations more the residual may be that of a more lossy form.
        fast_loss, slow_loss, loss_noise: means of the loss, and the mean distance of a loss from its mean.
    """

    floor: int | None = None
    complaint: str = ""
    streak: int = 0
    held: int = 0
    num_retreats: int = 0
    rung: int = 0
    settling: int = 0
    fast_loss: float | None = None
    slow_loss: float = 0.0
    loss_noise: float = 0.0


def watch(guard: Guard, evidence: Evidence, form: Form, rung: int, num_ranks: int) -> Guard:
    """Take an observation of training with ``form``, the most lossy one in use, whose rung that is.

    >>> guard = Guard()
    >>> for _ in range(PATIENCE):
    ...     guard = watch(guard, Evidence(residual_ratio=9.0), Form(name="2 bits", error=0.34), rung=4, num_ranks=4)
    >>> guard.floor, guard.complaint
    (3, '2 bits: the residual is 9 times the gradient, expected 0.81')
    """
    guard = _with_loss(guard, evidence.loss)
    settling = FEEDBACK_STEPS if rung < guard.rung else max(0, guard.settling - 1)
    guard = replace(guard, rung=rung, settling=settling)
    if settling:
        evidence = Evidence(loss=evidence.loss)
    complaint = "" if form.is_exact else _complaint(guard, evidence, form, num_ranks)
    if complaint:
        guard = replace(guard, streak=guard.streak + 1)
        if guard.streak < PATIENCE or rung == 0:
            return guard
        hold = HOLD * 2 ** min(guard.num_retreats, 6)
        return replace(
            guard,
            floor=rung - 1,
            complaint=complaint,
            streak=0,
            held=hold,
            num_retreats=guard.num_retreats + 1,
            slow_loss=guard.fast_loss or 0.0,  # what comes now is judged by itself
        )
    guard = replace(guard, streak=0, held=max(0, guard.held - 1))
    if guard.floor is not None and not guard.held:
        return replace(guard, floor=None, complaint="")
    return guard


def _complaint(guard: Guard, evidence: Evidence, form: Form, num_ranks: int) -> str:
    expected = residual_ratio(form.error) * math.sqrt(1 + num_ranks)
    found = evidence.residual_ratio
    if found is not None and not found <= RESIDUAL_SLACK * max(expected, _NEGLIGIBLE):
        return f"{form.name}: the residual is {found:.2g} times the gradient, expected {expected:.2g}"
    expected_cosine = math.sqrt(max(0.0, 1 - form.error**2))
    if evidence.cosine is not None and not evidence.cosine >= expected_cosine / COSINE_SLACK:
        return f"{form.name}: the cosine of meant and sent is {evidence.cosine:.2g}, expected {expected_cosine:.2g}"
    if (
        guard.fast_loss is not None
        and not guard.fast_loss - guard.slow_loss <= LOSS_SIGMAS * guard.loss_noise
    ):
        return f"{form.name}: the loss has risen from {guard.slow_loss:.3g} to {guard.fast_loss:.3g}"
    return ""


def _with_loss(guard: Guard, loss: float | None) -> Guard:
    if loss is None:
        return guard
    if guard.fast_loss is None or not math.isfinite(guard.fast_loss):
        return replace(guard, fast_loss=loss, slow_loss=loss, loss_noise=abs(loss))
    if not math.isfinite(loss):
        return guard  # GradScaler skips such steps; the scale was too large, not the loss
    return replace(
        guard,
        fast_loss=guard.fast_loss + _FAST * (loss - guard.fast_loss),
        slow_loss=guard.slow_loss + _SLOW * (loss - guard.slow_loss),
        loss_noise=guard.loss_noise + _SLOW * (abs(loss - guard.fast_loss) - guard.loss_noise),
    )
