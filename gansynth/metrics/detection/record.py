"""A detector's boxes in the evaluated images, the true boxes, and their file in COCO's JSON.

A training writes ``gansynth_detections.json``. ``pycocotools.coco.COCO(path)`` reads it as COCO's
document of true boxes; ``detections`` holds COCO's list of results. An image's ``file_name`` is its
case. In memory boxes are ``x1, y1, x2, y2`` in pixels of the image's file, half-open (boxes of
cases are in array order: ``gansynth.core.schema``).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors, reading, write_bytes_atomic

FILE = "gansynth_detections.json"
"""For validation images; other splits have their name in the file name: see ``file_of``."""
MOST_BYTES = 256 << 20  # largest document: about 2 million detections
SLACK = 1.0  # pixels by which a true box may exceed its image, because files round
CLOSE = 2e-3  # pixels by which true boxes of two files may differ: they are rounded to a thousandth
WRITE_AGAIN = "write it again with gansynth augment"

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Share = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[int, Field(gt=0)]
Size = Annotated[float, Field(gt=0)]
SizeOrNone = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes of one image: float64 (N, 4), none of zero area, and classes int64 (N,)."""

    boxes: Array
    labels: Numbers


@dataclass(frozen=True)
class DetectedBoxes:
    """Detections in one image: as ``TrueBoxes``, and scores float64 (N,), 0 to 1."""

    boxes: Array
    scores: Array
    labels: Numbers


@dataclass(frozen=True)
class ImageDetections:
    """One image of ``shape`` (height, width) in pixels, with true and detected boxes.

    ``subject``: None if unknown; then the volume is used, or else the image. ``volume``: that it is
    a slice of, if known.
    """

    id: str
    subject: str | None
    shape: tuple[int, int]
    truth: TrueBoxes
    found: DetectedBoxes
    volume: str | None = None
    slice: int | None = None


@dataclass(frozen=True)
class Detections:
    """Detections of one trained detector in all evaluated images; None if unknown.

    ``iou_nms``: overlap above which the less confident box is suppressed. ``confidence``: lowest
    score kept. ``most_found``: boxes kept of one image. ``about``: anything else in JSON's types.
    """

    detector: str
    names: tuple[str, ...]
    images: tuple[ImageDetections, ...]
    iou_nms: float | None
    split: str = "val"
    confidence: float | None = None
    most_found: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def file_of(split: str) -> str:
        """Name of the document of a split: ``gansynth_detections_test.json``."""
        return FILE if split == "val" else FILE.replace(".json", f"_{split}.json")


# -- COCO's JSON ---------------------------------------------------------------------------------


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Info(BaseModel):
    model_config = STRICT

    version: Literal[2]
    detector: Name
    iou_nms: Share | None
    split: Name
    confidence: Share | None
    most_found: Above | None
    about: dict[str, Any]


class _Image(BaseModel):
    model_config = STRICT

    id: Above
    file_name: Name
    height: Above
    width: Above
    subject: Name | None = None
    volume: Name | None = None
    slice: int | None = None


class _Category(BaseModel):
    model_config = STRICT

    id: Above
    name: Name


@dataclass(frozen=True, slots=True)
class _TrueBox:
    __pydantic_config__ = STRICT

    id: Above
    image_id: int
    category_id: int
    bbox: tuple[float, float, Size, Size]
    area: Size
    iscrowd: Literal[0]


@dataclass(frozen=True, slots=True)
class _DetectedBox:
    __pydantic_config__ = STRICT

    image_id: int
    category_id: int
    bbox: tuple[float, float, SizeOrNone, SizeOrNone]
    score: Share


