"""The gliomas of ``gains/lgg*.yaml``: slices of 77 patients, made smaller, for three hosts.

A pixel is the mean of those it covers; its label is the most frequent one. All patients' heads have
one mean grey value. In each form a subject has the same name, so the same people are sealed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

AIR, MEAN = 0.1, 90
"""Share of the largest value below which a pixel is air; mean grey value of the others."""
DATASET = "Dataset077_LGG"
SLICES_APART = 4.0
"""nnU-Net: distance of slices in pixels, which is made up; any above 1 makes slices of the files'
last axis. Slices of one patient are stacked, those between them left out as in the source."""
LEAST = 10
"""YOLO: pixels of the smallest part of a tumour at 128 x 128 that has a box."""
TRAINING = 60
"""YOLO: patients in ``train`` of data.yaml; a benchmark splits them itself."""


class Slice(NamedTuple):
    """A slice: its file's name, grey values and labels uint8 (edge, edge)."""

    name: str
    image: np.ndarray
    labels: np.ndarray


def patients(source: Path, edge: int) -> Iterator[tuple[str, list[Slice]]]:
    """Yield each patient's slices, made ``edge`` pixels small, in order."""

    def blocks(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            whole = np.asarray(picture, np.float32)
        return whole.reshape(edge, len(whole) // edge, edge, -1).mean((1, 3))

    names: dict[str, list[str]] = {}
    for path in sorted((source / "images").glob("*.png")):
        names.setdefault(path.stem.rpartition("_")[0], []).append(path.name)
    for patient, files in names.items():
        pictures = np.stack([blocks(source / "images" / name) for name in files])
        tissue = pictures[pictures > AIR * pictures.max()].mean()
        greys = (MEAN * pictures / tissue).round().clip(0, 255).astype(np.uint8)
        masks = [(blocks(source / "labels" / name) >= 0.5).astype(np.uint8) for name in files]
        yield patient, [Slice(*entry) for entry in zip(files, greys, masks, strict=True)]


def pictures(source: Path, out: Path, edge: int) -> str:
    """Write pictures and masks; return the benchmark's command."""
    for _, slices in patients(source, edge):
        for entry in slices:
            save(out / "images" / entry.name, entry.image)
            save(out / "labels" / entry.name, entry.labels)
    plan = "lgg" if edge == 64 else f"lgg_{edge}"
    return f"gansynth benchmark benchmarks/gains/{plan}.yaml --data pictures:{out}"


def nnunet_raw(source: Path, out: Path, edge: int) -> str:
    """Write a raw nnU-Net data set below the root ``out``; a patient's slices are one volume."""
    import nibabel

    folder, cases = out / "nnUNet_raw" / DATASET, 0
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for patient, slices in patients(source, edge):
        cases += 1
        for kind, end, pixels in (
            ("imagesTr", "_0000", [entry.image for entry in slices]),
            ("labelsTr", "", [entry.labels for entry in slices]),
        ):
            volume = nibabel.Nifti1Image(np.stack(pixels).T, np.diag([1, 1, SLICES_APART, 1]))
            nibabel.save(volume, folder / kind / f"{patient}{end}.nii.gz")
    document = {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return f"gansynth prepare nnunet:077 --root {out} ...    # see benchmarks/gains/lgg_nnunet.yaml"


def yolo(source: Path, out: Path, edge: int) -> str:
    """Write images, masks and boxes around the masks' connected parts; return the command.

    Parts of fewer than ``LEAST`` pixels at 128 x 128 are left out. Slices without a tumour have no
    box.
    """
    from gansynth.core.schema import Schema
    from gansynth.data.connected_components import boxes_of

    schema = Schema(("grey",), {"background": 0, "tumour": 1}, (1.0, 1.0), "HW")
    least = max(1, round(LEAST * (edge / 128) ** 2))
    for count, (_, slices) in enumerate(patients(source, edge)):
        split = "train" if count < TRAINING else "val"
        for entry in slices:
            boxes = boxes_of(entry.labels.astype(np.int16), schema, least).coords / edge
            middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            rows = np.hstack([middles[:, ::-1], sizes[:, ::-1]])
            save(out / "images" / split / entry.name, entry.image)
            save(out / "masks" / split / entry.name, entry.labels)
            label = out / "labels" / split / f"{Path(entry.name).stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            lines = [" ".join(["0", *(f"{value:.6f}" for value in row)]) for row in rows]
            label.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    places = {split: f"images/{split}" for split in ("train", "val")}
    content = {**places, "names": {0: "tumour"}, "nc": 1, "channels": 1}
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return f"gansynth benchmark benchmarks/gains/lgg_yolo.yaml --data yolo:{out / 'data.yaml'}"


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a picture and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
