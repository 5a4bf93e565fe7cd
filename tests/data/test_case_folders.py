"""nifti: a folder per case, as BraTS has them, and names in a dataset.json beside pairs."""

import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.findings import Checked
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.nifti_source import VolumeSource
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.opening import open_source

SHAPE = (8, 7, 6)
BRATS20 = ("flair", "t1", "t1ce", "t2")
BRATS23 = ("t1c", "t1n", "t2f", "t2w")


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = nib.Nifti1Image(array, np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(plain, 1) if path.suffix == ".gz" else plain)


def write_case(
    folder: Path,
    channels: tuple[str, ...],
    *,
    joint: str = "_",
    values: tuple[int, ...] = (1, 2, 4),
    label: str | None = "seg",
    ending: str = ".nii.gz",
) -> None:
    """One case; a channel's voxels are noise about its place in the list."""
    seed = sum(folder.name.encode())
    for number, channel in enumerate(channels):
        rng = np.random.default_rng((seed, number))
        image = rng.normal(100 * (number + 1), 1, SHAPE).astype(np.float32)
        save(folder / f"{folder.name}{joint}{channel}{ending}", image)
    if label is not None:
        drawn = np.zeros(SHAPE, np.uint8)
        for place, value in enumerate(values):
            drawn[place + 2, 2:5, 2:5] = value
        save(folder / f"{folder.name}{joint}{label}{ending}", drawn)


def request(where: Path, **keys: str) -> SourceRequest:
    return SourceRequest("nifti", str(where), read={"folds": "2", "modality": "none", **keys})


def read(where: Path, **keys: str) -> VolumeSource:
    source = open_source(request(where, **keys))
    assert isinstance(source, VolumeSource)
    return source


def check(where: Path, **keys: str) -> Checked:
    return installed().check("nifti")(request(where, **keys), lambda done, total: None)


def mean(source: VolumeSource, case: str, channel: str) -> float:
    return float(source.load(case).image[source.channels.index(channel)].mean())


@pytest.fixture
def brats20(tmp_path: Path) -> Path:
    for number in range(1, 5):
        write_case(tmp_path / f"set/BraTS20_Training_{number:03d}", BRATS20, ending=".nii")
    (tmp_path / "set/survival_info.csv").write_text("Brats20ID,Age\n")
    return tmp_path / "set"


# -- BraTS -----------------------------------------------------------------------------------------


def test_brats_2020_is_read_in_one_path(brats20):
    source = read(brats20)
    assert source.channels == BRATS20
    assert source.schema.labels == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
    assert len(source.train_ids) == len(source.held_out_ids) == 2
    assert mean(source, "BraTS20_Training_001", "t1ce") == pytest.approx(300, abs=1)
    assert list(check(brats20).findings) == []


def test_brats_2017_has_its_grades_one_level_above(tmp_path):
    for case in ("HGG/Brats17_TCIA_105_1", "HGG/Brats17_CBICA_AAB_1", "LGG/Brats17_TCIA_130_1"):
        write_case(tmp_path / case, BRATS20)
    source = read(tmp_path)
    assert {*source.train_ids, *source.held_out_ids} == {
        "Brats17_TCIA_105_1",
        "Brats17_CBICA_AAB_1",
        "Brats17_TCIA_130_1",
    }
    assert source.entry("Brats17_TCIA_130_1").images[0].parent == tmp_path / (
        "LGG/Brats17_TCIA_130_1"
    )


def test_brats_2021_is_called_like_2020(tmp_path):
    for number in range(2):
        write_case(tmp_path / f"BraTS2021_{number:05d}", BRATS20)
    assert read(tmp_path).channels == BRATS20


def test_brats_2023_has_hyphens_its_own_names_and_people_seen_twice(tmp_path):
    for case in ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"):
        write_case(tmp_path / case, BRATS23, joint="-", values=(1, 2, 3))
    source = read(tmp_path)
    assert source.channels == BRATS23
    assert source.schema.labels == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}
    assert source.subject("BraTS-GLI-00000-001") == "BraTS-GLI-00000"
    held = {source.subject(case) for case in source.held_out_ids}
    assert held.isdisjoint({source.subject(case) for case in source.train_ids})
    assert list(check(tmp_path).findings) == []


