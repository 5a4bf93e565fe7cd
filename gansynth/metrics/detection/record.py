"""The detections document: a detector's boxes in the evaluated images, and the true boxes.

A training writes it as ``gansynth_detections.json``. Boxes are ``x1, y1, x2, y2`` in pixels of the
image's file, half-open (boxes of cases are in array order: ``gansynth.core.schema``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    TypeAdapter,
    ValidationError,
)

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth.runtime.files import disk_errors, reading, write_bytes_atomic

FILE = "gansynth_detections.json"
"""For validation images; other splits have their name in the file name: see ``file_of``."""
VERSION = 1
MOST_BYTES = 256 << 20  # largest document: about 5 million detections
SLACK = 1.0  # pixels by which a true box may exceed its image, because files round
AGAIN = "write it again with gansynth augment"

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _read_as(lines: Any, dtype: type, *shape: int) -> GetPydanticSchema:
    """An array that is read from a list of the given type."""

    def make(rows: list[Any]) -> npt.NDArray[Any]:
        return np.array(rows, dtype).reshape(shape)

    read: Any = Annotated[lines, AfterValidator(make)]
    return GetPydanticSchema(lambda _, handler: handler(read))


Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]
Above = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
BoxArray = Annotated[Array, _read_as(list[tuple[float, float, float, float]], np.float64, -1, 4)]
ScoreArray = Annotated[Array, _read_as(list[Share], np.float64, -1)]
ClassArray = Annotated[Numbers, _read_as(list[Whole], np.int64, -1)]


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes of one image: float64 (N, 4), none of zero area, and classes int64 (N,)."""

    __pydantic_config__ = STRICT

    boxes: BoxArray
    labels: ClassArray


@dataclass(frozen=True)
class DetectedBoxes:
    """Detections in one image: as ``TrueBoxes``, and scores float64 (N,), 0 to 1."""

    __pydantic_config__ = STRICT

    boxes: BoxArray
    scores: ScoreArray
    labels: ClassArray


@dataclass(frozen=True)
class ImageDetections:
    """One image of ``shape`` (height, width) in pixels, with true and detected boxes.

    ``subject``: None if unknown; then the volume is used, or else the image. ``volume``: that it is
    a slice of, if known.
    """

    __pydantic_config__ = STRICT

    id: Name
    subject: Name | None
    shape: tuple[Above, Above]
    truth: TrueBoxes
    found: DetectedBoxes
    volume: Name | None = None
    slice: int | None = None


@dataclass(frozen=True)
class Detections:
    """Detections of one trained detector in all evaluated images; None if unknown.

    ``iou_nms``: overlap above which the less confident box is suppressed. ``confidence``: lowest
    score kept. ``most_found``: boxes kept of one image. ``about``: anything else in JSON's types.
    """

    __pydantic_config__ = STRICT

    detector: Name
    names: Annotated[tuple[Name, ...], Field(min_length=1)]
    images: Annotated[tuple[ImageDetections, ...], Field(min_length=1)]
    iou_nms: Share | None
    split: Name = "val"
    confidence: Share | None = None
    most_found: Above | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def file_of(split: str) -> str:
    """Name of the document of a split: ``gansynth_detections_test.json``."""
    return FILE if split == "val" else FILE.replace(".json", f"_{split}.json")


# -- on disk -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Document(Detections):
    """Required keys of a file that have defaults in memory."""

    split: Name = field(kw_only=True)
    version: int = field(kw_only=True)


_FILE = TypeAdapter(_Document)


def read_detections(path: str | Path) -> Detections:
    """Read a detections document; DataFault names file, image and key."""
    path = Path(path)
    with reading(path):
        if path.stat().st_size > MOST_BYTES:
            raise DataFault(f"{path}: larger than {MOST_BYTES} bytes, expected detections; {AGAIN}")
        data = path.read_bytes()
    try:
        doc = _FILE.validate_json(data)
    except ValidationError as error:
        raise DataFault(f"{path}: {_first(error, data)}; {AGAIN}") from None
    if doc.version != VERSION:
        raise DataFault(
            f"{path}: version is {doc.version}, expected {VERSION}: another version of gansynth "
            f"wrote it; {AGAIN}"
        )
    detections = _typed(doc)
    for problem in _problems(detections):
        raise DataFault(f"{path}: {problem}; {AGAIN}")
    return detections


def write_detections(path: str | Path, detections: Detections) -> Path:
    """Write a detections document atomically, creating its folder if needed.

    Coordinates are rounded to a thousandth of a pixel. Raises DataFault: what ``read_detections``
    would refuse. EnvironmentFault: the disk refuses.
    """
    path = Path(path)
    document = _plain(detections)
    try:
        data = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise DataFault(f"{path}: {error}: a box or score is NaN or infinite") from None
    try:
        typed = _typed(_FILE.validate_json(data))
    except ValidationError as error:
        raise DataFault(f"{path}: not written: {_first(error, data)}") from None
    for problem in _problems(typed):
        raise DataFault(f"{path}: not written: {problem}")
    if len(data) > MOST_BYTES:
        raise DataFault(f"{path}: not written: {len(data)} bytes, expected {MOST_BYTES} at most")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, data + b"\n")
    return path


