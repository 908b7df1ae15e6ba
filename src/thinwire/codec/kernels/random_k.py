"""One place in each of k equal parts, drawn from a seed.

Not here: what is sent of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import hashed


@kernel
def places(seed: np.uint64, size: int, unbiased: bool, where: Any, factors: Any) -> None:
    """Fill ``where`` with a place in each of its ``where.size`` parts of ``size``, ``factors`` with the parts' lengths.

    Args:
        unbiased: else ``factors`` are left alone.
    """
    k = where.size
    for part in range(k):
        start = part * size // k
        length = (part + 1) * size // k - start
        drawn = hashed(seed, np.uint64(part)) >> np.uint64(32)
        where[part] = start + np.int64((drawn * np.uint64(length)) >> np.uint64(32))
        if unbiased:
            factors[part] = length
