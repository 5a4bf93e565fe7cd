import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.runtime.errors import DataFault, UsageFault
from tests.data.sets import check, only, opened, save

SHAPE = (8, 7, 6)
BRATS20 = ("flair", "t1", "t1ce", "t2")
BRATS23 = ("t1c", "t1n", "t2f", "t2w")
READ = {"folds": "2", "modality": "none"}
THIRD = "BraTS20_Training_003"


def write_cases(
    folder: Path,
    cases: Any,
    channels: tuple[str, ...] = BRATS20,
    *,
    joint: str = "_",
    values: tuple[int, ...] = (1, 2, 4),
    label: str | None = "seg",
    ending: str = ".nii.gz",
) -> None:
    """A channel's voxels are noise about its place in the list."""
    for case in cases:
        home = folder / case
        for number, channel in enumerate(channels):
            rng = np.random.default_rng((sum(home.name.encode()), number))
            image = rng.normal(100 * (number + 1), 1, SHAPE).astype(np.float32)
            save(home / f"{home.name}{joint}{channel}{ending}", image, np.eye(4))
        if label is not None:
            drawn = np.zeros(SHAPE, np.uint8)
            for place, value in enumerate(values):
                drawn[place + 2, 2:5, 2:5] = value
            save(home / f"{home.name}{joint}{label}{ending}", drawn, np.eye(4))


def read(where: Path, **keys: str) -> Any:
    return opened(where, **{**READ, **keys})


def mean(source: Any, case: str, channel: str) -> float:
    return float(source.load(case).image[source.channels.index(channel)].mean())


@pytest.fixture
def brats20(tmp_path: Path) -> Path:
    names = [f"BraTS20_Training_{number:03d}" for number in range(1, 5)]
    write_cases(tmp_path / "set", names, ending=".nii")
    (tmp_path / "set/survival_info.csv").write_text("Brats20ID,Age\n")
    return tmp_path / "set"


def test_brats_2020_is_read_in_one_path(brats20):
    source = read(brats20)
    assert source.channels == BRATS20
    assert source.schema.labels == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
    assert len(source.train_ids) == len(source.held_out_ids) == 2
    assert mean(source, "BraTS20_Training_001", "t1ce") == pytest.approx(300, abs=1)
    assert list(check(brats20, **READ).findings) == []


def test_brats_2017_has_its_grades_one_level_above(tmp_path):
    names = ("HGG/Brats17_TCIA_105_1", "HGG/Brats17_CBICA_AAB_1", "LGG/Brats17_TCIA_130_1")
    write_cases(tmp_path, names)
    source = read(tmp_path)
    assert {*source.train_ids, *source.held_out_ids} == {Path(name).name for name in names}
    assert source.entry("Brats17_TCIA_130_1").images[0].parent == tmp_path / names[2]


def test_brats_2023_has_hyphens_its_own_names_and_people_seen_twice(tmp_path):
    names = ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000")
    write_cases(tmp_path, names, BRATS23, joint="-", values=(1, 2, 3))
    source = read(tmp_path)
    assert source.channels == BRATS23
    assert source.schema.labels == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}
    assert source.header("BraTS-GLI-00000-001").subject == "BraTS-GLI-00000"
    held = {source.header(case).subject for case in source.held_out_ids}
    assert held.isdisjoint({source.header(case).subject for case in source.train_ids})
    assert list(check(tmp_path, **READ).findings) == []


@pytest.mark.parametrize(
    ("name", "channels", "joint", "values"),
    [
        ("BraTS-PED-{:05d}-000", BRATS23, "-", (1, 2, 3)),
        ("BraTS2021_{:05d}", BRATS20, "_", (1,)),
        ("case{}", BRATS20, "_", (1, 2)),
    ],
    ids=["children", "one", "two"],
)
def test_other_labels_than_those_of_brats_are_numbers(tmp_path, name, channels, joint, values):
    write_cases(tmp_path, map(name.format, range(2)), channels, joint=joint, values=values)
    source = read(tmp_path)
    assert source.channels == channels
    assert source.schema.labels == {"background": 0, **{f"label {v}": v for v in values}}


