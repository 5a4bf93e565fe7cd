import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import save_nifti
from tests.data.sets import save_picture
from tests.deepmedic_sets import toy_deepmedic

CASES = [f"brain_{i}" for i in range(6)]
NAME = "Dataset001_Tiny"


@pytest.fixture
def msd(tmp_path: Path) -> Path:
    """Six cases, 6 x 7 x 8 voxels, one channel, one label."""
    folder, rng = tmp_path / "Task01_Tiny", np.random.default_rng(0)
    for case in CASES:
        image = rng.normal(size=(6, 7, 8)).astype(np.float32)
        save_nifti(folder / "imagesTr" / f"{case}.nii.gz", image)
        save_nifti(folder / "labelsTr" / f"{case}.nii.gz", (image > 0.5).astype(np.uint8))
    document = {
        **{"name": "Tiny", "tensorImageSize": "3D", "modality": {"0": "MRI"}, "numTest": 0},
        **{"labels": {"0": "background", "1": "spot"}, "numTraining": len(CASES), "test": []},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def root(msd, tmp_path, succeed) -> Path:
    """Where it was imported to."""
    succeed("import", f"msd:{msd}", "nnunet:001", "--root", tmp_path / "root")
    return Path(tmp_path / "root")


def pictures(home: Path, name: str = "{}.png", folder: str = "p") -> Path:
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)
        save_picture(
            home / folder / name.format(number),
            np.uint8(255) * (pixels > 99) if "_" in name else pixels,
        )
    return home / folder


def boxed(home: Path) -> Path:
    pictures(home, folder="p/images")
    (home / "p/labels").mkdir()
    for number in range(6):
        (home / f"p/labels/{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return home / "p"


def flat(home: Path) -> Path:
    for number in range(6):
        image = np.random.default_rng(number).normal(size=(6, 7, 8)).astype(np.float32)
        save_nifti(home / f"p/pat{number}_T1.nii.gz", image)
        save_nifti(home / f"p/pat{number}_hippo_mask.nii.gz", (image > 0.5).astype(np.uint8))
    return home / "p"


def organ_with_lesions(home: Path) -> Path:
    """Label 1 is everywhere alike, label 2 in another place of each case."""
    for number in range(6):
        labels = np.zeros((16, 16, 16), np.uint8)
        labels[2:14, 4:12, 4:12] = 1
        labels[2 * number + 2 :, 5:8, 4 + number :][:2, :, :2] = 2
        image = np.random.default_rng(number).normal(size=labels.shape) + labels
        save_nifti(home / f"v/images/{number}.nii.gz", image.astype(np.float32))
        save_nifti(home / f"v/labels/{number}.nii.gz", labels)
    return home / "v"


@pytest.mark.parametrize(
    ("make", "holds", "following"),
    [
        (pictures, "channels: grey", "fit dcgan --data pictures:{}"),
        (
            lambda home: pictures(pictures(home).parent, "{}_mask.png"),
            "channels: grey; labels: foreground",
            "fit cgan3d --data pictures:{} --read mask_suffix=_mask",
        ),
        (boxed, "channels: grey; boxes: class_0", "fit cpggan --data yolo:{}"),
        (
            flat,
            "channels: T1; labels: hippo_mask",
            "fit cgan3d --data nifti:{} --read label=hippo_mask",
        ),
        (
            organ_with_lesions,
            "channels: channel 0; labels: label 1, label 2",
            "fit parametric --data nifti:{} --set 'lesions=label 2'",
        ),
    ],
    ids=["images", "masks", "boxes", "volumes", "lesions"],
)
def test_check_finds_the_kind_says_what_is_there_and_the_next_command(
    tmp_path, monkeypatch, run_cli, make, holds, following
):
    monkeypatch.chdir(tmp_path)
    where = make(tmp_path)
    result = run_cli("check", where)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, holds)
    *before, last = result.stderr.splitlines()
    assert last == f"next: gansynth {following.format(where.name)} -o runs/{following.split()[1]}"
    said = before[: next((n for n, line in enumerate(before) if line.startswith("next:")), None)]
    warned = any("as organs are; no gain is shown" in line for line in said)
    assert warned == ("cgan3d" in following)  # before any command to type next
    if make in (flat, organ_with_lesions):
        assert any(
            f"for nnU-Net: gansynth import nifti:{where.name} nnunet:500" in line for line in before
        )
    if make is flat:  # a folder that no kind opens any more lists its faults
        (where / "pat3_hippo_mask.nii.gz").unlink()
        result = run_cli("check", where)
        assert result.exit_code == 3
        assert "pat3_hippo_mask.nii.gz: missing, expected for case 'pat3'" in result.stdout


