"""nnU-Net's predictions come to the voxels of its preprocessed cases as their own labels do."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest

from gansynth.runtime.errors import DataFault
from gansynth_nnunet.source import open_nnunet
from tests.conftest import SHAPE, save_nifti


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_true_labels_are_those_of_the_case(toy_nnunet, configuration):
    source = open_nnunet(toy_nnunet.request(configuration=configuration))
    case = source.train_ids[0]
    found = source.predicted(case, toy_nnunet.raw / "labelsTr" / f"{case}.nii.gz")
    labels = source.load(case).labels
    assert labels is not None
    assert np.array_equal(found, labels)


@pytest.mark.parametrize(
    ("shape", "value", "says"),
    [((9, 9, 9), 1, "shape is"), (SHAPE, 5, "label value")],
    ids=["shape", "label"],
)
def test_another_grid_or_label_is_refused(toy_nnunet, tmp_path, shape, value, says):
    source = open_nnunet(toy_nnunet.request())
    save_nifti(tmp_path / "p.nii.gz", np.full(shape, value, np.uint8))
    with pytest.raises(DataFault, match=says):
        source.predicted(source.train_ids[0], tmp_path / "p.nii.gz")
