"""The next value of a link's bandwidth or round trip, with an interval, and the moments when it became another link.

A ``Forecaster`` asks every predictor, weighs each by its error so far, older errors less, and takes the weighted mean.
Levels matter as ratios, so everything works on logarithms: half and double are equally far away.

Changes are found by a two-sided cumulative sum (Page 1954) of the distances from the level before, against a shift of
``CHANGE``. No one or two values can raise an alarm: outliers are common, and are no change.

Pure: no clock, no network. Not here: what to do about a change (the planner's and the autopilot's).
"""

from __future__ import annotations

import math
import statistics
from collections import deque

import msgspec

from thinwire.errors import UsageError
from thinwire.forecast.predictors import PREDICTORS

CHANGE = 2.0  # the ratio that the detector is made for

_ALLOWANCE = math.log(CHANGE) / 2  # Page's reference value for a shift: half of it
_ALARM = 0.75
_LARGEST_STEP = 0.34  # of the sum: three values in a row are needed for an alarm, whatever they are
_NOISES_TO_ALARM = 5.0
_LEARNING = 0.05  # of the detector's level and noise, a value
_ERROR_MEMORY = 0.97
_SHARPNESS = 12.0  # how much a predictor that errs twice as much as the best loses: all but exp(-12)
_INTERVAL_LENGTH = 60
_TINY = 1e-12  # what a value of 0 is taken for: a link that carries nothing


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What to expect next.

    Attributes:
        value: the mixture's prediction.
        low, high: the interval that nine of ten of the recent values would have been in.
        best: the predictor that has the most weight.
    """

    value: float
    low: float
    high: float
    best: str


class Forecaster:
    """Predicts one positive quantity that is observed at regular intervals.

    Attributes:
        num_observed: how many values it has been told.

    >>> forecaster = Forecaster()
    >>> changes = [forecaster.observe(value) for value in [100.0] * 20 + [40.0] * 4]
    >>> changes.index(True), round(forecaster.forecast().value)
    (22, 40)
    """

    def __init__(self) -> None:
        self._predictors = {name: make() for name, make in PREDICTORS.items()}
        self._errors = dict.fromkeys(PREDICTORS, 0.0)
        self._misses: deque[float] = deque(maxlen=_INTERVAL_LENGTH)  # of the mixture, signed
        self._detector = ChangeDetector()
        self.num_observed = 0

    def observe(self, value: float) -> bool:
        """Take the next value. Says whether the level has changed.

        Raises:
            UsageError: it is negative or not a number.
        """
        if not 0 <= value < math.inf:
            raise UsageError(f"observed {value}: a bandwidth or a time is a finite number from 0 up")
        level = math.log(max(value, _TINY))
        if self.num_observed:
            self._misses.append(level - self._mixture()[0])
            for name, predictor in self._predictors.items():
                error = abs(level - predictor.predict())
                self._errors[name] = _ERROR_MEMORY * self._errors[name] + error
        self.num_observed += 1
        changed = self._detector.observe(level)
        if changed:  # what was learnt of the old level misleads
            self._predictors = {name: make() for name, make in PREDICTORS.items()}
        for predictor in self._predictors.values():
            predictor.observe(level)
        return changed

    def forecast(self) -> Forecast:
        """What to expect next.

        Raises:
            UsageError: nothing was observed yet.
        """
        if not self.num_observed:
            raise UsageError("there is nothing to forecast from: observe a value first")
        level, best = self._mixture()
        spread = statistics.quantiles([*map(abs, self._misses), 0.0, 0.0], n=10)[-1]
        return Forecast(
            value=math.exp(level), low=math.exp(level - spread), high=math.exp(level + spread), best=best
        )

    def errors(self) -> dict[str, float]:
        """Predictor -> its mean recent error, as a fraction of the value."""
        weight = sum(_ERROR_MEMORY**age for age in range(self.num_observed - 1)) or 1.0
        return {name: error / weight for name, error in self._errors.items()}

    def _mixture(self) -> tuple[float, str]:
        """The weighted mean of the predictions, on the logarithmic scale; and who has the most weight."""
        least = min(self._errors.values()) + 1e-9
        weights = {
            name: math.exp(-_SHARPNESS * (error / least - 1) if error < 60 * least else -700)
            for name, error in self._errors.items()
        }
        total = sum(weights.values())
        mean = (
            sum(weights[name] * predictor.predict() for name, predictor in self._predictors.items()) / total
        )
        return mean, max(weights, key=lambda name: weights[name])


class ChangeDetector:
    """Finds lasting shifts of a level by a factor, in a series of logarithms.

    The level and the noise about it are learnt from the values since the last change.
    """

    def __init__(self) -> None:
        self._level: float | None = None
        self._noise = 0.0  # mean distance from the level
        self._rise = self._fall = 0.0
        self._before = 0.0

    def observe(self, value: float) -> bool:
        """Take the next logarithm. Says whether the level has changed since the last change."""
        if self._level is None:
            self._level = self._before = value
            return False
        distance = value - self._level
        self._rise = max(0.0, self._rise + min(distance - _ALLOWANCE, _LARGEST_STEP))
        self._fall = max(0.0, self._fall + min(-distance - _ALLOWANCE, _LARGEST_STEP))
        alarm = max(_ALARM, _NOISES_TO_ALARM * self._noise)
        if self._rise > alarm or self._fall > alarm:
            self._level = (self._before + value) / 2
            self._rise = self._fall = 0.0
            self._before = value
            return True
        self._before = value
        self._noise += _LEARNING * (min(abs(distance), _ALLOWANCE) - self._noise)  # a change is no noise
        if not (self._rise or self._fall):
            self._level += _LEARNING * distance
        return False
