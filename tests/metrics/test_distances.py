import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.distances import (
    BANDS,
    MOST_VOXELS,
    HistogramMetric,
    distance,
    radial_power,
    spectrum_ratio,
)


def normal(mean: float, deviation: float) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, deviation, 20_000).astype(np.float32)


@pytest.mark.parametrize(
    ("one", "real", "expected"),
    [
        *[(s * normal(3, 2), s * normal(0, 2), 1.5) for s in (0.01, 1e6)],
        (normal(0, 2), normal(0, 1), np.sqrt(2 / np.pi)),  # E|x| of a standard normal
        (np.linspace(0, 1, 2 * MOST_VOXELS + 5), np.linspace(0, 1, MOST_VOXELS), 0),
        ([], [1, 2], np.nan),
        ([1, 2], [], np.nan),
        ([1, 2], [3, 3], np.nan),
    ],
    ids=["tiny", "huge", "wider", "thinned", "none", "no real", "no spread"],
)
def test_histograms_are_apart_by_deviations_of_the_real(one, real, expected):
    found = distance(np.array(one, np.float32), np.array(real, np.float32))
    assert found == pytest.approx(expected, rel=0.02, abs=0.03 if expected == 0 else 0, nan_ok=True)


def test_channels_and_labels_are_measured_apart_and_as_a_whole_without_labels():
    schema = Schema(("T1", "FLAIR"), {"background": 0, "lesion": 1, "rare": 2}, (1.0, 1.0), "HW")
    images = np.random.default_rng(0).standard_normal((8, 2, 32, 32)).astype(np.float32)
    labels = np.repeat([1, 0], 16)[:, None].repeat(32, 1).astype(np.int16)
    real = [Case(str(n), str(n), i, labels) for n, i in enumerate(images[:4])]
    images[4:, 1] += 2 * labels
    drawn = [Sample(image, labels) for image in images[4:]]
    found = dict(HistogramMetric().measure(drawn, real, schema))
    assert max(found["T1"], found["T1 lesion"], found["FLAIR background"]) < 0.1
    assert found["FLAIR lesion"] == pytest.approx(2, abs=0.1)
    assert np.isnan(found["FLAIR rare"])
    whole = HistogramMetric().measure([Sample(images[5])], real, schema)
    assert list(whole) == ["T1", "FLAIR"]


ONES = (1.0, 1.0, 1.0)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((8, 2, 16, 16, 16)).astype(np.float32)


def test_blur_shows_as_a_fall_at_high_frequencies_of_its_channel_alone():
    blurred = noise(0)
    blurred[:, 0] = gaussian_filter(blurred[:, 0], (0, 1, 1, 1))
    ratio, other = spectrum_ratio(blurred, noise(0), ONES)
    assert (np.diff(ratio[1:]) < 0).all()
    assert ratio[1] > 0.5
    assert ratio[-1] < 0.01
    assert other == pytest.approx(1)
    assert spectrum_ratio(3 * noise(0), noise(0), ONES) == pytest.approx(9)
    assert spectrum_ratio(noise(0) + 5, noise(0), ONES) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("width", "period", "spacing", "band"),
    [
        *[(64, period, (1.0, 1.0), 2 * BANDS // period) for period in (4, 8)],
        # 16 voxels of the finer axis are 8 of the coarser: a quarter of what it can hold.
        *[(128, 16, (2 * mm, mm), BANDS // 4) for mm in (0.5, 3.0)],
    ],
)
def test_a_wave_lies_in_the_band_of_its_frequency_up_to_the_coarsest_axis(
    width, period, spacing, band
):
    wave = np.sin(2 * np.pi * np.arange(width) / period)
    image = np.broadcast_to(wave, (1, 64, width)).astype(np.float32)
    assert radial_power(image, spacing)[0].argmax() == band
