"""``pictures:FOLDER``: 2D cases from PNG, TIFF or JPEG files, with masks if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.prediction import SlicePosition
from gansynth.core.resample import resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.core.space import Space
from gansynth.core.synthetic import real_file, real_pixels
from gansynth.data.folds import absolute, one_fold
from gansynth.data.label_boxes import LabelBoxes, box_record
from gansynth.data.listing import located, picture_keys
from gansynth.data.picture_files import full_range, picture_shape, read_picture
from gansynth.data.picture_list import (
    PictureFiles,
    PictureOptions,
    PictureSet,
    list_pictures,
    pair_keys,
)
from gansynth.data.planes import per_channel, rescale, resize
from gansynth.data.read_options import parse_read, register_read_options
from gansynth.data.resplit import write_resplit
from gansynth.data.source_2d import FlatSource
from gansynth.data.subjects import grouped_splits, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault

LARGEST = 512  # longest edge of a generator's arrays by default
STRIDE = 8  # the generator's edges are multiples of this, so that networks can halve them
BINARY = {0: 0, 1: 1, 255: 1}  # numbers in mask files that name no labels -> label


@register_read_options(PictureOptions)
def open_pictures(request: SourceRequest) -> PictureSource:
    """Open ``pictures:FOLDER``.

    Raises UsageFault: no such folder or fold, or options that do not fit. Raises DataFault: no
    picture, one without its mask, or two of one name.
    """
    source = PictureSource(request)
    for _, _, fault in source.found.faults:
        raise fault
    _ = source.train_ids
    return source


class PictureSource(FlatSource):
    """A folder of pictures, its subjects split into folds."""

    def __init__(self, request: SourceRequest) -> None:
        folder = located(request, folder=True)
        asked = {"images", "masks", "mask_suffix"}.intersection(request.read)
        found = {**picture_keys(folder), **({} if asked else pair_keys(folder))}
        request = replace(request, read={**found, **request.read})
        self.options = parse_read(PictureOptions, request)
        self.request = absolute(request, folder)
        self.found: PictureSet = list_pictures(folder, self.options)
        self._numbers = BINARY
        if self.options.labels is not None:
            self._numbers = {n: label for label, n in enumerate(self.options.labels.values())}

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``pictures:`` and the folder's name."""
        return f"pictures:{self.found.folder.name}"

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training pictures of the fold, sorted."""
        return self._split[0]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Held-out pictures of the fold, sorted; none for fold ``all``."""
        return self._split[1]

    def subject(self, case_id: str) -> str:
        """The subject of a picture."""
        return self._subjects[case_id]

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the pictures into other folds: two small files in a folder."""
        return write_resplit(self, self.found.pictures, splits, folder).request(self.request)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if there are none."""
        return self.found.classes

    def label_class(self, case_id: str) -> int | None:
        """Number of a picture's class."""
        return self._picture(case_id).label_class

    @cached_property
    def schema(self) -> Schema:
        """Channels of the first training picture; labels 1, 2, ... as named, or ``foreground``."""
        channels = self._channels
        labels = {"background": 0}
        if self.found.masked:
            names = self.options.labels or {"background": 0, "foreground": 1}
            labels = {name: number for number, name in enumerate(names)}
        plain = Schema(channels, labels, self._spacing(), axes="HW", classes=self.classes)
        boxes = LabelBoxes.asked(self.options.boxes, self.options.least, plain, self.name)
        return plain if boxes is None else replace(plain, box_classes=tuple(boxes.classes))

    @property
    def unit(self) -> str:
        """``mm`` where ``--read spacing=`` says how large the files' pixels are, else ``px``."""
        return "mm" if "spacing" in self.request.read else "px"

    def _spacing(self) -> tuple[float, ...]:
        """Size of the arrays' pixels; 1 where that of the files' is unknown."""
        spacing, size = self.options.spacing, self.options.resize
        if self.unit == "px" or size is None:
            return spacing
        shapes = [self.file_shape(case) for case in self.train_ids]
        factors = np.median(shapes, axis=0) / size
        return tuple(round(float(n), 6) for n in np.array(spacing) * factors)

    @cached_property
    def _boxes(self) -> LabelBoxes | None:
        return LabelBoxes.asked(self.options.boxes, self.options.least, self.schema, self.name)

    @cached_property
    def space(self) -> Space:
        """Crops of pictures; all options that change the arrays are in the record."""
        options = self.options.model_dump(
            mode="json", include={"labels", "window", "spacing", "resize"}
        )
        host = {
            "dataset": self.name,
            "channels": list(self._channels),
            "classes": list(self.classes),
            **options,
            **resampling_record(self.options.resize is not None),
            **box_record(self.options.boxes, self.options.least),
        }
        return Space("crop", self._size(), host=host, pad_label=0)

    @cached_property
    def _subjects(self) -> dict[str, str]:
        ids = list(self.found.pictures)
        option = self.request.subjects
        return {case: case for case in ids} if option is None else read_subjects(option, ids)

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        ids, folds = tuple(sorted(self.found.pictures)), self.options.folds
        if self.fold == "all":
            return ids, ()
        if self.options.splits is not None:
            path = Path(self.options.splits)
            return one_fold(path, self.fold, self._subjects, self.found.folder)
        if not self.fold.isdecimal() or int(self.fold) >= folds:
            raise UsageFault(
                f"--fold {self.fold!r}: {self.found.folder} has folds 0 to {folds - 1}, or 'all'; "
                "set their number with --read folds=N"
            )
        splits = grouped_splits(ids, self._subjects, folds, self.options.seed)
        split = splits[int(self.fold)]
        return tuple(split["train"]), tuple(split["val"])

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one picture: image float32 (C, H, W), labels int16 (H, W).

        Raises DataFault: unknown, damaged, of another kind than the first one, or a mask that does
        not fit.
        """
        picture = self._picture(case_id)
        array = read_picture(real_file(picture.image, self.request))
        real_pixels(array, picture.image, self.request)
        if kind_of(array) != self._first:
            raise unlike(picture.image, kind_of(array), self._first)
        image = self._scaled(array)
        labels = None
        if picture.mask is not None:
            labels = self.read_mask(picture.mask, image.shape[1:])
        case = Case(case_id, self.subject(case_id), image, labels, label_class=picture.label_class)
        if self._boxes is not None:
            case = replace(case, boxes=self._boxes.of_case(case))
        return case if self.options.resize is None else resize(case, self.options.resize)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Rows and columns of a picture, from its header."""
        return self.options.resize or self.file_shape(case_id)

    def position(self, case_id: str) -> SlicePosition:
        """Subject of a picture; neighbours of a picture are unknown."""
        return SlicePosition(self.subject(case_id))

    def true_labels(self, case_id: str) -> LabelArray | None:
        """The mask, in the file's own pixels."""
        mask = self._picture(case_id).mask
        return None if mask is None else self.read_mask(mask, self.file_shape(case_id))

    def pixel_spacing(self, case_id: str) -> tuple[float, float]:
        """Size of the files' pixels, the same for all."""
        return self.options.spacing

    def file_shape(self, case_id: str) -> tuple[int, ...]:
        """Rows and columns of the image's file, from its header."""
        return picture_shape(self._picture(case_id).image)

    def file_image(self, case_id: str) -> FloatArray:
        """Channels of the file, as stored."""
        return _channels_first(read_picture(self._picture(case_id).image))

    @property
    def label_numbers(self) -> dict[int, int]:
        """Label -> its number in the masks; of a foreground without a name, 255."""
        return {label: number for number, label in self._numbers.items()}

    def _picture(self, case_id: str) -> PictureFiles:
        if case_id not in self.found.pictures:
            raise DataFault(
                f"{self.found.folder}: no picture {case_id!r}, expected one of "
                f"{len(self.found.pictures)}, for example {next(iter(self.found.pictures), None)!r}"
            )
        return self.found.pictures[case_id]

    def _scaled(self, array: npt.NDArray[Any]) -> FloatArray:
        image = _channels_first(array)
        windows = per_channel(self.options.window, len(image))
        if windows is None:
            low, high = full_range(array)
            return image / np.float32(high - low)
        return rescale(image, [w.bounds(c) for w, c in zip(windows, image, strict=True)])

    def read_mask(self, path: Path, shape: tuple[int, ...]) -> LabelArray:
        """Read a mask as labels, int16 (H, W); DataFault: another shape, odd numbers."""
        mask = read_picture(path, "mask")
        if mask.shape != shape:
            raise DataFault(
                f"{path}: {mask.shape[0]} x {mask.shape[1]} pixels, its image {shape[0]} x "
                f"{shape[1]}; expected equal; resample one to the other"
            )
        values = np.unique(mask)
        unknown = [int(v) for v in values if int(v) not in self._numbers]
        if unknown or (self._numbers is BINARY and len(values) > 2):
            named = ",".join(f"label {v}:{v}" for v in values[:8].tolist() if v > 0)
            raise DataFault(
                f"{path}: holds the numbers {values[:16].astype(int).tolist()}, expected among "
                f"{list(self._numbers)}; correct the mask, or name them: --read labels='{named}'"
            )
        table = np.array([self._numbers[int(v)] for v in values], np.int16)
        labels: LabelArray = table[np.searchsorted(values, mask)]
        return labels

    # -- learnt from the training pictures -------------------------------------------------------

    @cached_property
    def _first(self) -> Kind:
        return kind_of(read_picture(self._picture(self.train_ids[0]).image))

    @cached_property
    def _channels(self) -> tuple[str, ...]:
        count = self._first[0]
        names = self.options.channels or (("grey",) if count == 1 else ("red", "green", "blue"))
        if len(names) != count:
            raise UsageFault(
                f"--read channels={','.join(names)}: {len(names)} name(s), but the pictures of "
                f"{self.found.folder} have {count} channel(s); expected a name for each"
            )
        per_channel(self.options.window, count)
        return names

    def _size(self) -> tuple[int, ...]:
        size = self.options.size or self.options.resize
        if size is not None:
            return size
        median = np.median([self.shape(case) for case in self.train_ids], axis=0)
        return tuple(ceil(min(float(n), LARGEST) / STRIDE) * STRIDE for n in median)


def _channels_first(array: npt.NDArray[Any]) -> FloatArray:
    flat = array[..., None] if array.ndim == 2 else array
    return np.ascontiguousarray(np.moveaxis(flat, -1, 0), np.float32)


Kind = tuple[int, np.dtype[Any]]


def kind_of(array: npt.NDArray[Any]) -> Kind:
    """Channels and dtype."""
    return 1 if array.ndim == 2 else array.shape[2], array.dtype


def unlike(path: Path, kind: Kind, expected: Kind) -> DataFault:
    """Return the fault of a picture of another kind than the others."""
    return DataFault(
        f"{path}: {kind[0]} channel(s) of {kind[1]}, expected {expected[0]} of {expected[1]} as "
        "the other pictures have; convert it"
    )
