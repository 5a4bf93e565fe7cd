"""A mirror of a data set for a detector: a folder of links to the user's images.

Detectors write caches beside the images they read, so they never read the user's folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gansynth import UsageFault, disk_errors, yolo_lines
from gansynth.runtime.files import whole_folder
from gansynth_yolo.source import YoloImage, YoloSource
from gansynth_yolo.writer import write_data_file

TOLERATED = 0.01  # share by which both detectors let a box exceed its image


def check_path(folder: Path, option: str) -> None:
    """Refuse a folder below which detectors look for labels in the wrong place."""
    if any(part in ("images", "labels") for part in folder.parts):
        raise UsageFault(
            "yolo.path-part-images-or-labels",
            f"{option}{folder}: a part of this path is called images or labels, by which detectors "
            "find label files; expected none that is; choose another folder",
        )


def mirror(source: YoloSource, folder: Path, *, channels: int | None = None) -> Path:
    """Write a mirror of a data set in place of an earlier one; return its ``data.yaml``.

    Images keep their bytes and their order. The n-th file of ``images/train`` is the n-th image of
    the source's fold. In fold ``all``, ``train`` also has the validation images.

    Args:
        channels: image channels of the detector, 1 or 3; None for those of the data set.
    """
    where = {"path": str(folder.absolute())}
    with whole_folder(folder, anew=True) as temporary, disk_errors(folder):
        for split, images in parts(source).items():
            if images:
                where[split] = f"images/{split}"
                place(images, temporary, split)
        write_data_file(temporary, where, source.file.names, channels or source.file.channels)
    return folder / "data.yaml"


def parts(source: YoloSource) -> dict[str, tuple[YoloImage, ...]]:
    """Return the images of ``train``, ``val`` and ``test`` in the order of their case ids."""
    train = [source.image(case) for case in source.train_ids]
    return dict(source.images, train=tuple(train))


def mirrored(source: YoloSource, folder: Path, split: str) -> dict[str, Path]:
    """Return case id -> image file in a mirror, for one split."""
    images = parts(source)[split]
    names = names_of(images)
    return {i.case: folder / "images" / split / n for i, n in zip(images, names, strict=True)}


def names_of(images: Sequence[YoloImage]) -> list[str]:
    """Return unique file names without odd letters, in the order of the images."""
    digits = len(str(len(images)))
    return [
        f"{number:0{digits}d}_{re.sub(r'[^A-Za-z0-9._-]+', '-', image.image.stem)[-100:]}"
        f"{image.image.suffix.lower()}"
        for number, image in enumerate(images)
    ]


def place(images: Sequence[YoloImage], folder: Path, part: str) -> None:
    """Link images and label files; write one that is missing, or that a detector rejects."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    for name, image in zip(names_of(images), images, strict=True):
        _link(image.image, folder / "images" / part / name)
        label = (folder / "labels" / part / name).with_suffix(".txt")
        centre, half = image.rows[:, 1:3], image.rows[:, 3:] / 2
        inside = np.clip(centre + half, 0, 1) - np.clip(centre - half, 0, 1)
        beyond = (2 * half - inside).max(initial=0) > TOLERATED
        if not image.labelled or beyond or not _is_plain(image):
            label.write_text(yolo_lines(image.boxes, image.shape), "utf-8")
        else:
            _link(image.label, label)


def _is_plain(image: YoloImage) -> bool:
    """Whether both detectors read the same boxes, each once: not so of polygons or a mark."""
    lines = image.label.read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    plain = all(len(row) == 5 and row[0].isdigit() for row in rows)
    return plain and len(rows) == len(image.rows)


def _link(file: Path, name: Path) -> None:
    with contextlib.suppress(OSError, NotImplementedError):
        os.symlink(file, name)
        return
    shutil.copyfile(file, name)
