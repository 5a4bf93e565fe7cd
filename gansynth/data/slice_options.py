"""The ``--read`` keys of ``slices:``, and ranges of slices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.planes import Windows
from gansynth.data.read_options import INNER, OF_BOXES, LeastVoxels, OfLabels, ReadOptions, Words
from gansynth.data.views import open_plain
from gansynth.runtime.errors import UsageFault
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
    """Ranges of slices, both ends included, by number or by share of the axis."""

    ranges: tuple[tuple[float, float], ...]
    percent: tuple[bool, ...]

    def of(self, length: int) -> list[int]:
        """Numbers of the slices of an axis of so many voxels, increasing."""
        numbers = np.arange(length)
        chosen = np.zeros(length, np.bool_)
        for (first, last), percent in zip(self.ranges, self.percent, strict=True):
            at = (numbers + 0.5) / length * 100 if percent else numbers
            chosen |= (first <= at) & (at <= last)
        return [int(n) for n in np.flatnonzero(chosen)]


def _indices(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    ranges, percent = [], []
    for word in value.split(","):
        match = re.fullmatch(r"\s*(\d+)(%?)(?:-(\d+)(%?))?\s*", word)
        first, last = (int(match[1]), int(match[3] or match[1])) if match else (1, 0)
        shares = bool(match and match[2])
        if not match or first > last or shares != bool(match[4]) or (shares and last > 100):
            raise ValueError(
                f"{word!r} is no range, expected for example 80-149, or 10%-90%, or 5,9,80-90"
            )
        ranges.append((first, last))
        percent.append(shares)
    return SliceRange(tuple(ranges), tuple(percent))


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
    slices: Annotated[SliceRange, BeforeValidator(_indices)] | None = Field(
        None, description="numbers from 0, `80-149`, or shares of the axis, `10%-90%`; else all"
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
    channels: Words | None = Field(None, description="names of the channels to keep; else all")
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
        """See ``ReadOptions``."""
        return split_read(request)[1]


def split_read(request: SourceRequest) -> tuple[SourceRequest, SourceRequest]:
    """The request with its own ``--read`` keys, and the inner source's (``inner.KEY``, too)."""
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
        raise UsageFault(f"slices:slices:{request.where}: expected slices of volumes; say it once")
    try:
        inner = open_plain(request)
    except UsageFault as fault:
        if "--read" not in str(fault):
            raise
        keys = ", ".join(SliceOptions.model_fields)
        raise UsageFault(f"{fault} slices: itself has: {keys}") from fault
    if inner.schema.axes != "DHW":
        raise UsageFault(
            f"slices:{request.kind}:{request.where}: its cases are 2D already, expected volumes; "
            f"say --data {request.kind}:{request.where}"
        )
    return inner
