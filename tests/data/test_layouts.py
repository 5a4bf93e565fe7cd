import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data import sets
from tests.data.sets import check, only, opened, save, volume
from tests.expected import raises_fault

SHAPE = (8, 7, 6)
READ = {"folds": "2", "modality": "none"}
THIRD = "BraTS20_Training_003"


def noise(case: str, channel: int) -> np.ndarray:
    """About 100 for the first channel of a case, 200 for the second."""
    rng = np.random.default_rng((sum(case.encode()), channel))
    return rng.normal(100 * (channel + 1), 1, SHAPE).astype(np.float32)


def write(folder: Path, cases: Any, images: Any, label: str, values: tuple[int, ...]) -> Path:
    """Files by their names, of which {} is the case, and {home} its folder in BIDS."""
    drawn = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        drawn[place + 2, 2:5, 2:5] = value
    for case in cases:
        pairs = [(name, noise(case, number)) for number, name in enumerate(images)]
        for name, array in [*pairs, (label, drawn)]:
            path = folder / name.format(*[case] * 2, home=case.replace("_ses-", "/ses-"))
            save(path, array, np.eye(4))
    return folder


def read(where: Path, **keys: str) -> Any:
    return opened(where, **{**READ, **keys})


def mean(source: Any, case: str, channel: str) -> float:
    return float(source.load(case).image[source.channels.index(channel)].mean())


