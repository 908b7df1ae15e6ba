"""Fidelities as users write them, and the codecs that the autopilot chooses from by itself.

Not here: how codecs are written (``codec.text``), and what they cost (``calibration``).
"""

from __future__ import annotations

from collections.abc import Sequence

from thinwire.codec.base import Codec
from thinwire.codec.quantize import Quantize
from thinwire.codec.top_k import TopK
from thinwire.runtime import fidelity

AUTO = "auto"

# From the most faithful down; the ladder leaves out what turns out no smaller than a more faithful one.
CANDIDATES: tuple[Codec, ...] = (
    *(Quantize(bits=bits) for bits in (8, 6, 4, 3, 2, 1)),
    *(TopK(k=k, values=Quantize(bits=8)) for k in (0.03, 0.01)),
)


def codec_of(asked: str | Codec) -> Codec | None:
    """The codec that a fixed fidelity asks for; None for exact, also where a codec loses nothing.

    Raises:
        UsageError: there is no such codec.

    >>> codec_of("exact") is None
    True
    """
    codec = fidelity.codec_of(asked)
    return None if codec is None or codec.is_lossless else codec


def candidates(allowed: Sequence[str] | None) -> list[Codec]:
    """The codecs to choose from: those that the user allows, or all of ``CANDIDATES``.

    Raises:
        UsageError: the user names one that does not exist.
    """
    found = map(codec_of, CANDIDATES if allowed is None else allowed)
    return [codec for codec in found if codec is not None]
