"""Distances against well-known libraries: scipy, scikit-learn, scikit-image, MONAI."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.stats import wasserstein_distance

from gansynth.metrics.distribution import (
    cubic,
    distance_of_kernels,
    frechet_distance,
    gaussian,
    manifold_shares,
    pyramid,
    sliced_wasserstein,
    unbiased_mmd2,
)
from gansynth.metrics.encoder import contrast
from gansynth.metrics.memorisation import attack_by, auc_interval


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, 6)), 1.5 * rng.standard_normal((30, 6)) + 0.4


def test_kernels_are_those_of_scikit_learn(rows):
    from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

    width = 1.7
    one, other = rows
    assert gaussian(one, other, width) == pytest.approx(
        rbf_kernel(one, other, gamma=1 / (2 * width**2))
    )
    assert cubic(*rows) == pytest.approx(polynomial_kernel(*rows, degree=3, coef0=1))


def test_mmd_is_the_sum_over_pairs(rows):
    one, other = rows

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / 2)

    within = np.mean([kernel(a, b) for i, a in enumerate(one) for b in one[:i]])
    others = np.mean([kernel(a, b) for i, a in enumerate(other) for b in other[:i]])
    between = np.mean([kernel(a, b) for a in one for b in other])
    wanted = within + others - 2 * between
    assert distance_of_kernels(one, other, 1.0) == pytest.approx(wanted)


def test_mmd_is_nothing_on_average_between_equals():
    rng = np.random.default_rng(1)
    pairs = rng.standard_normal((300, 2, 20, 3))
    found = [distance_of_kernels(one, other, 1.0) for one, other in pairs]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_mmd_needs_two_rows():
    assert np.isnan(unbiased_mmd2(np.ones((1, 1)), np.ones((2, 2)), np.ones((1, 2))))


# MONAI asks scipy's root for its error, as scipy will not be asked any more.
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_frechet_is_that_of_monai(rows):
    from monai.metrics.fid import FIDMetric

    one, other = (torch.from_numpy(side) for side in rows)
    assert frechet_distance(*rows) == pytest.approx(float(FIDMetric()(one, other)), rel=1e-6)


def test_frechet_is_that_of_scipys_root(rows):
    covariances = [np.cov(side, rowvar=False) for side in rows]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    apart = rows[0].mean(0) - rows[1].mean(0)
    wanted = apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(*rows) == pytest.approx(wanted)


def test_frechet_of_fewer_rows_than_features_is_still_a_distance(rows):
    few = rows[0][:4]
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 2) == pytest.approx(4 * 6, rel=1e-6)


def test_shares_of_manifolds_are_those_of_scikit_learns_neighbours(rows):
    from sklearn.neighbors import NearestNeighbors

    real, mine = rows
    nearest = 3

    def radii(side):
        return NearestNeighbors(n_neighbors=nearest + 1).fit(side).kneighbors(side)[0][:, -1]

    def apart(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=-1)

    inside = apart(real, mine) <= radii(real)[:, None]
    wanted = {
        "precision": inside.any(0).mean(),
        "recall": (apart(mine, real) <= radii(mine)[:, None]).any(0).mean(),
        "density": inside.sum() / nearest / len(mine),
        "coverage": inside.any(1).mean(),
    }
    assert manifold_shares(mine, real, nearest) == pytest.approx(wanted)


def test_sliced_wasserstein_is_scipys_on_each_direction(rows):
    one, other = rows[0][:30], rows[1]
    wanted = np.mean([wasserstein_distance(a, b) for a, b in zip(one.T, other.T, strict=True)])
    assert sliced_wasserstein(one, other) == pytest.approx(wanted)


def test_a_pyramid_adds_up_to_the_picture():
    picture = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    levels = pyramid(picture)
    assert [level.shape[-1] for level in levels] == [48, 24]
    large = torch.nn.functional.interpolate(
        levels[-1], levels[0].shape[-2:], mode="bilinear", align_corners=False
    )
    assert torch.allclose(levels[0] + large, picture, atol=1e-6)


def test_a_pyramid_is_that_of_scikit_image_but_for_its_blur():
    """Of a smooth picture both leave next to nothing at the finest level; of noise most of it."""
    from skimage.transform import pyramid_laplacian

    rng = np.random.default_rng(0)
    for picture, share in (
        (np.add.outer(*[np.linspace(0, 1, 64)] * 2), 0.05),
        (rng.random((64, 64)), 0.5),
    ):
        ours = pyramid(torch.from_numpy(picture)[None, None].float())[0].std() / picture.std()
        theirs = next(pyramid_laplacian(picture, downscale=2)).std() / picture.std()
        assert (float(ours) < share) == (theirs < share)


def test_ms_ssim_of_one_scale_is_scikit_images(monkeypatch):
    from skimage.metrics import structural_similarity

    from gansynth.metrics.diversity import ms_ssim

    rng = np.random.default_rng(0)
    one, other = rng.random((2, 32, 32)).astype(np.float32)
    ours = ms_ssim(
        torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None], 1.0, [1.0]
    )
    _, full = structural_similarity(
        one, other, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    assert float(ours) == pytest.approx(max(0, full[5:-5, 5:-5].mean()), abs=1e-4)


def test_nt_xent_is_that_of_monai():
    from monai.losses.contrastive import ContrastiveLoss

    views = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    wanted = ContrastiveLoss(temperature=0.2)(views[:6], views[6:])
    assert float(contrast(views, 0.2)) == pytest.approx(float(wanted), rel=1e-5)


def test_an_attacks_area_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, 12), rng.normal(0, 1, 7)
    found = attack_by("distance", "", members.tolist(), others.tolist())
    truth = [1] * 12 + [0] * 7
    assert found.auc == pytest.approx(roc_auc_score(truth, [*members, *others]))
    assert found.low < found.auc < found.high


@pytest.mark.parametrize(("members", "others", "away"), [(12, 6, 0.0), (12, 6, 1.2), (5, 4, 0.6)])
def test_intervals_of_areas_hold_them(members, others, away):
    """Of normal scores the true area is known; 95 % of intervals hold it, or a few more."""
    from scipy.special import ndtr

    rng, truth = np.random.default_rng(0), float(ndtr(away / np.sqrt(2)))
    held = []
    for _ in range(400):
        mine, theirs = rng.normal(away, 1, members), rng.normal(0, 1, others)
        area = float((mine[:, None] > theirs[None]).mean())
        low, high = auc_interval(area, members, others)
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.93


def test_a_perfect_attack_on_few_people_is_not_certain():
    low, high = auc_interval(1.0, 5, 4)
    assert high == 1
    assert 0.4 < low < 0.8
    assert auc_interval(0.0, 5, 4) == pytest.approx((0, 1 - low))
