"""Distances of spectra and intensities to real images, and the claim that a WGAN-GP's are small."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.measures import blurred_mean, distances, white_noise
from gansynth.core.schema import Condition, FloatArray
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.metrics.intensity import distance
from gansynth.metrics.spectrum import spectrum_ratio
from gansynth.testing import ToySource
from gansynth.training.loop import FitOptions, train
from gansynth_dcgan.model import DCGAN, DCGANOptions

ONES = (1.0, 1.0)


def pictures(number: int, seed: int, blur: float = 1.0) -> list[FloatArray]:
    """Smooth noise of two channels, the second twice as strong and brighter."""
    draw = np.random.default_rng(seed).standard_normal((number, 2, 24, 24))
    smooth = gaussian_filter(draw, (0, 0, blur, blur), mode="wrap")
    smooth *= np.array([1, 2]).reshape(2, 1, 1) / smooth.std()
    return list((smooth + np.array([0, 5]).reshape(2, 1, 1)).astype(np.float32))


REAL = pictures(24, 0)


def value(side: list[FloatArray], measure: str) -> float:
    return distances({"it": side}, REAL, ONES, draws=2)["it"][measure].value


def test_the_spectrums_is_the_mean_logarithm_of_the_ratio():
    side = pictures(24, 1, blur=0.7)
    ratio = spectrum_ratio(side, REAL, ONES)
    assert value(side, "spectrum") == pytest.approx(np.abs(np.log(ratio)).mean())


def test_too_much_power_is_as_far_as_too_little():
    louder, softer = ([m + f * (i - m) for i in REAL] for f, m in ((2, 0), (0.5, 0)))
    assert value(louder, "spectrum") == pytest.approx(value(softer, "spectrum"))


def test_the_histograms_is_that_of_the_metric():
    side = [1.3 * i + 0.2 for i in pictures(24, 1)]
    channels = [[np.concatenate([i[c].ravel() for i in s]) for s in (side, REAL)] for c in (0, 1)]
    exact = np.mean([distance(*channel) for channel in channels])
    assert value(side, "histogram") == pytest.approx(exact, rel=0.02)


def test_an_interval_is_as_wide_as_other_images_make_the_distance_differ():
    sharper = [(pictures(24, s, blur=0.7), pictures(24, 50 + s)) for s in range(40)]
    found = [distances({"it": a}, b, ONES, draws=60)["it"]["spectrum"] for a, b in sharper]
    spread = np.std([f.value for f in found], ddof=1)
    assert np.mean([f.high - f.low for f in found]) == pytest.approx(2 * 1.96 * spread, rel=0.4)


@pytest.mark.parametrize("control", [white_noise, blurred_mean])
def test_controls_have_the_real_mean_and_deviation(control):
    made = control(REAL, 40, np.random.default_rng(0))
    assert [image.dtype for image in made] == 40 * [np.float32]
    for statistic in (np.mean, np.std):
        found, true = (statistic(np.stack(i), axis=(0, 2, 3)) for i in (made, REAL))
        assert found == pytest.approx(true, abs=1e-3)


def test_controls_are_far_and_other_real_images_near():
    rng = np.random.default_rng(0)
    sides = {"noise": white_noise(REAL, 24, rng), "mean": blurred_mean(REAL, 24, rng)}
    found = distances({**sides, "real": pictures(24, 1)}, REAL, ONES)
    spectra = {name: side["spectrum"] for name, side in found.items()}
    assert spectra["real"].high < 0.5 < min(spectra["noise"].low, spectra["mean"].low)


# -- the claim -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wgan_gps_samples_are_nearer_than_noise_and_a_blurred_mean():
    """And than those of its first step."""
    source, rng, rate = ToySource(2), np.random.default_rng(0), 1e-3
    space, ids = Space("crop", (16, 16)), source.train_ids
    crops = CaseBatches(CaseCache(source), space)
    options = DCGANOptions(
        width=16, latent=16, n_critic=2, lr_generator=rate, lr_discriminator=rate
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = DCGAN(space.generator_schema(source.schema), space.size, options)
    generator.observe(crops.cut(i, rng) for i in ids * 4)

    def drawn() -> list[FloatArray]:
        return [s.image for s in generator.sample([Condition()] * 192, range(192))]

    real = [crops.cut(i, rng).image for i in ids * 16]
    noise, mean, first = white_noise(real, 192, rng), blurred_mean(real, 192, rng), drawn()
    train(generator, crops, FitOptions(steps=1500, batch_size=16))
    sides = {"noise": noise, "blurred mean": mean, "first": first, "wgan-gp": drawn()}
    found = distances(sides, real, ONES)
    own = found.pop("wgan-gp")
    for side in found.values():
        assert own["spectrum"].high < side["spectrum"].low
        assert own["histogram"].high < side["histogram"].low
