"""``slices:INNER``: 2D cases cut from the volumes of any other source.

A slice belongs to its volume's subject and lies on its volume's side of the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from math import ceil
from pathlib import Path

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.lineage import Lineage
from gansynth.core.prediction import SlicePosition
from gansynth.core.registry import installed
from gansynth.core.resample import resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.core.space import Space, boxes_of_slice
from gansynth.data.cache import CaseCache, PatchSource, cut_case
from gansynth.data.classes import without_cases
from gansynth.data.label_boxes import LabelBoxes, box_record
from gansynth.data.planes import per_channel, rescale, resize
from gansynth.data.read_options import parse_read, register_read_options
from gansynth.data.slice_choice import SliceChoice
from gansynth.data.slice_options import AXIS, SliceOptions, inner_read, open_inner, split_read
from gansynth.data.source_2d import FlatSource
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault

STRIDE = 8  # the generator's edges are multiples of this, so that networks can halve them
VOLUME_BYTES = 1 << 30  # volumes held in memory, so that neighbouring slices need no second reading


@register_read_options(SliceOptions)
class SliceSource(FlatSource):
    """Slices of the volumes of one fold; ``axis`` of (D, H, W) is cut across.

    Raises UsageFault: options that do not fit, or no volumes.
    """

    def __init__(self, request: SourceRequest) -> None:
        slice_request, inner_request = split_read(request)
        self.options = parse_read(SliceOptions, slice_request)
        self.inner = open_inner(inner_request)
        where = f"{self.inner.request.kind}:{self.inner.request.where}"
        if self.inner.space.grid == "resample":
            raise UsageFault(
                f"slices:{where}: --read frame= and whole= are of whole volumes, expected slices "
                "of the volumes' own size. Leave them out, and set that of slices by resize="
            )
        self.request = replace(request, where=where)
        self.axis = AXIS[self.options.plane]
        self._channels = self._chosen()
        self._boxes = LabelBoxes.asked(
            self.options.boxes, self.options.least, self.inner.schema, self.inner.name
        )
        self._windows = per_channel(self.options.window, len(self._channels))
        self._volumes = CaseCache(self.inner, VOLUME_BYTES)
        self._bounds: dict[str, Sequence[tuple[float, float]]] = {}
        self._spacing_of = cache(self.inner.spacing)
        self.choice = SliceChoice(self.inner, self.options, self.volume)

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``slices:`` and the inner source's name."""
        return f"slices:{self.inner.name}"

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        """Slices of the training volumes, ``case/axi080``, sorted."""
        slices = self._list(self.inner.train_ids)
        if not slices:
            raise DataFault(
                f"slices:{self.request.where}: no slice is left of {len(self.inner.train_ids)} "
                f"training volume(s), expected at least one; widen --read slices and foreground"
            )
        return slices

    @cached_property
    def held_out_ids(self) -> tuple[str, ...]:
        """Slices of the held-out volumes, sorted."""
        return self._list(self.inner.held_out_ids)

    def subject(self, case_id: str) -> str:
        """The subject of the slice's volume."""
        return self.inner.subject(self._parse(case_id)[0])

    @property
    def unit(self) -> str:
        """The unit of the volumes."""
        return self.inner.unit

    @property
    def places(self) -> tuple[Path, ...]:
        """Those of the volumes."""
        return self.inner.places

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
            read={**slice_request.read, **inner_read(inner.read)},
        )

    def _volumes_of(self, cases: Iterable[str]) -> list[str]:
        try:
            return sorted({self._parse(case)[0] for case in cases})
        except DataFault as fault:
            raise UsageFault(f"{fault}; correct the split") from fault

    def label_class(self, case_id: str) -> int | None:
        """Number of a slice's class, by the labels of its volume."""
        return self.choice.label_class(*self._parse(case_id)[:2])

    @cached_property
    def schema(self) -> Schema:
        """The inner source's schema, without the axis that is cut across."""
        inner = self.inner.schema
        spacing = np.delete(inner.spacing, self.axis)
        if self.options.resize is not None:
            shapes = [self._flat_shape(case) for case in self.inner.train_ids]
            spacing = spacing * np.median(shapes, axis=0) / self.options.resize
        names = tuple(inner.channels[c] for c in self._channels)
        fill = self._fill()
        if self.options.concat:
            names = ("+".join(names),)
            fill = None if fill is None or len(set(fill)) > 1 else fill[:1]
        return replace(
            inner,
            channels=names,
            axes="HW",
            spacing=tuple(round(float(s), 6) for s in spacing),
            outside_fill=fill,
            classes=self.choice.classes,
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
        if self.options.count_from != "array":
            options["count_from"] = self.options.count_from
        if self.options.classes is not None:
            options["classes"] = self.options.classes
        options |= box_record(self.options.boxes, self.options.least)
        options |= resampling_record(self.options.resize is not None)
        host = {**inner.host, "slices": options}
        return Space("crop", self._size(), host=host, pad_label=inner.pad_label)

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """Those of the volumes."""
        return self.inner.ancestors

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one slice, float32 (C, H, W), int16 (H, W); DataFault: unknown, unreadable."""
        case, index, channels = self._parse(case_id)
        plane = self._plane(case, index)
        image = plane.image[[self._channels[k] for k in channels]]
        if self._windows is not None:
            image = rescale(image, [self._window_of(case)[k] for k in channels])
        number = self.choice.label_class(case, index)
        cut = Case(case_id, self.inner.subject(case), image, plane.labels, plane.boxes, number)
        if self._boxes is not None:
            cut = replace(cut, boxes=self._boxes.of_case(cut))
        return cut if self.options.resize is None else resize(cut, self.options.resize)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Rows and columns of a slice."""
        return self.options.resize or self._flat_shape(self._parse(case_id)[0])

    def position(self, case_id: str) -> SlicePosition:
        """Volume of a slice, or of its channel with ``concat``, and its number there."""
        case, index, _ = self._parse(case_id)
        channel = case_id.removeprefix(f"{case}/{self._short}").partition("/")[2]
        stack = f"{case}/{channel}" if channel else case
        return SlicePosition(stack, index, self._spacing_of(case)[self.axis])

    def true_labels(self, case_id: str) -> LabelArray | None:
        """A slice of the volume's label map, not resampled by ``resize``."""
        return self._plane(*self._parse(case_id)[:2]).labels

    def pixel_spacing(self, case_id: str) -> tuple[float, float]:
        """Spacing of the volume along the slice's axes."""
        spacing = list(self._spacing_of(self._parse(case_id)[0]))
        del spacing[self.axis]
        return spacing[0], spacing[1]

    def file_shape(self, case_id: str) -> tuple[int, ...]:
        """Rows and columns of the volume's slices."""
        return self._flat_shape(self._parse(case_id)[0])

    def file_image(self, case_id: str) -> FloatArray:
        """Channels of the volume's slice, without a window."""
        case, index, channels = self._parse(case_id)
        return self._plane(case, index).image[[self._channels[k] for k in channels]]

    def _plane(self, case: str, index: int) -> Case:
        """One slice of a volume, all its channels; arrays of its own."""
        shape = self.inner.shape(case)
        if not 0 <= index < shape[self.axis]:
            raise DataFault(
                f"slices:{self.request.where}: no slice {index} of case {case!r}, expected 0 to "
                f"{shape[self.axis] - 1}"
            )
        box = [slice(0, n) for n in shape]
        box[self.axis] = slice(index, index + 1)
        if isinstance(self.inner, PatchSource):
            part = self.inner.load_part(case, box)
        else:
            part = cut_case(self._volumes(case), box)
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
                image = self.volume(case).image
            self._bounds[case] = [
                window.bounds(None if image is None else image[channel])
                for channel, window in zip(self._channels, windows, strict=True)
            ]
        return self._bounds[case]

    def volume(self, case: str) -> Case:
        """Return a whole volume, cached unless the source reads parts."""
        cached = not isinstance(self.inner, PatchSource)
        return self._volumes(case) if cached else self.inner.load(case)

    # -- listing ---------------------------------------------------------------------------------

    def _list(self, cases: Iterable[str]) -> tuple[str, ...]:
        names = [self.inner.schema.channels[c] for c in self._channels]
        ids = [
            f"{case}/{self._short}{index:03d}"
            for case in cases
            for index in self.choice.indices(case)
        ]
        if self.options.concat:
            ids = [f"{i}/{name}" for i in ids for name in names]
        return tuple(sorted(ids))

    def _parse(self, case_id: str) -> tuple[str, int, list[int]]:
        text, channels = case_id, list(range(len(self._channels)))
        if self.options.concat:
            names = [f"/{self.inner.schema.channels[c]}" for c in self._channels]
            channels = [k for k, name in enumerate(names) if case_id.endswith(name)][:1]
            text = case_id[: -len(names[channels[0]])] if channels else ""
        case, _, name = text.rpartition("/")
        number = name.removeprefix(self._short)
        if not channels or not case or not name.startswith(self._short) or not number.isdecimal():
            raise DataFault(
                f"slices:{self.request.where}: no case {case_id!r}, expected for example "
                f"{self.train_ids[0]!r}"
            )
        return case, int(number), channels

    # -- options against the inner source --------------------------------------------------------

    @property
    def _short(self) -> str:
        return self.options.plane[:3]

    def _chosen(self) -> tuple[int, ...]:
        available, names = self.inner.schema.channels, self.options.channels
        unknown = [name for name in names or () if name not in available]
        if unknown:
            raise UsageFault(
                f"--read channels={','.join(names or ())}: {self.inner.name} has no channel "
                f"{unknown[0]!r}, expected among: {', '.join(available)}"
            )
        return tuple(available.index(name) for name in names or available)

    def _fill(self) -> tuple[float, ...] | None:
        """Constant of the chosen channels outside of the body, where known."""
        fill = self.inner.schema.outside_fill
        if fill is None or any(window.percent for window in self._windows or ()):
            return None
        values = np.array([fill[c] for c in self._channels], np.float32)
        if self._windows is not None:
            values = rescale(values, [window.bounds(None) for window in self._windows])
        return tuple(map(float, values))

    def _flat_shape(self, case: str) -> tuple[int, ...]:
        shape = list(self.inner.shape(case))
        del shape[self.axis]
        return tuple(shape)

    def _size(self) -> tuple[int, ...]:
        size = self.options.size or self.options.resize
        if size is not None:
            return size
        inner = self.inner.space.size
        if len(inner) == 3:
            return tuple(n for axis, n in enumerate(inner) if axis != self.axis)
        if len(inner) == 2 and self.axis == 0:
            return inner
        shapes = [self._flat_shape(case) for case in self.inner.train_ids]
        return tuple(ceil(n / STRIDE) * STRIDE for n in np.max(shapes, axis=0).tolist())


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
            findings += without_cases(source, source.choice.classes, path)
        except GansynthError as fault:
            findings.insert(0, Finding("error", None, path, str(fault)))
    return CheckReport(f"slices:{checked.name}", slices or checked.cases, findings)