OLD = [f"{{}}/{{}}_{channel}.nii" for channel in ("flair", "t1", "t1ce", "t2")]
NEW, SEG = [f"{{}}/{{}}-{channel}.nii.gz" for channel in ("t1c", "t1n", "t2f")], "{}/{}_seg.nii"
BRATS20 = [f"BraTS20_Training_{n:03d}" for n in range(1, 5)], OLD, SEG, (1, 2, 4)
GLIOMAS = ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"]
CHILDREN = ["BraTS-PED-00000-000", "BraTS-PED-00001-000"]
PAIR = ["{}/{}_PD.nii.gz", "{}/{}_T1.nii.gz"]
VISITS, ANAT = ["sub-01_ses-a", "sub-01_ses-b", "sub-02"], "{home}/anat/{}_"
BIDS = VISITS, [f"{ANAT}FLAIR.nii", f"{ANAT}T1w.nii"], f"derivatives/x/{ANAT}space-a_dseg.nii", (1,)
PARTS = "necrosis oedema enhancing"
LAYOUTS: dict[str, tuple[Any, str, str]] = {
    "2017": (
        (["Brats17_1", "Brats17_2"], [f"HGG/{n}" for n in OLD], f"HGG/{SEG}", (1, 2, 4)),
        "t2",
        PARTS,
    ),
    "2023": ((GLIOMAS, NEW, "{}/{}-seg.nii.gz", (1, 2, 3)), "t2f", PARTS),
    "children": ((CHILDREN, NEW, "{}/{}-seg.nii.gz", (1, 2, 3)), "t2f", ""),
    "one label": ((["BraTS2021_0", "BraTS2021_1"], OLD, SEG, (1,)), "t2", ""),
    "two labels": ((["a", "b"], OLD, "{}/{}_dseg.nii", (1, 2)), "t2", ""),
    "label": ((["a", "b"], PAIR, "{}/{}_label.nii.gz", (1,)), "T1", ""),
    "mask": ((["a", "b"], PAIR, "{}/{}_mask.nii.gz", (1,)), "T1", ""),
    "flat": ((["pat01", "pat02"], ["{}_T1.nii"], "{}_hippo_mask.nii", (1,)), "T1", "hippo_mask"),
    "flat two": ((["p_1", "p_2"], ["{}_A.nii", "{}_B.nii"], "{}_mask.nii", (1,)), "B", "mask"),
    "flat bare": ((["scan-1", "scan-2"], ["{}.nii"], "{}-mask.nii", (1,)), "image", "mask"),
    "flat dots": ((["a.b_1", "a.b_12"], ["{}_0.nii"], "{}_mask_gt.nii", (1,)), "0", "mask_gt"),
    "numbers": ((["s_0001", "s_0002"], ["images/{}.nii"], "labels/{}.nii", (1,)), "channel 0", ""),
    "BIDS": (BIDS, "T1w", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cases_their_channels_and_labels_are_known_by_names(tmp_path, layout):
    (cases, images, label, values), last, parts = LAYOUTS[layout]
    write(tmp_path, cases, images, label, values)
    (tmp_path / "survival_info.csv").write_text("Brats20ID,Age\n")
    source = read(tmp_path)
    assert sorted(source.train_ids + source.held_out_ids) == cases
    assert (len(source.channels), source.channels[-1]) == (len(images), last)
    assert mean(source, cases[0], last) == pytest.approx(100 * len(images), abs=1)
    names = parts.split() or [f"label {value}" for value in values]
    assert source.schema.labels == {"background": 0, **dict(zip(names, values, strict=True))}
    assert list(check(tmp_path, **READ).findings) == []
    if layout in ("2023", "BIDS"):  # people who were seen twice
        assert source.header(cases[1]).subject == cases[1][: -4 if layout == "2023" else 6]


def test_a_second_image_of_a_case_is_refused(tmp_path):
    write(tmp_path, *BIDS)
    image = tmp_path / "sub-02/anat/sub-02_T1w.nii"
    image.with_name("sub-02_run-2_T1w.nii").write_bytes(image.read_bytes())
    with raises_fault("listing.faulty-entry"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("cases", "images"),
    [
        ("ab", ["{}/{}_bold.nii", "{}/{}_t1.nii"]),
        ("ab", OLD),  # whose folder does not say of which challenge it is
        (CHILDREN, NEW),
        (["BraTS-MEN-00000-000", "BraTS-MEN-00001-000"], NEW),
        (["BraTS_2015_1", "BraTS_2015_2"], OLD),
    ],
)
def test_gaps_in_labels_are_refused_where_no_name_says_what_they_are(tmp_path, cases, images):
    write(tmp_path, cases, images, SEG, (1, 2, 4))
    with raises_fault("nifti.label-values-odd"):
        _ = read(tmp_path).schema
    message = only(tmp_path, **READ).message
    assert "without a gap" in message
    proposed = message.partition("--read labels=")[2].strip("'")
    assert list(check(tmp_path, **READ, labels=proposed).findings) == []
    labels = read(tmp_path, labels=proposed).schema.labels
    assert labels == {"background": 0, "label 1": 1, "label 2": 2, "label 4": 4}


@pytest.mark.parametrize("home", ["MICCAI_BraTS_2018_Data_Training", "BraTS2021", "brats19"])
def test_a_folder_that_is_named_after_a_challenge_says_what_labels_are(tmp_path, home):
    write(tmp_path / home, "ab", [f"HGG/{name}" for name in OLD], f"HGG/{SEG}", (1, 2, 4))
    assert " ".join(list(read(tmp_path / home).schema.labels)[1:]) == PARTS


def test_channels_are_chosen_in_any_spelling_and_called_as_asked(tmp_path):
    source = read(write(tmp_path, *BRATS20), channels="T2,flair")
    assert source.channels == ("T2", "flair")
    assert mean(source, THIRD, "T2") == pytest.approx(400, abs=1)
    assert source.schema.labels["enhancing"] == 4
    with raises_fault("listing.channel-unknown"):
        read(tmp_path, channels="t1c")


@pytest.mark.fault(11)
def test_a_missing_file_is_named_and_one_that_few_cases_have_passed_over(tmp_path):
    lacking = write(tmp_path, *BRATS20) / THIRD / f"{THIRD}_t1ce.nii"
    content = lacking.read_bytes()
    lacking.unlink()
    finding = only(tmp_path, **READ)
    assert finding.level == "error"
    assert re.match(f"{re.escape(str(lacking))}: missing.*'{THIRD}'", finding.message)
    with raises_fault("nifti.file-missing", names=str(lacking)):
        read(tmp_path).load(THIRD)
    for name in (lacking.name, f"{THIRD}_t1_bet.nii", "notes_t9.nii"):
        lacking.with_name(name).write_bytes(content)
    assert len(read(tmp_path).channels) == 4


def test_a_file_under_another_name_is_named_where_one_is_missing(tmp_path):
    home = write(tmp_path, *BRATS20) / THIRD  # BraTS20_Training_355 has such a file
    (home / f"{THIRD}_seg.nii").rename(home / "W39_1998.09.19_Segm.nii")
    with raises_fault("listing.faulty-entry", names=THIRD):
        read(tmp_path)


def test_of_one_folder_a_missing_file_or_a_second_label_map_is_named(tmp_path):
    cases = ("p1", "p2", "p3")
    for label in ("left", "right"):
        write(tmp_path, cases, ["{}_T1.nii"], f"{{}}_{label}_mask.nii", (1,))
        if label == "left":
            (tmp_path / "p2_left_mask.nii").unlink()
            said = only(tmp_path, **READ).message
            assert "p2_left_mask.nii: missing, expected for case 'p2'" in said
            write(tmp_path, cases, [], "{}_left_mask.nii", (1,))
    message = only(tmp_path, **READ).message
    assert "end in left_mask and right_mask" in message
    assert "choose: --read label=left_mask or --read label=right_mask" in message
    assert read(tmp_path, channels="T1").channels == ("T1",)
    assert read(tmp_path, label="right_mask").channels == ("T1",)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    images = [f"images/{{}}_000{channel}.nii.gz" for channel in (0, 1)]
    return say(write(tmp_path, "ab", images, "labels/{}.nii.gz", (1, 3)))


def say(folder: Path, **content: object) -> Path:
    names = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1, "b": 3}}
    (folder / "dataset.json").write_text(json.dumps({**names, **content}))
    return folder


