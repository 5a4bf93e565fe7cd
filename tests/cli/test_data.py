"""import, check, splits and prepare, on a tiny Medical Segmentation Decathlon folder."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gansynth.runtime.files import read_nifti
from gansynth.runtime.progress import RichReporter, counting, stepping

CASES = [f"brain_{i}" for i in range(6)]


@pytest.fixture
def msd(tmp_path: Path) -> Path:
    """Six cases of three people, 6 x 7 x 8 voxels, one channel, one label."""
    folder = tmp_path / "Task01_Tiny"
    rng = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
        for case in CASES:
            array = rng.normal(size=(6, 7, 8)).astype(np.float32)
            array = (array > 0.5).astype(np.uint8) if kind == "labelsTr" else array
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"{case}.nii.gz")
    document = {
        "name": "Tiny",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "spot"},
        "numTraining": len(CASES),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    people = "".join(f"{case},person_{i // 2}\n" for i, case in enumerate(CASES))
    (tmp_path / "people.csv").write_text(f"case,subject\n{people}")
    return folder


@pytest.fixture
def imported(msd, tmp_path: Path, run_json) -> Path:
    run_json(
        *("import", f"msd:{msd}", "nnunet:001", "--root", tmp_path / "root"),
        *("--subjects", tmp_path / "people.csv", "--folds", 3),
    )
    return tmp_path / "root"


def test_import_reports_cases_subjects_and_folds(msd, tmp_path, run_json):
    report = run_json(
        *("import", f"msd:{msd}", "nnunet:001", "--root", tmp_path / "root"),
        *("--subjects", tmp_path / "people.csv", "--folds", 3),
    )
    assert report["dataset"] == "Dataset001_Tiny"
    assert (report["cases"], report["subjects"]) == (6, 3)
    assert report["folds"] == [[4, 2], [4, 2], [4, 2]]


def test_import_warns_where_every_case_is_its_own_subject(msd, tmp_path, run_cli):
    result = run_cli("import", f"msd:{msd}", "nnunet:001", "--root", tmp_path / "root")
    assert result.exit_code == 0, result.stderr
    assert "warning: every case is a subject of its own" in result.stderr


def test_import_says_what_it_took_and_what_to_type_next(msd, tmp_path, run_cli):
    result = run_cli("import", f"msd:{msd}", "nnunet:001", "--root", tmp_path / "root")
    assert result.stdout.splitlines() == [
        f"Dataset001_Tiny: 6 cases of 6 subjects in {tmp_path}/root/nnUNet_raw/Dataset001_Tiny",
        "5 folds, each holding out 1 or 2 cases",
        "next: gansynth prepare nnunet:001 -c 3d_fullres",
    ]


def test_what_was_imported_is_in_order(imported, run_json):
    report = run_json("check", "nnunet:001", "--root", imported)
    assert report == {
        "dataset": "Dataset001_Tiny", "cases": 6, "errors": 0, "warnings": 0, "findings": []
    }  # fmt: skip


def test_check_names_the_file_at_fault_and_exits_with_3(imported, run_cli):
    broken = imported / "nnUNet_raw" / "Dataset001_Tiny" / "imagesTr" / "brain_2_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    result = run_cli("check", "nnunet:001", "--root", imported)
    assert result.exit_code == 3
    assert str(broken) in result.stdout
    assert "6 cases, 1 error(s), 0 warning(s)" in result.stdout
    assert "1 error(s)" in result.stderr


def test_findings_are_json_too(imported, run_cli):
    (imported / "nnUNet_raw" / "Dataset001_Tiny" / "labelsTr" / "brain_3.nii.gz").unlink()
    result = run_cli("check", "nnunet:001", "--root", imported, "--json")
    assert result.exit_code == 3
    finding = json.loads(result.stdout)["findings"][0]
    assert (finding["level"], finding["case"]) == ("error", "brain_3")


def test_check_reads_a_decathlon_folder_too(msd, run_json):
    report = run_json("check", f"msd:{msd}", "--read", "folds=3")
    assert (report["dataset"], report["cases"], report["errors"]) == ("msd:Task01_Tiny", 6, 0)


def test_every_fault_is_printed_and_the_exit_code_is_3(msd, run_cli):
    for case in ("brain_1", "brain_4"):
        (msd / f"labelsTr/{case}.nii.gz").write_bytes(b"")
    result = run_cli("check", f"msd:{msd}")
    assert result.exit_code == 3
    assert "brain_1.nii.gz" in result.stdout
    assert "brain_4.nii.gz" in result.stdout
    assert "msd:Task01_Tiny: 6 cases, 2 error(s), 0 warning(s)" in result.stdout


@pytest.mark.parametrize("kind", ["msd", "nifti"])
def test_a_folder_of_volumes_is_fitted_and_sampled(msd, tmp_path, run_cli, run_json, kind):
    small = [f"--set={o}" for o in ("width=4", "d_width=4", "levels=2", "steps=1")]
    data = ("--data", f"{kind}:{msd}", "--read", "size=8", "--read", "folds=2")
    report = run_json("fit", "cgan3d", *data, "-o", tmp_path / "run", *small, "--device=cpu")
    assert (report["train_cases"], report["held_out_cases"]) == (3, 3)
    drawn = run_cli("sample", tmp_path / "run", "-n", 1, "-o", tmp_path / "out", "--device=cpu")
    assert drawn.exit_code == 0, drawn.stderr
    image = read_nifti(tmp_path / "out/images/sample-0000_0000.nii.gz")
    assert image.array.shape == (8, 8, 8)


def test_splits_refuse_to_replace_others_without_a_word(imported, run_cli):
    splits = ("splits", "nnunet:001", "--root", imported, "--folds", 2, "--seed", 3)
    refused = run_cli(*splits)
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (2, True)
    assert run_cli(*splits, "--overwrite").exit_code == 0


def test_splits_keep_subjects_together(imported, tmp_path, run_json):
    subjects = tmp_path / "people.csv"
    document = run_json(
        *("splits", "nnunet:001", "--root", imported, "--subjects", subjects),
        *("--folds", 3, "--seed", 9, "--overwrite"),
    )
    person = dict(line.split(",") for line in subjects.read_text().splitlines()[1:])
    for split in document["splits"]:
        assert len(split["val"]) == 2
        assert {person[c] for c in split["train"]} & {person[c] for c in split["val"]} == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nifti:folder"), "nifti:folder: no such file or folder"),
        (("check", "niftl:folder"), "Did you mean 'nifti'?"),
        (("check", "nnunet:001", "--read", "spacing"), "expected KEY=VALUE"),
        (("check", "nifti:folder", "--read", "a=1", "--read", "a=2"), "'a' is given twice"),
        (("splits", "h5:file"), "adapter 'h5' is unknown, expected one of: deepmedic"),
        (("prepare", "yolo:data.yaml"), "expected a host that has, such as nnunet"),
        (("splits", "segmenter:x"), "segmenter has no folds to write"),
        (("import", "bids:folder", "nnunet:001"), "expected msd:FOLDER"),
        (("import", "msd:", "nnunet:001"), "expected msd:FOLDER"),
        (("import", "msd:folder", "deepmedic:x"), "expected a host that does, such as nnunet"),
        (("import", "msd:folder", "nnunet:"), "import 'nnunet:': expected KIND:WHERE"),
        (("import", "msd:folder", "nnunet:1", "--fold", "0"), "--fold: has no effect"),
        (
            ("import", "msd:folder", "nnunet:1", "--bits", "8"),
            "gansynth import has --set bits=VALUE",
        ),
        (("check", "nnunet:777"), "nnunet:777"),
        (("prepare", "nnunet:001", "--set", "patch=8,8,8"), "without small"),
        (("prepare", "nnunet:001", "--set", "patches=8"), "Did you mean 'patch'?"),
        (
            ("prepare", "nnunet:001", "--batch-size", "8"),
            "gansynth prepare has --set batch_size=VALUE",
        ),
        (("prepare", "nnunet:001", "--set=small=yes", "--set=patch=8,x"), "expected whole numbers"),
        (("prepare", "nnunet:001", "--set=small=yes", "--set=features=0"), "greater than 0"),
    ],
)
def test_a_slip_is_one_line(arguments, message, run_cli, tmp_path):
    result = run_cli(*arguments, "--root", tmp_path)
    assert result.exit_code == (3 if "no such" in message or "777" in message else 2)
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_prepare_stops_at_broken_data_before_anything_long(imported, run_cli):
    (imported / "nnUNet_raw" / "Dataset001_Tiny" / "labelsTr" / "brain_3.nii.gz").unlink()
    result = run_cli("prepare", "nnunet:001", "--root", imported)
    assert result.exit_code == 3
    assert "brain_3.nii.gz" in result.stderr


def test_a_callback_drives_a_task(capsys):
    with counting(RichReporter(), "check") as progress:
        for done in (1, 2, 3):
            progress(done, 3)
    assert capsys.readouterr().err.startswith("check: 3/3 (100%)")


def test_each_step_has_a_task_of_its_own(capsys):
    with stepping(RichReporter()) as progress:
        progress("check", 2, 2)
        progress("plan", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["check", "plan"]
