"""Images and label maps are told apart by what files hold, whatever their names are."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    ("kind", "ending", "names", "keys"),
    [
        *[("nifti", ".nii.gz", *VOLUMES[name]) for name in VOLUMES],
        *[("pictures", ".png", *PICTURES[name]) for name in PICTURES],
    ],
)
def test_masks_are_known_by_what_they_hold_and_what_was_understood_can_be_typed(
    tmp_path, monkeypatch, run_json, succeed, kind, ending, names, keys
):
    monkeypatch.chdir(tmp_path)
    masks = [name for name in names if not re.search(r"T[12]$", name)][1:] or names[-1:]
    made(Path("set"), names, "|".join([f"^{re.escape(name)}$" for name in masks]), ending)
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
