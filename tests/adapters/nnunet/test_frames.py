"""Whole heads in a frame of zeros, as registrations leave them, through nnU-Net's preprocessing."""

import json

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

import gansynth
from tests.conftest import save_nifti, shortcuts
from tests.heads import head

CASES, SIZE, SLICES, FRAME, AIR = 5, 64, 6, 5, 100.0


@pytest.fixture(scope="module")
def framed(tmp_path_factory):
    """A raw data set of five heads in noisy air, prepared by nnU-Net for 2d."""
    root = tmp_path_factory.mktemp("framed")
    raw = root / "nnUNet_raw" / "Dataset050_Heads"
    for number in range(CASES):
        drawn = head(number, SIZE)
        rng = np.random.default_rng(number)
        image = np.repeat(1000 * drawn.image[..., None], SLICES, axis=2) + AIR
        image += 10 * rng.standard_normal(image.shape)
        image[:FRAME], image[:, -FRAME:] = 0, 0
        labels = np.repeat(drawn.lesion[..., None], SLICES, axis=2).astype(np.uint8)
        spacing = np.diag([1.0, 1.0, 5.0, 1.0])
        save_nifti(
            raw / "imagesTr" / f"head{number}_0000.nii.gz", image.astype(np.float32), spacing
        )
        save_nifti(raw / "labelsTr" / f"head{number}.nii.gz", labels, spacing)
    names = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "tumour": 1}}
    document = {**names, "numTraining": CASES, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(document))
    with shortcuts():
        gansynth.prepare("nnunet:050", root=root, configuration="2d", quiet=True)
    return root


@pytest.fixture(scope="module", params=["copypaste", "parametric"])
def run(request, framed, tmp_path_factory):
    out, asked = tmp_path_factory.mktemp("run"), {"root": framed, "configuration": "2d"}
    return gansynth.fit(request.param, data="nnunet:050", out=out, quiet=True, **asked)


def test_lesions_lie_in_the_head_not_in_the_air_around_it(run):
    shown = 0
    for sample in run.sample(12, seed=0, lesions="where=anywhere"):
        image, labels = sample.image[0], np.asarray(sample.labels)
        assert (labels == -1).any(), "the frame is labelled outside"
        lesion = labels > 0
        beside = binary_dilation(lesion, iterations=2) & (labels == 0)
        if not beside.any():
            continue
        shown += 1
        air, scalp = np.percentile(image[labels != -1], (1, 99))
        assert np.median(image[beside]) > air + 0.2 * (scalp - air)
    assert shown >= 6


@pytest.mark.parametrize("run", ["parametric"], indirect=True)
def test_samples_of_slices_are_compared_with_slices_of_training_cases(run, succeed):
    told = succeed("check", "--generator", run.folder)
    assert "will it harm?" in told.stdout
