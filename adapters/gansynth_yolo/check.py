"""``gansynth check yolo:data.yaml``: the core's check of pictures, and what detectors mind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.source import SourceRequest
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.pictures import PictureFiles, check_source
from gansynth.runtime.errors import GansynthError
from gansynth_yolo.source import OTHERS, YoloSource

FEW = 64  # grey levels of 256 below which a 16-bit image is warned of
SMALL = 8  # least pixels of a box's shorter side at the detectors' default image size
IMGSZ = 640  # default size of images for detectors, pixels of the longer side
SPARE = {"classes", "obj", "readme", "notes", "license", "requirements"}
"""Text files that tools write among label files."""


def check_yolo(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``yolo:data.yaml``; every image is decoded.

    Raises:
        UsageFault: no such file, or invalid options.
        DataFault: ``data.yaml`` cannot be read.
        IntegrityFault: its ``path`` leads out of its folder.
    """
    source = YoloSource(request)
    report = check_source(source, progress, _check_pixels)
    try:
        own = list(_check_set(source))
    except GansynthError:  # told already
        own = []
    return CheckReport(report.name, report.cases, [*report.findings, *own])


def _warning(file: Path, text: str, case: str | None = None) -> Finding:
    return Finding("warning", case, file, f"{file}: {text}")


def _check_pixels(picture: PictureFiles, pixels: npt.NDArray[Any]) -> Iterator[Finding]:
    levels = (int(pixels.max()) >> 8) - (int(pixels.min()) >> 8) + 1
    if pixels.dtype == np.uint16 and levels < FEW:
        text = (
            f"pixels from {pixels.min()} to {pixels.max()} of 65535: detectors see "
            f"the upper byte, {levels} grey level(s) of 256; stretch all images by one window"
        )
        yield _warning(picture.image, text, picture.case)
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all():
        text = "RGB, but red and green are equal; if all are grey, say --read colour=grey"
        yield _warning(picture.image, text, picture.case)


def _check_set(source: YoloSource) -> Iterator[Finding]:
    file, images = source.file, source.images
    path = file.path
    if path.is_dir():
        folds = "" if source.has_split else "; five folds are made, by --subjects if it is given"
        named = f"{', '.join(file.names)}, as in classes.txt or by their numbers{folds}"
        yield _warning(path, f"no data.yaml; classes are {named}")
    for case, image in source.found.repeated:
        yield _warning(image, "its split names it more than once; it counts once", case)
    for split in ("val", "test"):
        if images[split] and not any(len(image.rows) for image in images[split]):
            yield _warning(path, f"{split}: no image has a box; nothing can be measured on it")
    sides = {
        image.case: float((image.rows[:, 3:] * image.shape[::-1]).min()) * IMGSZ / max(image.shape)
        for part in images.values()
        for image in part
        if len(image.rows)
    }
    if small := [case for case, side in sides.items() if side < SMALL]:
        text = (
            f"{len(small)} image(s) have boxes of less than {SMALL} pixels at an image size of "
            f"{IMGSZ}, the least {min(sides.values()):.1f} ({small[0]}); use a larger one, and "
            "little mosaic and scaling, or training drops such boxes"
        )
        yield _warning(path, text, small[0])
    used = {int(number) for image in images["train"] for number in image.rows[:, 0]}
    for number, name in enumerate(file.names):
        if number not in used:
            yield _warning(path, f"class {number} {name!r} has no box in train")
    listed = source.found.pictures.values()
    for labels, home in sorted(
        {image.label.parent: image.image.parent for image in listed}.items()
    ):
        known = {p.stem for p in home.iterdir() if p.suffix.lower() in {*SUFFIXES, *OTHERS}} | SPARE
        for text_file in sorted(labels.glob("[!.]*.txt")):
            other = {text_file.stem, text_file.stem.casefold()} & known
            if not other and text_file not in source.found.lists:
                yield _warning(text_file, "a label file without an image; it is not used")