def test_the_next_command_reads_cases_by_the_plans_that_were_made_for_this_machine(
    toy_nnunet, run_cli
):
    checked = run_cli("check", f"nnunet:{toy_nnunet.dataset[7:10]}", "--root", toy_nnunet.root)
    [line] = [line for line in checked.stderr.splitlines() if line.startswith("next: ")]
    assert f"--plans {toy_nnunet.plans}" in line


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "parametric", "-o", "run", "--dry-run", "--data"),
        ("cache", "-o", "cases.h5", "--dry-run"),
        ("benchmark", "--new"),
    ],
    ids=lambda words: words[0],
)
def test_the_kind_of_a_folder_is_found_by_every_command_that_reads_it(
    tmp_path, monkeypatch, run_cli, words
):
    monkeypatch.chdir(tmp_path)
    result = run_cli(*words, organ_with_lesions(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "nifti:" in result.output


def test_a_folder_that_describes_itself_is_read_by_its_description(msd, root, run_cli):
    checked = run_cli("check", "nnunet:001", "--root", root)
    assert checked.stderr.endswith(
        f"next: gansynth prepare nnunet:001 --root {root} --set small=yes\n"
    )
    assert "every case is a subject of its own" in checked.stderr
    raw = root / "nnUNet_raw" / NAME
    assert f"--data nnunet-raw:{raw} -o" in run_cli("check", raw).stderr
    assert f"--data msd:{msd} -o" in run_cli("check", msd).stderr
    for place in (raw.parent, raw / "imagesTr", raw / "labelsTr"):
        assert f"--data nnunet-raw:{place} -o" in run_cli("check", place).stderr
    shutil.copytree(raw, raw.with_name("Dataset002_Other"))
    several = run_cli("check", raw.parent)
    assert (several.exit_code, f"{raw} or " in several.stderr) == (2, True)
    unread = run_cli("check", f"nifti:{raw}")
    assert f"to have its names and labels: gansynth check nnunet-raw:{raw}" in unread.stdout
    about = json.loads((msd / "dataset.json").read_text())
    for image in (msd / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".", "_0000.", 1)))
    old = run_cli("check", msd)
    assert (old.exit_code, "nnUNetv2_convert_old_nnUNet_dataset" in old.stderr) == (3, True)
    for image in (msd / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace("_0000", "")))
    more = {"channel_names": about["modality"], "file_ending": ".nii.gz"}
    (msd / "dataset.json").write_text(json.dumps(about | more))
    both = run_cli("check", msd)
    assert (both.exit_code, "as msd or nnunet-raw; name its kind" in both.stderr) == (2, True)
    (raw / "dataset.json").write_text("{")
    damaged = run_cli("check", raw)
    assert (damaged.exit_code, "dataset.json: not valid JSON" in damaged.stderr) == (3, True)


@pytest.mark.parametrize(
    ("make", "words", "says"),
    [
        (flat, (), "warning: hippo_mask: about as large .*, such as cgan3d"),
        (organ_with_lesions, (), r"label 1: .* \(--set lesions=NAME\), here label 2\n"),
        (organ_with_lesions, ("--set", "lesions=label 2"), r"(?s)\A(?!.*as an organ is)"),
    ],
)
def test_a_generator_that_inserts_lesions_warns_of_organs(tmp_path, succeed, make, words, says):
    data = ("--data", f"nifti:{make(tmp_path)}", "-o", tmp_path / "run", "--dry-run")
    result = succeed("fit", "parametric", *data, *words)
    assert re.search(says, result.stderr)


def heads(home: Path, change=lambda labels, others: labels, count=20, brighter=60) -> Path:
    """Heads with a bright ball, each elsewhere, and label maps as a change lays them down."""
    maps, rng = [], np.random.default_rng(3)
    for number in range(count):
        centre = rng.integers(8, 24, 3).reshape(3, 1, 1, 1)
        away = np.sqrt(np.square(np.indices((32, 32, 32)) - centre).sum(axis=0))
        maps.append((away < 5).astype(np.uint8))
        image = rng.normal(100, 5, away.shape) + brighter * maps[-1]
        save_nifti(home / f"images/{number}.nii.gz", image.astype(np.float32))
    for number, labels in enumerate(maps):
        laid = change(labels, maps[number - 1])
        save_nifti(home / f"labels/{number}.nii.gz", np.ascontiguousarray(laid))
    return home


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda labels, others: labels, None),
        (lambda labels, others: labels[:, ::-1, ::-1], "20 of 20 .* flipped along z and y"),
        (lambda labels, others: labels.swapaxes(0, 1), "20 of 20 .* with y and x swapped"),
        (lambda labels, others: np.roll(labels, 5, 0), "20 of 20 .* moved to -x by about 17%"),
        (lambda labels, others: others, "label maps of 20 .* other cases' do, by chance 50%"),
    ],
)
def test_check_warns_of_label_maps_that_do_not_lie_on_what_they_label(
    tmp_path, run_cli, change, says
):
    result = run_cli("check", f"nifti:{heads(tmp_path, change)}")
    assert result.exit_code == 0
    assert ("paired or oriented wrongly" in result.stdout) == (says is not None)
    assert says is None or re.search(says, result.stdout)
    assert "cannot be told" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("count", "brighter", "says"),
    [(5, 60, "5 case(s) with a foreground"), (8, 0, "the images look like noise")],
)
def test_check_says_where_it_cannot_tell_whether_label_maps_lie_right(
    tmp_path, run_cli, count, brighter, says
):
    """Of a ball that the image shows, in few cases; and of one that it does not show."""
    home = heads(tmp_path, count=count, brighter=brighter)
    result = run_cli("check", f"nifti:{home}")
    assert f"what they label cannot be told: {says}" in result.stdout + result.stderr
    assert "paired or oriented wrongly" not in result.stdout


