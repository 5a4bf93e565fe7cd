"""Lesion-free scans as backgrounds for nnU-Net: preprocessed as its training cases are."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import gansynth
from gansynth.core.schema import Case
from gansynth.core.source import SourceRequest
from gansynth.sampling.run_source import open_source
from tests.conftest import Toy, save_nifti


@pytest.fixture
def scans(toy_copy, tmp_path) -> Path:
    """A folder of scans alone, as ``gansynth predict`` takes them: those of one case."""
    folder: Path = tmp_path / "scans"
    folder.mkdir()
    for channel in range(2):
        raw = toy_copy.raw / "imagesTr" / f"p1_left_{channel:04d}.nii.gz"
        shutil.copy(raw, folder / f"normal_{channel:04d}.nii.gz")
    return folder


def beside(toy: Toy, scans: Path) -> tuple[Case, Case]:
    """The scan as the data set prepares it, and the case that it is."""
    own = open_source(toy.request(fold="all"))
    prepared = own.preparing(open_source(SourceRequest("nifti", str(scans), "all")))
    return prepared.load("normal"), own.load("p1_left")


def test_a_scan_is_preprocessed_as_a_training_case_of_the_same_files(toy_copy, scans):
    scan, case = beside(toy_copy, scans)
    assert np.array_equal(scan.image, case.image)
    assert scan.labels is not None
    assert np.array_equal(scan.labels == -1, case.labels == -1)
    assert set(np.unique(scan.labels).tolist()) == {-1, 0}


def test_a_scan_stored_along_other_axes_is_turned_first(toy_copy, scans):
    for file in scans.iterdir():
        image: Any = nib.load(file)
        nib.save(image.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]])), file)
    scan, case = beside(toy_copy, scans)
    assert np.array_equal(scan.image, case.image)


def test_preprocessed_scans_are_kept_and_those_of_changed_files_made_again(toy_copy, scans):
    def kept() -> dict[str, int]:
        beside(toy_copy, scans)
        folder = toy_copy.preprocessed / "gansynth_scans"
        return {file.name: file.stat().st_mtime_ns for file in folder.rglob("*.b2nd")}

    first = kept()
    assert len(first) == 2
    assert kept() == first
    shutil.copy(scans / "normal_0000.nii.gz", scans / "normal_0001.nii.gz")
    assert len(kept()) == 4


@pytest.fixture
def run(toy_copy, tmp_path) -> Path:
    run: Path = tmp_path / "run"
    told: dict[str, Any] = {"data": "nnunet:501", "configuration": "3d_fullres", "out": run}
    told |= {"root": str(toy_copy.root), "plans": toy_copy.plans, "lesions": "lesion"}
    gansynth.fit("parametric", **told, quiet=True)
    return run


def test_lesions_land_in_scans_but_in_none_whose_label_map_shows_one(run, scans, tmp_path, succeed):
    shutil.copytree(scans, tmp_path / "two" / "images")
    for file in (tmp_path / "two" / "images").iterdir():
        shutil.copy(file, file.with_name(file.name.replace("normal", "other")))
    image: Any = nib.load(scans / "normal_0000.nii.gz")
    for name, value in (("normal", 0), ("other", 2)):
        labels = np.zeros(image.shape, np.uint8)
        labels[8:11, 8:11, 8:11] = value
        save_nifti(tmp_path / "two" / "labels" / f"{name}.nii.gz", labels)
    words = ("--unlabelled", f"nifti:{tmp_path / 'two'}", "--unlabelled-read", "labels=lesion:2")
    how = ("--backgrounds", "unlabelled", "--prevalence", 1, "-o", tmp_path / "out")
    told = succeed("sample", run, "-n", 2, *words, *how)
    assert "1 scan(s) of 1 subject(s), 1 with a lesion left out" in told.stderr
    samples = json.loads((tmp_path / "out" / "provenance.json").read_text())["samples"]
    assert {one["case"] for one in samples.values()} == {"normal"}


def test_scans_of_other_channels_are_refused_and_the_way_out_works(
    run, scans, tmp_path, succeed, refuse
):
    (tmp_path / "named" / "normal").mkdir(parents=True)
    for file, name in zip(sorted(scans.iterdir()), ("T2", "PD"), strict=True):
        shutil.copy(file, tmp_path / "named" / "normal" / f"normal_{name}.nii.gz")
    words = ("sample", run, "-n", 1, "-o", tmp_path / "out", "--unlabelled")
    says = ["PD, T2, expected T1, FLAIR", "CASE_0000.nii.gz, CASE_0001.nii.gz"]
    refuse(*words, f"nifti:{tmp_path / 'named'}", code=2, says=says)
    succeed(*words, f"nifti:{scans}")  # the same files, numbered


@pytest.mark.parametrize("words", ["", "--dry-run"])
def test_the_one_command_opens_scans_before_it_prepares_or_fits(toy_copy, words, refuse, tmp_path):
    asked = ("augment", "nnunet:501", "--root", toy_copy.root, *words.split())
    says = ["--unlabelled nifti:nowhere", "no such file"]
    refuse(*asked, "--unlabelled", "nifti:nowhere", code=3, says=says, keep=[toy_copy.root])
