"""A form is one way for a gradient to travel: exact, or through one codec with error feedback; with its price.

Errors are relative 2-norms. ``error`` is that of one encode: |decode(encode(x)) - x| / |x|. With error feedback the
part that was not sent is added to the next gradient, so over many steps nearly everything arrives. ``error_corrected``
is what is still missing of the sum of the last ``FEEDBACK_STEPS`` gradients, if these are as good as orthogonal (noise
dominates), which is the worst case: the residual then settles where r^2 = error^2 (r^2 + g^2) with g the gradient's
norm (Karimireddy et al., "Error feedback fixes SignSGD", 2019, lemma 3, with equality), and the sum is sqrt(steps) g.

Not here: the codecs, and measuring their speed (``training.calibration``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from thinwire.codec.base import Codec
from thinwire.errors import UsageError

FEEDBACK_STEPS = 32
EXACT_NAME = "exact"
FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to send a float32 gradient.

    Attributes:
        name: as users write it: ``"exact"``, ``"quantize(bits=4)"``.
        codec: None: the values themselves.
        error: relative error of one encode, of values like gradients.
        encode_s_per_value, decode_s_per_value: on one core of this machine.
    """

    name: str
    codec: Codec | None = None
    error: float = 0.0
    encode_s_per_value: float = 0.0
    decode_s_per_value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.error < math.inf:
            raise UsageError(f"form {self.name}: its error is {self.error}: use a finite number from 0 up")

    @property
    def is_exact(self) -> bool:
        return self.codec is None and not self.error

    @property
    def error_corrected(self) -> float:
        """What error feedback leaves of the error, over ``FEEDBACK_STEPS`` steps.

        >>> round(Form(name="2 bits", error=0.34).error_corrected, 3)
        0.064
        """
        return residual_ratio(self.error) / math.sqrt(FEEDBACK_STEPS)

    def payload_bytes(self, num_values: int) -> int:
        """The most bytes that ``num_values`` take."""
        if self.codec is None:
            return FLOAT32_BYTES * num_values
        return self.codec.payload_bound((num_values,))


EXACT = Form(name=EXACT_NAME)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a user allows.

    Attributes:
        max_error: bound on ``Form.error_corrected``.
        allowed: names of the forms that may be used besides exact; None: all.
    """

    max_error: float = 0.4
    allowed: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.max_error >= 0:
            raise UsageError(f"the largest error allowed is {self.max_error}: use a number from 0 up")

    def admits(self, form: Form) -> bool:
        """Whether the form may be used. Exact always may.

        >>> Budget(max_error=0.05).admits(Form(name="2 bits", error=0.34)), Budget(max_error=0).admits(EXACT)
        (False, True)
        """
        if form.is_exact:
            return True
        return form.error_corrected <= self.max_error and (self.allowed is None or form.name in self.allowed)


def ladder(forms: Iterable[Form], budget: Budget) -> tuple[Form, ...]:
    """The forms that the budget admits, least lossy first; exact is always the first.

    A form that is no smaller than a less lossy one is no use, and is left out.

    >>> [form.name for form in ladder([], Budget())]
    ['exact']
    """
    rungs = [EXACT]
    for form in sorted(forms, key=lambda form: form.error):
        if form.is_exact or not budget.admits(form):
            continue
        if form.payload_bytes(_TYPICAL_VALUES) < rungs[-1].payload_bytes(_TYPICAL_VALUES):
            rungs.append(form)
    return tuple(rungs)


def residual_ratio(error: float) -> float:
    """The norm at which the residual of error feedback settles, as a multiple of the gradient's norm.

    >>> round(residual_ratio(0.6), 3)
    0.75
    """
    lossy = min(error, _LARGEST_CONTRACTION)
    return lossy / math.sqrt(1 - lossy**2)


_TYPICAL_VALUES = 1 << 18
_LARGEST_CONTRACTION = 0.999  # an encode that keeps nothing has no residual that settles
