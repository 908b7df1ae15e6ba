"""A look at one bucket's encode: how much of what was meant was sent, and how much is owed after it.

Copies the bucket, so it is done now and then only. Not here: judging it (``planner.guard``).
"""

from __future__ import annotations

import numpy as np

from thinwire.codec.base import Floats
from thinwire.planner.guard import Evidence


class Sample:
    """Made before an encode, asked after it.

    Args:
        gradient: flat; it is about to be encoded with error feedback.
        residual: what is owed from before; empty if nothing is.

    >>> sample = Sample(np.array([3.0, 4.0], np.float32), np.zeros(0, np.float32))
    >>> sample.evidence(np.array([0.0, 4.0], np.float32))  # only the first value was sent
    Evidence(residual_ratio=0.8, cosine=0.6, loss=None)
    """

    def __init__(self, gradient: Floats, residual: Floats) -> None:
        self._gradient_norm = float(np.linalg.norm(gradient))
        self._meant = gradient + residual if residual.size else gradient.copy()

    def evidence(self, residual: Floats) -> Evidence:
        """``residual``: what is owed now."""
        if not self._gradient_norm or residual.size != self._meant.size:
            return Evidence()
        sent = self._meant - residual
        lengths = float(np.linalg.norm(sent)) * float(np.linalg.norm(self._meant))
        return Evidence(
            residual_ratio=round(float(np.linalg.norm(residual)) / self._gradient_norm, 6),
            cosine=round(float(sent @ self._meant) / lengths, 6) if lengths else 0.0,
        )
