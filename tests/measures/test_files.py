"""Label maps measured as files have them."""

from pathlib import Path

import numpy as np
import pytest

from gansynth.errors import DataFault
from gansynth.measures import measure_files, measure_predictions
from tests.conftest import save_nifti
from tests.measures.shapes import ONE, blobs, measured

AFFINE = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, -3], [0, 3.0, 0, 7], [0, 0, 0, 1]])
"""Axes of 1, 3 and 2 mm, turned in a circle."""


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """A predicted and a true label map."""
    rng = np.random.default_rng(0)
    for name in ("predicted", "true"):
        save_nifti(tmp_path / f"{name}.nii.gz", blobs(rng, (12, 14, 10)), AFFINE)
    return tmp_path / "predicted.nii.gz", tmp_path / "true.nii.gz"


def test_mm_are_those_along_the_files_own_axes(pair):
    rng = np.random.default_rng(0)
    arrays = blobs(rng, (12, 14, 10)), blobs(rng, (12, 14, 10))
    found = measure_files(pair[0], pair[1], ONE, asked=("hd95", "nsd"), tolerance_mm=2.0)
    own = measured(*arrays, (1, 3, 2), asked=("hd95", "nsd"), tolerance_mm=2.0)
    assert found == {f"{name}/x": pytest.approx(value) for name, value in own.items()}
    assert own != measured(*arrays, (2, 1, 3), asked=("hd95", "nsd"), tolerance_mm=2.0)


def test_every_case_is_measured(pair):
    judged = {"a": pair, "b": (pair[1], pair[1])}
    found = measure_predictions(judged, ONE, asked=("dice",))
    assert found["b"] == {"dice/x": 1.0}
    assert found["a"] == measure_files(pair[0], pair[1], ONE, asked=("dice",))


@pytest.mark.parametrize(
    ("shape", "affine", "says"),
    [
        ((12, 14, 11), AFFINE, r"predicted.nii.gz: shape is \(12, 14, 11\)"),
        ((12, 14, 10), np.diag([1.0, 3.0, 2.0, 1.0]), "predicted.nii.gz: affine differs"),
    ],
)
def test_another_grid_is_refused(pair, shape, affine, says):
    save_nifti(pair[0], np.zeros(shape, np.int16), affine)
    with pytest.raises(DataFault, match=says):
        measure_files(pair[0], pair[1], ONE)


def test_what_is_no_label_map_is_refused(pair):
    save_nifti(pair[0], np.full((12, 14, 10), 0.5, np.float32), AFFINE)
    with pytest.raises(DataFault, match=r"predicted.nii.gz: holds label 0.5"):
        measure_files(pair[0], pair[1], ONE)