def test_dataset_json_names_labels_and_the_channels_to_choose_from(named):
    write(named, "ab", OLD, SEG, (1,))  # folders of pairs stay pairs
    source = read(named)
    assert source.channels == ("T1", "T2")
    assert source.schema.labels == {"background": 0, "a": 1, "b": 3}
    assert list(check(named, **READ).findings) == []
    assert mean(read(named, channels="t2"), "a", "t2") == pytest.approx(200, abs=1)
    with raises_fault("listing.channel-unknown"):
        read(named, channels="PD")


def test_it_names_the_channels_of_one_file_too(tmp_path):
    for case in "ab":
        save(tmp_path / f"images/{case}.nii.gz", np.stack([noise(case, n) for n in (0, 1)], -1))
        save(tmp_path / f"labels/{case}.nii.gz", np.full(SHAPE, 3, np.uint8))
    say(tmp_path)
    assert read(tmp_path).channels == ("T1", "T2")
    assert mean(read(tmp_path, channels="T2"), "b", "T2") == pytest.approx(200, abs=1)
    say(tmp_path, channel_names={"0": "T1", "1": "T2", "2": "PD"})
    with raises_fault("nifti.channel-count-differs"):
        read(tmp_path).load("a")
    said = str(check(tmp_path, **READ).findings)
    assert "2 channel(s) of shape (8, 7, 6, 2), expected 3 as listed" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"channel_names": {"0": "T1"}}, "listing.faulty-entry"),
        ({"channel_names": ["T1", "T2"]}, "listing.entry-invalid"),
        ({"channel_names": {"0": "T1", "1": "T1"}}, "listing.entry-invalid"),
        ({"labels": {"whole": [1, 2]}}, "listing.entry-invalid"),
        ({"labels": {"a": 1, "b": 1}}, "listing.entry-invalid"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(named, content, expected):
    say(named, **content)
    with raises_fault(expected):
        read(named)


def test_what_it_does_not_say_stays_open_and_beside_images_tr_it_is_not_looked_at(named):
    (named / "dataset.json").write_text('{"name": "ours"}')
    assert read(named, labels="a:1,b:3").channels == ("channel 0", "channel 1")
    say(named)
    for part in ("images", "labels"):
        (named / part).rename(named / f"{part}Tr")
    assert read(named, labels="a:1,b:3").channels == ("channel 0", "channel 1")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Six cases of two modalities in one 4D file each, of the Medical Segmentation Decathlon."""
    sets.msd(tmp_path / "Task01")
    return edit(tmp_path / "Task01", modality={"0": "FLAIR", "1": "CT"})


def edit(task: Path, **changes: Any) -> Path:
    path = task / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return task


def read_task(task: Path, **keys: str) -> Any:
    return opened(task, "msd", **{"folds": "3", **keys})


def messages(task: Path) -> list[str]:
    return [finding.message for finding in check(task, "msd", folds="3").findings]


def test_a_task_of_msd_has_the_names_of_its_dataset_json(task):
    source = read_task(task)
    assert source.name == "msd:Task01"
    assert source.schema.channels == ("FLAIR", "CT")
    assert source.schema.labels == {"background": 0, "oedema": 1, "core": 2}
    assert [how.modality for how in source.intensities] == ["mr", "ct"]
    assert messages(task) == []
    source = read_task(task, channels="CT", modality="none")
    assert np.array_equal(source.load("anna_2").image[0], volume(1, channels=2)[..., 1].T)
    with raises_fault("listing.modality-unknown"):
        read_task(task, channels="T9")


ESCAPE = [{"image": "../x.nii.gz", "label": "labelsTr/anna_1.nii.gz"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": ESCAPE}, "leads out of"),
        ({"training": [{"image": "imagesTr/anna_1.nii.gz"}]}, "expected image (.nii.gz) and label"),
        ({"training": []}, "no cases"),
        ({"labels": {"0": "background", "1": "edema"}}, "[2] are not in dataset.json"),
    ],
)
def test_a_wrong_dataset_json_is_found(task, changes, said):
    edit(task, **changes)
    assert any(said in message for message in messages(task))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modality": {"1": "T1"}}, "listing.entry-invalid"),
        ({"modality": []}, "listing.entry-invalid"),
        ({"labels": ["a"]}, "listing.entry-invalid"),
        ({"training": {"a": 1}}, "listing.training-not-list"),
    ],
)
def test_a_dataset_json_of_other_types_is_refused(task, changes, expected):
    edit(task, **changes)
    (key,) = changes
    with raises_fault(expected, names=f"dataset.json: {key} "):
        messages(task)


# -- layouts by a pattern, and choices that are not guessed ----------------------------------------

KITS = "{case}/imaging.nii.gz", "{case}/segmentation.nii.gz"
LITS = "volume-{case}.nii", "segmentation-{case}.nii"
BTCV = "img/img{case}.nii.gz", "label/label{case}.nii.gz"
ACDC = "*/{case:*_frame??}.nii.gz", "*/{case:*_frame??}_gt.nii.gz"
ISLES = "{case}/*/*/*_{channel}.nii.gz", "derivatives/{case}/*/*_msk.nii.gz"


@pytest.mark.parametrize(
    ("files", "patterns", "cases", "channels", "understood"),
    [
        (["case_0/imaging.nii.gz", "case_0/segmentation.nii.gz"], KITS, "case_0", 1, True),
        (["volume-0.nii", "segmentation-0.nii"], LITS, "0", 1, True),
        (["img/img000.nii.gz", "label/label000.nii.gz"], BTCV, "000", 1, True),
        (["p0/p0_frame01.nii.gz", "p0/p0_frame01_gt.nii.gz", "p0/p0_4d.nii.gz"],
         ACDC, "p1_frame11", 1, False),
        (["s0/ses-1/dwi/s0_dwi.nii.gz", "s0/ses-1/dwi/s0_adc.nii.gz",
          "derivatives/s0/ses-1/s0_msk.nii.gz"], ISLES, "s0", 2, False),
    ],
    ids=["KiTS", "LiTS", "BTCV", "ACDC", "ISLES22"],
)  # fmt: skip
def test_a_layout_is_read_by_a_pattern(tmp_path, files, patterns, cases, channels, understood):
    for number in "0123":
        for place, file in enumerate(files):
            array = noise(number, place)
            if re.search("seg|label|_gt|_msk", file):
                array = (array > array.mean()).astype(np.uint8)
            save(tmp_path / "set" / file.replace("0", number), array, np.eye(4))
    image, label = patterns
    source = read(tmp_path / "set", image=image, label=label)
    assert len(source.train_ids + source.held_out_ids) == 4
    assert cases in source.train_ids + source.held_out_ids
    assert len(source.schema.channels) == channels
    assert source.schema.foreground == (1,)
    if understood:
        assert read(tmp_path / "set").request.read == {**READ, "image": image, "label": label}


def test_two_kinds_of_label_maps_of_bids_are_not_guessed(tmp_path):
    """fMRIPrep's tissue map beside what raters drew, and an outline of the brain, which is none."""
    cases, images = ["sub-01", "sub-02"], [f"{ANAT}T1w.nii"]
    for label in ("label-lesion_roi", "desc-brain_mask"):
        write(tmp_path, cases, images, f"derivatives/x/{ANAT}{label}.nii", (1,))
    assert read(tmp_path).schema.foreground == (1,)
    write(tmp_path, cases, images, f"derivatives/y/{ANAT}space-a_dseg.nii", (1, 2))
    with raises_fault("listing.faulty-entry", names="dseg, label-lesion_roi") as caught:
        read(tmp_path)
    assert "--read label=" in str(caught.value)
    assert read(tmp_path, label="dseg").schema.foreground == (1, 2)
    assert read(tmp_path, label="lesion_roi").schema.foreground == (1,)


@pytest.mark.parametrize("column", ["lesion", "tumor", "roi", "target", "manual"])
def test_a_column_of_label_maps_is_known_by_its_content(tmp_path, column):
    write(tmp_path, "ab", ["{}_T1.nii"], "{}_x.nii", (1,))
    rows = "".join(f"{case},{case}_T1.nii,{case}_x.nii\n" for case in "ab")
    (tmp_path / "list.csv").write_text(f"case,T1,{column}\n{rows}")
    with raises_fault("listing.label-column-unclear", names=f"--read label={column}"):
        read(tmp_path / "list.csv")
    assert read(tmp_path / "list.csv", label=column).channels == ("T1",)


def test_a_datalist_of_monai_is_a_manifest(tmp_path):
    write(tmp_path, "abcd", ["{}/t1.nii", "{}/t2.nii"], "{}/seg.nii", (1,))
    files = {c: {"image": [f"{c}/t1.nii", f"{c}/t2.nii"], "label": f"{c}/seg.nii"} for c in "abcd"}
    lists = {"training": [files["a"], files["b"]], "validation": [files["c"]], "testing": []}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    source = read(tmp_path / "list.json")
    assert (source.train_ids, source.held_out_ids) == (("a", "b"), ("c",))
    assert source.channels == ("channel 0", "channel 1")


def test_a_folder_of_numbered_scans_alone_is_read_and_one_with_other_files_is_not(tmp_path):
    for case in ("a", "b"):
        for channel in range(2):
            save(tmp_path / "scans" / f"{case}_{channel:04d}.nii.gz", noise(case, channel))
    with raises_fault("listing.one-scan", names=f"nifti:{tmp_path / 'scans'}"):
        read(tmp_path / "scans/a_0000.nii.gz")
    source = read(tmp_path / "scans")
    assert source.channels == ("channel 0", "channel 1")
    assert mean(source, "b", "channel 1") == pytest.approx(200, abs=1)
    save(tmp_path / "scans" / "drawn.nii.gz", np.ones(SHAPE, np.uint8))
    with raises_fault("listing.faulty-entry"):
        read(tmp_path / "scans")
