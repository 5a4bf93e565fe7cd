"""Intervals of means stay within what is possible, and cover what they are to hold."""

import math

import numpy as np
import pytest

from gansynth.metrics.stats.bounds import within
from gansynth.metrics.stats.compare import interval_of_mean
from gansynth.metrics.stats.runs import Runs

SHARE, LENGTH = (0.0, 1.0), (0.0, math.inf)


@pytest.mark.parametrize(
    ("middle", "low", "high", "bounds"),
    [
        (0.584, 0.101, 1.09, SHARE),
        (0.708, -40.1, 0.818, SHARE),
        (7.1, -1.8, 16.0, LENGTH),
        (0.5, -1e9, 1e9, SHARE),
    ],
)
def test_an_interval_that_reaches_beyond_is_brought_within(middle, low, high, bounds):
    ends = within(middle, low, high, bounds)
    assert ends[0] is not None
    assert ends[1] is not None
    assert bounds[0] <= ends[0] < middle < ends[1] <= bounds[1]


@pytest.mark.parametrize(
    ("middle", "half", "bounds"), [(0.5, 0.01, SHARE), (0.9, 0.002, SHARE), (8.0, 0.1, LENGTH)]
)
def test_a_narrow_interval_stays_nearly_as_it_is(middle, half, bounds):
    ends = within(middle, middle - half, middle + half, bounds)
    assert ends == pytest.approx((middle - half, middle + half), abs=0.02 * half)


def test_without_bounds_an_interval_is_as_it_was():
    assert within(0.2, -4.0, 4.0, (-math.inf, math.inf)) == (-4.0, 4.0)


def test_values_that_all_lie_on_a_bound_have_that_for_an_interval():
    assert within(1.0, 1.0, 1.0, SHARE) == (1.0, 1.0)


def test_an_interval_that_says_nothing_is_none():
    assert within(15.0, -60.0, 90.0, LENGTH) == (None, None)


def test_of_few_runs_the_interval_of_a_mean_holds_the_truth_and_lies_within():
    """Scores near 1 of 3 draws x 2 seeds, whose plain intervals reach beyond 1."""
    rng, held, wide = np.random.default_rng(0), 0, 0
    drawn = rng.normal(3, math.sqrt(0.65), 400_000)
    truth = (1 / (1 + np.exp(-drawn))).mean()
    for _ in range(200):
        score = 3 + rng.normal(0, 0.3, (3, 1, 1)) + rng.normal(0, 0.2, (3, 2, 1))
        score = score + rng.normal(0, 0.6, 10) + rng.normal(0, 0.4, (3, 2, 10))
        values = 1 / (1 + np.exp(-score.reshape(6, 10)))
        runs = Runs(values, (0, 0, 1, 1, 2, 2), (0, 1) * 3, tuple("abcdefghij"))
        plain = interval_of_mean(runs, resamples=200)
        found = interval_of_mean(runs, bounds=SHARE, resamples=200)
        assert found.low is not None
        assert found.high is not None
        assert plain.high is not None
        assert 0 <= found.low <= found.high <= 1
        wide += plain.high > 1
        held += found.low <= truth <= found.high
    assert wide > 10
    assert held >= 184  # of 95 %: 190 +- 3
