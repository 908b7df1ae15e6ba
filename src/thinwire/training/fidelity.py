"""Fidelities as users write them, and the codecs that the autopilot chooses from by itself.

Not here: how codecs are written (``codec.text``), and what they cost (``calibration``).
"""

from __future__ import annotations

from collections.abc import Sequence

from thinwire.codec.base import Codec
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.top_k import TopK
from thinwire.runtime import fidelity

AUTO = "auto"

_BYTES = Homomorphic(bits=8, num_contributions=1)  # what is kept, as one byte a value

# From the most faithful down; the ladder leaves out what turns out no smaller than a more faithful one.
CANDIDATES: tuple[Codec, ...] = (
    _BYTES,
    TopK(k=0.3, values=_BYTES),
    TopK(k=0.1, values=_BYTES),
    TopK(k=0.03, values=_BYTES),
    TopK(k=0.01, values=_BYTES),
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
