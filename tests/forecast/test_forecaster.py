"""Forecasts and change points, on series made up here; the published bounds are those of ``benchmarks/forecast.py``."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.forecast import DELAY_BOUND_S, ERROR_BOUND, all_series, assess
from thinwire.errors import UsageError
from thinwire.forecast.forecaster import ChangeDetector, Forecaster
from thinwire.forecast.predictors import PREDICTORS


@pytest.mark.parametrize("name", all_series())
def test_the_published_bounds_hold_with_another_seed(name: str) -> None:
    result = assess(all_series(seed=1000)[name])
    assert result.mixture <= ERROR_BOUND * result.best
    assert max(result.delays_s, default=0.0) <= DELAY_BOUND_S
    assert (result.num_missed, result.num_false) == (0, 0)
    assert 0.85 <= result.coverage <= 0.95


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_predictor_says_of_a_constant_that_it_stays(name: str) -> None:
    predictor = PREDICTORS[name]()
    for _ in range(50):
        predictor.observe(-3.5)
    assert predictor.predict() == pytest.approx(-3.5)


def test_holt_follows_a_trend_and_autoregression_an_oscillation() -> None:
    holt, autoregression, last = (PREDICTORS[name]() for name in ("Holt", "autoregression", "last value"))
    for index in range(100):
        holt.observe(2.0 * index)
        autoregression.observe(10 + math.cos(index))
        last.observe(10 + math.cos(index))
    assert holt.predict() == pytest.approx(200, abs=0.1)
    truth = 10 + math.cos(100)
    assert abs(autoregression.predict() - truth) < abs(last.predict() - truth) / 5


def test_a_forecast_does_not_depend_on_the_unit() -> None:
    values = 100 * np.exp(np.random.default_rng(3).normal(size=80) * 0.1)
    seconds, milliseconds = Forecaster(), Forecaster()
    for value in values.tolist():
        seconds.observe(value)
        milliseconds.observe(value * 1000)
    assert milliseconds.forecast().value == pytest.approx(1000 * seconds.forecast().value, rel=0.01)


def test_an_outlier_is_no_change_and_a_halving_is_one() -> None:
    detector = ChangeDetector()
    series = [0.0] * 20 + [5.0] * 2 + [0.0] * 20 + [-math.log(2)] * 20
    assert [index for index, value in enumerate(series) if detector.observe(value)] == [44]


def test_a_dead_link_is_forecast_as_dead() -> None:
    forecaster = Forecaster()
    for value in [50.0] * 10 + [0.0] * 10:
        forecaster.observe(value)
    assert forecaster.forecast().value < 1e-6


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="observe a value first"):
        Forecaster().forecast()
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="finite number"):
            Forecaster().observe(value)
