"""``coco:FOLDER``: images with the boxes and outlines of COCO's JSON, for detectors and generators.

``train``, ``val`` and ``test`` have a file each, told apart by its name or its folder's. A box is
``bbox``, else around the outline. Where all outlines are there, polygons or RLE, cases have label
maps. Regions of crowds are left out, as detectors do.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from gansynth import (
    CheckReport,
    DataFault,
    Finding,
    GansynthError,
    LabelArray,
    PictureSource,
    SourceRequest,
    StoredCase,
    UsageFault,
    parse_read,
    read_json,
    register_read_options,
)
from gansynth.core.lineage import some_names
from gansynth.data.pictures import PictureFiles
from gansynth.runtime.errors import refuse_closed
from gansynth.runtime.option_kinds import Size2
from gansynth_yolo.source import (
    MOST_BYTES,
    SPLITS,
    BoxedOptions,
    DatasetFile,
    ImageListing,
    Line,
    YoloImage,
    YoloSource,
    check_boxes,
    check_pixels,
    checked_row,
    usable_header,
    walk,
    warning,
)

KEYS = (b'"images"', b'"annotations"', b'"categories"')
OF_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})", re.I)
LARGEST_FILE = 4 * MOST_BYTES  # largest JSON file: COCO's own has half of it
Shape = tuple[int, ...]


class CocoOptions(BoxedOptions):
    """How a COCO data set is read."""

    size: Size2 | None = Field(
        None,
        description="rows and columns, `128x128`, of the generator's arrays, which every image is "
        "resampled to. Default: images with label maps keep their own; others get the power of two "
        "from the training images' longer edge up, at most `256x256`",
    )
    masks: bool | None = Field(
        None,
        description="`yes`: label maps are drawn by the outlines, which all annotations must have; "
        "`no`: boxes alone. Default: `yes` where all have outlines, and one is not a rectangle",
    )


# -- the file --------------------------------------------------------------------------------------


class _Image(BaseModel):
    id: int | str
    file_name: Line
    height: int | None = None
    width: int | None = None


class _Category(BaseModel):
    id: int
    name: Line
    supercategory: str | None = None


class _Rle(BaseModel):
    size: tuple[int, int]
    counts: str | list[Annotated[int, Field(ge=0)]]


Polygon = Annotated[list[FiniteFloat], Field(min_length=6)]


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int
    bbox: Annotated[list[FiniteFloat], Field(max_length=4)] = []
    segmentation: Annotated[
        list[Polygon] | _Rle, BeforeValidator(lambda value: [] if value is None else value)
    ] = []
    iscrowd: int = 0

    @property
    def is_rectangle(self) -> bool:
        """Whether the outline is a box's four corners."""
        if isinstance(self.segmentation, _Rle) or len(self.segmentation) != 1:
            return False
        corners = np.reshape(self.segmentation[0][: len(self.segmentation[0]) // 2 * 2], (-1, 2))
        return all(len(set(edges)) == 2 for edges in corners.T.tolist())


class _Document(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], Field(min_length=1)]


def read_document(path: Path) -> _Document:
    """Read a COCO file; DataFault: no such file, or another form, by its first odd entry."""
    expected = "COCO's images, annotations and categories"
    document = read_json(path, hint=f"expected {expected}", most=LARGEST_FILE)
    try:
        return _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataFault(
            "yolo.coco-entry-refused",
            f"{path}: {place}: {first['input']!r:.80}: {first['msg']}, expected {expected}; "
            "correct it, or remove the entry",
        ) from None


def coco_files(where: Path) -> list[Path]:
    """Return COCO's files of a folder and of those in it, or the file itself if it is one."""
    found = [where] if where.is_file() else [*where.glob("*.json"), *where.glob("*/*.json")]
    visible = [path for path in sorted(found) if path.name[0] != "."]
    return [path for path in visible if path.suffix.lower() == ".json" and _has_keys(path)]


def _has_keys(path: Path) -> bool:
    with suppress(OSError):
        if path.stat().st_size <= LARGEST_FILE:
            data = path.read_bytes()
            return all(key in data for key in KEYS)
    return False


def describes(kind: str, where: Path) -> bool:
    """Whether a path is a file of COCO, or a folder with one."""
    return bool(coco_files(where))


def _files_by_split(where: str) -> tuple[Path, dict[str, Path]]:
    """Return the folder of a data set, and its files."""
    path = Path(os.path.abspath(os.path.expanduser(where)))
    files = coco_files(path)
    if not files:
        refuse_closed(path / "annotations.json")
        raise DataFault(
            "yolo.coco-no-file",
            f"coco:{where}: no JSON file with images, annotations and categories, expected one in "
            "the folder or in a folder of it; see: gansynth help boxes coco",
        )
    if path.is_file():
        beside = path.parent
        return beside.parent if beside.name.startswith("annotation") else beside, {"train": path}
    # COCO's own folder has captions and keypoints of the same images, too
    files = [file for file in files if file.name.startswith("instances")] or files
    splits: dict[str, Path] = {}
    for file in files:
        words = OF_SPLIT.search(file.stem) or OF_SPLIT.search(file.parent.name)
        split = words[1].lower() if words and len(files) > 1 else "train"
        if split in splits:
            raise UsageFault(
                "yolo.coco-two-files-for-split",
                f"coco:{where}: {splits[split]} and {file} are both for {split}, expected one file "
                f"each for {', '.join(SPLITS)}; name one of them: coco:{file}",
            )
        splits[split] = file
    if "val" not in splits and "test" in splits:
        splits["val"] = splits.pop("test")
    if "train" not in splits:
        raise UsageFault(
            "yolo.coco-no-train-file",
            f"coco:{where}: {some_names([str(file) for file in files])}: none is for train by its "
            f"name, expected one; name one: coco:{files[0]}",
        )
    return path, splits


# -- outlines --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """The outline of an annotation; ``number``: of its label; ``what``: its name in messages."""

    what: str
    number: int
    segmentation: list[list[float]] | _Rle

    def mask(self, shape: Shape) -> npt.NDArray[np.bool_]:
        """Draw it as pycocotools does: (H, W). ValueError: no outline of such an image."""
        if isinstance(self.segmentation, _Rle):
            return _mask_of(self.segmentation, shape)
        from pycocotools import mask as drawing

        corners = [polygon for polygon in self.segmentation if len(polygon) % 2 == 0]
        for polygon in corners:
            low, high = np.min(polygon), np.max(polygon)
            if low < -max(shape) or high > 2 * max(shape):
                raise ValueError(f"a polygon reaches from {low:g} to {high:g} pixels")
        if len(corners) < len(self.segmentation):
            raise ValueError("a polygon has an odd count of numbers, expected x and y of each")
        drawn = drawing.merge(drawing.frPyObjects(corners, *shape))
        return _mask_of(_Rle.model_validate(drawn), shape)


def _mask_of(rle: _Rle, shape: Shape) -> npt.NDArray[np.bool_]:
    counts = rle.counts if isinstance(rle.counts, list) else _counts(rle.counts)
    if rle.size != tuple(shape) or sum(counts) != shape[0] * shape[1] or min(counts) < 0:
        raise ValueError(
            f"RLE of {sum(counts)} pixels and size {list(rle.size)}, expected those of the image, "
            f"{list(shape)}"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(shape[::-1]).T


def _counts(text: str) -> list[int]:
    """Return the runs of a compressed RLE: groups of 5 bits, from the third run on differences."""
    counts: list[int] = []
    value = shift = 0
    for sign in text:
        bits = ord(sign) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts or [0]


# -- images ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CocoImage(YoloImage):
    """An image, its boxes, and its outlines, from the largest box to the smallest."""

    outlines: tuple[Outline, ...]


class CocoListing(ImageListing):
    """All images of a COCO data set.

    Attributes:
        outlined: whether cases have label maps.
        notes: what is left out, or read otherwise than it may be meant.
    """

    def __init__(self, file: DatasetFile, options: CocoOptions, read: Mapping[str, Any]) -> None:
        self.notes: list[str] = []
        self._read = read
        self._images: dict[Path, _Image] = {}
        self._of_image: dict[Path, list[_Annotation]] = {}
        first = next(iter(read.values()))
        self._names = {c.id: c.name for c in first.categories if c.name in file.names}
        self._below: dict[str, list[Path]] = defaultdict(list)
        for path in walk(file.root):
            self._below[path.name].append(path)
        used = [a for document in read.values() for a in document.annotations if not a.iscrowd]
        bare = len([a for a in used if not a.segmentation])
        rectangles = bool(used) and all(a.is_rectangle for a in used)
        self.outlined = bool(used) and not (bare or rectangles)
        if options.masks is not None:
            self.outlined = options.masks
        elif rectangles:
            self.notes.append("all outlines are rectangles; no label maps are made of them")
        elif bare and bare < len(used):
            self.notes.append(f"{bare} of {len(used)} annotations have no outline: boxes alone")
        super().__init__(file, options)
        known = {path for paths in self._below.values() for path in paths}
        unnamed = sorted(known - self._images.keys())
        if unnamed:
            text = f"{len(unnamed)} image(s) are in no COCO file, such as {unnamed[0]}"
            self.notes.append(f"{text}; they are not read")

    def paths(self, split: str) -> dict[str, Path]:
        file, document = self._file_of(split), self._read[split]
        paths: dict[str, Path] = {}
        by_image: dict[Any, list[_Annotation]] = defaultdict(list)
        for annotation in document.annotations:
            by_image[annotation.image_id].append(annotation)
        for image in document.images:
            with self.noting(None, file):
                path = self._find(file, image)
                case = self.case(path)
                if case in paths:
                    raise DataFault(
                        "yolo.coco-images-same-name",
                        f"{file}: image {image.id} ({image.file_name}) is called as "
                        f"{paths[case].name} is, expected each once; remove or rename one",
                    )
                paths[case] = path
                self._images[path] = image
                self._of_image[path] = by_image.pop(image.id, [])
        crowds = sum(annotation.iscrowd for annotation in document.annotations)
        if crowds:
            self.notes.append(f"{crowds} annotation(s) of {file} are crowds (iscrowd); {LEFT_OUT}")
        listed = {image.id for image in document.images}
        strays = sum(len(found) for image, found in by_image.items() if image not in listed)
        if strays:
            text = f"{strays} annotation(s) of {file} are of images that it does not list"
            self.notes.append(f"{text}; they are not read")
        if not document.images:
            self.faults.append(
                (
                    None,
                    file,
                    DataFault("yolo.coco-no-image", f"{file}: no image, expected one at least"),
                )
            )
        return paths

    def _file_of(self, split: str) -> Path:
        return self.file.home / self.file.splits[split][0]

    def _find(self, file: Path, image: _Image) -> Path:
        """Return an image's path: as written, else by the most of its folders that are there."""
        written = image.file_name.replace("\\", "/").split("/")
        parts = [part for part in written if part not in ("", ".", "..")]
        found = self._below.get(parts[-1] if parts else "", [])
        beside = file.parent.joinpath(*parts)
        if beside in found:
            return beside
        shared = {path: _shared(path, parts) for path in found}
        best = [path for path in found if shared[path] == max(shared.values())]
        if len(best) > 1:  # train2017/ for instances_train2017.json
            best = [path for path in best if path.parent.name in file.stem] or best
        if len(best) == 1:
            self.check_path(best[0], f"{file}: image {image.id}")
            return best[0]
        what = f"{len(best)} images are called so" if best else "no such image"
        raise DataFault(
            "yolo.coco-image-not-found",
            f"{file}: image {image.id}: {image.file_name}: {what} below {self.file.root}, expected "
            "one; add it, correct its file_name, or remove the entry",
        )

    def image(self, case: str, split: str, path: Path) -> YoloImage:
        """Read an image's header, and its annotations. Raises DataFault: of no use."""
        shape, grey = usable_header(path)
        file, about = self._file_of(split), self._images[path]
        written = (about.height or shape[0], about.width or shape[1])
        if written != shape:
            raise DataFault(
                "yolo.coco-image-size-differs",
                f"{path}: {shape[0]} x {shape[1]} pixels, but {file} says {written[0]} x "
                f"{written[1]} (height x width), expected equal; annotate this image, or take the "
                "one that was annotated",
            )
        rows: dict[tuple[float, ...], None] = {}
        outlines: list[tuple[float, Outline]] = []
        for annotation in self._of_image[path]:
            if annotation.iscrowd:
                continue
            what = f"annotation {annotation.id}"
            try:
                number = self._number(annotation)
                outline = Outline(what, number + 1, annotation.segmentation)
                row = self._row(annotation, number, outline, shape)
                if self.outlined and not annotation.segmentation:
                    raise ValueError("has no outline, as --read masks=yes needs")
            except ValueError as error:
                text = f"{file}: {what}, of {path.name}: {error}; correct or remove it"
                self.faults.append((case, file, DataFault("yolo.coco-annotation-refused", text)))
                continue
            rows[row] = None
            outlines.append((row[3] * row[4], outline))
        table = np.array(list(rows)).reshape(-1, 5)
        outlines.sort(key=lambda each: -each[0])
        return CocoImage(
            case,
            path,
            None,
            self.class_of(table),
            split,
            file,
            False,
            table,
            0,
            shape,
            grey,
            tuple([outline for _, outline in outlines]) if self.outlined else (),
        )

    def _number(self, annotation: _Annotation) -> int:
        if annotation.category_id not in self._names:
            known = ", ".join([f"{number} {name}" for number, name in self._names.items()])
            raise ValueError(
                f"category_id is {annotation.category_id}, expected one of the categories: "
                f"{known[:200]}"
            )
        return self.file.names.index(self._names[annotation.category_id])

    def _row(
        self, annotation: _Annotation, number: int, outline: Outline, shape: Shape
    ) -> tuple[float, ...]:
        if annotation.bbox:
            if len(annotation.bbox) != 4:
                raise ValueError(f"bbox is {annotation.bbox}, expected x, y, width, height")
            left, top, width, height = annotation.bbox
        elif annotation.segmentation:
            drawn = np.argwhere(outline.mask(shape))
            if not len(drawn):
                raise ValueError("the outline is empty, and there is no bbox")
            (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0) + 1
            width, height = right - left, bottom - top
        else:
            raise ValueError("neither bbox nor segmentation, expected one of them")
        rows, columns = shape
        x, y = (left + width / 2) / columns, (top + height / 2) / rows
        shares = [x, y, width / columns, height / rows]
        words = [str(number)] + [str(float(share)) for share in shares]
        return checked_row(words, self.file.names, self.options.overshoot)


LEFT_OUT = "they are left out, and count as background"


def _shared(path: Path, parts: Sequence[str]) -> int:
    """Return how many parts two paths share at their ends."""
    count = 0
    while count < len(parts) and path.parts[-count - 1 :] == tuple(parts[-count - 1 :]):
        count += 1
    return count


# -- the source ------------------------------------------------------------------------------------


@register_read_options(CocoOptions)
def open_coco(request: SourceRequest) -> CocoSource:
    """Open ``coco:FOLDER``, or one of its files."""
    source = CocoSource(request)
    for _, _, fault in source.faults():
        raise fault
    return source


open_coco.describes = describes  # type: ignore[attr-defined]
open_coco.host = "yolo"  # type: ignore[attr-defined]


class CocoSource(YoloSource):
    """A COCO data set. Fold 0 is its own split; without one there are five folds by subject."""

    found: CocoListing

    def scan(self, request: SourceRequest) -> None:
        options = parse_read(CocoOptions, request)
        home, files = _files_by_split(request.where)
        read = {split: read_document(path) for split, path in files.items()}
        names = _names(files, read)
        places = {split: (os.path.relpath(path, home),) for split, path in files.items()}
        path = home if len(files) > 1 else files["train"]
        self.options = options
        self.file = DatasetFile(path, home, home, names, 3, places, options.allow_outside)
        self.request = request.absolute(Path(request.where))
        self.numbers = {number: number for number in range(len(names) + 1)}
        self.found = CocoListing(self.file, options, read)

    @property
    def name(self) -> str:
        return f"coco:{self.file.home.name}"

    @property
    def has_masks(self) -> bool:
        return self.found.outlined

    @cached_property
    def resized(self) -> tuple[int, int] | None:
        return None if self.has_masks and self.options.size is None else super().resized

    def files(self, case_id: str) -> StoredCase:
        """As of pictures, where they keep their size."""
        return super().files(case_id) if self.resized else PictureSource.files(self, case_id)

    def faults(self) -> Sequence[tuple[str | None, Path, GansynthError]]:
        if not self.found.faults and not any(len(i.rows) for i in self.images["train"]):
            text = f"{self.file.path}: train: no image has an annotation, expected one at least"
            return [
                (
                    None,
                    self.file.path,
                    DataFault("yolo.coco-no-annotation", f"{text}; annotate some"),
                )
            ]
        return super().faults()

    def read_labels(self, picture: PictureFiles, shape: Shape) -> LabelArray | None:
        """Draw the outlines; where they overlap, the one of the smaller box is seen."""
        if not self.has_masks:
            return None
        assert isinstance(picture, CocoImage)
        labels = np.zeros(shape, np.int16)
        for outline in picture.outlines:
            try:
                labels[outline.mask(shape)] = outline.number
            except ValueError as error:
                raise DataFault(
                    "yolo.coco-outline-refused",
                    f"{picture.label}: {outline.what}, of {picture.image.name}: {error}; correct "
                    "or remove it",
                ) from error
        return labels


def _names(files: Mapping[str, Path], read: Mapping[str, _Document]) -> tuple[str, ...]:
    """Return the names of the classes, in the order of their ids; DataFault: they disagree."""
    first, *others = [{c.id: c.name for c in document.categories} for document in read.values()]
    paths = list(files.values())
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise DataFault(
                "yolo.coco-categories-differ",
                f"{path}: categories are {other!r:.200}, but {paths[0]} has {first!r:.200}, "
                "expected equal ids and names; correct one",
            )
    document = read["train"]
    twice = [name for name, count in Counter(first.values()).items() if count > 1]
    if twice or len(first) < len(document.categories):
        raise DataFault(
            "yolo.coco-categories-occur-twice",
            f"{paths[0]}: categories: {twice or list(first)} occur twice, expected each id and "
            "name once; correct one",
        )
    used = {a.category_id for each in read.values() for a in each.annotations}
    above = {c.supercategory for c in document.categories if c.supercategory != c.name}
    # Roboflow's category 0 is the data set itself
    return tuple([n for number, n in sorted(first.items()) if number in used or n not in above])


def check_coco(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``coco:FOLDER``; every image is decoded, every outline drawn."""
    source = CocoSource(request)

    def look(picture: PictureFiles, pixels: npt.NDArray[Any]) -> Iterator[Finding]:
        yield from check_pixels(picture, pixels)
        try:
            source.read_labels(picture, pixels.shape[:2])
        except GansynthError as fault:
            yield Finding.of(picture.case, picture.image, fault)

    report = source.check(progress, look)
    own = [warning(source.file.path, note) for note in source.found.notes]
    with suppress(GansynthError):  # told already
        own += check_boxes(source)
    return CheckReport(report.name, report.cases, [*report.findings, *own])
