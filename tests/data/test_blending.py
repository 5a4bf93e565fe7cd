# mypy: disallow-untyped-calls=False

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gansynth.data.blending import (
    dress,
    fade,
    hole,
    match_rim,
    poisson,
    rim_voxels,
    soft,
    steps_from,
)

RIMS = {2: (2, 4), 3: (1, 3, 2)}


def blob(ndim: int, seed: int = 0) -> torch.Tensor:
    """Two samples, each of some random blobs."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random((2, 1, *(15, 18, 13)[:ndim])) > 0.99)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_rims_are_rounded_up_along_each_axis():
    assert rim_voxels(3, (1, 0.6, 5)) == (3, 5, 1)
    assert rim_voxels(0, (1, 1)) == (0, 0)
    assert rim_voxels(None, (1, 0.6, 5)) == (1, 1, 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_fade_is_one_within_falls_with_the_distance_and_is_nothing_beyond_the_rim(ndim):
    mask, rim = blob(ndim), RIMS[ndim]
    found, steps, near = fade(mask, rim), steps_from(mask, rim), hole(mask, rim)
    for sample, held in enumerate(mask[:, 0].numpy()):
        wanted = distance_transform_edt(~held, sampling=[1 / r for r in rim])
        within = wanted <= 1 + 1e-6
        np.testing.assert_allclose(steps[sample, 0][within], wanted[within], atol=1e-5)
        assert (steps[sample, 0][~within] > 1).all()
        np.testing.assert_array_equal(near[sample, 0].numpy(), within)
        assert torch.equal(fade(mask[sample : sample + 1], rim)[0], found[sample])
    assert (found[mask] == 1).all()
    assert (found[~near] == 0).all()
    ring = near & ~mask
    assert (found[ring][steps[ring].argsort()].diff() <= 0).all()
    assert 0 < float(found[ring].min()) < 0.3 < float(found[ring].max()) < 1


@pytest.mark.parametrize("match", [False, True])
def test_a_soft_paste_leaves_the_background_to_the_bit(match):
    mask, here, there = blob(3), noise(2, 2, 15, 18, 13), noise(2, 2, 15, 18, 13, seed=1)
    found = soft(here, there, mask, RIMS[3], match=match)
    beyond, inside = (~hole(mask, RIMS[3])).expand_as(here), mask.expand_as(here)
    assert torch.equal(found[beyond], here[beyond])
    assert match or torch.equal(found[inside], there[inside])
    plain = soft(here, there, mask, (0, 0, 0))
    assert torch.equal(plain, torch.where(mask, there, here))


def test_a_matched_donor_has_the_backgrounds_mean_and_deviation_in_the_rim():
    mask, here = torch.zeros(1, 1, 20, 20, dtype=torch.bool), noise(1, 2, 20, 20)
    mask[..., 8:12, 8:12] = True
    matched = match_rim(here, 0.7 * noise(1, 2, 20, 20, seed=3) + 5, mask, (3, 3))
    ring = (hole(mask, (3, 3)) & ~mask)[0, 0]
    for found, wanted in zip(matched[0], here[0], strict=True):
        assert found[ring].mean() == pytest.approx(float(wanted[ring].mean()), abs=1e-4)
        assert found[ring].std() == pytest.approx(float(wanted[ring].std()), rel=1e-3)


def test_dressing_keeps_the_donor_where_classes_agree_and_fills_the_rest_by_class():
    donor_labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    donor_labels[:, 2:6, 2:6] = 1
    labels = torch.zeros_like(donor_labels)
    labels[:, 2:6, 2:8] = 1
    labels[:, 0] = 2
    donor = noise(1, 1, 8, 8) + 10 * (donor_labels == 1)
    means, deviations = torch.tensor([[-5.0], [7.0]]), torch.tensor([[0.0], [0.5]])
    draws = noise(1, 1, 8, 8, seed=5)
    found = dress(labels, donor, donor_labels, (1, 2), means, deviations=deviations, noise=draws)
    agree = (labels == donor_labels)[:, None]
    assert torch.equal(found[agree], donor[agree])
    own = donor[donor_labels[:, None] == 1]
    grown = (labels == 1) & (donor_labels == 0)
    wanted = own.mean() + own.std(unbiased=False) * draws[:, 0][grown]
    torch.testing.assert_close(found[:, 0][grown], wanted)  # the donor's own statistics
    torch.testing.assert_close(found[:, 0, 0], 7 + 0.5 * draws[:, 0, 0])  # the donor lacks it


@pytest.mark.parametrize("shape", [(20, 22), (12, 13, 11)])
def test_poisson_meets_the_background_and_keeps_the_donors_gradients(shape):
    rng = np.random.default_rng(0)
    smooth = np.sin(np.indices(shape).sum(axis=0) / 4).astype(np.float32)
    donor = rng.normal(size=(2, *shape)).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[tuple(slice(3, 9) for _ in shape)] = True
    # A donor that differs by a constant is the background itself.
    shifted = poisson(smooth[None], smooth[None] + 4, mask)
    np.testing.assert_allclose(shifted, smooth[None], atol=1e-4)
    found = poisson(np.stack([smooth] * 2), donor, mask)
    assert np.array_equal(found[:, ~mask], np.stack([smooth] * 2)[:, ~mask])
    deep = np.zeros(shape, bool)
    deep[tuple(slice(4, 8) for _ in shape)] = True

    def laplacian(image):
        return sum(np.roll(image, s, a) for a in range(image.ndim) for s in (1, -1)) - (
            2 * image.ndim * image
        )

    for got, wanted in zip(found, donor, strict=True):
        np.testing.assert_allclose(laplacian(got)[deep], laplacian(wanted)[deep], atol=1e-3)


def test_poisson_of_nothing_or_everything():
    here, there = np.zeros((1, 5, 5), np.float32), np.ones((1, 5, 5), np.float32)
    assert np.array_equal(poisson(here, there, np.zeros((5, 5), bool)), here)
    assert np.array_equal(poisson(here, there, np.ones((5, 5), bool)), there)