def _plain(detections: Detections) -> dict[str, Any]:
    """The document as JSON's types."""
    return {
        "version": VERSION,
        "detector": detections.detector,
        "names": list(detections.names),
        "iou_nms": detections.iou_nms,
        "split": detections.split,
        "confidence": detections.confidence,
        "most_found": detections.most_found,
        "about": dict(detections.about),
        "images": [
            {
                "id": image.id,
                "subject": image.subject,
                "volume": image.volume,
                "slice": image.slice,
                "shape": [int(side) for side in image.shape],
                "truth": {
                    "boxes": _pixels(image.truth.boxes),
                    "labels": image.truth.labels.tolist(),
                },
                "found": {
                    "boxes": _pixels(image.found.boxes),
                    "scores": image.found.scores.tolist(),
                    "labels": image.found.labels.tolist(),
                },
            }
            for image in detections.images
        ],
    }


def _pixels(boxes: npt.NDArray[np.floating[Any]]) -> list[list[float]]:
    rounded: list[list[float]] = np.round(boxes.astype(np.float64), 3).reshape(-1, 4).tolist()
    return rounded


def _typed(doc: _Document) -> Detections:
    return Detections(**{entry.name: getattr(doc, entry.name) for entry in fields(Detections)})


# -- what may be wrong ---------------------------------------------------------------------------


def _first(error: ValidationError, data: bytes) -> str:
    """The first error of pydantic: image, key, value, expectation."""
    first = error.errors()[0]
    where = list(first["loc"])
    if not where:
        return f"not a detections document: {first['msg']}"
    image = ""
    if where[0] == "images" and len(where) > 1:
        number = int(where[1])
        entry = json.loads(data)["images"][number]
        name = entry.get("id") if isinstance(entry, dict) else None
        image, where = f"image {number if name is None else repr(name)}: ", where[2:]
    key = ".".join(map(str, where)) or "the entry"
    if first["type"] == "unexpected_keyword_argument":
        kind = {"truth": TrueBoxes, "found": DetectedBoxes}.get(
            str(where[0]), ImageDetections if image else _Document
        )
        keys = [entry.name for entry in fields(kind)]
        hint = did_you_mean(str(where[-1]), keys)
        return f"{image}{key}: unknown key, expected one of {', '.join(keys)}.{hint}"
    if first["type"] == "missing":
        return f"{image}{key}: missing"
    return f"{image}{key} is {first['input']!r:.60}: {first['msg']}"


def _problems(detections: Detections) -> list[str]:
    """Errors that types do not detect; the first of each image."""
    problems = [problem for image in detections.images if (problem := _problem(image, detections))]
    ids = Counter(image.id for image in detections.images)
    problems += [
        f"image {name!r}: there {n} times, expected once" for name, n in ids.items() if n > 1
    ]
    places = Counter((s.volume, s.slice) for s in detections.images if s.volume is not None)
    problems += [
        f"volume {volume!r}: slice {number} is there {n} times, expected once"
        for (volume, number), n in places.items()
        if n > 1
    ]
    owners: dict[str, str | None] = {}
    for image in detections.images:
        if (
            image.volume is not None
            and owners.setdefault(image.volume, image.subject) != image.subject
        ):
            problems.append(
                f"image {image.id!r}: subject is {image.subject!r}, expected that of the other "
                f"slices of volume {image.volume!r}, {owners[image.volume]!r}"
            )
    return problems


def _problem(image: ImageDetections, detections: Detections) -> str | None:
    """The first error of one image."""
    prefix = f"image {image.id!r}"
    height, width = image.shape
    if (image.volume is None) != (image.slice is None):
        return (
            f"{prefix}: volume is {image.volume!r} and slice {image.slice!r}, expected both or none"
        )
    for name, part in (("truth", image.truth), ("found", image.found)):
        counts = {key: len(values) for key, values in vars(part).items()}
        if len(set(counts.values())) > 1:
            return f"{prefix}: {name} has {counts}, expected as many of each"
        if part.labels.size and part.labels.max() >= len(detections.names):
            return (
                f"{prefix}: {name}.labels has {part.labels.max()}, expected less than "
                f"{len(detections.names)}, the number of names"
            )
        x1, y1, x2, y2 = part.boxes.T
        bad = (x2 < x1) | (y2 < y1)
        expected = "x1 <= x2 and y1 <= y2"
        if name == "truth":
            bad |= (x2 == x1) | (y2 == y1) | (np.minimum(x1, y1) < -SLACK)
            bad |= (x2 > width + SLACK) | (y2 > height + SLACK)
            expected = f"x1 < x2, y1 < y2 within {width} x {height} pixels"
        if bad.any():
            number = int(bad.argmax())
            return (
                f"{prefix}: {name}.boxes.{number} is {part.boxes[number].tolist()}, "
                f"expected {expected}"
            )
    return None