class _Document(BaseModel):
    model_config = STRICT

    info: _Info
    images: Annotated[list[_Image], Field(min_length=1)]
    categories: Annotated[list[_Category], Field(min_length=1)]
    annotations: list[_TrueBox]
    detections: list[_DetectedBox]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        places = [(image.volume, image.slice) for image in self.images if image.volume is not None]
        _refuse_repeated("image", [image.id for image in self.images])
        _refuse_repeated("image", [image.file_name for image in self.images])
        _refuse_repeated("volume and slice", places)
        _refuse_repeated("category", [category.id for category in self.categories])
        _refuse_repeated("annotation", [box.id for box in self.annotations])
        images = {image.id: image for image in self.images}
        categories = {category.id for category in self.categories}
        subjects: dict[str, str | None] = {}
        for image in self.images:
            if (image.volume is None) != (image.slice is None):
                raise ValueError(
                    f"image {image.file_name!r}: volume is {image.volume!r} and slice "
                    f"{image.slice!r}, expected both or none"
                )
            if image.volume and subjects.setdefault(image.volume, image.subject) != image.subject:
                raise ValueError(
                    f"image {image.file_name!r}: subject is {image.subject!r}, expected that of "
                    f"the other slices of volume {image.volume!r}, {subjects[image.volume]!r}"
                )
        boxes: list[_TrueBox | _DetectedBox] = [*self.annotations, *self.detections]
        for box in boxes:
            if box.image_id not in images or box.category_id not in categories:
                raise ValueError(f"{box!r} is of no image or category of the document")
        for true in self.annotations:
            image, (x, y, width, height) = images[true.image_id], true.bbox
            beyond = max(-x, -y, x + width - image.width, y + height - image.height)
            if beyond > SLACK:
                raise ValueError(
                    f"image {image.file_name!r}: true box {true.bbox}, expected one within "
                    f"{image.width} x {image.height} pixels"
                )
        return self


