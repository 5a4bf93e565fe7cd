"""Small data sets on disk, one for each kind of source, and how they are opened and checked."""

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from gansynth.core.registry import installed
from gansynth.core.source import CheckReport, Finding, SourceRequest
from gansynth.data.h5 import write_h5
from gansynth.sampling.run_source import open_source
from tests.deepmedic_sets import toy_deepmedic
from tests.yolo_sets import coco_set, toy_yolo

SHAPE = (6, 7, 8)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
CASES = ("anna_1", "anna_2", "bert_1", "carl_1", "carl_2", "dora_1")
PEOPLE = r"([a-z]+)_\d"
SIDES = tuple(f"p{person}_{side}" for person in (1, 2, 3) for side in ("l", "r"))


def save(path: Path, array: np.ndarray, affine: Any = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = nib.Nifti1Image(array, affine).to_bytes()
    path.write_bytes(gzip.compress(plain, 1) if path.suffix == ".gz" else plain)


def save_picture(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def request(
    where: Any, kind: str = "nifti", *, fold: str = "0", subjects: str | None = None, **read: str
) -> SourceRequest:
    return SourceRequest(kind, str(where), fold=fold, subjects=subjects, read=read)


def opened(where: Any, kind: str = "nifti", **options: Any) -> Any:
    return open_source(request(where, kind, **options))


def check(where: Any, kind: str = "nifti", **options: Any) -> CheckReport:
    return check_request(request(where, kind, **options))


def check_request(asked: SourceRequest) -> CheckReport:
    return installed().check(asked.kind)(asked, lambda done, total: None)


def only(where: Any, **options: Any) -> Finding:
    """The one thing that is wrong, told in one line."""
    (finding,) = check(where, **options).findings
    assert "\n" not in finding.message
    return finding


def volume(number: Any = 9, channels: int = 1) -> np.ndarray:
    """Image (X, Y, Z) or (X, Y, Z, C), float32."""
    rng = np.random.default_rng(number)
    return rng.normal(100, 10, (*SHAPE, channels)).astype(np.float32).squeeze()


def lesion(number: int = 0) -> np.ndarray:
    """Labels 0, 1, 2 (X, Y, Z), uint8."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4, 2:5, 1 + number % 3 : 6], labels[4, 3, 4] = 1, 2
    return labels


def pair(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Image (X, Y, Z, 2) with an empty plane, and labels of one of ``SIDES``."""
    image = volume(SIDES.index(case), channels=2)
    image[0] = 0
    return image, lesion(2)


def save_pair(folder: Path, case: str, image: Any, labels: Any, affine: Any = AFFINE) -> None:
    for channel in range(2):
        save(folder / f"images/{case}_{channel:04d}.nii.gz", image[..., channel], affine)
    save(folder / f"labels/{case}.nii.gz", labels, affine)


def pairs(home: Path) -> SourceRequest:
    for number, case in enumerate(CASES):
        save(home / "images" / f"{case}.nii.gz", volume(number))
        save(home / "labels" / f"{case}.nii.gz", lesion(number))
    return request(home, subjects=PEOPLE, folds="3")


def manifest(home: Path) -> SourceRequest:
    """Its columns hold a split of their own, and its paths lead out of the folder."""
    pairs(home / "files")
    (home / "lists").mkdir(exist_ok=True)
    rows = [["case", "subject", "T1", "label", "split"]]
    for case, part in zip(CASES, ("train", "train", "val", "train", "train", "test"), strict=True):
        files = (f"../files/{kind}/{case}.nii.gz" for kind in ("images", "labels"))
        rows.append([case, case[:4], *files, part])
    path = home / "lists" / "set.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return request(path, allow_absolute="yes", spacing="2")


def msd(home: Path) -> SourceRequest:
    """Channels last, of which one is picked."""
    training = []
    for number, case in enumerate(CASES):
        entry = {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        save(home / entry["image"], volume(number, channels=2))
        save(home / entry["label"], lesion(number))
        training.append(entry)
    modality = {"0": "FLAIR", "1": "T1w"}
    labels = {"0": "background", "1": "oedema", "2": "core"}
    document = {"modality": modality, "labels": labels, "training": training}
    (home / "dataset.json").write_text(json.dumps(document))
    return request(home, "msd", subjects=PEOPLE, channels="T1w", folds="2")


def pictures(home: Path) -> SourceRequest:
    rng = np.random.default_rng(0)
    for case in CASES:
        for part, most in (("images", 256), ("masks", 2)):
            pixels = rng.integers(0, most, (9, 8)).astype(np.uint8)
            save_picture(home / part / f"{case}.png", pixels)
    return request(home, "pictures", subjects=PEOPLE, folds="2")


def slices(home: Path) -> SourceRequest:
    asked = pairs(home)
    read = {**asked.read, "plane": "sagittal", "inner.window": "0:200", "inner.modality": "ct"}
    return request(f"nifti:{home}", "slices", subjects=PEOPLE, classes="foreground", **read)


def h5(home: Path) -> SourceRequest:
    write_h5(open_source(pairs(home)), home / "cache.h5", chunk=4)
    return request(home / "cache.h5", "h5", subjects=PEOPLE)


def yolo(home: Path) -> SourceRequest:
    return request(toy_yolo(home, train=8, val=4, test=0, size=32), "yolo")


def coco(home: Path) -> SourceRequest:
    coco_set(home, "rle", ("train.json", "val.json", "{split}/{name}"))
    return request(home, "coco", subjects="(p[0-9]+)_")


def deepmedic(home: Path) -> SourceRequest:
    return request(toy_deepmedic(home).train, "deepmedic")


KINDS: dict[str, Callable[[Path], SourceRequest]] = {
    "nifti": pairs,
    "manifest": manifest,
    "msd": msd,
    "pictures": pictures,
    "slices": slices,
    "h5": h5,
    "yolo": yolo,
    "coco": coco,
    "deepmedic": deepmedic,
}
RESAMPLED: Mapping[str, Mapping[str, str]] = {
    "nifti": {"spacing": "1.3"},
    "manifest": {"spacing": "1.3"},
    "msd": {"spacing": "1.3", "modality": "ct"},
    "pictures": {"resize": "5x11"},
    "slices": {"resize": "5x11", "inner.spacing": "1.3"},
    "yolo": {"size": "40x24"},
    "coco": {"size": "40x24"},
    "deepmedic": {"spacing": "1.3"},
    "nnunet-raw": {"spacing": "1.3"},
}
"""How each kind is read on another grid than its files'; others have no such key."""
