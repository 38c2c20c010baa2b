"""Intervals of means: Student's t against published values and by simulation."""

import math

import numpy as np
import pytest
from stvsr.training.intervals import mean_interval, t_quantile

# Two-sided 95 % and 99 % points of Student's t, from printed tables.
TABLE = {1: (12.706, 63.657), 2: (4.303, 9.925), 3: (3.182, 5.841), 4: (2.776, 4.604), 7: (2.365, 3.499),
         10: (2.228, 3.169), 29: (2.045, 2.756), 120: (1.980, 2.617)}  # fmt: skip


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_those_of_tables(degrees: int) -> None:
    found = (t_quantile(degrees), t_quantile(degrees, 0.99))
    assert found == pytest.approx(TABLE[degrees], abs=6e-4)


def test_the_interval_of_three_values() -> None:
    low, high = mean_interval([30.0, 31.0, 35.0]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(32)
    assert (high - low) / 2 == pytest.approx(4.3027 * math.sqrt(7 / 3), rel=1e-4)


@pytest.mark.parametrize("count", [2, 4, 9])
def test_intervals_hold_the_mean_as_often_as_stated(count: int) -> None:
    samples = np.random.default_rng(count).normal(30.0, 2.0, (4000, count))
    intervals = [mean_interval(list(sample)) or (0, 0) for sample in samples]
    share = np.mean([low <= 30.0 <= high for low, high in intervals])
    assert share == pytest.approx(0.95, abs=0.015)  # four standard errors of 4000 trials


def test_nothing_is_claimed_of_one_clip_or_of_equal_frames() -> None:
    assert mean_interval([30.0]) is None
    assert mean_interval([30.0, math.inf]) is None
    assert mean_interval([30.0, 30.0]) == (30.0, 30.0)