@pytest.mark.parametrize("channels", [("T1w", "FLAIR"), ("t1", "bold")])
def test_gaps_in_labels_are_refused_where_channels_are_not_brats(tmp_path, channels):
    write_cases(tmp_path, "ab", channels)
    with pytest.raises(DataFault, match=r"expected 0, 1, 2, .* without a gap"):
        _ = read(tmp_path).schema
    assert "without a gap" in only(tmp_path, **READ).message


def test_channels_are_chosen_in_any_spelling_and_called_as_asked(brats20):
    source = read(brats20, channels="T2,flair")
    assert source.channels == ("T2", "flair")
    assert mean(source, "BraTS20_Training_002", "T2") == pytest.approx(400, abs=1)
    assert source.schema.labels["enhancing"] == 4
    with pytest.raises(UsageFault, match=r"no channel 't1c'.*Did you mean 't1ce'"):
        read(brats20, channels="t1c")


@pytest.mark.fault(11)
def test_a_missing_file_is_named(brats20):
    lacking = brats20 / f"{THIRD}/{THIRD}_t1ce.nii"
    lacking.unlink()
    finding = only(brats20, **READ)
    assert finding.level == "error"
    assert re.match(f"{re.escape(str(lacking))}: missing.*'{THIRD}'", finding.message)
    with pytest.raises(DataFault, match=re.escape(str(lacking))):
        read(brats20).load(THIRD)


def test_a_file_under_another_name_is_named_where_one_is_missing(brats20):
    """BraTS20_Training_355 has such a file."""
    home = brats20 / THIRD
    (home / f"{THIRD}_seg.nii").rename(home / "W39_1998.09.19_Segm.nii")
    with pytest.raises(DataFault, match=rf"W39_1998.09.19_Segm.nii: .* {THIRD}_seg.nii is missing"):
        read(brats20)


def test_a_file_that_few_cases_have_is_passed_over(brats20):
    home = brats20 / THIRD
    (home / "notes_t9.nii").write_bytes(b"of no case")
    (home / f"{THIRD}_t1_bet.nii").write_bytes((home / f"{THIRD}_t1.nii").read_bytes())
    assert read(brats20).channels == BRATS20


@pytest.mark.parametrize("label", ["seg", "dseg", "label", "mask"])
def test_any_folders_of_cases_are_read(tmp_path, label):
    write_cases(tmp_path, ("anna", "bert"), ("T1", "PD"), values=(1,), label=label)
    source = read(tmp_path)
    assert source.channels == ("PD", "T1")
    assert source.schema.labels == {"background": 0, "label 1": 1}
    assert source.header("anna").subject == "anna"


def test_files_that_look_like_label_maps_but_are_not_called_so_are_refused(tmp_path):
    write_cases(tmp_path, ("anna", "bert"), ("T1",), values=(1,), label="segmentation")
    with pytest.raises(DataFault, match=r"'segmentation' .* CASE_seg.nii.gz.*channels="):
        read(tmp_path)
    assert read(tmp_path, channels="T1").load("anna").labels is None


@pytest.mark.fault(12)
def test_a_case_that_occurs_twice_is_refused(tmp_path):
    write_cases(tmp_path, ("HGG/p1", "LGG/p1"))
    with pytest.raises(DataFault, match="case 'p1' occurs twice"):
        read(tmp_path)


