"""What is wrong with a raw data set is found, file by file."""

import json
import shutil

import numpy as np
import pytest
from nibabel import Nifti1Image, save

from gansynth.core.findings import Finding
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_nifti
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.raw import check_raw, raise_on_errors

LABEL, IMAGE = "labelsTr/p2_left.nii.gz", "imagesTr/p2_left_0001.nii.gz"


def check(toy, **options) -> list[Finding]:
    return check_raw(NnunetRoot.find(toy.root), toy.dataset, **options)


def edit(toy, **changes: object) -> None:
    path = toy.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(path, change, affine=None) -> None:
    found = read_nifti(path)
    save(Nifti1Image(change(found.array), found.affine if affine is None else affine), path)


def test_a_sound_data_set_has_no_findings(toy_nnunet):
    assert check(toy_nnunet) == []


def test_progress_counts_cases(toy_nnunet):
    calls: list[tuple[int, int]] = []
    check(toy_nnunet, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: (raw / IMAGE).unlink(), f"{IMAGE}: missing"),
        (lambda raw: (raw / LABEL).unlink(), f"{LABEL}: missing"),
        (
            lambda raw: (raw / IMAGE).write_bytes((raw / IMAGE).read_bytes()[:500]),
            f"{IMAGE}: truncated at byte 500",
        ),
        (lambda raw: rewrite(raw / IMAGE, lambda a: a * np.nan), f"{IMAGE}: 16128 NaN"),
        (
            lambda raw: rewrite(raw / IMAGE, lambda a: a[:, :, 1:]),
            r"shape is \(24, 28, 23\), but \(24, 28, 24\) in p2_left.nii.gz",
        ),
        (
            lambda raw: rewrite(raw / IMAGE, lambda a: a, np.diag([1, 1, 1.002, 1])),
            "affine differs from that of p2_left.nii.gz by up to 0.002 mm",
        ),
        (lambda raw: rewrite(raw / LABEL, lambda a: a + 2), r"label value\(s\) \[3, 4\]"),
        (
            lambda raw: rewrite(raw / LABEL, lambda a: (a / 2).astype("f4")),
            r"label value\(s\) \[0.5\]",
        ),
    ],
    ids=["channel", "labels", "truncated", "nan", "shape", "affine", "unknown", "fraction"],
)
def test_a_damaged_case_is_one_error_that_names_case_and_file(toy_copy, damage, said):
    damage(toy_copy.raw)
    (finding,) = check(toy_copy)
    assert (finding.level, finding.case) == ("error", "p2_left")
    with pytest.raises(DataFault, match=said):
        raise_on_errors([finding])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: rewrite(raw / IMAGE, lambda a: a * 0), "every voxel is 0.0"),
        (lambda raw: rewrite(raw / LABEL, lambda a: a * 0), "no foreground"),
    ],
)
def test_an_empty_image_or_label_map_is_a_warning(toy_copy, damage, said):
    damage(toy_copy.raw)
    (finding,) = check(toy_copy)
    assert finding.level == "warning"
    assert said in finding.message


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"numTraining": 7}, "warning", "numTraining is 7, expected the 6 cases"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}, "warning", "[3] occur in no case"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 4}}, "error", "without a gap"),
        (
            {"labels": {"background": 0, "a": 1, "ignore": 2, "b": 3}},
            "error",
            "the ignore label last",
        ),
    ],
)
def test_a_wrong_dataset_json_is_found(toy_copy, changes, level, said):
    edit(toy_copy, **changes)
    found = [f for f in check(toy_copy) if said in f.message]
    assert [f.level for f in found] == [level]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channel_names": {"1": "T1"}}, "expected names numbered from 0"),
        ({"labels": {"organ": 1}}, "'background': 0"),
        ({"labels": {"background": 0, "organ": "1"}}, "labels: organ is '1'"),
        ({"file_ending": None}, "file_ending is None"),
        ({"file_ending": ".mha"}, "no training cases"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_stops_the_check(toy_copy, changes, said):
    edit(toy_copy, **changes)
    with pytest.raises(DataFault, match=said):
        check(toy_copy)


def test_names_that_differ_in_case_only_are_an_error(toy_copy):
    for name in ("imagesTr/{}_0000.nii.gz", "imagesTr/{}_0001.nii.gz", "labelsTr/{}.nii.gz"):
        raw = toy_copy.raw
        shutil.copy(raw / name.format("p2_left"), raw / name.format("P2_left"))
    errors = [f for f in check(toy_copy) if f.level == "error"]
    assert len(errors) == 1
    assert "['P2_left', 'p2_left']" in errors[0].message


def test_a_single_case_is_an_error(toy_copy):
    for file in toy_copy.raw.glob("*Tr/*"):
        if not file.name.startswith("p2_left"):
            file.unlink()
    errors = [f for f in check(toy_copy) if f.level == "error"]
    assert ["expected at least 2" in f.message for f in errors] == [True]


def test_subjects_are_checked_too(toy_nnunet):
    (finding,) = check(toy_nnunet, subjects=r"(p[12])_")
    assert finding.level == "error"
    assert "'p3_left' first" in finding.message


def test_the_number_of_errors_is_told(tmp_path):
    errors = [Finding("error", "a", tmp_path, "first"), Finding("error", "b", tmp_path, "second")]
    with pytest.raises(DataFault, match=r"first \(2 errors in all"):
        raise_on_errors(errors)


def test_warnings_stop_nothing(tmp_path):
    raise_on_errors([Finding("warning", None, tmp_path, "odd")])


def test_cases_listed_in_dataset_json_are_found(toy_copy):
    listed = {
        case: {
            "images": [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)],
            "label": f"labelsTr/{case}.nii.gz",
        }
        for case in ("p1_left", "p2_left")
    }
    edit(toy_copy, dataset=listed, numTraining=2)
    assert check(toy_copy) == []