def test_children_of_brats_2023_have_other_labels_and_no_names(tmp_path):
    for number in range(2):
        home = tmp_path / f"BraTS-PED-{number:05d}-000"
        write_case(home, BRATS23, joint="-", values=(1, 2, 3))
    assert set(read(tmp_path).schema.labels) == {"background", "label 1", "label 2", "label 3"}


@pytest.mark.parametrize("values", [(1,), (1, 2)])
def test_labels_without_the_largest_of_brats_are_numbers(tmp_path, values):
    for case in ("a", "b"):
        write_case(tmp_path / case, BRATS20, values=values)
    named = {f"label {v}": v for v in values}
    assert read(tmp_path).schema.labels == {"background": 0, **named}


@pytest.mark.parametrize("channels", [("T1w", "FLAIR"), ("t1", "bold")])
def test_gaps_in_labels_are_refused_where_channels_are_not_brats(tmp_path, channels):
    for case in ("a", "b"):
        write_case(tmp_path / case, channels)
    with pytest.raises(DataFault, match=r"expected 0, 1, 2, .* without a gap"):
        _ = read(tmp_path).schema
    (finding,) = check(tmp_path).findings
    assert "without a gap" in finding.message


def test_labels_that_are_asked_for_come_first(brats20):
    labels = read(brats20, labels="core:1,oedema:2,rim:4").schema.labels
    assert labels == {"background": 0, "core": 1, "oedema": 2, "rim": 4}


# -- channels --------------------------------------------------------------------------------------


def test_channels_are_chosen_in_any_spelling_and_called_as_asked(brats20):
    source = read(brats20, channels="T2,flair")
    assert source.channels == ("T2", "flair")
    assert mean(source, "BraTS20_Training_002", "T2") == pytest.approx(400, abs=1)
    assert source.schema.labels["enhancing"] == 4


def test_a_channel_that_is_not_there_is_refused_with_the_nearest(brats20):
    with pytest.raises(UsageFault, match=r"no channel 't1c'.*Did you mean 't1ce'"):
        read(brats20, channels="t1c")


def test_a_missing_file_is_named(brats20):
    lacking = brats20 / "BraTS20_Training_003/BraTS20_Training_003_t1ce.nii"
    lacking.unlink()
    (finding,) = check(brats20).findings
    assert finding.level == "error"
    assert "\n" not in finding.message
    assert re.match(f"{re.escape(str(lacking))}: missing.*'BraTS20_Training_003'", finding.message)
    with pytest.raises(DataFault, match=re.escape(str(lacking))):
        read(brats20).load("BraTS20_Training_003")


def test_a_file_under_another_name_is_named_where_one_is_missing(brats20):
    """BraTS20_Training_355 has such a file."""
    home = brats20 / "BraTS20_Training_003"
    (home / "BraTS20_Training_003_seg.nii").rename(home / "W39_1998.09.19_Segm.nii")
    expected = r"W39_1998.09.19_Segm.nii: .* BraTS20_Training_003_seg.nii is missing; rename"
    with pytest.raises(DataFault, match=expected):
        read(brats20)


def test_a_file_that_few_cases_have_is_passed_over(brats20):
    home = brats20 / "BraTS20_Training_003"
    (home / "notes_t9.nii").write_bytes(b"of no case")
    image = (home / "BraTS20_Training_003_t1.nii").read_bytes()
    (home / "BraTS20_Training_003_t1_bet.nii").write_bytes(image)
    assert read(brats20).channels == BRATS20


def test_one_file_in_two_formats_is_refused(brats20):
    home = brats20 / "BraTS20_Training_001"
    save(home / "BraTS20_Training_001_t1.nii.gz", np.zeros(SHAPE, np.float32))
    with pytest.raises(DataFault, match=r"_t1.nii.gz: there is BraTS20_Training_001_t1.nii too"):
        read(brats20)


