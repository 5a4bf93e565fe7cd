import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gansynth.core.geometry import bounding_box
from gansynth.imaging.blending import (
    Donor,
    fade,
    hole,
    paste_soft,
    poisson,
    poisson_of_many,
    rim_voxels,
    steps_from,
)

RIMS = {2: (2, 4), 3: (1, 3, 2)}


def blob(ndim: int) -> torch.Tensor:
    """Two samples, each of some random blobs."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((2, 1, *(15, 18, 13)[:ndim])) > 0.99)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_rims_are_rounded_up_along_each_axis():
    assert rim_voxels(3, (1, 0.6, 5)) == (3, 5, 1)
    assert rim_voxels(None, (1, 0.6, 5)) == (1, 1, 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_fade_is_one_within_falls_with_the_distance_and_is_nothing_beyond_the_rim(ndim):
    mask, rim = blob(ndim), RIMS[ndim]
    found, steps, near = fade(mask, rim), steps_from(mask, rim), hole(mask, rim)
    for sample, held in enumerate(mask[:, 0].numpy()):
        wanted = distance_transform_edt(~held, sampling=[1 / r for r in rim])
        within = wanted <= 1 + 1e-6
        np.testing.assert_allclose(steps[sample, 0][within], wanted[within], atol=1e-5)
        np.testing.assert_array_equal(near[sample, 0].numpy(), within)
    assert (found[mask] == 1).all()
    assert (found[~near] == 0).all()
    ring = near & ~mask
    assert (found[ring][steps[ring].argsort()].diff() <= 0).all()
    assert 0 < float(found[ring].min()) < 0.3 < float(found[ring].max()) < 1


def test_a_soft_paste_leaves_the_background_to_the_bit():
    mask, here, there = blob(3), noise(2, 2, 15, 18, 13), noise(2, 2, 15, 18, 13, seed=1)
    beyond = (~hole(mask, RIMS[3])).expand_as(here)
    found = paste_soft(here, there, mask, RIMS[3])
    assert torch.equal(found[beyond], here[beyond])
    assert torch.equal(paste_soft(here, there, mask, (0, 0, 0)), torch.where(mask, there, here))


def test_poisson_meets_the_background_and_keeps_the_donors_gradients():
    shape = (12, 13, 11)
    smooth = np.sin(np.indices(shape).sum(axis=0) / 4).astype(np.float32)[None]
    donor = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    mask, deep = np.zeros((2, *shape), bool)
    mask[3:9, 3:9, 3:9] = deep[4:8, 4:8, 4:8] = True
    # A donor that differs by a constant is the background itself.
    np.testing.assert_allclose(poisson(smooth, smooth + 4, mask), smooth, atol=1e-4)
    found = poisson(smooth, donor, mask)
    assert np.array_equal(found[:, ~mask], smooth[:, ~mask])

    def laplacian(image):
        return sum(np.roll(image, s, a) for a in range(3) for s in (1, -1)) - 6 * image

    np.testing.assert_allclose(laplacian(found[0])[deep], laplacian(donor[0])[deep], atol=1e-3)


def test_pieces_of_a_hole_that_differ_by_constants_leave_no_edge():
    smooth = np.sin(np.indices((14, 15)).sum(axis=0) / 4).astype(np.float32)[None]
    left, right = np.zeros((2, 14, 15), bool)
    left[3:11, 3:7] = right[3:11, 7:12] = True
    donors = []
    for mask, level in ((left, 4), (right, -9)):
        box = bounding_box(mask, margin=1)
        usable = np.ones_like(mask[box])
        donors.append(Donor(box, smooth[:, *box] + np.float32(level), mask[box], usable))
    np.testing.assert_allclose(poisson_of_many(smooth, donors), smooth, atol=1e-4)


def test_poisson_of_nothing_or_everything():
    here, there = np.zeros((1, 5, 5), np.float32), np.ones((1, 5, 5), np.float32)
    assert np.array_equal(poisson(here, there, np.zeros((5, 5), bool)), here)
    assert np.array_equal(poisson(here, there, np.ones((5, 5), bool)), there)
