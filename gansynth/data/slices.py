"""``slices:INNER``: 2D cases cut from the volumes of any other source.

A slice belongs to its volume's subject and lies on its volume's side of the fold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from gansynth.core.case_store import Arrays, kept_in
from gansynth.core.geometry import other_axes
from gansynth.core.registry import installed
from gansynth.core.resample import resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    CheckReport,
    DecodedCase,
    Finding,
    FoldSplit,
    Provenance,
    SlicePosition,
    SourceRequest,
    StoredCase,
    ancestors_of,
    store_as_read,
)
from gansynth.core.space import Space, boxes_of_slice
from gansynth.data.batches import CaseCache, PatchSource
from gansynth.data.connected_components import LabelBoxes, box_record
from gansynth.data.folds import without_cases
from gansynth.data.grid import in_eights, rounded_mm
from gansynth.data.picture_files import Windows, per_channel, rescale, resize
from gansynth.data.pictures import flat_files
from gansynth.data.read_options import (
    INNER,
    OF_BOXES,
    LeastVoxels,
    OfLabels,
    ReadOptions,
    parse_read,
    register_read_options,
)
from gansynth.data.views import open_plain
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.options import Needs

AXIS = {"axial": 0, "coronal": 1, "sagittal": 2}
"""Plane -> the axis of (D, H, W) that is cut across."""
SIDES = {
    "axial": ("inferior", "superior"),
    "coronal": ("posterior", "anterior"),
    "sagittal": ("left", "right"),
}
"""Plane -> the patient's sides that the first and the last slice of a RAS volume lie on."""
Side = Literal["array", "inferior", "superior", "posterior", "anterior", "left", "right"]


@dataclass(frozen=True)
class SliceRange:
    """Ranges of slices, both ends included, by number, by share of the axis or in millimetres.

    ``percent``, ``mm``: whether a range is of such. Their slices are those whose middle lies in it.
    """

    ranges: tuple[tuple[float, float], ...]
    percent: tuple[bool, ...]
    mm: tuple[bool, ...]

    def of(self, length: int, thickness: float) -> list[int]:
        """Numbers of the slices of an axis of so many voxels, ``thickness`` mm each, increasing."""
        numbers = np.arange(length)
        chosen = np.zeros(length, np.bool_)
        for (first, last), percent, mm in zip(self.ranges, self.percent, self.mm, strict=True):
            at = numbers.astype(np.float64)
            if percent or mm:
                at = (at + 0.5) * (thickness if mm else 100 / length)
            chosen |= (first <= at) & (at <= last)
        return [int(n) for n in np.flatnonzero(chosen)]


