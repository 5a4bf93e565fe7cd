"""``yolo:data.yaml``: images with boxes and the split of a detector's data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import guard_split
from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.data.folds import absolute, one_fold
from gansynth.data.label_boxes import LabelBoxes
from gansynth.data.picture_files import read_picture
from gansynth.data.pictures import Fault, PictureSource
from gansynth.data.planes import resize
from gansynth.data.read_options import parse_read, register_read_options
from gansynth.data.subjects import compile_pattern, grouped_splits, is_table, read_subjects
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth_yolo.dataset_file import SPLITS, DatasetFile, dataset_path, read_dataset_file
from gansynth_yolo.images import (
    ImageListing,
    YoloImage,
    YoloOptions,
    list_images,
    same_files,
    shared_fault,
)

FOLDS, SEED = 5, 12345  # of images that come without a split
LARGEST = 256  # longest edge of a generator's arrays without `--read size=`
FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Folder names that say the split of their images, and nothing about the subject."""
BACKGROUND = "background"  # class name of an image without boxes


@register_read_options(YoloOptions)
def open_yolo(request: SourceRequest) -> YoloSource:
    """Open ``yolo:data.yaml``, or the folder it lies in.

    Raises:
        UsageFault: no such file, no such fold, or invalid options.
        DataFault: an invalid file; the message names it and the line or key.
        IntegrityFault: a path leads out of the folder, or an image or subject is in two splits.
    """
    source = YoloSource(request)
    for _, _, fault in source.faults():
        raise fault
    return source


