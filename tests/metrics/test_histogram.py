"""The histogram distance: by hand, in standard deviations, per channel and label."""

import numpy as np
import pytest

from gansynth.core.registry import installed
from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.intensity import MOST, distance

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "lesion": 1, "rare": 2}, (1.0, 1.0), "HW")


def normal(mean: float, deviation: float, number: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, number).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 1, 1e6])
def test_a_shift_counts_in_deviations_of_the_real(scale):
    assert distance(scale * normal(3, 2), scale * normal(0, 2)) == pytest.approx(1.5, rel=0.02)


def test_a_wider_distribution_is_apart_by_its_mean_deviation():
    """E|x| of a standard normal is sqrt(2 / pi)."""
    assert distance(normal(0, 2), normal(0, 1)) == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)


def test_two_draws_of_one_distribution_are_near():
    assert distance(normal(0, 1, seed=1), normal(0, 1)) < 0.03


def test_more_voxels_than_needed_are_thinned_evenly():
    many = np.linspace(0, 1, 2 * MOST + 5, dtype=np.float32)
    assert distance(many, many[::7]) < 1e-3


@pytest.mark.parametrize(
    ("synthetic", "real"), [([], [1, 2]), ([1, 2], []), ([1, 2], [3, 3])], ids=str
)
def test_what_cannot_be_compared_is_not_a_number(synthetic, real):
    assert np.isnan(distance(np.array(synthetic, np.float32), np.array(real, np.float32)))


def case(seed: int, lesion: float) -> Case:
    """The first channel is noise; the second is brighter by ``lesion`` where the label is 1."""
    draw = np.random.default_rng(seed)
    image, labels = draw.standard_normal((2, 32, 32)).astype(np.float32), np.zeros((32, 32))
    labels[:16] = 1
    image[1] += lesion * labels
    return Case(str(seed), str(seed), image, labels.astype(np.int16))


def found(synthetic: list[Sample]) -> dict[str, float]:
    metric = installed().metric("histogram")
    return dict(metric(synthetic, [case(seed, 2) for seed in range(4)], SCHEMA))


def test_channels_and_labels_are_measured_apart():
    dark = [Sample(c.image, c.labels) for c in (case(seed, 0) for seed in range(4, 8))]
    measured = found(dark)
    assert list(measured) == [
        f"{channel}{label}"
        for channel in ("T1", "FLAIR")
        for label in ("", " background", " lesion", " rare")
    ]
    assert max(measured["T1"], measured["T1 lesion"], measured["FLAIR background"]) < 0.1
    assert measured["FLAIR lesion"] == pytest.approx(2, abs=0.1)
    assert np.isnan(measured["FLAIR rare"])


def test_samples_without_labels_are_measured_as_a_whole():
    assert list(found([Sample(case(9, 2).image)])) == ["T1", "FLAIR"]
