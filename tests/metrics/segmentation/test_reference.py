"""The same numbers as MONAI's, on blobs, on a phantom's lesion, and on real label maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import LabelArray
from gansynth.metrics.segmentation import measure_case
from gansynth.runtime.files import read_nifti
from tests.deepmedic_sets import phantom
from tests.metrics.segmentation.shapes import ONE, blobs, measured

pytestmark = [
    # MONAI 1.6 calls its own deprecated argument.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning"),
    # It says of every empty map that it is one.
    pytest.mark.filterwarnings("ignore:the prediction of class .* is all 0:UserWarning"),
]
HIPPOCAMPUS = Path(__file__).parents[4] / "shared" / "data" / "msd_task04_hippocampus" / "labelsTr"
MM = 1e-4
"""MONAI computes in float32."""


@pytest.fixture(scope="module")
def monai() -> Any:
    """MONAI's measures of label 1: ``dice``, ``hd95``, ``nsd``; inf and nan as it has them."""
    metrics = pytest.importorskip("monai.metrics")
    import torch

    def measure(predicted: LabelArray, truth: LabelArray, spacing: Any, mm: float = 1.0) -> Any:
        pair = [
            torch.from_numpy((one == 1)[None, None].astype(np.float32))
            for one in (predicted, truth)
        ]
        same: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
        found = {
            "dice": metrics.compute_dice(*pair, include_background=True),
            "hd95": metrics.compute_hausdorff_distance(*pair, percentile=95, **same),
            "nsd": metrics.compute_surface_dice(*pair, [mm], **same),
        }
        return {name: float(value) for name, value in found.items()}

    return measure


def assert_same(monai: Any, predicted: Any, truth: Any, spacing: Any, mm: float = 1.0) -> None:
    ours = measured(predicted, truth, spacing, tolerance_mm=mm, asked=("dice", "hd95", "nsd"))
    theirs = monai(predicted, truth, spacing, mm)
    assert ours["hd95"] == pytest.approx(theirs["hd95"], abs=MM)
    assert ours["dice"] == pytest.approx(theirs["dice"], abs=1e-6)
    assert ours["nsd"] == pytest.approx(theirs["nsd"], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((14, 22, 18), (2.5, 0.7, 1.1)), ((40, 36), (0.8, 1.3)), ((16, 16, 16), (1.0, 1.0, 1.0))],
)
def test_blobs(monai, shape, spacing, seed):
    rng = np.random.default_rng(seed)
    truth, other = blobs(rng, shape), blobs(rng, shape)
    assert_same(monai, other, truth, spacing, 1.5)
    near = np.where(rng.random(shape) < 0.02, 1 - truth, truth)
    assert_same(monai, near, truth, spacing, 1.5)


def test_a_phantoms_lesion(monai):
    labels = phantom(np.random.default_rng(1), (30, 28, 26))[1]
    moved = np.roll(labels, (1, -2, 3), (0, 1, 2))
    assert_same(monai, moved, labels, (0.9, 0.9, 4.5), 2.0)


@pytest.mark.data
@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="../shared/data is absent")
def test_another_persons_hippocampus(monai):
    one, other = (read_nifti(file).array for file in sorted(HIPPOCAMPUS.glob("*.nii.gz"))[:2])
    shape = tuple(map(min, one.shape, other.shape))
    box = tuple(slice(n) for n in shape)
    assert_same(monai, one[box], other[box], (1.0, 1.0, 1.0))


def test_where_nothing_was_predicted_only_the_distance_differs(monai):
    truth = blobs(np.random.default_rng(0), (10, 12, 14))
    nothing = np.zeros_like(truth)
    ours, theirs = measured(nothing, truth, (1, 1, 1)), monai(nothing, truth, (1, 1, 1))
    assert (ours["dice"], ours["nsd"]) == (theirs["dice"], theirs["nsd"]) == (0, 0)
    assert not np.isfinite(theirs["hd95"])
    assert ours["hd95"] == pytest.approx(np.sqrt(10**2 + 12**2 + 14**2))


def test_lesions_are_those_of_cc3d():
    cc3d = pytest.importorskip("cc3d")
    rng = np.random.default_rng(3)
    for _ in range(5):
        truth, predicted = blobs(rng, (16, 20, 18)), blobs(rng, (16, 20, 18))
        parts, count = cc3d.connected_components(truth, connectivity=26, return_N=True)
        hit = {int(n) for n in np.unique(parts[predicted > 0])} - {0}
        found = measure_case(predicted, truth, (1, 1, 1), ONE, asked=("lesion_sensitivity",))
        assert count > 1
        assert found == {"lesion_sensitivity/x": pytest.approx(len(hit) / count)}
