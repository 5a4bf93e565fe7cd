"""A tiny YOLO data set of phantoms: an organ with small bright lesions, and some without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

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
