"""A form is one way for a gradient to travel: exact, or through one codec with error feedback; with its price.

Errors are relative 2-norms. ``error`` is that of one encode: |decode(encode(x)) - x| / |x|. With error feedback the
part that was not sent is added to the next gradient, so over many steps nearly everything arrives. ``error_corrected``
is what is still missing of the sum of the last ``FEEDBACK_STEPS`` gradients, if these are as good as orthogonal (noise
dominates), which is the worst case: the residual then settles where r^2 = error^2 (r^2 + g^2) with g the gradient's
norm (Karimireddy et al., "Error feedback fixes SignSGD", 2019, lemma 3, with equality), and the sum is sqrt(steps) g.

The order of forms is that of their sizes, not of their errors: what a training loses with a form does not follow from
the error of one encode (``benchmarks/codec_training.py`` measures it; two bits a value lost more than factors of two
columns, an eleventh of the size: ``experiments/LOG.md``). So whoever lists forms lists only such as lose more the
smaller they are.

Not here: the codecs, and measuring their speed (``training.calibration``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from thinwire.codec.base import Codec, Shape
from thinwire.codec.low_rank import LowRank
from thinwire.codec.quantize import Quantize
from thinwire.errors import UsageError

FEEDBACK_STEPS = 32
EXACT_NAME = "exact"
FLOAT32_BYTES = 4
FACTOR_CODEC = Quantize(bits=8)  # of factors that are summed, and of what travels with them


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

    def shard_bytes(self, num_values: int, num_ranks: int, shapes: Sequence[Shape] = ()) -> int:
        """The most bytes that one rank's share of so many values takes: of contributions, or of the sum.

        Args:
            shapes: of the tensors that the values are; without them there is nothing to factor.
        """
        if isinstance(self.codec, LowRank):
            dim = self.codec.low_rank_dim
            saved = sum(
                prod(shape) - factor_values(shape, dim) for shape in shapes if is_factored(shape, dim)
            )
            return FACTOR_CODEC.payload_bound((-(-(num_values - saved) // num_ranks),))
        share = -(-num_values // num_ranks)
        return FLOAT32_BYTES * share if self.codec is None else self.codec.payload_bound((share,))


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
    """The forms that the budget admits, largest first; exact is always the first.

    A form that is no smaller than one listed before it is no use, and is left out.

    >>> [form.name for form in ladder([], Budget())]
    ['exact']
    """
    rungs = [EXACT]
    for form in sorted(forms, key=_typical_bytes, reverse=True):
        if not form.is_exact and budget.admits(form) and _typical_bytes(form) < _typical_bytes(rungs[-1]):
            rungs.append(form)
    return tuple(rungs)


def is_factored(shape: Shape, low_rank_dim: int) -> bool:
    """Whether a tensor of this shape is smaller as two factors of so many columns.

    >>> is_factored((512, 512), 4), is_factored((512,), 4), is_factored((4, 512), 4)
    (True, False, False)
    """
    return len(shape) > 1 and factor_values(shape, low_rank_dim) < prod(shape)


def factor_values(shape: Shape, low_rank_dim: int) -> int:
    """The values of its factors."""
    return low_rank_dim * (shape[0] + prod(shape[1:]))


def _typical_bytes(form: Form) -> int:
    return form.shard_bytes(prod(_TYPICAL_SHAPE), 1, [_TYPICAL_SHAPE])


def residual_ratio(error: float) -> float:
    """The norm at which the residual of error feedback settles, as a multiple of the gradient's norm.

    >>> round(residual_ratio(0.6), 3)
    0.75
    """
    lossy = min(error, _LARGEST_CONTRACTION)
    return lossy / math.sqrt(1 - lossy**2)


_TYPICAL_SHAPE = (512, 512)
_LARGEST_CONTRACTION = 0.999  # an encode that keeps nothing has no residual that settles
