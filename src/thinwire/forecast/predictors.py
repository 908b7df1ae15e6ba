"""Cheap one-step predictors of a series: each is told a value and asked for the next.

The set and the idea of keeping many of them are those of the Network Weather Service (Wolski, Spring and Hayes, "The
Network Weather Service: a distributed resource performance forecasting service for metacomputing", 1999).

Not here: choosing among them (``forecast``).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

_LARGEST_COVARIANCE = 1e4


class Predictor(Protocol):
    """Told at least one value before it is asked."""

    def observe(self, value: float) -> None: ...

    def predict(self) -> float: ...


class Last:
    """Tomorrow is like today."""

    def observe(self, value: float) -> None:
        self._value = value

    def predict(self) -> float:
        return self._value


class Median:
    """The median of the last ``length`` values: blind to outliers, late at steps."""

    def __init__(self, length: int) -> None:
        self._values: deque[float] = deque(maxlen=length)

    def observe(self, value: float) -> None:
        self._values.append(value)

    def predict(self) -> float:
        return statistics.median(self._values)


class Average:
    """The exponential moving average with the given weight of the newest value."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._average: float | None = None

    def observe(self, value: float) -> None:
        before = value if self._average is None else self._average
        self._average = before + self._weight * (value - before)

    def predict(self) -> float:
        assert self._average is not None
        return self._average


class Holt:
    """Level and trend, each an exponential average (Holt 1957)."""

    def __init__(self, level_weight: float = 0.5, trend_weight: float = 0.2) -> None:
        self._weights = level_weight, trend_weight
        self._level: float | None = None
        self._trend = 0.0

    def observe(self, value: float) -> None:
        if self._level is None:
            self._level = value
            return
        level_weight, trend_weight = self._weights
        before = self._level
        self._level = level_weight * value + (1 - level_weight) * (before + self._trend)
        self._trend += trend_weight * (self._level - before - self._trend)

    def predict(self) -> float:
        assert self._level is not None
        return self._level + self._trend


class Autoregression:
    """A constant plus a linear function of the last values, fitted by recursive least squares.

    It works on distances from the first value, and begins as the last-value predictor.

    Args:
        order: how many values it looks back.
        memory: the weight that a sample keeps from one step to the next.
    """

    def __init__(self, order: int = 3, memory: float = 0.99) -> None:
        self._memory = memory
        self._first: float | None = None
        self._past = np.zeros(order + 1)  # 1, then the distances, newest first
        self._past[0] = 1.0
        self._coefficients = np.zeros(order + 1)
        self._coefficients[1] = 1.0
        self._covariance = np.eye(order + 1)

    def observe(self, value: float) -> None:
        if self._first is None:
            self._first = value
        distance = value - self._first
        gain = self._covariance @ self._past / (self._memory + self._past @ self._covariance @ self._past)
        self._coefficients += gain * (distance - self._coefficients @ self._past)
        self._covariance = (self._covariance - np.outer(gain, self._past @ self._covariance)) / self._memory
        size = float(np.trace(self._covariance))
        if size > _LARGEST_COVARIANCE:  # nothing new for long: without this it would grow without end
            self._covariance *= _LARGEST_COVARIANCE / size
        self._past[2:] = self._past[1:-1].copy()
        self._past[1] = distance

    def predict(self) -> float:
        assert self._first is not None
        return self._first + float(self._coefficients @ self._past)


PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "last value": Last,
    "median of 5": lambda: Median(5),
    "median of 21": lambda: Median(21),
    "average, weight 0.05": lambda: Average(0.05),
    "average, weight 0.2": lambda: Average(0.2),
    "average, weight 0.5": lambda: Average(0.5),
    "Holt": Holt,
    "autoregression": Autoregression,
}
