"""Images and label maps are told apart by what files hold, whatever their names are."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.sets import save, save_picture

SHAPE = (8, 7, 6)
VOLUMES = {
    "a word": (["Müller_{}", "Müller_{}_ROI"], "label=ROI"),
    "a joint": (["pat{}_T1", "pat{}_T2", "pat{}_T1-GTV"], "label=T1-GTV"),
    "no joint": (["IM{}", "IM{}L"], "image={case}.nii.gz label={case}L.nii.gz"),
    "outline": (["Fall {}", "Fall {} Herd", "Fall {} brain"], "label=Herd"),
    "before": (["ct_{}", "gtv_{}"], "image=ct_{case}.nii.gz label=gtv_{case}.nii.gz"),
    "a case's folder": (["p{0}/p{0}", "p{0}/p{0}_lesion"], "label=lesion"),
    "its plain names": (
        ["p{}/T1", "p{}/T2", "p{}/Kontur"],
        "image={case}/{channel}.nii.gz label={case}/Kontur.nii.gz",
    ),
    "two folders": (
        ["images/p{}", "labels/p{}_x"],
        "image=images/{case}.nii.gz label=labels/{case}_x.nii.gz",
    ),
}
PICTURES = {
    "a suffix": (["im{}", "im{}-lesion"], "mask_suffix=-lesion"),
    "further masks": (["b ({})", "b ({})_mask", "b ({})_mask_1"], "mask_suffix=_mask"),
    "behind a blank": (["Frau M ({})", "Frau M ({}) Kontur"], "mask_suffix= Kontur"),
    "before": (
        ["images/img_{}", "masks/mask_{}"],
        "image=images/img_{case}.png label=masks/mask_{case}.png",
    ),
    "a case's folder": (["p{}/a", "p{}/b"], "image={case}/a.png label={case}/b.png"),
    "two folders": (["Foto/{}", "Herd/{}"], "image=Foto/{case}.png label=Herd/{case}.png"),
}
NO_PAIRS = {
    "sequences": ["p{}_t1", "p{}_t1c"],
    "time points": ["p{}", "p{}_2"],
    "folders": ["before/p{}", "after/p{}"],
}


def made(folder: Path, names: list[str], labels: str, ending: str, values: int = 900) -> None:
    """Five cases of images and label maps; ``labels``: an expression of these names."""
    for number in range(5):
        rng = np.random.default_rng(number)
        for name in names:
            array: Any = rng.integers(0, values, SHAPE).astype(np.uint16)
            if re.search(labels, name):
                array = np.zeros(SHAPE, np.uint8)
                array[2:5, 2:5, 1 + number % 3 : 5] = 1
            file = folder / f"{name.format(number)}{ending}"
            if ending == ".png":
                save_picture(file, array[3])
            else:
                save(file, array, np.eye(4))


def said(told: str) -> list[str]:
    """The lines on what there is, and the generator that suits it."""
    return [
        line
        for line in told.splitlines()
        if re.match("(nifti|pictures|channels|next: .*fit)", line)
    ]


@pytest.mark.parametrize(
    ("kind", "ending", "names", "keys", "values"),
    [
        *[("nifti", ".nii.gz", *VOLUMES[name], 900) for name in VOLUMES],
        *[("pictures", ".png", *PICTURES[name], 900) for name in PICTURES],
        *[("nifti", ".nii.gz", *VOLUMES[name], 11) for name in ("a word", "before")],
        *[("pictures", ".png", *PICTURES[name], 11) for name in ("a suffix", "two folders")],
    ],
)
def test_masks_are_known_by_what_they_hold_and_what_was_understood_can_be_typed(
    tmp_path, monkeypatch, run_json, succeed, kind, ending, names, keys, values
):
    monkeypatch.chdir(tmp_path)
    masks = [name for name in names if not re.search(r"T[12]$", name)][1:] or names[-1:]
    made(Path("set"), names, "|".join([f"^{re.escape(name)}$" for name in masks]), ending, values)
    told = succeed("check", "set").output
    (fit,) = [line for line in told.splitlines() if line.startswith("next: gansynth fit")]
    read = [word for word in shlex.split(fit) if "=" in word]
    assert " ".join(read) == keys
    typed = [word for key in read for word in ("--read", key)]
    assert said(succeed("check", f"{kind}:set", *typed).output) == said(told)


@pytest.mark.parametrize("values", [900, 12])
@pytest.mark.parametrize("names", NO_PAIRS.values(), ids=NO_PAIRS)
def test_images_beside_each_other_are_no_pair(tmp_path, run_cli, names, values):
    made(tmp_path, names, "nothing", ".png", values)
    told = run_cli("check", f"pictures:{tmp_path}")
    assert "10 cases" in told.stdout
    assert "--read" not in told.stdout


@pytest.mark.parametrize("names", [["p{}", "p{}_r1", "p{}_r2"], ["p{}_a", "p{}_b", "p{}_a_mask"]])
def test_masks_of_several_kinds_are_not_taken_for_images(tmp_path, refuse, names):
    made(tmp_path, names, "_r|_b|_mask", ".png")
    says = ["masks end in", "expected one kind; move the others to another folder"]
    refuse("check", f"pictures:{tmp_path}", code=3, says=says, keep=[tmp_path])


def test_masks_in_rgb_are_found_and_of_two_copies_one_is_chosen(tmp_path, run_cli, succeed):
    rng = np.random.default_rng(0)
    for number in range(4):
        shown, mask = rng.integers(0, 255, (24, 32), np.uint8), np.zeros((24, 32), np.uint8)
        mask[4 : 8 + number, 4:9] = 255
        for kind in ("png", "tif"):
            for part, array in (("Original", shown), ("Ground Truth", mask)):
                file = tmp_path / kind.upper() / part / f"{number}.{kind}"
                save_picture(file, np.stack([array] * 3, -1))
    told = run_cli("check", tmp_path)
    assert told.exit_code == 3
    ways = re.findall(r"--read '(.*?)' --read '(.*?)'", told.stderr)
    assert len(ways) == 2
    for image, label in ways:
        done = succeed("check", tmp_path, "--read", image, "--read", label)
        assert "4 cases; files: 0 error(s), 0 warning(s)" in done.stdout


def test_stacks_are_read_by_the_command_that_is_told(tmp_path, run_cli, succeed):
    rng = np.random.default_rng(0)
    for number in range(4):
        for part, high in (("images", 4000), ("masks", 2)):
            pages = [Image.fromarray(a) for a in rng.integers(0, high, (9, 24, 32), np.uint16)]
            file = tmp_path / f"study/{part}/{number}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            pages[0].save(file, save_all=True, append_images=pages[1:])
    told = run_cli("check", tmp_path / "study")
    way = shlex.split(told.stderr.partition("gansynth ")[2].rpartition(" [")[0])
    assert "4 cases; files: 0 error(s)" in succeed(*way).stdout


def test_files_of_labels_are_joined_for_pictures_as_slices_of_volumes(tmp_path, refuse, succeed):
    rng = np.random.default_rng(0)
    for number in range(4):
        save_picture(tmp_path / f"images/{number}.png", rng.integers(0, 255, (24, 32), np.uint8))
        for first, label in enumerate(("core", "rim")):
            mask = np.zeros((24, 32), np.uint8)
            mask[4 : 9 + number, 4 + 5 * first : 9 + 5 * first] = 255
            save_picture(tmp_path / f"masks/{number}_{label}.png", mask)
    keys = ["--read", "image=images/{case}.png", "--read", "label=masks/{case}_{label}.png"]
    refuse("check", f"pictures:{tmp_path}", *keys, code=2, says=["slices:nifti:FOLDER"])
    assert "labels: core, rim" in succeed("check", f"slices:nifti:{tmp_path}", *keys).stdout


def drawn(number: int, *, shift: int = 0, size: int = 3) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    first = 1 + shift + number % 2
    labels[2:5, 1 : 1 + size, first : first + size] = 1
    return labels


def isles(n: int) -> dict[str, Any]:
    case = f"sub-strokecase{n:04d}"
    short, files = f"{case}/ses-0001", dict[str, Any]()
    for folder, channel in (("anat", "FLAIR"), ("dwi", "dwi"), ("dwi", "adc")):
        files[f"{short}/{folder}/{case}_ses-0001_{channel}"] = n
    return files | {f"derivatives/{short}/{case}_ses-0001_msk": drawn(n)}


def autopet(n: int) -> dict[str, Any]:
    study = f"PETCT_{n * 7919:x}/0{n}-23-200{n}-NA-PET-CT Ganzkoerper-{n * 37:05d}"
    files: dict[str, Any] = {f"{study}/{name}": n for name in ("SUV", "PET", "CTres")}
    files[f"{study}/CT"] = np.repeat(noise(n), 2, 0)  # on a grid of its own
    return files | {f"{study}/SEG": drawn(n)}


def msseg(n: int) -> dict[str, Any]:
    case = f"Training/Center_0{1 + n % 2}/Patient_0{n}"
    files: dict[str, Any] = {f"{case}/Preprocessed_Data/{c}_preprocessed": n for c in ("T1", "T2")}
    files[f"{case}/Masks/Consensus"] = drawn(n)
    files[f"{case}/Masks/Brain_Mask"] = drawn(n, size=5)
    return files | {f"{case}/Masks/ManualSegmentation_{k}": drawn(n, shift=k) for k in (0, 1)}


def feta(n: int) -> dict[str, Any]:
    case = f"sub-00{n}/anat/sub-00{n}_rec-{'mial' if n < 3 else 'irtk'}"
    return {f"{case}_T2w": n, f"{case}_dseg": drawn(n)}


def acdc(n: int) -> dict[str, Any]:
    case = f"training/patient00{n}/patient00{n}"
    files: dict[str, Any] = {f"{case}_4d": np.stack([noise(n)] * 4, -1)}
    for frame in ("01", "12"):
        files |= {f"{case}_frame{frame}": 10 * n + int(frame), f"{case}_frame{frame}_gt": drawn(n)}
    return files


def hecktor(n: int) -> dict[str, Any]:
    other = np.repeat(noise(n), 2, 0)
    case = f"imagesTr/CHUM-00{n}"
    return {f"{case}__CT": n, f"{case}__PT": other, f"labelsTr/CHUM-00{n}": drawn(n)}


def organs(n: int) -> dict[str, Any]:
    files = {f"s{n}/segmentations/{name}": drawn(n, shift=k) for k, name in enumerate("ab")}
    return {f"s{n}/ct": n, f"s{n}/segmentations/spleen": drawn(n) * 0} | files


def observers(n: int) -> dict[str, Any]:
    return {f"scans/{n:03d}": n} | {
        f"observer_{name}/{n:03d}": drawn(n, shift=k) for k, name in enumerate("AB")
    }


def nodules(n: int) -> dict[str, Any]:
    files = {f"P{n}/ct": n, f"P{n}/nodule_1": drawn(n, size=1)}
    return files | ({f"P{n}/nodule_2": drawn(n, size=2)} if n % 2 else {})


def visits(n: int) -> dict[str, Any]:
    files: dict[str, Any] = {f"person{n}/person{n}_mean": noise(n)[..., :1]}
    for visit in ("v1", "v2"):
        case = f"person{n}/person{n}_{visit}"
        files |= {f"{case}_t1": 10 * n + int(visit[1]), f"{case}_lesion": drawn(n)}
    return files


LAYOUTS = {
    isles: (0, 4),  # ways that are told, and cases that each of them reads; none: read at once
    autopet: (0, 4),
    msseg: (4, 4),
    feta: (1, 4),
    acdc: (1, 8),
    hecktor: (1, 4),
    organs: (3, 4),
    observers: (3, 4),
    nodules: (2, 4),
    visits: (1, 8),
}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.uint16)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_that_fails_is_told_what_reads_it_and_each_way_can_be_typed(
    tmp_path, monkeypatch, run_cli, succeed, layout
):
    monkeypatch.chdir(tmp_path)
    for number in range(1, 5):
        for name, array in layout(number).items():
            array = noise(array) if isinstance(array, int) else array
            save(Path("set", f"{name}.nii.gz"), array, np.eye(4))
    told = run_cli("check", "set")
    count, cases = LAYOUTS[layout]
    assert told.exit_code == (3 if count else 0)
    ways = re.findall(
        r"--read (?:'[^']*'|\S+)(?: --(?:read|subjects) (?:'[^']*'|\S+))*", told.stdout
    )
    assert len(ways) == count
    for way in ways or [""]:
        checked = succeed("check", "nifti:set", *shlex.split(way)).output
        assert f"nifti:set: {cases} cases; files: 0 error(s)" in checked
