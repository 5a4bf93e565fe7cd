"""Raw data sets: where they are looked for, and what is wrong with their files.

What each kind of damage of a case is said to be, ``tests/test_bad_input.py`` has.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from gansynth.core.source import Finding, SourceRequest
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.dataset import NnunetRoot
from gansynth_nnunet.raw import check_raw
from tests.expected import raises_fault


def test_a_root_is_the_one_named_then_nnunets_variables_then_our_default(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert NnunetRoot.find().preprocessed == tmp_path / "nnunet" / "nnUNet_preprocessed"
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    assert NnunetRoot.find().raw == tmp_path / "elsewhere"
    root = NnunetRoot.find(tmp_path)
    assert root.raw == tmp_path / "nnUNet_raw"
    (root.raw / "Dataset004_A").mkdir(parents=True)
    assert [root.dataset(name) for name in ("4", "004", "Dataset004_A")] == ["Dataset004_A"] * 3
    (root.preprocessed / "Dataset004_B").mkdir(parents=True)
    with raises_fault("nnunet.data-set-id-ambiguous"):
        root.dataset("4")


@pytest.mark.parametrize("typed", ['"{}"', "~/{}"])
def test_a_variable_with_quotes_or_a_tilde_is_told(toy_nnunet, monkeypatch, typed):
    monkeypatch.setenv("nnUNet_raw", typed.format(toy_nnunet.raw.parent))
    with raises_fault("nnunet.root-variable-not-path"):
        check_raw(SourceRequest("nnunet", toy_nnunet.dataset), lambda done, total: None)


def check(toy, **options) -> list[Finding]:
    progress = options.pop("progress", lambda done, total: None)
    request = SourceRequest("nnunet", toy.dataset, root=str(toy.root), **options)
    return list(check_raw(request, progress).findings)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sound_data_set_has_no_findings_and_progress_counts_cases(toy_nnunet):
    calls: list[tuple[int, int]] = []
    assert check(toy_nnunet, progress=lambda done, total: calls.append((done, total))) == []
    assert calls == [(n, 6) for n in range(1, 7)]
    (finding,) = check(toy_nnunet, subjects=r"(p[12])_")
    assert finding.level == "error"
    assert "'p3_left' first" in finding.message


def test_a_wrong_dataset_json_is_found(toy_copy):
    three = {"background": 0, "a": 1, "b": 2}
    for changes, level, said in (
        ({"numTraining": 7}, "warning", "numTraining is 7, expected the 6 cases"),
        ({"labels": {**three, "c": 3}}, "warning", "[3] occur in no case"),
        ({"labels": {**three, "c": 4}}, "error", "without a gap"),
    ):
        edit(toy_copy.raw, **changes)
        assert [f.level for f in check(toy_copy) if said in f.message] == [level]


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16"])
def test_a_dataset_json_in_another_coding_than_nnunets_is_an_error(toy_copy, code):
    path = toy_copy.raw / "dataset.json"
    path.write_text(path.read_text(), code)
    assert [f.level for f in check(toy_copy) if f"is written in {code}" in f.message] == ["error"]


def test_hidden_files_are_one_error_as_nnunet_takes_them_for_cases(toy_copy):
    for file in [*toy_copy.raw.glob("*Tr/*")]:
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    (finding,) = check(toy_copy)
    assert (finding.level, "find " in finding.message) == ("error", True)
    subprocess.run(finding.message.partition("Remove them: ")[2], shell=True, check=True)
    assert check(toy_copy) == []


def as_files(raw: Path, ending: str) -> None:
    """Store a data set in files of another ending; those of 2D hold the middle slice."""
    for file in [*raw.glob("*Tr/*.nii.gz")]:
        volume = sitk.ReadImage(str(file))
        if ending == ".png":
            middle = volume[:, :, volume.GetSize()[2] // 2]
            scale = 1 if "labelsTr" in str(file) else 20
            volume = sitk.Cast(middle * scale, sitk.sitkUInt8)
        sitk.WriteImage(volume, str(file).replace(".nii.gz", ending))
        file.unlink()
    edit(raw, file_ending=ending)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".png"])
def test_files_of_any_ending_that_nnunet_reads_are_read(toy_copy, ending):
    request = SourceRequest("nnunet-raw", toy_copy.dataset, root=str(toy_copy.root))
    expected = open_source(request).load("p1_left")
    as_files(toy_copy.raw, ending)
    assert check(toy_copy) == []
    case = open_source(request).load("p1_left")
    assert expected.labels is not None
    assert case.labels is not None
    if ending == ".png":
        middle = expected.labels.shape[0] // 2
        assert np.array_equal(case.labels, expected.labels[middle : middle + 1])
    else:
        assert np.allclose(case.image, expected.image)
        assert np.array_equal(case.labels, expected.labels)
    labels = toy_copy.raw / f"labelsTr/p1_left{ending}"
    image = toy_copy.raw / f"imagesTr/p2_left_0001{ending}"
    sitk.WriteImage(sitk.ReadImage(str(labels)) * 100, str(labels))
    image.write_bytes(image.read_bytes()[:200])
    said = {f.file: f.message for f in check(toy_copy) if f.level == "error"}
    assert said.keys() == {labels, image}
    assert "are not in dataset.json, expected among [0, 1, 2]" in said[labels]
    assert f"cannot be read as {ending}" in said[image]


def test_one_colour_picture_is_three_channels_as_nnunet_reads_it(toy_copy):
    as_files(toy_copy.raw, ".png")
    for file in [*toy_copy.raw.glob("imagesTr/*_0001.png")]:
        file.unlink()
        first = file.with_name(file.name.replace("_0001", "_0000"))
        grey = np.asarray(Image.open(first))
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], -1)).save(first)
    edit(toy_copy.raw, channel_names={"0": "R", "1": "G", "2": "B"})
    assert check(toy_copy) == []
    edit(toy_copy.raw, channel_names={"0": "R"})
    assert {"3 channel(s)" in f.message for f in check(toy_copy)} == {True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"channel_names": {"1": "T1"}}, "nnunet.channel-names-invalid"),
        ({"labels": {"organ": 1}}, "nnunet.labels-invalid"),
        ({"dataset": {"p1": {"image": "x"}}}, "nnunet.case-list-invalid"),
        ({"file_ending": None}, "nnunet.file-ending-invalid"),
        ({"file_ending": ".mha"}, "nnunet.no-training-cases"),
        (
            {"file_ending": None, "modality": {"0": "T1", "1": "T2"}},
            "nnunet.raw-data-version-old",
        ),
    ],
)
def test_a_dataset_json_that_cannot_be_used_stops_the_check(toy_copy, changes, expected):
    edit(toy_copy.raw, **changes)
    with raises_fault(expected):
        check(toy_copy)


def test_a_data_set_of_another_name_or_without_its_ending_is_known_by_its_folder(
    toy_copy, refuse, run_cli
):
    other = toy_copy.raw.rename(toy_copy.raw.with_name("ours"))
    told = run_cli("check", other)
    assert (told.exit_code, "rename it: mv" in told.stdout) == (0, True)
    refuse("prepare", f"nnunet:{other}", code=3, says=["DatasetNNN_NAME", "mv"])
    edit(other, file_ending=None)
    refuse("check", other, code=3, says=['"file_ending": ".nii.gz"'])


def test_cases_listed_in_dataset_json_are_found(toy_copy):
    listed = {}
    for case in ("p1_left", "p2_left"):
        images = [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)]
        listed[case] = {"images": images, "label": f"labelsTr/{case}.nii.gz"}
    edit(toy_copy.raw, dataset=listed, numTraining=2)
    splits = toy_copy.preprocessed / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["p1_left", "p3_left"], "val": ["p2_left"]}]))
    (finding,) = check(toy_copy)
    assert "fold 0 names 1 case(s)" in finding.message
    splits.unlink()
    assert check(toy_copy) == []