def test_folders_of_pairs_stay_pairs(named):
    write_cases(named, "ab")
    assert read(named).channels == ("T1", "T2")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Two cases of two channels and labels 0, 1, 3."""
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2], drawn[3] = 1, 3
    for number, case in enumerate("ab"):
        rng = np.random.default_rng(number)
        for channel in range(2):
            image = rng.normal(100 * (channel + 1), 1, SHAPE).astype(np.float32)
            save(tmp_path / f"images/{case}_{channel:04d}.nii.gz", image)
        save(tmp_path / f"labels/{case}.nii.gz", drawn)
    say(tmp_path)
    return tmp_path


def say(folder: Path, **content: object) -> None:
    names = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1, "b": 3}}
    (folder / "dataset.json").write_text(json.dumps({**names, **content}))


def test_dataset_json_names_labels_and_the_channels_to_choose_from(named):
    source = read(named)
    assert source.channels == ("T1", "T2")
    assert source.schema.labels == {"background": 0, "a": 1, "b": 3}
    assert list(check(named, **READ).findings) == []
    source = read(named, channels="t2")
    assert source.channels == ("t2",)
    assert mean(source, "a", "t2") == pytest.approx(200, abs=1)
    with pytest.raises(UsageFault, match="no channel 'PD', expected among: T1, T2"):
        read(named, channels="PD")


def test_it_names_the_channels_of_one_file_too(tmp_path):
    for case in "ab":
        rng = np.random.default_rng(ord(case))
        save(tmp_path / f"images/{case}.nii.gz", rng.normal((100, 200), 1, (*SHAPE, 2)))
        save(tmp_path / f"labels/{case}.nii.gz", np.full(SHAPE, 3, np.uint8))
    say(tmp_path)
    assert read(tmp_path).channels == ("T1", "T2")
    assert mean(read(tmp_path, channels="T2"), "b", "T2") == pytest.approx(200, abs=1)
    say(tmp_path, channel_names={"0": "T1", "1": "T2", "2": "PD"})
    with pytest.raises(DataFault, match=r"2 channel\(s\), expected 3"):
        read(tmp_path).load("a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"channel_names": {"0": "T1"}}, r"1 name\(s\), but .* has 2 channel\(s\)"),
        ({"channel_names": ["T1", "T2"]}, "expected different names numbered from 0"),
        ({"channel_names": {"0": "T1", "1": "T1"}}, "expected different names"),
        ({"labels": {"whole": [1, 2]}}, "labels is .* expected a different whole number"),
        ({"labels": {"a": 1, "b": 1}}, "expected a different whole number"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(named, content, said):
    say(named, **content)
    with pytest.raises(DataFault, match=f"dataset.json: .*{said}"):
        read(named)


def test_what_it_does_not_say_stays_open_and_beside_images_tr_it_is_not_looked_at(named):
    (named / "dataset.json").write_text('{"name": "ours"}')
    assert read(named, labels="a:1,b:3").channels == ("channel 0", "channel 1")
    say(named)
    for part in ("images", "labels"):
        (named / part).rename(named / f"{part}Tr")
    assert read(named, labels="a:1,b:3").channels == ("channel 0", "channel 1")


def write_flat(folder: Path, cases: Any, *names: str) -> Path:
    for number, case in enumerate(cases):
        for name in names:
            drawn = np.arange(np.prod(SHAPE)).reshape(SHAPE) + number
            array = drawn > 200 if "mask" in name else drawn
            save(
                folder / f"{case}{name}.nii.gz", array.astype(np.uint8 if "mask" in name else "f4")
            )
    return folder


@pytest.mark.parametrize(
    ("cases", "names", "channels", "label"),
    [
        (("pat01", "pat02"), ("_T1", "_hippo_mask"), ("T1",), "hippo_mask"),
        (("pat_01", "pat_02"), ("_T1", "_FLAIR", "_mask"), ("FLAIR", "T1"), "mask"),
        (("scan-1", "scan-2"), ("", "-mask"), ("image",), "mask"),
        (("a.b_1", "a.b_12"), ("_0000", "_0001", "_mask_gt"), ("0000", "0001"), "mask_gt"),
    ],
)
def test_files_of_one_folder_are_told_apart_by_their_label_maps(
    tmp_path, cases, names, channels, label
):
    folder = write_flat(tmp_path / "set", cases, *names)
    source = read(folder)
    assert source.channels == channels
    assert source.schema.labels == {"background": 0, label: 1}
    assert sorted(source.train_ids + source.held_out_ids) == list(cases)
    assert list(check(folder, **READ).findings) == []


def test_of_one_folder_a_missing_file_or_a_second_label_map_is_named(tmp_path):
    folder = write_flat(tmp_path / "set", ("p1", "p2", "p3"), "_T1", "_left_mask")
    (folder / "p2_left_mask.nii.gz").rename(tmp_path / "kept")
    assert "p2_left_mask.nii.gz: missing, expected for case 'p2'" in only(folder, **READ).message
    (tmp_path / "kept").rename(folder / "p2_left_mask.nii.gz")
    write_flat(folder, ("p1", "p2", "p3"), "_right_mask")
    message = only(folder, **READ).message
    assert "end in 'right_mask' and others in 'left_mask', expected one label map" in message
    assert read(folder, channels="T1").channels == ("T1",)
