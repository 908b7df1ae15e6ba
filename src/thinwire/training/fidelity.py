"""Fidelities and budgets as users write them, and the codecs that the autopilot chooses from by itself.

Not here: how codecs are written (``codec.text``), and what they cost (``calibration``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thinwire.codec.base import Codec
from thinwire.codec.cast import Cast
from thinwire.codec.low_rank import LowRank
from thinwire.codec.quantize import Quantize
from thinwire.codec.top_k import TopK
from thinwire.planner.forms import Budget
from thinwire.runtime import fidelity

AUTO = "auto"

# Each loses more of a training than the one before, as far as ``benchmarks/codec_training.py`` has tried them
# (``experiments/LOG.md``). Two bits a value and fewer lose more than factors of half the size. Where gradients are no
# matrices, the largest values have to do. Not float16: it overflows where a loss is scaled, and loses what is small
# where it is not.
_ANY: tuple[Codec, ...] = (Cast("bfloat16"), Quantize(bits=8), Quantize(bits=4))
_MATRICES = tuple(LowRank(low_rank_dim) for low_rank_dim in (16, 8, 4, 2, 1))
_FLAT = tuple(TopK(k=k, values=Quantize(bits=4)) for k in (0.1, 0.03, 0.01))


def codec_of(asked: str | Codec) -> Codec | None:
    """The codec that a fixed fidelity asks for; None for exact, also where a codec loses nothing.

    Raises:
        UsageError: there is no such codec.

    >>> codec_of("exact") is None
    True
    """
    codec = fidelity.codec_of(asked)
    return None if codec is None or codec.is_lossless else codec


def candidates(allowed: Sequence[str] | None, *, has_matrices: bool = True) -> list[Codec]:
    """The codecs to choose from: those that the user allows, or good ones.

    Args:
        has_matrices: whether some gradients are.

    Raises:
        UsageError: the user names one that does not exist.
    """
    good = (*_ANY, *(_MATRICES if has_matrices else _FLAT))
    found = map(codec_of, good if allowed is None else allowed)
    return [codec for codec in found if codec is not None]


def budget_of(asked: float | Sequence[str] | Budget | None) -> Budget:
    """A budget as users give it, with codecs called what forms are called: as they print themselves.

    Args:
        asked: a bound on the error after feedback, names of codecs, both as a budget, or None for the default.

    Raises:
        UsageError: the bound is negative, or a codec does not exist.

    >>> budget_of("quantize( bits=4 )").allowed
    ('quantize(bits=4)',)
    """
    if asked is None:
        return Budget()
    if isinstance(asked, int | float):
        return Budget(max_error=asked)
    if not isinstance(asked, Budget):
        asked = Budget(allowed=(asked,) if isinstance(asked, str) else tuple(asked))
    if asked.allowed is None:
        return asked
    return replace(asked, allowed=tuple(map(str, candidates(asked.allowed))))
