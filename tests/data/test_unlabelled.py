from pathlib import Path

import numpy as np
import pytest

from gansynth.data.h5 import write_h5
from gansynth.data.nifti import VolumeSource
from gansynth.fitting.setup import resolve
from tests.data.sets import SHAPE, only, opened, request, save, volume
from tests.expected import raises_fault


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder ``images`` of six volumes and no other; ``cases.csv`` and BIDS have them too."""
    for number in range(6):
        save(tmp_path / f"set/images/p{number}.nii.gz", volume(number))
        save(tmp_path / f"bids/sub-{number}/anat/sub-{number}_T1w.nii.gz", volume(number))
    rows = [f"images/p{number}.nii.gz" for number in range(6)]
    (tmp_path / "set/cases.csv").write_text("\n".join(["T1", *rows]))
    return tmp_path / "set"


@pytest.mark.parametrize("where", [".", "cases.csv", "../bids"])
def test_sources_without_label_maps_have_images_only(pairs, where):
    source = opened(pairs / where)
    assert source.schema.labels == {"background": 0}
    case = source.load(source.train_ids[0])
    assert case.labels is None
    assert case.image.shape == (1, 8, 7, 6) == (1, *source.header(case.id).shape)
    assert source.schema.spacing == (2, 1, 1)
    case.validate(source.schema)
    case = opened(pairs / where, spacing="1").load(case.id)
    assert (case.image.shape, case.labels) == ((1, 16, 7, 6), None)


@pytest.mark.parametrize("name", ["seg", "masks", "lables", "GroundTruth"])
def test_files_that_look_like_label_maps_are_no_channel(pairs, name):
    lines = (pairs / "cases.csv").read_text().splitlines()
    text = "".join(f"{line},{line}\n" for line in lines[1:])
    (pairs / "cases.csv").write_text(f"T1,{name}\n{text}")
    with raises_fault("listing.label-column-unclear", names=f"--read label={name}"):
        opened(pairs / "cases.csv")
    assert opened(pairs / "cases.csv", channels="T1").schema.channels == ("T1",)
    (pairs / name).mkdir()
    with raises_fault("nifti.file-missing", names=name):
        opened(pairs).load("p1")


def test_options_that_need_label_maps_are_refused_without_them(pairs):
    with raises_fault("nifti.labels-without-label-maps"):
        opened(pairs, labels="tumour:1")
    with raises_fault("nifti.no-labelled-voxels"):
        _ = opened(pairs, modality="ct").space
    finding = only(pairs)
    assert (finding.level, "has no label maps" in finding.message) == ("warning", True)
    with raises_fault("slices.case-without-labels"):
        _ = opened(f"nifti:{pairs}", "slices", foreground="with").train_ids
    save(pairs / "labels/p1.nii.gz", np.zeros(SHAPE, np.uint8))
    with raises_fault("nifti.file-missing"):
        opened(pairs).load("p5")


def test_slices_and_caches_of_them_have_no_labels(pairs, tmp_path):
    source = opened(f"nifti:{pairs}", "slices", resize="8x8")
    write_h5(source, tmp_path / "s.h5")
    case = opened(tmp_path / "s.h5", "h5").load(source.train_ids[3])
    assert case.labels is None
    np.testing.assert_array_equal(case.image, source.load(case.id).image)


def test_a_generator_that_learns_from_labels_refuses_them_at_once(pairs, monkeypatch):
    monkeypatch.setattr(VolumeSource, "load", None)
    flat = request(f"nifti:{pairs}", "slices", resize="8x8")
    with raises_fault("fitting.no-label-maps-to-condition"):
        resolve("cgan3d", flat, {}, None, "cpu")
    with raises_fault("fitting.no-label-maps-to-generate"):
        resolve("dcgan", flat, {"with_mask": "yes"}, None, "cpu")
