"""The bootstrap draws patients."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest

from gansynth.metrics.detection.free_response import sensitivity
from gansynth.metrics.detection.matching import match, pooled
from gansynth.metrics.detection.resampling import estimate, everyone, resamples, with_interval
from tests.metrics.detection.simulated import document, seen

A = (0, 0, 10, 10)


def test_a_resample_has_as_many_patients_and_all_are_equally_likely():
    drawn = resamples(5, 4000, np.random.default_rng(0))
    assert (drawn.sum(axis=1) == 5).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(drawn.var(axis=0), 0.8, atol=0.06)


def test_a_seed_is_a_seed():
    one, same, other = (resamples(5, 9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    weights = resamples(50, 20_000, np.random.default_rng(1))
    found = estimate(lambda w: w @ values / 50, weights)
    half = 1.96 * values.std() / np.sqrt(50)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.01
    )


def test_slices_of_one_patient_do_not_narrow_the_interval():
    """Ten slices that are all alike tell no more of a patient than one."""

    def spread(slices, patient):
        images = [
            seen(
                f"{p}.{z}", [A], [A] if p % 2 else [], [0.9] if p % 2 else [], subject=patient(p, z)
            )
            for p in range(20)
            for z in range(slices)
        ]
        pool = pooled(document(*images))
        hits = match(pool, (0.5,))[0]
        weights = resamples(len(pool.subjects), 1000, np.random.default_rng(0))
        found = estimate(lambda w: sensitivity(pool, hits, weights=w), weights)
        return found.high - found.low

    one, ten = spread(1, lambda p, z: f"{p}"), spread(10, lambda p, z: f"{p}")
    apart = spread(10, lambda p, z: f"{p}.{z}")
    assert ten == one
    assert apart < 0.5 * ten


def test_what_is_undefined_is_left_out():
    found = with_interval(0.5, [np.array([np.nan, 0.5, 0.5]), np.array([np.nan])])
    assert (found.low, found.high) == (0.5, 0.5)
    none = with_interval(np.nan, [np.array([np.nan])])
    assert none.to_json() == {"value": None, "low": None, "high": None}


def test_everyone_is_there_once():
    assert everyone(3).tolist() == [[1, 1, 1]]