class YoloSource(PictureSource):
    """A YOLO data set. Fold 0 is its own split, ``all`` trains on train and val.

    A folder without ``data.yaml`` and without a split of its own has five folds by subject.

    Attributes:
        file: the content of ``data.yaml``.
    """

    alike: ClassVar[bool] = False  # ``found`` refuses other colours, and 8 and 16 bits may mix
    options: YoloOptions  # type: ignore[assignment]
    found: ImageListing
    file: DatasetFile

    def scan(self, request: SourceRequest) -> None:
        """See ``PictureSource.scan``."""
        self.options = parse_read(YoloOptions, request)
        path = dataset_path(request.where)
        self.request = absolute(request, path)
        self.file = read_dataset_file(path, allow_outside=self.options.allow_outside)
        self.numbers = {number: number for number in range(len(self.file.names) + 1)}
        self.found = list_images(self.file, self.options)

    def faults(self) -> Sequence[Fault]:
        """See ``PictureSource.faults``; also leaks, and training images without a box."""
        path = self.file.path
        if self.found.faults:
            return self.found.faults
        try:
            if shared := same_files(self.images):
                raise shared_fault(self.file, shared)
            if not any(len(image.rows) for image in self.images["train"]):
                raise DataFault(
                    f"{path}: train: none of {len(self.images['train'])} images has a box, "
                    "expected one at least; are the label files in labels/ instead of images/? "
                    f"The first should be {self.images['train'][0].label}"
                )
            guard_split(
                [(case, self._subjects[case]) for case in self.train_ids],
                [(case, self._subjects[case]) for case in self.held_out_ids],
                fold=self.request.fold,
                repair=f"list all images of a subject under one of train, val and test in {path}",
            )
            _ = self.schema
        except GansynthError as fault:
            return [(None, path, fault)]
        return []

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``yolo:`` and the data set's name."""
        return f"yolo:{self.file.name}"

    @property
    def has_split(self) -> bool:
        """Whether train, val and test are those of the data set itself."""
        return self.request.fold == "all" or (
            self.options.splits is None and "val" in self.file.splits
        )

    @cached_property
    def images(self) -> Mapping[str, tuple[YoloImage, ...]]:
        """Images by split, ``train``, ``val`` and ``test`` (empty if there is none)."""
        images = self.found.pictures
        if self.has_split:
            part_of = {case: image.split for case, image in images.items()}
        else:
            train, val = self._split
            part_of = {**dict.fromkeys(train, "train"), **dict.fromkeys(val, "val")}
        cases = sorted(part_of)
        return {
            split: tuple(images[case] for case in cases if part_of[case] == split)
            for split in SPLITS
        }

    @property
    def sides(self) -> dict[str, str]:
        """Case -> ``train``, ``val`` or ``test``."""
        return {image.case: split for split, images in self.images.items() for image in images}

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        fold, splits, images = self.request.fold, self.options.splits, self.found.pictures
        if self.has_split and fold in ("0", "all"):
            trained = ("train", "val") if fold == "all" else ("train",)
            ids = tuple(sorted(images))
            return (
                tuple(case for case in ids if images[case].split in trained),
                tuple(case for case in ids if images[case].split not in trained),
            )
        if splits is not None:
            return one_fold(Path(splits), fold, self._subjects, self.file.path)
        folds, has = ("0", "one split") if self.has_split else ("01234", "five folds")
        if self.has_split or fold not in tuple(folds):
            raise UsageFault(
                f"--fold {fold!r}: {self.file.path} has {has}, expected {' or '.join(folds)}, "
                "or all: train and val together"
            )
        made = grouped_splits(images, self._subjects, FOLDS, SEED)[int(fold)]
        return tuple(made["train"]), tuple(made["val"])

    def files(self, case_id: str) -> StoredCase:
        """Its record is of the file's pixels, whatever size and labels it is read with."""

        def pixels() -> tuple[npt.NDArray[Any], FloatArray]:
            stored = read_picture(self.image(case_id).image)
            return stored, self.scaled(stored)

        return StoredCase(tuple(dict.fromkeys((self.file.home, self.file.root))), pixels=pixels)

    def place(self, case_id: str) -> tuple[str | None, int | None]:
        """Return an image's volume and slice number, if ``volumes`` is set."""
        return self._places[case_id]

    @cached_property
    def schema(self) -> Schema:
        """The channels (grey, or red, green, blue) and the box classes of ``data.yaml``.

        With label maps the classes are their labels, too.
        """
        names, masks = self.file.names, self.options.masks
        if (self.classes or masks) and BACKGROUND in names:
            raise UsageFault(
                f"--read {'masks=yes' if masks else 'classes=boxes'}: {self.file.path} names a "
                f"class {BACKGROUND!r}, which means no lesion; expected another name; rename it"
            )
        labels = {name: number for number, name in enumerate(names, 1) if masks}
        return Schema(
            ("grey",) if self.grey else ("red", "green", "blue"),
            {BACKGROUND: 0, **labels},
            self._spacing(),
            axes="HW",
            classes=self.classes,
            box_classes=names,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """``background`` and the classes of boxes, or none."""
        return (BACKGROUND, *self.file.names) if self.options.classes == "boxes" else ()

    @cached_property
    def space(self) -> Space:
        """Whole images of one size, which is not recorded: detectors take any."""
        host: dict[str, Any] = {
            "dataset": self.name,
            "box_classes": list(self.file.names),
            "channels": list(self.schema.channels),
        }
        return Space("crop", self.resized, host=host, pad_label=0)

    @cached_property
    def resized(self) -> tuple[int, int]:
        """Rows and columns of the arrays of ``load``."""
        if self.options.size is not None:
            return self.options.size
        edge = np.median([max(self.image(case).shape) for case in self.train_ids])
        edge = min(LARGEST, 2 ** ceil(log2(float(edge))))
        return edge, edge

    @cached_property
    def grey(self) -> bool:
        """Whether images are read as one channel."""
        forced = self.options.colour == "grey" or self.file.channels == 1
        return forced or all(image.grey for image in self.found.pictures.values())

    # -- reading ---------------------------------------------------------------------------------

    def scaled(self, array: npt.NDArray[Any]) -> FloatArray:
        """Scale pixels to float32 (C, H, W), 0 to 1 over the range of their type.

        Detectors read the upper byte of 16 bits. Rounding 255 times this value gives that byte.
        RGB becomes one channel with OpenCV's weights, where images are read as grey.
        """
        if self.grey and array.ndim == 3:
            red, green, blue = (array[..., n].astype(np.int32) for n in range(3))
            array = ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
        flat = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        if array.dtype == np.uint16:
            share = (flat.astype(np.float32) - np.float32(127.5)) / np.float32(256 * 255)
            return np.asarray(np.clip(share, 0, 1), np.float32)
        return np.ascontiguousarray(flat, np.float32) / np.float32(255)

    def boxes_of(self, case: Case) -> Boxes:
        """The boxes of the label file."""
        return self.image(case.id).annotated

    def fitted(self, case: Case) -> Case:
        """Resize a case; zeros are around it unless it is stretched."""
        shape, size = case.image.shape[1:], self.resized
        if self.options.fit == "stretch" or shape == size:
            return resize(case, size)
        scale = min(new / old for new, old in zip(size, shape, strict=True))
        inner = tuple(min(n, max(1, round(o * scale))) for n, o in zip(size, shape, strict=True))
        case = resize(case, inner)
        top, left = ((n - i) // 2 for n, i in zip(size, inner, strict=True))
        around = ((top, size[0] - inner[0] - top), (left, size[1] - inner[1] - left))
        image = np.pad(case.image, ((0, 0), *around))
        labels = None if case.labels is None else np.pad(case.labels, around)
        boxes = self.boxes_of(case) if case.boxes is None else case.boxes
        moved = boxes.coords + np.array([top, left, top, left], np.float32)
        boxes = Boxes(moved.astype(np.float32), boxes.labels)
        return replace(case, image=image, labels=labels, boxes=boxes)

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        """Boxes around the connected parts of a sample's label map; None without ``masks``."""
        if not self.options.masks:
            return None
        numbers = {name: (number,) for number, name in enumerate(self.file.names, 1)}
        return LabelBoxes(numbers, self.options.least).of(labels)

    def image(self, case_id: str) -> YoloImage:
        """Return the files of a case."""
        self._picture(case_id)
        return self.found.pictures[case_id]

    # -- learnt from the files -------------------------------------------------------------------

    @cached_property
    def _places(self) -> dict[str, tuple[str | None, int | None]]:
        if self.options.volumes is None:
            return dict.fromkeys(self.found.pictures, (None, None))
        pattern = compile_pattern(self.options.volumes)
        places: dict[str, tuple[str | None, int | None]] = {}
        for case, image in self.found.pictures.items():
            match = pattern.search(unsplit(case))
            if match is None or not match[1] or not (match[2] or "").isdecimal():
                raise DataFault(
                    f"{image.image}: --read volumes={self.options.volumes} finds no volume and "
                    f"number of a slice in {case!r}, expected both; correct the expression"
                )
            places[case] = (match[1], int(match[2]))
        return places

    @cached_property
    def _subjects(self) -> dict[str, str]:
        subjects, cases = self.request.subjects, self.found.pictures
        if subjects is None:
            return {case: volume or case for case, (volume, _) in self._places.items()}
        if is_table(subjects):
            return read_subjects(subjects, cases)
        by_name = read_subjects(subjects, {unsplit(case) for case in cases})
        return {case: by_name[unsplit(case)] for case in cases}

    def _spacing(self) -> tuple[float, ...]:
        if self.unit == "px":
            return self.options.spacing
        if self.options.fit == "stretch":
            return super()._spacing()
        shapes = [self.image(case).shape for case in self.train_ids]
        factor = float(np.median(np.array(shapes) / self.resized, axis=0).max())
        return tuple(round(edge * factor, 6) for edge in self.options.spacing)


def unsplit(case_id: str) -> str:
    """Return a case's id without a leading split folder, e.g. ``train/``."""
    first, _, tail = case_id.partition("/")
    return tail if tail and first.casefold() in FOLDERS else case_id
