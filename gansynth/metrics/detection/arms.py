"""The experiment arms of a comparison: detections of several trainings on the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.metrics.detection.record import (
    FILE,
    Detections,
    ImageDetections,
    file_of,
    read_detections,
)
from gansynth.runtime.errors import DataFault, UsageFault

CLOSE = 2e-3  # pixels by which true boxes of two files may differ: they are rounded to a thousandth
SAME = {
    "names": "the same classes",
    "split": "the same split",
    "iou_nms": "the same overlap for dropping double boxes: it changes false positives",
    "confidence": "detections kept down to the same score",
    "most_found": "as many detections kept of an image",
}
"""Keys that the arms of a comparison must share, and their descriptions."""


def read_arms(texts: Sequence[str], *, split: str = "val") -> dict[str, Detections]:
    """Read detections by arm; all on the same images, in the order of the first.

    ``texts``: documents, or folders that hold one; ``NAME=PATH`` names an arm. Raises UsageFault:
    duplicate names, or no file. DataFault: an unreadable document, or arms that are not comparable.
    """
    named = [_named(text, file_of(split)) for text in texts]
    for name, count in Counter(name for name, _ in named).items():
        if count > 1:
            raise UsageFault(f"{name}: names {count} arms; name them apart by NAME=PATH")
    arms = {name: read_detections(path) for name, path in named}
    paths = dict(named)
    first = next(iter(arms))
    return {
        name: arm if name == first else _aligned(arms[first], arm, paths[first], paths[name])
        for name, arm in arms.items()
    }


def _named(text: str, file: str) -> tuple[str, Path]:
    """An arm's name and its document."""
    path, name = Path(text), ""
    if not path.exists() and "=" in text:
        name, _, path_text = text.partition("=")
        path = Path(path_text)
    if path.is_dir():
        if not (path / file).is_file():
            raise DataFault(
                f"{path}: has no {file}, expected a folder that gansynth augment wrote after "
                "the training of a detector, or a file of detections"
            )
        path = path / file
    elif not path.is_file():
        raise DataFault(
            f"{text}: no such file or folder, expected detections, a folder that holds {file}, or "
            "NAME=PATH"
        )
    usual = path.name.startswith(Path(FILE).stem)
    default_name = path.absolute().parent.name if usual else path.stem
    return name or default_name or path.stem, path


def _aligned(first: Detections, arm: Detections, path: Path, file: Path) -> Detections:
    """The arm's images in the order of the first arm's, if they are the same."""
    for key, expected in SAME.items():
        mine, yours = getattr(first, key), getattr(arm, key)
        if mine != yours:
            raise DataFault(
                f"{file}: {key} is {_shown(yours)}, in {path} {_shown(mine)}; expected {expected}"
            )
    there = {image.id: image for image in arm.images}
    missing = next((s.id for s in first.images if s.id not in there), None)
    if missing is not None:
        raise DataFault(f"{file}: lacks image {missing!r} of {path}; expected the same images")
    if len(there) > len(first.images):
        extra = next(iter(there.keys() - {s.id for s in first.images}))
        raise DataFault(f"{file}: has image {extra!r}, which {path} lacks; expected the same")
    images = tuple(there[image.id] for image in first.images)
    for mine, yours in zip(first.images, images, strict=True):
        key = _difference(mine, yours)
        if key:
            raise DataFault(
                f"{file}: image {yours.id!r}: {key} is not that of {path}; expected the same truth "
                "for every arm: evaluate them on the same data"
            )
    return replace(arm, images=images)


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _difference(a: ImageDetections, b: ImageDetections) -> str:
    """The first key on which two arms disagree about an image."""
    for key in ("subject", "shape", "volume", "slice"):
        if getattr(a, key) != getattr(b, key):
            return key
    if not np.array_equal(a.truth.labels, b.truth.labels):
        return "truth.labels"
    return "" if np.allclose(a.truth.boxes, b.truth.boxes, rtol=0, atol=CLOSE) else "truth.boxes"