def _slice_range(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    ranges, units = [], []
    for word in value.split(","):
        match = re.fullmatch(r"\s*(\d+)(%|mm|)(?:-(\d+)(%|mm|))?\s*", word)
        fault = ValueError(
            f"{word!r} is no range, expected for example 80-149, or 10%-90%, or 80mm-150mm, or "
            "5,9,80-90"
        )
        if not match:
            raise fault
        first, last, unit = int(match[1]), int(match[3] or match[1]), match[2]
        if first > last or unit != (match[4] or "") or (unit == "%" and last > 100):
            raise fault
        ranges.append((first, last))
        units.append(unit)
    percent, mm = (tuple([unit == named for unit in units]) for named in ("%", "mm"))
    return SliceRange(tuple(ranges), percent, mm)


class SliceOptions(ReadOptions):
    """How slices are cut; every other key goes to the inner source."""

    passes_on: ClassVar[bool] = True
    needs: ClassVar[Needs] = {
        **OF_BOXES,
        "count_from": "slices",
        "min_foreground": "foreground=with or foreground=without or classes",
    }

    plane: Literal["axial", "coronal", "sagittal"] = Field(
        "axial", description="cut across the first, second or third axis of the volumes' arrays"
    )
    slices: Annotated[SliceRange, BeforeValidator(_slice_range)] | None = Field(
        None,
        description="numbers from 0, `80-149`, shares of the axis, `10%-90%`, or its millimetres, "
        "`80mm-150mm`; else all",
    )
    count_from: Side = Field(
        "array",
        description="the patient's side that `slices` are counted from, in any orientation of the "
        "file. `left` or `right` (sagittal), `posterior` or `anterior` (coronal), `inferior` or "
        "`superior` (axial); `array`: as the source's arrays run",
    )
    foreground: Literal["with", "without", "any"] = Field(
        "any",
        description="`with`: at least `min_foreground` voxels of labels above 0; `without`: none",
    )
    min_foreground: int = Field(1, ge=1, description="see `foreground`; counted before `resize`")
    classes: Literal["foreground", "label"] | None = Field(
        None,
        description="classes of slices: `foreground` (`without` and `with`, as above; slices of "
        "fewer voxels are left out) or `label` (`without`, and the label of most voxels)",
    )
    channels: tuple[str, ...] | None = Field(
        None, description="names of the channels to keep; else all"
    )
    concat: bool = Field(
        False, description="`yes`: each channel becomes a case of its own, with one channel"
    )
    window: Windows | None = Field(
        None,
        description="LOW:HIGH, in the volumes' units or as percentiles of each volume (`1%:99%`), "
        "clipped and mapped to 0 and 1. One for all channels or for each. Default: as stored",
    )
    resize: Size2 | None = Field(
        None, description="rows and columns, `64x64`, that every slice is resampled to"
    )
    size: Size2 | None = Field(
        None,
        description="rows and columns of the crops a generator works on; else those of `resize`, "
        "else of the inner source",
    )
    boxes: OfLabels = None
    least: LeastVoxels = 1

    @classmethod
    def behind(cls, request: SourceRequest) -> SourceRequest:
        return split_read(request)[1]


def split_read(request: SourceRequest) -> tuple[SourceRequest, SourceRequest]:
    """Split a request into that of slices, with its own ``--read`` keys, and the inner source's.

    The inner source gets all other keys; ``inner.KEY`` is one that both know.
    """
    slice_keys = {k: v for k, v in request.read.items() if k in SliceOptions.model_fields}
    inner_keys = {k.removeprefix(INNER): v for k, v in request.read.items() if k not in slice_keys}
    inner = SourceRequest.parse(request.where)
    return replace(request, read=slice_keys), replace(
        request, kind=inner.kind, where=inner.where, read=inner_keys
    )


def inner_read(read: Mapping[str, str]) -> dict[str, str]:
    """Return the inner source's keys as they are typed for its slices."""
    fields = SliceOptions.model_fields
    return {f"{INNER}{key}" if key in fields else key: value for key, value in read.items()}


def open_inner(request: SourceRequest) -> CaseSource:
    """Open the volumes that slices are cut from; UsageFault: unknown options, 2D cases."""
    if request.kind == "slices":
        raise UsageFault(
            "slices.slices-of-slices",
            f"slices:slices:{request.where}: expected slices of volumes; say it once",
        )
    try:
        inner = open_plain(request)
    except UsageFault as fault:
        if "--read" not in str(fault):
            raise
        keys = ", ".join(SliceOptions.model_fields)
        raise UsageFault(
            "slices.inner-option-invalid", f"{fault} slices: itself has: {keys}"
        ) from fault
    if inner.schema.axes != "DHW":
        raise UsageFault(
            "slices.cases-already-2d",
            f"slices:{request.kind}:{request.where}: its cases are 2D already, expected volumes; "
            f"say --data {request.kind}:{request.where}",
        )
    return inner


WITHOUT, WITH = "without", "with"
NEITHER = -1  # number of a slice of too little foreground to be of a class
Numbers = npt.NDArray[np.int64]
VOLUME_BYTES = 1 << 30  # volumes held in memory, so that neighbouring slices need no second reading


@register_read_options(SliceOptions)
class SliceSource(CaseSource):
    """Slices of the volumes of one fold; ``axis`` of (D, H, W) is cut across."""

    def __init__(self, request: SourceRequest) -> None:
        slice_request, inner_request = split_read(request)
        self.options = parse_read(SliceOptions, slice_request)
        self.inner = open_inner(inner_request)
        where = f"{self.inner.request.kind}:{self.inner.request.where}"
        if self.inner.space.grid == "resample":
            raise UsageFault(
                "slices.frame-and-whole-of-slices",
                f"slices:{where}: --read frame= and whole= are of whole volumes, expected slices "
                "of the volumes' own size. Leave them out, and set that of slices by resize=",
            )
        self.request = replace(request, where=where)
        self.axis = AXIS[self.options.plane]
        self._channels = self._chosen_channels()
        self._boxes = LabelBoxes.asked(
            self.options.boxes, self.options.least, self.inner.schema, self.inner.name
        )
        self._windows = per_channel(self.options.window, len(self._channels))
        self._volumes = CaseCache(self.inner, VOLUME_BYTES)
        self._bounds: dict[str, Sequence[tuple[float, float]]] = {}
        self._headers: dict[str, CaseHeader] = {}
        self._folders: dict[str, tuple[Path, ...]] = {}
        self._counts: dict[str, Numbers] = {}
        self._slices_of_volume: dict[str, list[int]] = {}
        self._refuse_side()
        classes, foreground = self.options.classes, self.options.foreground
        if (classes == "foreground" and foreground != "any") or (classes and foreground == WITHOUT):
            raise UsageFault(
                "slices.classes-with-one-foreground",
                f"--read classes={classes}: with --read foreground={foreground} all slices are of "
                "one class, expected several; leave one of the two out",
            )

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"slices:{self.inner.name}"

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        """Slices of the training volumes, ``case/axi080``, sorted."""
        slices = self._slice_ids(self.inner.train_ids)
        if not slices:
            raise DataFault(
                "slices.no-training-slice-left",
                f"slices:{self.request.where}: no slice is left of {len(self.inner.train_ids)} "
                f"training volume(s), expected at least one; widen --read slices and foreground",
            )
        return slices

    @cached_property
    def held_out_ids(self) -> tuple[str, ...]:
        return self._slice_ids(self.inner.held_out_ids)

    def header(self, case_id: str) -> CaseHeader:
        """Subject of the slice's volume, rows and columns, class by the volume's labels."""
        case, index, _ = self._parse_id(case_id)
        return CaseHeader(
            self._header_of(case).subject,
            self.options.resize or self._flat_shape(case),
            self.schema.spacing,
            self._label_class(case, index),
        )

    def files(self, case_id: str) -> StoredCase:
        case, index, channels = self._parse_id(case_id)
        if case not in self._folders:
            inner = self.inner.files(case)
            self._folders[case] = () if inner is None else inner.folders
        channel = case_id.removeprefix(f"{case}/{self._plane_prefix}").partition("/")[2]
        thickness = self._header_of(case).spacing[self.axis]

        def arrays() -> tuple[FloatArray, LabelArray | None]:
            plane = self._plane(case, index)
            return plane.image[[self._channels[k] for k in channels]], plane.labels

        return flat_files(
            case_id,
            self._flat_shape(case),
            {value: value for value in self.schema.label_values if value >= 0},
            folders=self._folders[case],
            spacing=self._plane_spacing(case),
            position=SlicePosition(f"{case}/{channel}" if channel else case, index, thickness),
            arrays=arrays,
        )

    def _header_of(self, case: str) -> CaseHeader:
        if case not in self._headers:
            self._headers[case] = self.inner.header(case)
        return self._headers[case]

    @property
    def unit(self) -> str:
        return self.inner.unit

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the volumes into other folds: all slices of a volume go where one is named."""
        volumes = [
            FoldSplit(train=self._volumes_of(split["train"]), val=self._volumes_of(split["val"]))
            for split in splits
        ]
        inner = self.inner.divided(volumes, folder)
        slice_request, _ = split_read(self.request)
        return replace(
            inner,
            kind=self.request.kind,
            where=f"{inner.kind}:{inner.where}",
            read=dict(slice_request.read) | inner_read(inner.read),
        )

    def cut_from(self, ids: Iterable[str]) -> tuple[CaseSource, tuple[str, ...]]:
        return self.inner, tuple(self._volumes_of(ids))

    def _volumes_of(self, cases: Iterable[str]) -> list[str]:
        try:
            return sorted({self._parse_id(case)[0] for case in cases})
        except DataFault as fault:
            raise UsageFault(
                "slices.split-names-unknown-case", f"{fault}; correct the split"
            ) from fault

    @cached_property
    def schema(self) -> Schema:
        """The inner source's schema, without the axis that is cut across."""
        inner = self.inner.schema
        spacing = np.delete(inner.spacing, self.axis)
        if self.options.resize is not None:
            shapes = [self._flat_shape(case) for case in self.inner.train_ids]
            spacing = spacing * np.median(shapes, axis=0) / self.options.resize
        names = tuple([inner.channels[c] for c in self._channels])
        fill = self._outside_fill()
        if self.options.concat:
            names = ("+".join(names),)
            fill = None if fill is None or len(set(fill)) > 1 else fill[:1]
        return replace(
            inner,
            channels=names,
            axes="HW",
            spacing=rounded_mm(spacing),
            outside_fill=fill,
            classes=self.classes,
            box_classes=inner.box_classes if self._boxes is None else tuple(self._boxes.classes),
        )

    @cached_property
    def space(self) -> Space:
        """Crops of slices; all options that change the arrays are in the record."""
        inner = self.inner.space
        options = self.options.model_dump(
            mode="json", exclude={"size", "count_from", "classes", "boxes", "least"}
        )
        # Only where they are given: records without stay what they were.
        if self.options.slices is not None and not any(self.options.slices.mm):
            del options["slices"]["mm"]
        if self.options.count_from != "array":
            options["count_from"] = self.options.count_from
        if self.options.classes is not None:
            options["classes"] = self.options.classes
        options |= box_record(self.options.boxes, self.options.least)
        options |= resampling_record(self.options.resize is not None)
        host = dict(inner.host, slices=options)
        return Space("crop", self._size(), host=host, pad_label=inner.pad_label)

    @property
    def provenance(self) -> Provenance:
        return Provenance(ancestors=ancestors_of(self.inner))

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one slice, float32 (C, H, W), int16 (H, W); DataFault: unknown, unreadable."""
        return self.decode(case_id).prepare()

    def decode(self, case_id: str) -> DecodedCase:
        """Cut one slice. It is known by what the files of its volume hold, and by its place."""
        case, index, channels = self._parse_id(case_id)
        plane = self._plane(case, index)
        image = plane.image[[self._channels[k] for k in channels]]

        def prepare() -> Case:
            windowed = image
            if self._windows is not None:
                windowed = rescale(image, [self._window_of(case)[k] for k in channels])
            number = self._label_class(case, index)
            cut = Case(case_id, plane.subject, windowed, plane.labels, plane.boxes, number)
            if self._boxes is not None:
                cut = replace(cut, boxes=self._boxes.of_case(cut))
            return cut if self.options.resize is None else resize(cut, self.options.resize)

        place = case_id.removeprefix(case)
        return DecodedCase(
            prepare,
            image,
            plane.labels,
            self._plane_spacing(case),
            within=lambda: f"{self._volumes.content(case)} {place}",
        )

    def _plane_spacing(self, case: str) -> tuple[float, ...]:
        spacing = list(self._header_of(case).spacing)
        del spacing[self.axis]
        return tuple(spacing)

    def _plane(self, case: str, index: int) -> Case:
        """One slice of a volume, all its channels; arrays of its own."""
        shape = self._header_of(case).shape
        if not 0 <= index < shape[self.axis]:
            raise DataFault(
                "slices.no-such-slice",
                f"slices:{self.request.where}: no slice {index} of case {case!r}, expected 0 to "
                f"{shape[self.axis] - 1}",
            )
        box = [slice(0, n) for n in shape]
        box[self.axis] = slice(index, index + 1)
        part = self._volumes.part(case, box)
        image = np.ascontiguousarray(part.image.squeeze(self.axis + 1))
        labels = None
        if part.labels is not None:
            labels = np.ascontiguousarray(part.labels.squeeze(self.axis))
        boxes = None if part.boxes is None else boxes_of_slice(part.boxes, 0, self.axis)
        return Case(case, part.subject, image, labels, boxes)

    def _window_of(self, case: str) -> Sequence[tuple[float, float]]:
        """Bounds of each kept channel; percentiles are those of the whole volume."""
        if case not in self._bounds:
            windows = self._windows or ()
            image: FloatArray | None = None
            if any(window.percent for window in windows):
                image = self._volumes(case).image
            self._bounds[case] = [
                window.bounds(None if image is None else image[channel])
                for channel, window in zip(self._channels, windows, strict=True)
            ]
        return self._bounds[case]

    # -- listing ---------------------------------------------------------------------------------

    def _slice_ids(self, cases: Iterable[str]) -> tuple[str, ...]:
        names = [self.inner.schema.channels[c] for c in self._channels]
        ids = [
            f"{case}/{self._plane_prefix}{index:03d}"
            for case in cases
            for index in self._chosen_slices(case)
        ]
        if self.options.concat:
            ids = [f"{i}/{name}" for i in ids for name in names]
        return tuple(sorted(ids))

    def _parse_id(self, case_id: str) -> tuple[str, int, list[int]]:
        """Return the volume of a slice, its number, and the places of its channels.

        Places count the kept channels, ``self._channels``.
        """
        text, channels = case_id, list(range(len(self._channels)))
        if self.options.concat:
            names = [f"/{self.inner.schema.channels[c]}" for c in self._channels]
            channels = [k for k, name in enumerate(names) if case_id.endswith(name)][:1]
            text = case_id[: -len(names[channels[0]])] if channels else ""
        case, _, name = text.rpartition("/")
        number = name.removeprefix(self._plane_prefix)
        if (
            not channels
            or not case
            or not name.startswith(self._plane_prefix)
            or not number.isdecimal()
        ):
            raise DataFault(
                "slices.no-such-case",
                f"slices:{self.request.where}: no case {case_id!r}, expected for example "
                f"{self.train_ids[0]!r}",
            )
        return case, int(number), channels

    # -- which slices, and their classes --------------------------------------------------------

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        if self.options.classes is None:
            return ()
        if self.options.classes == "foreground":
            return (WITHOUT, WITH)
        names = {value: name for name, value in self.inner.schema.labels.items()}
        foreground = tuple([names[value] for value in self.inner.schema.foreground])
        return foreground if self.options.foreground == WITH else (WITHOUT, *foreground)

    def _chosen_slices(self, case: str) -> list[int]:
        """Indices along the array's axis of the requested slices, increasing."""
        if case not in self._slices_of_volume:
            options = self.options
            header = self._header_of(case)
            length, chosen = header.shape[self.axis], list(range(header.shape[self.axis]))
            if options.slices is not None:
                if any(options.slices.mm) and self.unit != "mm":
                    raise DataFault(
                        "slices.voxel-size-not-known",
                        f"slices:{self.request.where}: the size of a voxel is not known, expected "
                        "mm for --read slices=80mm-150mm; give it with --read spacing, or choose "
                        "by share: --read slices=33%-62%",
                    )
                chosen = options.slices.of(length, header.spacing[self.axis])
            if options.count_from == SIDES[options.plane][1]:
                chosen = sorted(length - 1 - number for number in chosen)
            if options.foreground != "any":
                shows, target = self._foreground_of_slices(case), int(options.foreground == WITH)
                chosen = [i for i in chosen if shows[i] == target]
            elif options.classes is not None:
                shows = self._foreground_of_slices(case)
                chosen = [i for i in chosen if shows[i] != NEITHER]
            self._slices_of_volume[case] = chosen
        return self._slices_of_volume[case]

    def _label_class(self, case: str, index: int) -> int | None:
        """Return the number of a slice's class; None if it has none."""
        if not self.classes:
            return None
        shows = int(self._foreground_of_slices(case)[index])
        if shows < 1:
            return self.classes.index(WITHOUT) if shows == 0 and WITHOUT in self.classes else None
        if self.options.classes == "foreground":
            return self.classes.index(WITH)
        largest = int(self._voxels_by_label(case)[:, index].argmax())
        # Labels are the last classes: behind ``without``, or from 0 where that is no class.
        return largest + len(self.classes) - len(self.inner.schema.foreground)

    def _foreground_of_slices(self, case: str) -> Numbers:
        """Of each slice of a volume: 1 with foreground, 0 without, ``NEITHER``."""
        total = self._voxels_by_label(case).sum(axis=0)
        shows = np.where(total >= self.options.min_foreground, 1, NEITHER)
        return np.where(total == 0, 0, shows)

    def _voxels_by_label(self, case: str) -> Numbers:
        """Voxels of each foreground label in each slice: (V, slices); DataFault: no labels."""
        if case not in self._counts:
            store = store_as_read(self.inner, case)
            kept = kept_in(store, f"labels-{self.axis}", partial(self._counted, case))
            self._counts[case] = kept["counts"]
        return self._counts[case]

    def _counted(self, case: str) -> Arrays:
        values = self.inner.schema.foreground
        counts = np.zeros((len(values), self._header_of(case).shape[self.axis]), np.int64)
        planes = None
        if self.axis == 0 and isinstance(self.inner, PatchSource):
            planes = self.inner.outline(case).planes  # which has them without the image
        if planes is not None:
            for value, row in zip(planes.values, planes.counts, strict=True):
                counts[[v == value for v in values]] = row
            return {"counts": counts}
        labels = self._volumes(case).labels
        if labels is None:
            only, by_what = self.options.foreground, self.options.classes
            asks = f"classes={by_what}" if only == "any" else f"foreground={only}"
            raise DataFault(
                "slices.case-without-labels",
                f"{self.inner.name}: case {case!r} has no labels, expected them with --read "
                f"{asks}; leave that out, and choose slices by number: --read slices=40-110",
            )
        across = other_axes(3)[self.axis]
        for number, value in enumerate(values):
            counts[number] = (labels == value).sum(axis=across)
        return {"counts": counts}

    # -- options against the inner source --------------------------------------------------------

    def _refuse_side(self) -> None:
        """Refuse to count from a side that the plane does not have, or that is unknown."""
        side, plane = self.options.count_from, self.options.plane
        if side == "array":
            return
        if side not in SIDES[plane]:
            raise UsageFault(
                "slices.side-not-of-plane",
                f"--read count_from={side}: no side of {plane} slices, expected "
                f"{' or '.join(SIDES[plane])}",
            )
        if not self.inner.space.oriented:
            raise UsageFault(
                "slices.array-directions-unknown",
                f"--read count_from={side}: {self.inner.name} does not say which way its arrays "
                "run, expected volumes as their files hold them (nifti:, msd:). "
                "Or count as the arrays run: --read count_from=array",
            )

    @property
    def _plane_prefix(self) -> str:
        return self.options.plane[:3]

    def _chosen_channels(self) -> tuple[int, ...]:
        available, names = self.inner.schema.channels, self.options.channels
        unknown = [name for name in names or () if name not in available]
        if unknown:
            raise UsageFault(
                "slices.no-such-channel",
                f"--read channels={','.join(names or ())}: {self.inner.name} has no channel "
                f"{unknown[0]!r}, expected among: {', '.join(available)}",
            )
        return tuple(map(available.index, names or available))

    def _outside_fill(self) -> tuple[float, ...] | None:
        """Constant of the chosen channels outside of the body, where known."""
        fill = self.inner.schema.outside_fill
        if fill is None or any(window.percent for window in self._windows or ()):
            return None
        values = np.array([fill[c] for c in self._channels], np.float32)
        if self._windows is not None:
            values = rescale(values, [window.bounds(None) for window in self._windows])
        return tuple(map(float, values))

    def _flat_shape(self, case: str) -> tuple[int, ...]:
        shape = list(self._header_of(case).shape)
        del shape[self.axis]
        return tuple(shape)

    def _size(self) -> tuple[int, ...]:
        size = self.options.size or self.options.resize
        if size is not None:
            return size
        inner = self.inner.space.size
        if len(inner) == 3:
            return inner[: self.axis] + inner[self.axis + 1 :]
        if len(inner) == 2 and self.axis == 0:
            return inner
        shapes = [self._flat_shape(case) for case in self.inner.train_ids]
        return in_eights(np.max(shapes, axis=0).tolist())


def check_slices(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``slices:INNER`` for all faults: its volumes, then the choice of slices."""
    slice_request, inner_request = split_read(request)
    parse_read(SliceOptions, slice_request)
    checked = installed().check(inner_request.kind)(inner_request, progress)
    findings, slices, path = list(checked.findings), 0, Path(inner_request.where)
    if not any(finding.level == "error" for finding in findings):
        try:
            source = SliceSource(request)
            slices = len(source.train_ids) + len(source.held_out_ids)
            findings += without_cases(source, source.classes, path)
        except GansynthError as fault:
            findings.insert(0, Finding.of(None, path, fault))
    return CheckReport(f"slices:{checked.name}", slices or checked.cases, findings)