def _refuse_repeated(what: str, values: Iterable[Any]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{what} {value!r} is there {count} times, expected once")


def coco_document(detections: Detections) -> dict[str, Any]:
    """Detections as COCO's JSON, ids from 1; boxes are rounded to a thousandth of a pixel."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(detections.images, 1):
        height, width = map(int, image.shape)
        entry = {"id": number, "file_name": image.id, "height": height, "width": width}
        for key in ("subject", "volume", "slice"):
            entry[key] = getattr(image, key)
        images.append(entry)
        for box in _coco_boxes(number, image.truth):
            annotation = {"id": len(annotations) + 1} | box
            annotation |= {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
            annotations.append(annotation)
        scores = image.found.scores.tolist()
        for box, score in zip(_coco_boxes(number, image.found), scores, strict=True):
            found.append(dict(box, score=score))
    info: dict[str, Any] = {"version": 2}
    for key in ("detector", "iou_nms", "split", "confidence", "most_found"):
        info[key] = getattr(detections, key)
    info["about"] = dict(detections.about)
    return {
        "info": info,
        "images": images,
        "categories": [{"id": n, "name": name} for n, name in enumerate(detections.names, 1)],
        "annotations": annotations,
        "detections": found,
    }


def _coco_boxes(image: int, boxes: TrueBoxes | DetectedBoxes) -> list[dict[str, Any]]:
    corners = np.round(boxes.boxes.astype(np.float64).reshape(-1, 4), 3)
    corners[:, 2:] = np.round(corners[:, 2:] - corners[:, :2], 3)
    return [
        {"image_id": image, "category_id": label + 1, "bbox": box}
        for box, label in zip(corners.tolist(), boxes.labels.tolist(), strict=True)
    ]


def read_detections(path: str | Path) -> Detections:
    """Read a detections document; DataFault names file, key and value."""
    path = Path(path)
    with reading(path):
        if path.stat().st_size > MOST_BYTES:
            raise DataFault(
                "metrics.detections-too-large",
                f"{path}: larger than {MOST_BYTES} bytes, expected detections; {WRITE_AGAIN}",
            )
        data = path.read_bytes()
    document = _parsed(data, f"{path}: ", f"; {WRITE_AGAIN}")
    classes = {category.id: number for number, category in enumerate(document.categories)}
    truth: dict[int, list[_TrueBox]] = defaultdict(list)
    found: dict[int, list[_DetectedBox]] = defaultdict(list)
    for box in document.annotations:
        truth[box.image_id].append(box)
    for detection in document.detections:
        found[detection.image_id].append(detection)
    images = []
    for image in document.images:
        shape = (image.height, image.width)
        true = TrueBoxes(*_boxes(truth[image.id], classes))
        corners, labels = _boxes(found[image.id], classes)
        scores = np.array([detection.score for detection in found[image.id]], np.float64)
        detected, place = DetectedBoxes(corners, scores, labels), (image.volume, image.slice)
        images.append(
            ImageDetections(image.file_name, image.subject, shape, true, detected, *place)
        )
    info = document.info.model_dump(exclude={"version"})
    names = [category.name for category in document.categories]
    return Detections(names=tuple(names), images=tuple(images), **info)


def _boxes(
    boxes: Sequence[_TrueBox | _DetectedBox], classes: Mapping[int, int]
) -> tuple[Array, Numbers]:
    corners = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return np.round(corners, 3), np.array([classes[box.category_id] for box in boxes], np.int64)


def write_detections(path: str | Path, detections: Detections) -> Path:
    """Write a detections document atomically, creating its folder if needed.

    Coordinates are rounded to a thousandth of a pixel. Raises DataFault: what ``read_detections``
    would refuse. EnvironmentFault: the disk refuses.
    """
    path = Path(path)
    try:
        data = json.dumps(coco_document(detections), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise DataFault("metrics.detections-not-written", f"{path}: not written: {error}") from None
    _parsed(data, f"{path}: not written: ")
    if len(data) > MOST_BYTES:
        raise DataFault(
            "metrics.detections-too-large-to-write",
            f"{path}: not written: {len(data)} bytes, expected {MOST_BYTES} at most",
        )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, data + b"\n")
    return path


def _parsed(data: bytes, before: str, after: str = "") -> _Document:
    try:
        return _Document.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        value = f"{key} is {first['input']!r:.60}: " if key else "not a detections document: "
        raise DataFault(
            "metrics.detections-malformed", f"{before}{value}{first['msg']}{after}"
        ) from None


# -- arms of a comparison ------------------------------------------------------------------------

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
    named = [_named(text, Detections.file_of(split)) for text in texts]
    for name, count in Counter(name for name, _ in named).items():
        if count > 1:
            raise UsageFault(
                "metrics.arms-named-alike",
                f"{name}: names {count} arms; name them apart by NAME=PATH",
            )
    (name, path), *others = named
    first = read_detections(path)
    arms = {name: first}
    for other, file in others:
        arms[other] = _aligned(first, read_detections(file), path, file)
    return arms


def _named(text: str, file: str) -> tuple[str, Path]:
    """An arm's name and its document."""
    path, name = Path(text), ""
    if not path.exists() and "=" in text:
        name, _, path_text = text.partition("=")
        path = Path(path_text)
    if not path.exists():
        raise DataFault(
            "metrics.arm-path-missing",
            f"{text}: no such file or folder, expected detections, a folder that holds {file}, or "
            "NAME=PATH",
        )
    if path.is_dir():
        path = path / file
    if not path.is_file():
        raise DataFault(
            "metrics.arm-folder-without-detections",
            f"{text}: has no {file}, expected detections, NAME=PATH, or a folder that gansynth "
            "augment wrote after the training of a detector",
        )
    usual = path.name.startswith(Path(FILE).stem)
    default_name = path.absolute().parent.name if usual else path.stem
    return name or default_name or path.stem, path


def _aligned(first: Detections, arm: Detections, path: Path, file: Path) -> Detections:
    """The arm's images in the order of the first arm's, if they are the same."""
    for key, expected in SAME.items():
        theirs, ours = getattr(arm, key), getattr(first, key)
        if theirs != ours:
            raise DataFault(
                "metrics.arm-settings-differ",
                f"{file}: {key} is {theirs}, in {path} {ours}; expected {expected}",
            )
    there = {image.id: image for image in arm.images}
    ids = [image.id for image in first.images]
    for name in ids:
        if name not in there:
            raise DataFault(
                "metrics.arm-lacks-image",
                f"{file}: lacks image {name!r} of {path}; expected the same images",
            )
    for name in there.keys() - set(ids):
        raise DataFault(
            "metrics.arm-has-extra-image",
            f"{file}: has image {name!r}, which {path} lacks; expected the same images",
        )
    for image in first.images:
        key = _difference(image, there[image.id])
        if key:
            raise DataFault(
                "metrics.arm-truth-differs",
                f"{file}: image {image.id!r}: {key} is not that of {path}; expected the same truth "
                "for every arm: evaluate them on the same data",
            )
    return replace(arm, images=tuple(there[name] for name in ids))


def _difference(a: ImageDetections, b: ImageDetections) -> str:
    """The first key on which two arms disagree about an image."""
    for key in ("subject", "shape", "volume", "slice"):
        if getattr(a, key) != getattr(b, key):
            return key
    if not np.array_equal(a.truth.labels, b.truth.labels):
        return "truth.labels"
    return "" if np.allclose(a.truth.boxes, b.truth.boxes, rtol=0, atol=CLOSE) else "truth.boxes"
