import numpy as np
import pytest
from scipy.stats import binomtest, norm

from gansynth_evaluate.turing.inference import (
    fleiss_kappa,
    pooled_proportion,
    proportion_of,
)


@pytest.mark.parametrize(
    ("correct", "answers"), [(70, 100), (50, 100), (0, 10), (10, 10), (1, 7), (0, 0)]
)
def test_a_raters_interval_and_p_are_exact(correct, answers):
    found = proportion_of(correct, answers)
    if not answers:
        assert (found.value, found.low, found.high, found.p) == (None, 0, 1, 1)
        return
    known = binomtest(correct, answers)
    interval = known.proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.p == pytest.approx(known.pvalue, abs=1e-12)
    assert found.value == correct / answers


@pytest.mark.parametrize("spread", [(0.5, 1.0), (0.0, 0.0), (1.0, 0.2)])
def test_nineteen_of_twenty_pooled_intervals_hold_the_truth(spread):
    """Raters differ, images differ; on average 60 % of answers are correct."""
    rng, inside, (of_raters, of_images) = np.random.default_rng(1), 0, spread
    middle = norm.ppf(0.6) * np.sqrt(1 + of_raters**2 + of_images**2)
    for _ in range(100):
        skill = middle + rng.normal(0, of_raters, (4, 1))
        ease = rng.normal(0, of_images, (1, 60))
        found = pooled_proportion(skill + ease + rng.normal(size=(4, 60)) > 0)
        of_these = norm.cdf(skill / np.sqrt(1 + of_images**2)).mean()
        inside += found.low <= of_these <= found.high
    assert inside / 100 >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 100)


def test_answers_that_all_agree_count_once_and_independent_ones_nearly_all():
    rng = np.random.default_rng(0)
    one = rng.random(100) < 0.6
    pooled, alone = pooled_proportion(np.tile(one, (4, 1))), proportion_of(int(one.sum()), 100)
    assert pooled.value == alone.value
    assert pooled.worth == pytest.approx(100, rel=0.03)
    assert (pooled.low, pooled.high) == pytest.approx((alone.low, alone.high), abs=0.005)
    assert 700 < pooled_proportion(rng.random((5, 200)) < 0.6).worth <= 1000


@pytest.mark.parametrize("all_right", [True, False])
def test_raters_who_are_all_right_or_all_wrong_count_as_one(all_right):
    found = pooled_proportion(np.full((3, 20), all_right))
    assert (found.value, found.worth) == (float(all_right), 20)


@pytest.mark.parametrize(
    ("found", "kappa"),
    [
        # Three raters, two images: P = (1 + 1/3) / 2, chance (4/6)^2 + (2/6)^2.
        (fleiss_kappa([[3, 0], [1, 2]]), (2 / 3 - 5 / 9) / (1 - 5 / 9)),
        (fleiss_kappa([[3, 0], [3, 0]]), None),
    ],
)
def test_kappa_by_hand(found, kappa):
    assert found == pytest.approx(kappa, abs=5e-4)
