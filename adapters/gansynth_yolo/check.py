"""``gansynth check yolo:data.yaml``: all faults, file by file, in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.schema import content_hash
from gansynth.core.source import SourceRequest
from gansynth.data.classes import without_cases
from gansynth.runtime.errors import GansynthError
from gansynth_yolo.cases import YoloImage, read_pixels
from gansynth_yolo.dataset_file import SPLITS
from gansynth_yolo.images import shared_fault, walk
from gansynth_yolo.source import YoloSource

FEW = 64  # grey levels of 256 below which a 16-bit image is warned of
SMALL = 8  # least pixels of a box's shorter side at the detectors' default image size
IMGSZ = 640  # default size of images for detectors, pixels of the longer side
SPARE = {"classes.txt", "obj.names", "readme.txt", "notes.txt", "license.txt", "requirements.txt"}
"""Text files that tools write among label files."""


def check_yolo(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``yolo:data.yaml``; every image is decoded.

    Raises:
        UsageFault: no such file, or invalid options.
        DataFault: ``data.yaml`` cannot be read.
        IntegrityFault: its ``path`` leads out of its folder.
    """
    source = YoloSource(request)
    images = list(source.listing.images.values())
    findings: list[Finding] = []
    try:
        faults = source.faults()
        findings += [Finding("error", case, file, str(fault)) for case, file, fault in faults]
    except GansynthError as fault:
        findings.append(Finding("error", None, source.file.path, str(fault)))
    by_hash: dict[str, list[YoloImage]] = defaultdict(list)
    for done, image in enumerate(images):
        progress(done, len(images))
        findings += _check_image(image, by_hash)
    progress(len(images), len(images))
    findings += _twice(source, by_hash, findings)
    findings += [*_unnamed(source), *_lists(source), *_boxes(source), *_spare(source)]
    findings.sort(key=lambda finding: finding.level)  # errors before warnings
    return CheckReport(source.name, len(images), findings)


def _check_image(image: YoloImage, by_hash: dict[str, list[YoloImage]]) -> Iterator[Finding]:
    try:
        pixels = read_pixels(image.image)
    except GansynthError as fault:
        yield Finding("error", image.case, image.image, str(fault))
        return
    if pixels.min() == pixels.max():
        yield _warning(
            image.image, f"every pixel is {pixels.flat[0]}; is it meant to be there?", image.case
        )
        return
    by_hash[content_hash(pixels)].append(image)
    levels = (int(pixels.max()) >> 8) - (int(pixels.min()) >> 8) + 1
    if pixels.dtype == np.uint16 and levels < FEW:
        yield _warning(
            image.image,
            f"pixels from {pixels.min()} to {pixels.max()} of 65535: detectors see "
            f"the upper byte, {levels} grey level(s) of 256; stretch all images by one window",
            image.case,
        )
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all():
        yield _warning(
            image.image,
            "RGB, but red and green are equal; if all are grey, --read colour=grey "
            "spares a generator two channels",
            image.case,
        )


def _twice(
    source: YoloSource, by_hash: dict[str, list[YoloImage]], findings: list[Finding]
) -> Iterator[Finding]:
    """Yield images of the same pixels: leakage across splits, else a warning."""
    reported = any("are in two splits" in finding.message for finding in findings)
    for first, *others in by_hash.values():
        for copy in others:
            if copy.split == first.split:
                yield _warning(copy.image, f"same pixels as {first.case}; remove one", copy.case)
            elif not reported:
                pair = f"{first.case} ({first.split}) and {copy.case} ({copy.split}), same pixels"
                fault = shared_fault(source.file, [pair])
                yield Finding("error", copy.case, copy.image, str(fault))


def _unnamed(source: YoloSource) -> Iterator[Finding]:
    """Yield a warning of what was made up for a folder without ``data.yaml``."""
    file = source.file
    if file.path.is_dir():
        folds = (
            "" if "val" in file.splits else "; five folds are made, by --subjects if it is given"
        )
        yield _warning(
            file.path,
            f"no data.yaml; classes are {', '.join(file.names)}, as in classes.txt or by their "
            f"numbers{folds}",
            None,
        )


def _lists(source: YoloSource) -> Iterator[Finding]:
    for case, path in source.listing.repeated:
        yield _warning(path, "its split names it more than once; it counts once", case)


def _boxes(source: YoloSource) -> Iterator[Finding]:
    path = source.file.path
    for split in SPLITS[1:]:
        images = source.images[split]
        if images and not any(len(image.rows) for image in images):
            yield _warning(path, f"{split}: no image has a box; nothing can be measured on it")
    small = [
        image
        for image in source.listing.images.values()
        if len(image.rows) and _shortest(image) < SMALL
    ]
    if small:
        least = min(map(_shortest, small))
        yield _warning(
            path,
            f"{len(small)} image(s) have boxes of less than {SMALL} pixels at an image "
            f"size of {IMGSZ}, the least {least:.1f} ({small[0].case}); use a larger one, and "
            "little mosaic and scaling, or training drops such boxes",
            small[0].case,
        )
    used = {int(n) for image in source.images["train"] for n in image.rows[:, 0]}
    for number, name in enumerate(source.file.names):
        if number not in used:
            yield _warning(path, f"class {number} {name!r} has no box in train")
    try:
        yield from without_cases(source, source.schema.classes, path)
    except GansynthError as fault:
        yield Finding("error", None, path, str(fault))


def _shortest(image: YoloImage) -> float:
    """Return the shortest side of an image's boxes, in pixels at the default image size."""
    sides = image.rows[:, 3:] * np.array(image.shape[::-1])
    return float(sides.min()) * IMGSZ / max(image.shape)


def _spare(source: YoloSource) -> Iterator[Finding]:
    images = source.listing.images.values()
    label_files = {image.label for image in images}
    label_files |= {file for _, file, _ in source.listing.faults}
    beside = {image.label.parent: image.image.parent for image in images}
    for folder in sorted(beside):
        pictures = {path.stem for path in walk(beside[folder]) if path.parent == beside[folder]}
        for path in sorted(folder.glob("*.txt")):
            if path in label_files or path in source.listing.lists or _other(path):
                continue
            if path.stem in pictures:  # e.g. of no split
                continue
            yield _warning(path, "a label file without an image; it is not used")


def _warning(file: Path, text: str, case: str | None = None) -> Finding:
    return Finding("warning", case, file, f"{file}: {text}")


def _other(path: Path) -> bool:
    return path.name.startswith(".") or path.name.casefold() in SPARE
