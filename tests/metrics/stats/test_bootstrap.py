"""The hierarchical bootstrap: its spread is that of the estimate, its skewness that of theory."""

import numpy as np
import pytest

from gansynth.metrics.stats.anova import Squares, Variance
from gansynth.metrics.stats.bootstrap import FEW, Bend, Resamples, resample
from gansynth.metrics.stats.runs import Floats
from gansynth.metrics.stats.simulation import Design, simulated

TRUTH = Variance(0.3, 0.3, 4, 0.3, 2)
CASES = Variance(0.01, 0.01, 4, 0.01, 0.1)


def drawn(table: Floats, number: int = 40_000) -> Resamples:
    rng = np.random.default_rng(0)
    return resample(Squares.of(table), table.mean(axis=-2), number, rng)


def table(design: Design, variance: Variance = TRUTH, skewness: float = 0.0) -> Floats:
    rng = np.random.default_rng(0)
    values = simulated(variance, design, rng, skewness={"case": skewness})
    return np.asarray(values[0].mean(axis=1))


@pytest.mark.parametrize("design", [Design(4, 2, 30), Design(3, 2, FEW - 2)], ids=str)
def test_means_spread_as_the_standard_error_says(design):
    values = table(design)
    found = drawn(values)
    assert found.squares.mean.std() == pytest.approx(
        float(Squares.of(values).standard_error), rel=0.03
    )


@pytest.mark.parametrize("name", ["run", "case", "cross"])
def test_mean_squares_are_on_average_those_of_the_table(name):
    values = table(Design(4, 2, 30))
    found = getattr(drawn(values).squares, name)
    assert found.mean() == pytest.approx(float(getattr(Squares.of(values), name)), rel=0.03)


def test_the_bend_is_nearly_that_of_an_edgeworth_expansion():
    # Hall 1992: P(t <= x) = Phi(x) + skewness / 6 (2 x^2 + 1) phi(x), the mean's skewness.
    values = table(Design(6, 2, 60), CASES, skewness=3)
    columns = values.mean(axis=0) - values.mean()
    third = (columns**3).mean() / len(columns) ** 2
    skewness = third / float(Squares.of(values).standard_error) ** 3
    assert skewness > 0.1
    found = drawn(values, 200_000).bend(0.05)
    assert found.bend == pytest.approx(-skewness / 3, rel=0.25)
    assert found.shift == pytest.approx(-skewness / 6, rel=0.4)


def test_too_few_subjects_have_no_skewness():
    found = drawn(table(Design(4, 2, FEW - 1), skewness=2)).bend(0.05)
    assert not found.shift.any()
    assert not found.bend.any()


@pytest.mark.parametrize("bend", [-0.15, -0.05, 0.0, 0.05, 0.15])
def test_scores_come_back_and_keep_their_order(bend):
    it = Bend(np.array(0.1), np.array(bend))
    scores = np.linspace(-6, 6, 201)
    bent = it.bent(scores)
    assert it.straight(bent) == pytest.approx(scores, abs=1e-9)
    assert (np.diff(bent) > 0).all()


def test_the_same_seed_draws_the_same():
    values = table(Design(3, 2, 20))
    assert (drawn(values, 500).t == drawn(values, 500).t).all()
