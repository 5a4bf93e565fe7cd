"""``yolo:data.yaml``: images with boxes and the split of a detector's data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.lineage import guard_split
from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, FoldSplit, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.core.synthetic import real_file, real_pixels
from gansynth.data.folds import absolute, one_fold
from gansynth.data.label_boxes import LabelBoxes
from gansynth.data.planes import resize
from gansynth.data.read_options import parse_read, register_read_options
from gansynth.data.resplit import write_resplit
from gansynth.data.subjects import compile_pattern, grouped_splits, is_table, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_yolo.cases import YoloImage, read_pixels, scaled
from gansynth_yolo.dataset_file import DatasetFile, dataset_path, read_dataset_file
from gansynth_yolo.images import Fault, ImageListing, list_images, same_files
from gansynth_yolo.masks import missing_masks, read_mask
from gansynth_yolo.options import YoloOptions

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


class YoloSource(CaseSource):
    """A YOLO data set. Fold 0 is its own split, ``all`` trains on train and val.

    A folder without ``data.yaml`` and without a split of its own has five folds by subject.

    Attributes:
        request: the request, with absolute paths.
        file: the content of ``data.yaml``.
        listing: its images and their faults; of one fold if ``splits`` are given.
    """

    def __init__(self, request: SourceRequest) -> None:
        self.options = parse_read(YoloOptions, request)
        path = dataset_path(request.where)
        self.request = absolute(request, path)
        self.file: DatasetFile = read_dataset_file(path, allow_outside=self.options.allow_outside)
        folds, has = ("0", "one split") if "val" in self.file.splits else ("01234", "five folds")
        if self.request.fold not in (*folds, "all") and self.options.splits is None:
            raise UsageFault(
                f"--fold {self.request.fold!r}: {path} has {has}, expected {' or '.join(folds)}, "
                "or all: train and val together"
            )
        self.everything: ImageListing = list_images(self.file, self.options)
        self.listing: ImageListing = self._dealt()

    def _dealt(self) -> ImageListing:
        """Return the images of a fold: of ``--read splits=``, else their own, else made."""
        everything = self.everything
        if self.request.fold == "all" or everything.faults:
            return everything
        if self.options.splits is None:
            if "val" in self.file.splits:
                return everything
            made = grouped_splits(everything.images, self._subjects, FOLDS, SEED)
            return everything.dealt(**made[int(self.request.fold)])
        splits = Path(self.options.splits)
        return everything.dealt(
            *one_fold(splits, self.request.fold, self._subjects, self.file.path)
        )

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the images into other folds: two small files in a folder."""
        return write_resplit(self, self.everything.images, splits, folder).request(self.request)

    def faults(self) -> list[Fault]:
        """Return all faults found without decoding an image; opening raises the first."""
        faults = list(self.listing.faults)
        faults += [*self._kind_faults(), *same_files(self.file, self.listing)]
        faults += missing_masks(self.listing) if self.options.masks else []
        if faults:
            return faults
        if not any(len(image.rows) for image in self.listing.of("train")):
            message = (
                f"{self.file.path}: train: none of {len(self.listing.of('train'))} images has a "
                "box, expected one at least; are the label files in labels/ instead of "
                f"images/? The first should be {self.listing.of('train')[0].label}"
            )
            faults.append((None, self.file.path, DataFault(message)))
        guard_split(
            [(case, self._subjects[case]) for case in self.train_ids],
            [(case, self._subjects[case]) for case in self.held_out_ids],
            fold=self.request.fold,
            repair=f"list all images of a subject under one of train, val and test in "
            f"{self.file.path}",
        )
        _ = self.schema
        return faults

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``yolo:`` and the data set's name."""
        return f"yolo:{self.file.name}"

    @cached_property
    def images(self) -> Mapping[str, tuple[YoloImage, ...]]:
        """Images by split, ``train``, ``val`` and ``test`` (empty if there is none)."""
        return {split: self.listing.of(split) for split in ("train", "val", "test")}

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        """Training images, sorted; of fold ``all`` the validation images too."""
        splits = ("train", "val") if self.request.fold == "all" else ("train",)
        return tuple(sorted(image.case for split in splits for image in self.images[split]))

    @cached_property
    def held_out_ids(self) -> tuple[str, ...]:
        """Validation and test images, sorted; of fold ``all`` the test images."""
        trained = set(self.train_ids)
        return tuple(sorted(case for case in self.listing.images if case not in trained))

    def header(self, case_id: str) -> CaseHeader:
        """Subject of an image: as given, else its volume, else itself; with ``classes``, its class.

        The class is that of the largest box, 0 for none.
        """
        number, rows = None, self.everything.images[case_id].rows
        if self.options.classes != "none":
            number = 1 + int(rows[(rows[:, 3] * rows[:, 4]).argmax(), 0]) if len(rows) else 0
        return CaseHeader(self._subjects[case_id], self.size, self.schema.spacing, number)

    def files(self, case_id: str) -> StoredCase:
        """An image's file; its record is of the file's pixels, whatever size it is read in.

        So an image stays held out however it is annotated.
        """

        def pixels() -> tuple[np.ndarray[Any, Any], FloatArray]:
            stored = read_pixels(self.image(case_id).image)
            return stored, scaled(stored, grey=self.grey)

        return StoredCase(tuple(dict.fromkeys((self.file.home, self.file.root))), pixels=pixels)

    def place(self, case_id: str) -> tuple[str | None, int | None]:
        """Return an image's volume and slice number, if ``volumes`` is set."""
        return self._places[case_id]

    @cached_property
    def schema(self) -> Schema:
        """The channels (grey, or red, green, blue) and the box classes of ``data.yaml``.

        With label maps the classes are their labels, too.
        """
        channels = ("grey",) if self.grey else ("red", "green", "blue")
        classes: tuple[str, ...] = ()
        if self.options.classes == "boxes":
            classes = (BACKGROUND, *self.file.names)
        masks = self.options.masks
        if (classes or masks) and BACKGROUND in self.file.names:
            raise UsageFault(
                f"--read {'classes=boxes' if classes else 'masks=yes'}: {self.file.path} names a "
                f"class {BACKGROUND!r}, which means no lesion; expected another name; rename it"
            )
        labels = {name: number for number, name in enumerate(self.file.names, 1) if masks}
        return Schema(
            channels,
            {BACKGROUND: 0, **labels},
            self._spacing(),
            axes="HW",
            classes=classes,
            box_classes=self.file.names,
        )

    @cached_property
    def space(self) -> Space:
        """Whole images of one size, which is not recorded: detectors take any."""
        host: dict[str, Any] = {
            "dataset": self.name,
            "box_classes": list(self.file.names),
            "channels": list(self.schema.channels),
        }
        return Space("crop", self.size, host=host, pad_label=0)

    @cached_property
    def size(self) -> tuple[int, int]:
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
        return forced or all(image.header.grey for image in self.listing.images.values())

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one image: float32 (C, H, W), 0 to 1, of ``size``; boxes in its pixels.

        With ``masks``, labels are int16 (H, W), else None.
        """
        image = self.image(case_id)
        real_file(image.image, self.request)
        read = real_pixels(read_pixels(image.image), image.image, self.request)
        pixels = scaled(read, grey=self.grey)
        boxes = Boxes(image.boxes, image.rows[:, 0].astype(np.int16))
        header = self.header(case_id)
        labels = read_mask(image, len(self.file.names)) if self.options.masks else None
        case = Case(case_id, header.subject, pixels, labels, boxes, header.label_class)
        return fitted(case, self.size, stretch=self.options.fit == "stretch")

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        """Boxes around the connected parts of a sample's label map; None without ``masks``."""
        if not self.options.masks:
            return None
        numbers = {name: (number,) for number, name in enumerate(self.file.names, 1)}
        return LabelBoxes(numbers, self.options.least).of(labels)

    def image(self, case_id: str) -> YoloImage:
        """Return the files of a case."""
        if case_id not in self.listing.images:
            raise DataFault(
                f"{self.file.path}: no image {case_id!r}, expected one of "
                f"{len(self.listing.images)}, for example {next(iter(self.listing.images), None)!r}"
            )
        return self.listing.images[case_id]

    # -- learnt from the files -------------------------------------------------------------------

    @cached_property
    def _places(self) -> dict[str, tuple[str | None, int | None]]:
        if self.options.volumes is None:
            return dict.fromkeys(self.everything.images, (None, None))
        pattern = compile_pattern(self.options.volumes)
        places: dict[str, tuple[str | None, int | None]] = {}
        for case, image in self.everything.images.items():
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
        subjects = self.request.subjects
        if subjects is not None and is_table(subjects):
            return read_subjects(subjects, self.everything.images)
        if subjects is not None:
            by_name = read_subjects(subjects, {unsplit(case) for case in self.everything.images})
            return {case: by_name[unsplit(case)] for case in self.everything.images}
        return {case: volume or case for case, (volume, _) in self._places.items()}

    def _spacing(self) -> tuple[float, float]:
        """Return the spacing of the arrays' pixels in mm, 1 if it is not given."""
        rows, columns = self.options.spacing
        if "spacing" not in self.request.read:
            return rows, columns
        shapes = [self.image(case).shape for case in self.train_ids]
        factors = np.median(np.array(shapes) / self.size, axis=0)
        if self.options.fit == "pad":
            factors[:] = factors.max()
        return round(rows * float(factors[0]), 6), round(columns * float(factors[1]), 6)

    def _kind_faults(self) -> list[Fault]:
        """Return RGB images where most are grey, or grey images where most are RGB."""
        if self.options.colour == "grey":
            return []
        images = list(self.listing.images.values())
        grey = [image for image in images if image.header.grey]
        colour = [image for image in images if not image.header.grey]
        odd, usual = (colour, "grey") if len(colour) <= len(grey) else (grey, "RGB")
        if len(odd) == len(images):
            return []
        colours = {"grey": "RGB", "RGB": "grey"}[usual]
        return [
            (
                image.case,
                image.image,
                DataFault(
                    f"{image.image}: is {colours}, expected {usual} as {len(images) - len(odd)} of "
                    f"{len(images)} images are; convert it, or read all as grey: --read colour=grey"
                ),
            )
            for image in odd
        ]


