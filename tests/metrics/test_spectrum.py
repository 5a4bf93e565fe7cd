"""The power spectrum ratio: flat for equal texture, falling for blur, per channel, in mm."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.metrics.spectrum import BANDS, radial_power, spectrum_ratio


def noise(seed: int, n: int = 8, shape: tuple[int, ...] = (2, 16, 16, 16)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(n)]


def blurred(images: list[np.ndarray], channel: int) -> list[np.ndarray]:
    copies = [i.copy() for i in images]
    for image in copies:
        image[channel] = gaussian_filter(image[channel], 1.0)
    return copies


ONES = (1.0, 1.0, 1.0)


def test_two_draws_of_one_noise_have_ratio_one():
    ratio = spectrum_ratio(noise(0), noise(1), ONES)
    assert ratio.shape == (2, BANDS)
    assert ratio[:, 1:] == pytest.approx(1, abs=0.25)


def test_white_noise_has_the_same_power_at_every_frequency():
    power = np.mean([radial_power(i, ONES) for i in noise(2)], axis=0)
    assert power[:, 1:] / power[:, 1:].mean() == pytest.approx(1, abs=0.25)


def test_blur_shows_as_a_fall_at_high_frequencies():
    ratio = spectrum_ratio(blurred(noise(0), 0), noise(1), ONES)[0]
    assert (np.diff(ratio[1:]) < 0).all()
    assert ratio[1] > 0.5
    assert ratio[-1] < 0.01


def test_channels_are_measured_apart():
    ratio = spectrum_ratio(blurred(noise(0), 0), noise(0), ONES)
    assert ratio[0, -1] < 0.01
    assert ratio[1] == pytest.approx(1)


def test_power_goes_with_the_square_of_the_amplitude():
    louder = [3 * i for i in noise(0)]
    assert spectrum_ratio(louder, noise(0), ONES) == pytest.approx(9)


def test_brightness_does_not_count():
    brighter = [i + 5 for i in noise(0)]
    assert spectrum_ratio(brighter, noise(0), ONES) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("period", [4, 8])
def test_a_wave_lies_in_the_band_of_its_frequency(period):
    wave = np.sin(2 * np.pi * np.arange(64) / period)
    image = np.broadcast_to(wave, (1, 64, 64)).astype(np.float32)
    power = radial_power(image, (1.0, 1.0))[0]
    assert power.argmax() == 2 * BANDS // period


@pytest.mark.parametrize("spacing", [(1.0, 0.5), (2.0, 1.0), (6.0, 3.0)])
def test_bands_reach_up_to_the_coarsest_axis(spacing):
    """16 voxels of the finer axis are 8 of the coarser: a quarter of what the latter can hold."""
    wave = np.sin(2 * np.pi * np.arange(128) / 16)
    image = np.broadcast_to(wave, (1, 64, 128)).astype(np.float32)
    assert radial_power(image, spacing)[0].argmax() == BANDS // 4


def test_a_band_without_a_frequency_is_not_a_number():
    ratio = spectrum_ratio(noise(0, shape=(1, 8, 8)), noise(1, shape=(1, 8, 8)), (1.0, 1.0))[0]
    assert np.isnan(ratio[1])
    assert np.isfinite(ratio[[0, 2, 4, 6]]).all()
