"""A tiny YOLO data set of phantoms: an organ with small bright lesions, and some without."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as drawing

from gansynth.core.source import SourceRequest
from gansynth_yolo.source import YoloSource, open_yolo

SIZE, MOST = 64, 3
"""Rows and columns of an image; lesions in it at most."""
SLICES = 4
"""Slices of one person."""


def opened(data: Path, **asked: Any) -> YoloSource:
    """The data set, read as a ``SourceRequest`` may ask."""
    return open_yolo(SourceRequest("yolo", str(data), **asked))


def toy_yolo(
    folder: Path,
    *,
    train: int = 16,
    val: int = 8,
    test: int = 4,
    size: int = SIZE,
    most: int = MOST,
    names: Sequence[str] = ("lesion",),
    backgrounds: float = 0.25,
    channels: int = 1,
    seed: int = 0,
) -> Path:
    """Write grey PNGs ``images/SPLIT/pNN_zNNN.png``, ``labels/SPLIT/pNN_zNNN.txt``, ``data.yaml``.

    Edges have ``size`` pixels, images at most ``most`` lesions; a share ``backgrounds`` has none.
    Lesions of later classes are larger and less bright. ``data.yaml`` is returned.
    """
    rng = np.random.default_rng(seed)
    counts = {"train": train, "val": val, "test": test}
    person = 0
    for split, count in counts.items():
        for number in range(count):
            person += number % SLICES == 0
            empty = int((number + 1) * backgrounds) > int(number * backgrounds)
            lesions = 0 if empty else int(rng.integers(1, most + 1))
            grey, rows = phantom(rng, lesions, len(names), tissue(seed, person, size))
            write_image(folder, split, f"p{person:02d}_z{number:03d}", grey, rows)
    places = {split: f"images/{split}" for split, count in counts.items() if count}
    told = {"names": dict(enumerate(names)), "nc": len(names), "channels": channels}
    return write_yaml(folder, {**places, **told})


def tissue(seed: int, person: int, size: int = SIZE) -> np.ndarray:
    """What makes the organ of one person unlike another's, float (size, size) around 0."""
    coarse = np.random.default_rng((seed, person)).uniform(-0.2, 0.2, (8, 8))
    row, column = np.indices((size, size)) * 8 // size
    return coarse[row, column]


def phantom(
    rng: np.random.Generator, lesions: int, classes: int, texture: np.ndarray
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """An image, float (size, size) in [0, 1], and the rows of its label file."""
    size = len(texture)
    grid = np.indices((size, size)) + 0.5
    noise = rng.normal(0, 0.03, (size, size))
    middle = size / 2 + rng.uniform(-0.03, 0.03, 2) * size
    away = np.hypot(*(grid - middle[:, None, None]))
    image = np.where(away < 0.42 * size, 0.35 + texture + noise, np.abs(noise) / 3)
    rows: list[tuple[float, ...]] = []
    taken: list[tuple[np.ndarray, float]] = []
    for _ in range(lesions * 20):
        if len(rows) == lesions:
            break
        number = int(rng.integers(classes))
        radius = size * rng.uniform(0.04, 0.07) * (1 + 0.5 * number)
        angle, off = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.42 * size - radius - 1)
        centre = middle + off * np.array([np.sin(angle), np.cos(angle)])
        if any(np.hypot(*(centre - c)) < radius + r + 2 for c, r in taken):
            continue
        taken.append((centre, radius))
        inside = np.hypot(*(grid - centre[:, None, None])) < radius
        image = np.where(inside, 0.9 - 0.15 * number + noise, image)
        at = [np.flatnonzero(inside.any(axis)) for axis in (1, 0)]
        (top, bottom), (left, right) = ((int(a[0]), int(a[-1]) + 1) for a in at)
        box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        rows.append((number, *(value / size for value in box)))
    return image.clip(0, 1), rows


def write_image(
    folder: Path, split: str, name: str, grey: np.ndarray, rows: Sequence[Sequence[float]]
) -> Path:
    """Write an image, float (H, W) in [0, 1], as PNG, and its label file; the image's path."""
    image = folder / "images" / split / f"{name}.png"
    label = folder / "labels" / split / f"{name}.txt"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(grey * 255).astype(np.uint8)).save(image)
    lines = (" ".join([str(int(row[0])), *(f"{v:.6f}" for v in row[1:])]) for row in rows)
    label.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return image


def write_yaml(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write ``data.yaml`` into a folder."""
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    return path


def coco_set(folder: Path, form: str, layout: Sequence[str]) -> tuple[Path, Path]:
    """Write the COCO files of a toy data set of two classes for ``train`` and ``val``.

    ``form`` of the outlines, ellipses: ``polygons``, ``rle``, ``counts`` (RLE that is not
    compressed), ``boxes`` (rectangles) or ``none``. ``layout``: both files, and ``{split}/{name}``
    for the images.
    """
    shutil.rmtree(folder, ignore_errors=True)
    made = toy_yolo(folder / "made", train=8, val=4, test=0, names=("lesion", "cyst"))
    files = folder / layout[0], folder / layout[1]
    source = opened(made)
    for split, file in zip(("train", "val"), files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        images, annotations = [], list[dict[str, Any]]()
        for number, image in enumerate(source.images[split], start=1):
            height, width = image.shape
            part = file.parent.name if split in file.parent.name[:5] else split
            target = folder / layout[2].format(split=part, name=image.image.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            image.image.rename(target)
            about = {"id": number, "width": width, "height": height}
            images.append({**about, "file_name": target.name})
            for box, label in zip(image.boxes.coords.tolist(), image.boxes.labels, strict=True):
                top, left, bottom, right = box
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": _outline(box, form, image.shape),
                    "iscrowd": 0,
                }
                annotations.append(annotation)
        named = {0: "findings", 1: "lesion", 2: "cyst"}
        above = {0: "none", 1: "findings", 2: "findings"}
        categories = [{"id": n, "name": named[n], "supercategory": above[n]} for n in named]
        document = {"images": images, "annotations": annotations, "categories": categories}
        file.write_text(json.dumps(document))
    shutil.rmtree(made.parent)
    return files


def _outline(box: Sequence[float], form: str, shape: tuple[int, ...]) -> Any:
    top, left, bottom, right = box
    if form == "none":
        return []
    if form == "boxes":
        return [[left, top, right, top, right, bottom, left, bottom]]
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    x = (left + right + (right - left) * np.cos(turn)) / 2
    y = (top + bottom + (bottom - top) * np.sin(turn)) / 2
    polygon = np.column_stack([x, y]).ravel().tolist()
    if form == "polygons":
        return [polygon]
    if form == "rle":
        drawn = drawing.merge(drawing.frPyObjects([polygon], *shape))
        return {"size": drawn["size"], "counts": drawn["counts"].decode()}
    rows, columns = np.indices(shape) + 0.5
    away = np.hypot(2 * rows - top - bottom, 2 * columns - left - right)
    flat = (away < (bottom - top + right - left) / 2).T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return {"size": list(shape), "counts": np.diff([0, *edges, flat.size]).tolist()}
