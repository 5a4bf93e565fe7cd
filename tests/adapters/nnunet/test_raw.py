"""Raw data sets: where they are looked for, what is wrong with their files, imports of MSD's.

What each kind of damage of a case is said to be, ``tests/test_bad_input.py`` has.
"""

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.findings import Finding
from gansynth.core.host_commands import ImportRequest
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json, read_nifti
from gansynth.runtime.progress import NullReporter, ProgressTask, Reporter
from gansynth_nnunet.msd import import_msd
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.raw import check_raw, raise_on_errors
from tests.conftest import DATA, content
from tests.conftest import save_nifti as save

LABEL, IMAGE = "labelsTr/p2_left.nii.gz", "imagesTr/p2_left_0001.nii.gz"
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "GANSYNTH_NNUNET_ROOT")


def test_a_root_is_the_one_named_then_nnunets_variables_then_our_default(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert NnunetRoot.find().preprocessed == tmp_path / "nnunet" / "nnUNet_preprocessed"
    monkeypatch.setenv("GANSYNTH_NNUNET_ROOT", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    root = NnunetRoot.find()
    assert (root.raw, root.results) == (tmp_path / "elsewhere", tmp_path / "nnUNet_results")
    assert NnunetRoot.find(tmp_path).raw == tmp_path / "nnUNet_raw"


def test_nnunet_looks_where_the_root_was_activated(tmp_path, monkeypatch):
    from nnunetv2.paths import nnUNet_raw

    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, "before")
    NnunetRoot.find(tmp_path).activate()
    assert str(nnUNet_raw) == str(tmp_path / "nnUNet_raw")


def test_a_data_set_has_three_names_and_an_id_of_two_is_refused(tmp_path):
    (tmp_path / "nnUNet_raw" / "Dataset004_A").mkdir(parents=True)
    root = NnunetRoot.find(tmp_path)
    assert [root.dataset(name) for name in ("4", "004", "Dataset004_A")] == ["Dataset004_A"] * 3
    (tmp_path / "nnUNet_preprocessed/Dataset004_B").mkdir(parents=True)
    with pytest.raises(UsageFault, match=r"several data sets \(Dataset004_A, Dataset004_B"):
        root.dataset("4")


def check(toy, **options) -> list[Finding]:
    return check_raw(NnunetRoot.find(toy.root), toy.dataset, **options)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewritten(name: str, change: Any) -> Any:
    def rewrite(raw: Any) -> None:
        found = read_nifti(raw / name)
        save(raw / name, change(found.array), found.affine)

    return rewrite


def test_a_sound_data_set_has_no_findings_and_progress_counts_cases(toy_nnunet):
    calls: list[tuple[int, int]] = []
    assert check(toy_nnunet, progress=lambda done, total: calls.append((done, total))) == []
    assert calls == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("damage", "level", "said"),
    [
        (lambda raw: (raw / LABEL).unlink(), "error", f"{LABEL}: missing"),
        (rewritten(IMAGE, lambda a: a * np.nan), "error", f"{IMAGE}: 16128 NaN"),
        (rewritten(LABEL, lambda a: (a / 2).astype("f4")), "error", "label value(s) [0.5]"),
        (rewritten(IMAGE, lambda a: a * 0), "warning", "every voxel is 0.0"),
        (rewritten(LABEL, lambda a: a * 0), "warning", "no foreground"),
    ],
)
def test_a_spoilt_case_is_one_finding_that_names_case_and_file(toy_copy, damage, level, said):
    damage(toy_copy.raw)
    (finding,) = check(toy_copy)
    assert (finding.level, finding.case) == (level, "p2_left")
    assert said in finding.message


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"numTraining": 7}, "warning", "numTraining is 7, expected the 6 cases"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}, "warning", "[3] occur in no case"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 4}}, "error", "without a gap"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2, "b": 3}}, "error", "ignore label last"),
    ],
)
def test_a_wrong_dataset_json_is_found(toy_copy, changes, level, said):
    edit(toy_copy.raw, **changes)
    assert [f.level for f in check(toy_copy) if said in f.message] == [level]


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
    edit(toy_copy.raw, **changes)
    with pytest.raises(DataFault, match=said):
        check(toy_copy)


@pytest.mark.fault(12)
def test_names_that_differ_in_case_only_are_an_error(toy_copy):
    for name in ("imagesTr/{}_0000.nii.gz", "imagesTr/{}_0001.nii.gz", "labelsTr/{}.nii.gz"):
        raw = toy_copy.raw
        shutil.copy(raw / name.format("p2_left"), raw / name.format("P2_left"))
    (error,) = [f for f in check(toy_copy) if f.level == "error"]
    assert "['P2_left', 'p2_left']" in error.message


def test_subjects_are_checked_too(toy_nnunet):
    (finding,) = check(toy_nnunet, subjects=r"(p[12])_")
    assert finding.level == "error"
    assert "'p3_left' first" in finding.message


