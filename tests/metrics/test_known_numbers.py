from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import ndtr
from scipy.stats import mannwhitneyu

from gansynth.metrics.distances import (
    frechet_distance,
    kernel_distance,
    manifold_shares,
)
from gansynth.metrics.diversity import WEIGHTS, ms_ssim
from gansynth.metrics.features import contrast
from gansynth_evaluate.memorisation import attack_by, auc_interval

RNG = np.random.default_rng(0)
ONE, OTHER = RNG.standard_normal((40, 6)), 1.5 * RNG.standard_normal((30, 6)) + 0.4
VIEWS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))


def mmd_by_pairs():
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    within = np.mean([kernel(a, b) for i, a in enumerate(ONE) for b in ONE[:i]])
    others = np.mean([kernel(a, b) for i, a in enumerate(OTHER) for b in OTHER[:i]])
    return within + others - 2 * np.mean([kernel(a, b) for a in ONE for b in OTHER])


def monai_frechet():
    from monai.metrics.fid import FIDMetric

    return float(FIDMetric()(torch.from_numpy(ONE), torch.from_numpy(OTHER)))


def sklearn_manifolds():
    from sklearn.neighbors import NearestNeighbors

    def radii(side):
        return NearestNeighbors(n_neighbors=4).fit(side).kneighbors(side)[0][:, -1]

    apart = np.linalg.norm(ONE[:, None] - OTHER[None], axis=-1)
    inside = apart <= radii(ONE)[:, None]
    recall = (apart <= radii(OTHER)[None]).any(1).mean()
    return [inside.any(0).mean(), recall, inside.sum() / 3 / 30, inside.any(1).mean()]


def monai_contrast():
    from monai.losses.contrastive import ContrastiveLoss

    return float(ContrastiveLoss(temperature=0.2)(VIEWS[:6], VIEWS[6:]))


KNOWN: dict[str, Any] = {
    "mmd": (lambda: kernel_distance(ONE, OTHER), mmd_by_pairs),
    "mmd of one row": (lambda: kernel_distance(ONE[:1], OTHER[:2]), lambda: np.nan),
    "frechet, monai": (lambda: frechet_distance(ONE, OTHER), monai_frechet),
    "frechet of itself": (lambda: frechet_distance(ONE[:4], ONE[:4]), lambda: 0),
    "frechet of few": (lambda: frechet_distance(ONE[:4], ONE[:4] + 2), lambda: 4 * 6),
    "manifolds": (lambda: list(manifold_shares(OTHER, ONE, 3).values()), sklearn_manifolds),
    "nt-xent": (lambda: float(contrast(VIEWS, 0.2)), monai_contrast),
}


# MONAI asks scipy's root for its error, as scipy will not be asked any more.
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", KNOWN)
def test_a_measure_is_the_known_number(name):
    ours, theirs = KNOWN[name]
    np.testing.assert_allclose(ours(), theirs(), rtol=2e-5, atol=1e-5)


def test_intervals_of_areas_hold_them():
    """Of normal scores the true area is known; 95 % of intervals hold it, or a few more."""
    rng, truth, held = np.random.default_rng(0), float(ndtr(1.2 / np.sqrt(2))), []
    for _ in range(400):
        mine, theirs = rng.normal(1.2, 1, 12), rng.normal(0, 1, 6)
        low, high = auc_interval(float((mine[:, None] > theirs).mean()), 12, 6)
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.93


@pytest.mark.parametrize(("members", "others"), [(3, 3), (61, 16)])
def test_p_and_the_interval_of_an_attack_are_one_test(members, others):
    rng = np.random.default_rng(0)
    for away in np.linspace(-2, 2, 21):
        mine, theirs = rng.normal(away, 1, members), rng.normal(0, 1, others)
        found = attack_by("distance", "", mine.tolist(), theirs.tolist())
        assert 0 <= found.low <= found.auc <= found.high <= 1
        assert (found.p < 0.05) == (not found.low <= 0.5 <= found.high)
        assert found.succeeds == (found.p < 0.05 and found.auc > 0.5)
        ranks = mannwhitneyu(mine, theirs, method="asymptotic", use_continuity=False)
        assert found.p == pytest.approx(ranks.pvalue)
        assert found.auc == pytest.approx(ranks.statistic / members / others)


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images, and the same with noise: similar at coarse scales, less so at fine ones."""
    rng = torch.Generator().manual_seed(0)
    pool = F.avg_pool2d if len(shape) == 4 else F.avg_pool3d
    first = 4 * pool(torch.rand(*shape, generator=rng), 5, 1, 2)
    return first, first + 2 * torch.rand(*shape, generator=rng)


@pytest.mark.parametrize(
    ("shape", "scales", "window"),
    [
        ((3, 1, 64, 64), 3, 11),
        ((2, 2, 47, 61), 3, 11),
        ((2, 1, 8, 9), 1, 7),  # the largest odd number that is not above 8
        ((2, 2, 24, 25, 26), 2, 11),
    ],
    ids=str,
)
def test_ms_ssim_is_monais_with_as_many_scales_as_fit(shape, scales, window):
    from monai.metrics.regression import MultiScaleSSIMMetric

    first, second = pair(*shape)
    weights = [weight / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]
    theirs = MultiScaleSSIMMetric(
        len(shape) - 2, data_range=4.0, kernel_size=window, weights=weights
    )
    expected = torch.as_tensor(theirs(first, second)).flatten()
    assert 0.1 < expected.min() < expected.max() < 0.97
    found = ms_ssim(first, second, 4.0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert (ms_ssim(first, 4 - first, 4.0) >= 0).all()
