"""A bandwidth learnt from two kinds of figures: what the network let through, and what was sent when it was not asked
for more.

The second is a lower bound, and must not pull the forecast down: a job that computes for a while has not made the wire
slower. So it counts where the median of the last few is above what is expected (a single one may be, by chance), or
where the network has not been the limit for ``MEMORY_S``.
Of a whole wire the best of the last few limits counts, because a stream that ends and begins within an interval costs
it a round trip or two, and nothing makes a wire faster. A link that shares one is faster while others pause, so there
the mean is the truth.

Not here: which figure is of which kind (``traffic``, ``wire``).
"""

from __future__ import annotations

import statistics
from collections import deque

from thinwire.forecast.forecaster import Forecast, Forecaster

MEMORY_S = 10.0
_BOUNDS = 5


class Rate:
    """Learns one bandwidth.

    Args:
        best_of: of how many limits the best counts.

    Attributes:
        is_limit: whether the newest figure that counted was the network's limit.

    >>> rate = Rate()
    >>> [rate.observe(second, 1e6, is_limit=True) for second in range(3)]
    [False, False, False]
    >>> rate.observe(3, 1e3, is_limit=False), round(rate.forecast().value), rate.is_limit
    (False, 1000000, True)
    """

    def __init__(self, best_of: int = 1) -> None:
        self._forecaster = Forecaster()
        self._limited_s = float("-inf")
        self._limits: deque[float] = deque(maxlen=best_of)
        self._bounds: deque[float] = deque(maxlen=_BOUNDS)
        self.is_limit = False

    def observe(self, now_s: float, bytes_per_s: float, *, is_limit: bool) -> bool:
        """Take what was reached lately. Says whether the level has changed."""
        if not is_limit:
            self._bounds.append(bytes_per_s)
            expected = self.forecast()
            if now_s - self._limited_s <= MEMORY_S and expected is not None:
                bytes_per_s = statistics.median(self._bounds)
                if len(self._bounds) < _BOUNDS or bytes_per_s <= expected.value:
                    return False
        else:
            self._limited_s = now_s
            self._limits.append(bytes_per_s)
            bytes_per_s = max(self._limits)
        self.is_limit = is_limit
        return self._forecaster.observe(bytes_per_s)

    def forecast(self) -> Forecast | None:
        """What to expect next; None if nothing is known."""
        return self._forecaster.forecast() if self._forecaster.num_observed else None
