import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.sample_request import SampleRequest
from tests.cli.conftest import READ, SHAPE
from tests.conftest import save_nifti

TRANSPLANT = ("--edit", "transplant")


@pytest.fixture
def data(world) -> Path:
    return Path(world / "ill")


@pytest.fixture
def free(world) -> Path:
    return Path(world / "free")


@pytest.fixture
def run(toys, world, tmp_path) -> Path:
    return Path(shutil.copytree(world / "of_ill", tmp_path / "run"))


def train(run: Path) -> set[str]:
    manifest = json.loads((run / "manifest.json").read_text())
    return {case["id"] for case in manifest["lineage"]["cases"]}


def test_tumours_of_training_cases_land_in_cases_of_another_source(run, run_json, free, tmp_path):
    out, asked = tmp_path / "out", ("--label-source", f"nifti:{free}", *TRANSPLANT)
    document = run_json("sample", run, *asked, "-n", 4, "--sheet", "-o", out)
    assert len(train(run)) == 4
    told = json.loads((out / "provenance.json").read_text())["samples"].values()
    assert {one["dataset"] for one in told} == {"nifti:free"}
    assert {one["case"] for one in told} <= set("abc")
    assert {one["edits"][0]["params"]["donor"] for one in told} <= train(run)
    drawn = [np.asarray(nib.load(f).dataobj) for f in (out / "labels").iterdir()]  # type: ignore[attr-defined]
    assert [labels.any() for labels in drawn] == [True] * 4
    assert Path(document["sheet"]).is_file()


@pytest.mark.parametrize(("asked", "warns"), [("1..2", True), ("training", False)])
def test_lesions_that_are_not_as_large_as_asked_for_are_told(run, succeed, asked, warns):
    done = succeed("sample", run, "-n", 4, "--edit", f"size:like={asked},max_factor=1.5")
    assert ("lesions are not of the size asked for" in done.stderr) == warns
    told = re.search(r"size as asked, within 25 %: \d of \d lesions \(median ", done.stdout)
    assert bool(told) == warns  # as large as the training cases' own: no lesion is asked for


def test_how_many_samples_show_a_lesion_is_told_beside_what_was_asked_for(run, succeed):
    words = ("sample", run, "-n", 4, "--prevalence", 1)
    done, again = succeed(*words), succeed(*words)
    assert "with a lesion: 4 of 4 samples, 100 %; asked for 100 %" in done.stdout
    assert "with a lesion: 4 of 4 samples" in again.stdout  # from the record
    assert "with a lesion: " not in succeed("sample", run, "-n", 3).stdout


@pytest.fixture
def augment(run, data):
    """``gansynth augment`` on the run's own data with samples in the cases of a folder."""

    def words(folder: Path, *more: object) -> tuple[object, ...]:
        own = ("--data", f"nifti:{data}", *READ, "--generator", run, "--ratio", "1:1")
        return "augment", "--target=toyhost", *own, f"--label-source=nifti:{folder}", *more

    return words


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "bare"])
def test_a_held_out_scan_is_found_in_another_source(
    augment, run, run_json, refuse, data, free, tmp_path, toys, labelled
):
    run_json(*augment(free))
    (request,) = toys.started
    assert request.samples == SampleRequest(label_source={"kind": "nifti", "where": str(free)})
    leaking, scan = shutil.copytree(free, tmp_path / "leaking"), min(set("abcdef") - train(run))
    for number in ("0000", "0001"):
        file = data / "images" / f"{scan}_{number}.nii.gz"
        shutil.copy(file, leaking / "images" / f"other_{number}.nii.gz")
    if labelled:
        for name in "abc":
            save_nifti(leaking / "labels" / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        shutil.copy(data / "labels" / f"{scan}.nii.gz", leaking / "labels" / "other.nii.gz")
    says = ["leakage", scan, "other", "--label-source"]
    refuse(*augment(leaking, "--dry-run"), code=6, says=says, keep=[run])


def test_cases_of_ones_own_data_set_are_those_of_ones_own_fold(
    augment, run, run_json, refuse, data
):
    document = run_json(*augment(data, "--dry-run"))
    assert document["leakage"].startswith("none")
    assert document["label_source"] == {"kind": "nifti", "where": str(data)}
    asked = augment(data, "--label-source-read", "fold=all", "--dry-run")
    refuse(*asked, code=6, says=["leakage", min(set("abcdef") - train(run))])