def test_errors_stop_with_their_number_and_warnings_nothing(tmp_path):
    raise_on_errors([Finding("warning", None, tmp_path, "odd")])
    errors = [Finding("error", "a", tmp_path, "first"), Finding("error", "b", tmp_path, "second")]
    with pytest.raises(DataFault, match=r"first \(2 errors in all"):
        raise_on_errors(errors)


def test_cases_listed_in_dataset_json_are_found(toy_copy):
    listed = {
        case: {
            "images": [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)],
            "label": f"labelsTr/{case}.nii.gz",
        }
        for case in ("p1_left", "p2_left")
    }
    edit(toy_copy.raw, dataset=listed, numTraining=2)
    assert check(toy_copy) == []


REAL = DATA / "msd_task04_hippocampus"
CASES = ("hip_001", "hip_002", "hip_004", "hip_005")
SHAPE = (8, 9, 10)
NAME = "Dataset004_Hip"


@pytest.fixture
def msd(tmp_path):
    """Four cases of three people, one channel."""
    folder, rng = tmp_path / "Task04_Hip", np.random.default_rng(0)
    for case in CASES:
        save(folder / f"imagesTr/{case}.nii.gz", rng.normal(9, 2, SHAPE).astype(np.float32))
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:4, 2:5, 3:6], labels[4:6, 2:5, 3:6] = 1, 2
        save(folder / f"labelsTr/{case}.nii.gz", labels)
    document = {
        "name": "Hip",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    people = "".join(f"{case},{one}\n" for case, one in zip(CASES, "1123", strict=True))
    (folder / "subjects.csv").write_text(f"case,subject_group\n{people}")
    return folder


@pytest.fixture
def root(tmp_path):
    return NnunetRoot.find(tmp_path / "nn")


def bring(
    msd: Path,
    root: NnunetRoot,
    folds: int | None = 3,
    number: object = 4,
    reporter: Reporter | None = None,
    **reading: str,
) -> Any:
    reading["root"] = str(root.raw.parent)
    told = reporter or NullReporter()
    request = ImportRequest(f"msd:{msd}", reading, str(number), folds, 0, {}, told)
    return SimpleNamespace(**import_msd(request).document)


class Interrupting(NullReporter):
    """Interrupts after two cases."""

    done = 0.0

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        yield self

    def advance(self, n: float = 1, **figures: object) -> None:
        self.done += n
        if self.done == 2:
            raise KeyboardInterrupt


def test_files_are_taken_over_byte_for_byte_and_dataset_json_is_nnunets(msd, root):
    report = bring(msd, root)
    assert (report.copied, report.rewritten) == (8, 0)
    for case in CASES:
        image = report.folder / f"imagesTr/{case}_0000.nii.gz"
        assert image.read_bytes() == (msd / f"imagesTr/{case}.nii.gz").read_bytes()
    doc = read_json(report.folder / "dataset.json")
    assert doc["channel_names"] == {"0": "MRI"}
    assert doc["labels"] == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert (doc["numTraining"], doc["file_ending"]) == (4, ".nii.gz")
    assert check_raw(root, report.dataset) == []


def test_four_axes_become_channels(msd, root):
    edit(msd, modality={"0": "T1", "1": "T2"})
    for case in CASES:
        path = msd / f"imagesTr/{case}.nii.gz"
        array = read_nifti(path).array
        save(path, np.stack([array, array + 1], -1))
    folder = bring(msd, root).folder
    first, second = (read_nifti(folder / f"imagesTr/hip_001_000{c}.nii.gz").array for c in (0, 1))
    assert np.array_equal(first + 1, second)


def test_uncompressed_images_are_compressed(msd, root):
    path = msd / "imagesTr/hip_001.nii"
    save(path, read_nifti(f"{path}.gz").array)
    entries = read_json(msd / "dataset.json")["training"]
    edit(msd, training=[{**entries[0], "image": "./imagesTr/hip_001.nii"}, *entries[1:]])
    target = bring(msd, root).folder / "imagesTr/hip_001_0000.nii.gz"
    assert np.array_equal(read_nifti(target).array, read_nifti(path).array)


def test_labels_stored_as_floats_are_recast_once(msd, root):
    path = msd / "labelsTr/hip_001.nii.gz"
    labels = read_nifti(path).array
    save(path, labels.astype(np.float32))
    report = bring(msd, root)
    recast = read_nifti(report.folder / "labelsTr/hip_001.nii.gz").array
    assert recast.dtype == np.uint8
    assert np.array_equal(recast, labels)
    assert (report.rewritten, bring(msd, root).kept) == (1, 8)


def test_folds_do_not_part_people(msd, root):
    bring(msd, root)
    splits = read_json(root.preprocessed / NAME / "splits_final.json", expected=list)
    assert sorted(case for split in splits for case in split["val"]) == sorted(CASES)
    assert any(set(CASES[:2]) <= set(split["val"]) for split in splits)


def test_without_a_subject_list_every_case_is_a_person_unless_an_expression_says(msd, root):
    assert bring(msd, root, subjects=r"hip_00(\d)", folds=4).subjects == 4
    (msd / "subjects.csv").unlink()
    assert bring(msd, NnunetRoot.find(root.raw.parent / "other")).subjects == 4


def test_importing_again_takes_what_has_changed_only(msd, root):
    folder = bring(msd, root).folder
    dates = {p: p.stat().st_mtime_ns for p in folder.rglob("*.gz")}
    assert bring(msd, root).kept == 8
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.gz")} == dates
    save(msd / "imagesTr/hip_002.nii.gz", np.ones(SHAPE, np.float32))
    assert bring(msd, root).copied == 1


def test_an_interrupted_import_goes_on_to_the_same_end(msd, root, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bring(msd, root, reporter=Interrupting())
    assert not (root.raw / NAME / "dataset.json").exists()
    report = bring(msd, root)
    assert (report.kept, report.copied) == (4, 4)
    whole = bring(msd, NnunetRoot.find(tmp_path / "other"))
    assert content(report.folder) == content(whole.folder)


def test_a_folder_of_something_else_is_left_alone(msd, root):
    (root.raw / NAME / "imagesTr").mkdir(parents=True)
    with pytest.raises(UsageFault, match="not from an import"):
        bring(msd, root)
    (root.raw / NAME).rename(root.raw / "Dataset004_Heart")
    with pytest.raises(UsageFault, match="id 004 is taken by Dataset004_Heart"):
        bring(msd, root)


def test_another_source_under_the_same_name_is_refused(msd, root):
    bring(msd, root)
    edit(msd, description="another")
    with pytest.raises(UsageFault, match="imported from another MSD folder"):
        bring(msd, root)


@pytest.mark.parametrize("number", [0, 1000, "four", -4])
def test_an_impossible_id_is_refused(msd, root, number):
    with pytest.raises(UsageFault, match="expected a number from 1 to 999"):
        bring(msd, root, number=number)


LABELS = "labelsTr/hip_002.nii.gz"
ZEROS = np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize(
    ("file", "array", "affine", "said"),
    [
        ("imagesTr/hip_004.nii.gz", np.full(SHAPE, np.nan, np.float32), None, "720 NaN"),
        (LABELS, ZEROS[..., 1:], None, r"shape is \(8, 9, 9\), but \(8, 9, 10\)"),
        (LABELS, ZEROS, np.diag([1, 1, 1.01, 1]), "affine differs .* by up to 0.01 mm"),
        (LABELS, ZEROS + 7, None, r"label value\(s\) \[7\]"),
    ],
)
def test_a_case_that_cannot_be_used_is_refused(msd, root, file, array, affine, said):
    save(msd / file, array, affine)
    with pytest.raises(DataFault, match=said):
        bring(msd, root)
    assert not (root.raw / NAME / "dataset.json").exists()


def test_an_empty_gzip_file_is_refused(msd, root):
    (msd / "imagesTr/hip_001.nii.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataFault, match="only 0 bytes"):
        bring(msd, root)


@pytest.mark.fault(19)
@pytest.mark.parametrize("image", ["../secret.nii.gz", "/etc/hostname", "imagesTr/link.nii.gz"])
def test_a_path_out_of_the_folder_is_refused_before_anything_is_written(msd, root, image):
    (msd / "imagesTr/link.nii.gz").symlink_to("/etc/hostname")
    edit(msd, training=[{"image": image, "label": "./labelsTr/hip_001.nii.gz"}])
    with pytest.raises(IntegrityFault, match=r"training: 0: path .* leads out"):
        bring(msd, root)
    assert not root.raw.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modality": {"0": "T1", "1": "T2"}}, r"1 channel\(s\) of shape .*, expected 2 \(T1, T2"),
        ({"training": []}, "expected a list of cases"),
        ({"training": [{"image": "x"}]}, "expected image and label"),
        ({"training": [{"image": "a b.nii.gz", "label": "x"}]}, "file name 'a b' is unusual"),
        ({"training": [{"image": f"{n}.nii", "label": "x"} for n in "aA"]}, "'A' occurs twice"),
        ({"labels": {"background": 0}}, "expected MSD's style"),
        ({"labels": {"0": "background", "1": "background"}}, "a name occurs twice"),
        ({"modality": {"1": "MRI"}}, "expected names numbered from 0"),
    ],
)
def test_an_unusable_dataset_json_says_what_is_wrong(msd, root, changes, said):
    edit(msd, **changes)
    with pytest.raises(DataFault, match=said):
        bring(msd, root)


@pytest.mark.data
def test_the_real_hippocampus_data_import(root):
    if not REAL.is_dir():
        pytest.skip(f"no {REAL.name} beside the repository")
    report = bring(REAL, root, folds=None)
    assert (report.dataset, report.cases) == ("Dataset004_Hippocampus", 173)
    assert (report.subjects, report.copied) == (112, 346)
    assert {validation for _, validation in report.folds} == {34, 35}
