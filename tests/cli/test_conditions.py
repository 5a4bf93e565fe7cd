"""``--conditions``, ``--filter`` and their like: what they hand on, draw and refuse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.hosts.checks import refuse_with_bank
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.sampling.request_parsing import read_request
from tests.cli.conftest import READ, SHAPE, brain, save, scans

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


def manifest_of(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return document


def train(run: Path) -> set[str]:
    return {case["id"] for case in manifest_of(run)["lineage"]["cases"]}


def test_tumours_of_training_cases_land_in_cases_of_another_source(run, run_json, free, tmp_path):
    out, asked = tmp_path / "out", ("--conditions", f"nifti:{free}", *TRANSPLANT)
    document = run_json("sample", run, *asked, "-n", 4, "--sheet", "-o", out)
    assert len(train(run)) == 4
    told = json.loads((out / "provenance.json").read_text())["samples"].values()
    assert {one["dataset"] for one in told} == {"nifti:free"}
    assert {one["case"] for one in told} <= set("abc")
    assert {one["edits"][0]["params"]["donor"] for one in told} <= train(run)
    drawn = [np.asarray(nib.load(f).dataobj) for f in (out / "labels").iterdir()]  # type: ignore[attr-defined]
    assert [labels.any() for labels in drawn] == [True] * 4
    assert Path(document["sheet"]).is_file()


def test_what_was_drawn_replays_and_is_shown_beside_its_own_case(run, free):
    asking = read_request(conditions=f"nifti:{free}")
    opened = load_run(run, "cpu")
    asking = replace(asking, edits=("transplant",), seed=3)
    drawer = SampleDrawer(opened, open_source(opened.request), asking)
    sample = drawer.draw_raw(0, 1)[0]
    again = drawer.sampler.replay(json.loads(json.dumps(dict(sample.provenance))))
    assert np.array_equal(again, drawer.sampler.draw(0).labels)
    assert again.any()
    beside = drawer.beside(sample)
    assert beside.id == sample.provenance["case"]
    assert not beside.labels.any()
    assert drawer.base is not None
    assert np.array_equal(drawer.base.load(beside.id).labels, np.zeros(SHAPE[::-1], np.int16))
    own, other = drawer.lineage.everyone()
    assert own == type(own)(own.dataset, own.fold, opened.lineage.cases, own.host, own.ancestors)
    assert (other.dataset, [case.id for case in other.cases]) == ("nifti:free", ["a", "b", "c"])


def test_a_training_case_that_was_replaced_is_noticed_where_its_tumour_is_lent(
    run, run_cli, data, free, tmp_path
):
    copy, document = shutil.copytree(data, tmp_path / "ill"), manifest_of(run)
    document["request"]["where"] = str(copy)
    (run / "manifest.json").write_text(json.dumps(document))
    for case in train(run):
        image = brain(np.random.default_rng(9), True)[0][0]
        save(copy / "images" / f"{case}_0000.nii.gz", image)
    result = run_cli("sample", run, "--conditions", f"nifti:{free}", *TRANSPLANT, "-n", 1)
    assert result.exit_code == 6
    assert "is not the one the run was fitted on" in result.stderr


# -- leakage ---------------------------------------------------------------------------------------


@pytest.fixture
def augment(run, data):
    """``gansynth augment`` on the run's own data with samples in the cases of a folder."""

    def words(folder: Path, *more: object) -> tuple[object, ...]:
        own = ("--data", f"nifti:{data}", *READ, "--generator", run, "--ratio", "1:1")
        return ("augment", "--target", "toyhost", *own, "--conditions", f"nifti:{folder}", *more)

    return words


def test_another_source_that_shares_nothing_is_let_in(augment, run_json, free, toys):
    document = run_json(*augment(free, "--dry-run"))
    assert document["leakage"].startswith("none")
    assert document["conditions"] == {"kind": "nifti", "where": str(free)}
    run_json(*augment(free))
    ((injection, _, _),) = toys.started
    assert injection.samples == SampleRequest(conditions={"kind": "nifti", "where": str(free)})
    assert Injection.from_json(json.loads(json.dumps(injection.to_json()))) == injection


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "bare"])
def test_a_held_out_scan_is_found_in_another_source(
    augment, run, refuse, data, free, tmp_path, labelled
):
    leaking, scan = shutil.copytree(free, tmp_path / "leaking"), min(set("abcdef") - train(run))
    for number in ("0000", "0001"):
        file = data / "images" / f"{scan}_{number}.nii.gz"
        shutil.copy(file, leaking / "images" / f"other_{number}.nii.gz")
    if labelled:
        for name in "abc":
            save(leaking / "labels" / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        shutil.copy(data / "labels" / f"{scan}.nii.gz", leaking / "labels" / "other.nii.gz")
    says = ["leakage", scan, "other", "--conditions"]
    refuse(*augment(leaking, "--dry-run"), code=6, says=says, keep=[run])


def test_cases_of_ones_own_data_set_are_those_of_ones_own_fold(
    augment, run, run_json, refuse, data
):
    assert run_json(*augment(data, "--dry-run"))["leakage"].startswith("none")
    asked = augment(data, "--conditions-read", "fold=all", "--dry-run")
    refuse(*asked, code=6, says=["leakage", min(set("abcdef") - train(run))])


# -- slips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "asked", "says", "cure"),
    [
        ({}, "labels=tumour:1,core:2", ["label 'tumour' is unknown", "labels=label 1:1,"], None),
        (
            {"lesions": False, "mm": 1.2},
            None,
            ["1.2 x 1.2 x 1.2 mm", "--conditions-read spacing=1,1,1"],
            "spacing=1,1,1",
        ),
    ],
    ids=["other-labels", "other-voxels"],
)
def test_scans_that_do_not_fit_are_refused_until_they_are_read_otherwise(
    run, run_cli, refuse, tmp_path, scan, asked, says, cure
):
    sample = (
        "sample",
        run,
        "-n",
        1,
        "--conditions",
        f"nifti:{scans(tmp_path / 'x', 'xyz', 5, **scan)}",
    )
    read = {key: ("--conditions-read", key) if key else () for key in (asked, cure)}
    refuse(*sample, *read[asked], code=2, says=says)
    assert run_cli(*sample, *read[cure]).exit_code == 0


@pytest.mark.parametrize(
    "asked", [{"conditions": "nifti:."}, {"lesions": "pairs=ordered"}, {"filters": ["range"]}]
)
def test_nothing_is_asked_of_samples_that_a_bank_has(toys, asked, tmp_path):
    injection = Injection(None, Ratio(1, 1), samples=read_request(**asked), bank=tmp_path)
    with pytest.raises(UsageFault, match="says what they were asked to be; leave --"):
        refuse_with_bank(injection)