# -- folders of any cases --------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["seg", "dseg", "label", "mask"])
def test_any_folders_of_cases_are_read(tmp_path, label):
    for case in ("anna", "bert"):
        write_case(tmp_path / case, ("T1", "PD"), values=(1,), label=label)
    source = read(tmp_path)
    assert source.channels == ("PD", "T1")
    assert source.schema.labels == {"background": 0, "label 1": 1}
    assert source.subject("anna") == "anna"


def test_a_mask_beside_a_segmentation_is_no_channel(tmp_path):
    for case in ("anna", "bert"):
        write_case(tmp_path / case, ("T1", "mask"), values=(1,))
    assert read(tmp_path).channels == ("T1",)


def test_folders_of_cases_without_label_maps_are_unlabelled(tmp_path):
    for case in ("anna", "bert"):
        write_case(tmp_path / case, BRATS20, label=None)
    source = read(tmp_path)
    assert source.channels == BRATS20
    assert source.load("anna").labels is None


def test_files_that_look_like_label_maps_but_are_not_called_so_are_refused(tmp_path):
    for case in ("anna", "bert"):
        write_case(tmp_path / case, ("T1",), values=(1,), label="segmentation")
    with pytest.raises(DataFault, match=r"'segmentation' .* CASE_seg.nii.gz.*channels="):
        read(tmp_path)
    assert read(tmp_path, channels="T1").load("anna").labels is None


def test_a_case_that_occurs_twice_is_refused(tmp_path):
    for grade in ("HGG", "LGG"):
        write_case(tmp_path / grade / "p1", BRATS20)
    with pytest.raises(DataFault, match="case 'p1' occurs twice"):
        read(tmp_path)


def test_a_link_out_of_the_folder_is_refused(brats20, tmp_path):
    image = brats20 / "BraTS20_Training_001/BraTS20_Training_001_t1.nii"
    image.rename(tmp_path / "moved.nii")
    image.symlink_to(tmp_path / "moved.nii")
    with pytest.raises(IntegrityFault, match="leads out of"):
        read(brats20)


def test_folders_of_pairs_stay_pairs(tmp_path):
    for case in ("a", "b"):
        save(tmp_path / f"images/{case}.nii.gz", np.ones(SHAPE, np.float32))
        save(tmp_path / f"labels/{case}.nii.gz", np.ones(SHAPE, np.uint8))
        write_case(tmp_path / case, BRATS20)
    assert read(tmp_path).channels == ("channel 0",)


# -- dataset.json beside images/ -------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Two cases of two channels and labels 0, 1, 3."""
    for number, case in enumerate(("a", "b")):
        rng = np.random.default_rng(number)
        for channel in range(2):
            image = rng.normal(100 * (channel + 1), 1, SHAPE).astype(np.float32)
            save(tmp_path / f"images/{case}_{channel:04d}.nii.gz", image)
        drawn = np.zeros(SHAPE, np.uint8)
        drawn[2], drawn[3] = 1, 3
        save(tmp_path / f"labels/{case}.nii.gz", drawn)
    say(tmp_path)
    return tmp_path


def say(folder: Path, **content: object) -> None:
    names = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1, "b": 3}}
    (folder / "dataset.json").write_text(json.dumps({**names, **content}))


def test_dataset_json_names_channels_and_labels(named):
    source = read(named)
    assert source.channels == ("T1", "T2")
    assert source.schema.labels == {"background": 0, "a": 1, "b": 3}
    assert list(check(named).findings) == []


def test_channels_that_it_names_can_be_chosen(named):
    source = read(named, channels="t2")
    assert source.channels == ("t2",)
    assert mean(source, "a", "t2") == pytest.approx(200, abs=1)
    with pytest.raises(UsageFault, match="no channel 'PD', expected among: T1, T2"):
        read(named, channels="PD")


def test_it_names_the_channels_of_one_file_too(tmp_path):
    for case in ("a", "b"):
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


def test_what_it_does_not_say_stays_open(named):
    (named / "dataset.json").write_text('{"name": "ours"}')
    source = read(named, labels="a:1,b:3")
    assert source.channels == ("channel 0", "channel 1")


def test_beside_images_tr_it_is_not_looked_at(named):
    for part in ("images", "labels"):
        (named / part).rename(named / f"{part}Tr")
    assert read(named, labels="a:1,b:3").channels == ("channel 0", "channel 1")