CALLED, UNSAID = "called as another case's image is", "no name tells which files are of one case"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([f"images/{n}.nii.gz,labels/{5 - n}.nii.gz,a/{n}.nii.gz" for n in range(6)], [CALLED]),
        ([f"images/{n}.nii.gz,labels/{n}.nii.gz,a/{n ^ 1}.nii.gz" for n in range(6)], [CALLED]),
        (["u/{1}.nii.gz,labels/{0}.nii.gz,u/{1}.nii.gz".format(*each)
          for each in enumerate(sorted(["1.9.77", "1.9.08", "1.9.31", "1.9.4", "1.9.5", "1.9.6"]))],
         [UNSAID]),
        ([f"images/{n}.nii.gz,labels/{n}.nii.gz,a/{n}.nii.gz" for n in range(6)], []),
        ([f"images/{n}.nii.gz,labels/roi{n + 7}.nii.gz,a/{n}.nii.gz" for n in range(6)], []),
    ],
    ids=["labels", "a channel", "sorted alone", "in order", "numbered from another number"],
)  # fmt: skip
def test_check_warns_of_rows_that_name_different_cases(tmp_path, run_cli, rows, says):
    (tmp_path / "cases.csv").write_text("T1,label,T2\n" + "\n".join(rows))
    for number, name in enumerate([name for row in rows for name in row.split(",")]):
        noise = np.random.default_rng(number).normal(size=(6, 7, 8)).astype(np.float32)
        drawn = "labels" in name
        save_nifti(tmp_path / name, (noise > 1).astype(np.uint8) if drawn else noise)
    told = run_cli("check", tmp_path / "cases.csv").stdout
    assert [text for text in (CALLED, UNSAID) if text in told] == says


def test_rows_of_deepmedics_lists_are_compared_too(tmp_path, run_cli):
    toy = toy_deepmedic(tmp_path)
    for name in ("t1c", "roi"):
        rows = (tmp_path / f"training_{name}.cfg").read_text()
        comment, *paths = rows.splitlines()
        (tmp_path / f"training_{name}.cfg").write_text("\n".join([comment, *paths[::-1]]))
        assert CALLED in run_cli("check", f"deepmedic:{toy.train}").stdout
        (tmp_path / f"training_{name}.cfg").write_text(rows)
    assert CALLED not in run_cli("check", f"deepmedic:{toy.train}").stdout


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("annotations/p1.json", 0, "1 .json file(s) are not read, such as {}: of labelme"),
        ("a.xml", 0, "1 .xml file(s) are not read, such as {}: of Pascal VOC"),
        ("boxes.csv", 0, "1 .csv file(s) are not read, such as {}: a table"),
        ("masks_of/a.gif", 0, "1 .gif file(s) are not read, such as {}: convert masks to PNG"),
        ("a.mnc", 3, "1 .mnc file(s) are not read, such as {}: convert volumes to NIfTI"),
        ("masks/a.bmp", 0, "1 .bmp file(s) are not read, such as {}: convert masks to PNG"),
        ("ann/a.geojson", 0, "1 .geojson file(s) are not read, such as {}: of QuPath"),
        ("boxes.xlsx", 0, "1 .xlsx file(s) are not read, such as {}: a table"),
        ("RoiSet.zip", 0, "1 .zip file(s) are not read, such as {}: regions of ImageJ"),
        ("of_nobody.xyz", 0, "1 .xyz file(s) are not read, such as {}: convert volumes"),
        ("a.h5", 3, "1 .h5 file(s) are not read, such as {}: gansynth's own caches alone"),
    ],
)
def test_check_names_files_that_are_not_read_and_the_way(tmp_path, run_cli, file, code, says):
    if code == 0:
        pictures(tmp_path)
    where = tmp_path / ("p" if code == 0 else "set")
    (where / file).parent.mkdir(parents=True, exist_ok=True)
    (where / file).write_bytes(b"x" if "outlines" in says else b"x\0")
    result = run_cli("check", where)
    assert result.exit_code == code
    assert says.format(where / file) in result.stdout + result.stderr
    assert ("warning: every case is a subject of its own" in result.stderr) == (code == 0)