def unsplit(case_id: str) -> str:
    """Return a case's id without a leading split folder, e.g. ``train/``."""
    first, _, tail = case_id.partition("/")
    return tail if tail and first.casefold() in FOLDERS else case_id


def fitted(case: Case, size: tuple[int, int], *, stretch: bool) -> Case:
    """Resize a 2D case (C, H, W) and its boxes.

    ``stretch`` scales rows and columns independently; else the case is padded with zeros.
    """
    shape = case.image.shape[1:]
    if stretch or shape == size:
        return resize(case, size)
    scale = min(new / old for new, old in zip(size, shape, strict=True))
    inner = tuple(min(n, max(1, round(o * scale))) for n, o in zip(size, shape, strict=True))
    case = resize(case, inner)
    top, left = ((n - i) // 2 for n, i in zip(size, inner, strict=True))
    around = ((top, size[0] - inner[0] - top), (left, size[1] - inner[1] - left))
    image = np.pad(case.image, ((0, 0), *around))
    labels = None if case.labels is None else np.pad(case.labels, around)
    boxes = case.boxes
    if boxes is not None:
        moved = boxes.coords + np.array([top, left, top, left], np.float32)
        boxes = Boxes(moved.astype(np.float32), boxes.labels)
    return replace(case, image=image, labels=labels, boxes=boxes)
