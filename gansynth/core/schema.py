"""The meaning of arrays: Schema, Case, Condition, Sample, Boxes.

``B`` batch, ``C`` channels, ``D, H, W`` depth, height, width (2D arrays have no ``D``). Labels are
int16, boxes half-open voxels ``min..., max...``. Needs numpy only, so that bank readers stay light.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.serialise import Document

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

OUTSIDE = -1
"""Label of voxels outside the imaged body (nnU-Net's crop and padding); edits never touch it."""


@dataclass(frozen=True)
class Schema(Document, optional=("classes", "box_classes"), strict=True):
    """Names channels, label values, spacing and axes of a data set.

    Attributes:
        channels: channel names in array order, e.g. ``("T1", "FLAIR")``.
        labels: label name -> value (>= 0, background 0 included), in increasing order of value.
        spacing: voxel size in mm per spatial axis, in array order.
        axes: spatial axis letters, ``"DHW"`` or ``"HW"``.
        has_outside: labels may hold ``OUTSIDE`` (-1).
        outside_fill: constant of each channel wherever labels are ``OUTSIDE``; None where it
            varies, then the generator has to generate it.
        ignore: value of an "ignore" label, or None. Conditions never contain it.
        classes: names of the classes of whole cases, by number; may be empty.
        box_classes: names of the objects in boxes, by number; empty where cases have no boxes.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    spacing: tuple[float, ...]
    axes: str = "DHW"
    has_outside: bool = False
    outside_fill: tuple[float, ...] | None = None
    ignore: int | None = None
    classes: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.axes not in ("DHW", "HW"):
            raise DataFault(
                "schema.axes-unknown", f"schema: axes is {self.axes!r}, expected 'DHW' or 'HW'"
            )
        if len(self.spacing) != len(self.axes):
            raise DataFault(
                "schema.spacing-count-differs",
                f"schema: spacing has {len(self.spacing)} values for {len(self.axes)} axes",
            )
        if not self.channels:
            raise DataFault(
                "schema.no-channels",
                "schema: channels is empty, expected at least one channel name",
            )
        if 0 not in self.labels.values():
            raise DataFault(
                "schema.no-background",
                f"schema: labels {dict(self.labels)} lack a background of value 0",
            )

    @property
    def ndim(self) -> int:
        """Number of spatial axes (2 or 3)."""
        return len(self.axes)

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values of a labels array, increasing; -1 first if there is an outside."""
        values = sorted(v for v in self.labels.values() if v != self.ignore)
        return (OUTSIDE, *values) if self.has_outside else tuple(values)

    @property
    def foreground(self) -> tuple[int, ...]:
        """Label values above background."""
        return tuple(v for v in self.label_values if v > 0)

    def lesion_values(self, names: Sequence[str] = ()) -> tuple[int, ...]:
        """Return values by lesion name, all foreground if no name; UsageFault: none exists."""
        labels = self.labels.items()
        lesions = {name: value for name, value in labels if value in self.foreground}
        if not lesions:
            raise UsageFault(
                "connected-components.no-foreground",
                "lesions: labels have no foreground, expected lesion labels",
            )
        for name in names:
            if name not in lesions:
                raise UsageFault(
                    "connected-components.lesion-label-unknown",
                    f"lesions: {name!r} is no foreground label, expected one of "
                    f"{', '.join(lesions)}.{did_you_mean(name, list(lesions))}",
                )
        return tuple(sorted(lesions[name] for name in names or lesions))


@dataclass(frozen=True)
class Boxes:
    """Bounding boxes in voxels, half-open, ``min..., max...``: float32 (N, 4) or (N, 6).

    ``labels``: int16 (N,), numbers in ``Schema.box_classes``, or label values for boxes derived
    from a label map.
    """

    coords: FloatArray
    labels: LabelArray

    def __post_init__(self) -> None:
        n, width = self.coords.shape
        if width not in (4, 6) or self.labels.shape != (n,):
            raise DataFault(
                "schema.box-arrays-malformed",
                f"boxes: coords {self.coords.shape} and labels {self.labels.shape}, expected "
                "(N, 4) or (N, 6) and (N,)",
            )
        half = width // 2
        if n and not (self.coords[:, :half] < self.coords[:, half:]).all():
            raise DataFault(
                "schema.box-empty",
                "boxes: a box is empty; expected min < max on every axis (half-open)",
            )

    @property
    def in_plane(self) -> Boxes:
        """The boxes (N, 4) of a slice: those of a volume of one slice without its first axis."""
        if self.coords.shape[1] == 4:
            return self
        return Boxes(self.coords[:, [1, 2, 4, 5]], self.labels)


@dataclass(frozen=True)
class Case:
    """One labelled training case in the generator's or the source's arrays.

    Attributes:
        subject: its subject (the case's id if unknown).
        image: float32 (C, D, H, W), or (C, H, W) for 2D.
        labels: int16 (D, H, W) or (H, W); None for unlabelled cases.
        label_class: number of the case's class in ``Schema.classes``; None without classes.
        under: int16 like ``labels``: the generated part of ``labels`` (tissues), also beneath the
            case's own labels (a tumour), and without their values. None if nothing is generated.
        ignored: bool like ``labels``: where they are background instead of the ignore value. None
            if they still hold it, or there is none.
    """

    id: str
    subject: str
    image: FloatArray
    labels: LabelArray | None = None
    boxes: Boxes | None = None
    label_class: int | None = None
    under: LabelArray | None = None
    ignored: npt.NDArray[np.bool_] | None = None

    @property
    def own(self) -> Case:
        """The case with its own labels alone, which edits change."""
        if self.under is None or self.labels is None:
            return self
        own_labels = np.where(self.labels == self.under, np.int16(0), self.labels)
        return replace(self, labels=own_labels, under=None)

    def over(self, labels: LabelArray) -> LabelArray:
        """Put own labels over generated ones, which show where own labels are background."""
        return labels if self.under is None else np.where(labels == 0, self.under, labels)

    def validate(self, schema: Schema) -> None:
        """Check the arrays against the schema; DataFault names case and fault."""
        validate_arrays(f"case {self.id!r}", self.image, self.labels, schema)


@dataclass(frozen=True)
class Condition:
    """The request of one sample.

    Attributes:
        labels: int16 (D, H, W) or (H, W) the sample must agree with.
        boxes: boxes the sample must agree with.
        label_class: number of a class in ``Schema.classes``, for class-conditional generators.
        background: float32 (C, ...) real surroundings to keep.
        lesion: int16 (D, H, W) or (H, W): the lesion to generate in the background, 0 elsewhere.
            ``labels`` hold it and all other labels of the background.
        donor: float32 (C, ...) another case's image, moved to the place of the lesion.
        body: bool: body voxels of the background, where lesions of boxes may lie. None if
            unknown.
        region: bool (D, H, W) or (H, W): all voxels to regenerate, if more than the lesion
            (remains of an old lesion, or surroundings). None for the lesion alone.
        present: boxes that the background has already, and keeps.
        context: int16 (D, H, W) intensity clusters of the surroundings, 0 where unknown.
        moved: float32 (C, ...) the case's own image, moved along with its label map.
        given: float32 (K, ...) known channels that are input, in the generator's own order and
            units.
        ignored: bool like ``labels``: where the case's labels are to be ignored, and those of the
            sample, too, unless it has a lesion there. None without an ignore label.
        latent_seed: seeds everything random in the sample.
        provenance: source case, edits with their drawn parameters, seeds; JSON-able; replayable.
            The core's: a generator gets none.
    """

    labels: LabelArray | None = None
    boxes: Boxes | None = None
    label_class: int | None = None
    background: FloatArray | None = None
    lesion: LabelArray | None = None
    donor: FloatArray | None = None
    body: npt.NDArray[np.bool_] | None = None
    region: npt.NDArray[np.bool_] | None = None
    present: Boxes | None = None
    context: LabelArray | None = None
    moved: FloatArray | None = None
    given: FloatArray | None = None
    ignored: npt.NDArray[np.bool_] | None = None
    latent_seed: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def required(self, key: str) -> Any:
        """Return an array that a generator needs; DataFault: there is none."""
        array = getattr(self, key)
        if array is None:
            raise DataFault(
                "schema.condition-incomplete",
                f"a condition has no {key}, expected one; a ConditionSampler makes conditions, "
                "with a LesionDrawer those of lesions",
            )
        return array


def lesion_mask(condition: Condition) -> npt.NDArray[np.bool_]:
    """Where something is drawn into a condition's background: bool (D, H, W) or (H, W)."""
    drawn: npt.NDArray[np.bool_] = condition.required("lesion") > 0
    return drawn if condition.region is None else drawn | condition.region


@dataclass(frozen=True)
class Sample:
    """One synthetic labelled sample: image float32 (C, D, H, W) or (C, H, W), labels int16.

    Attributes:
        provenance: request, maker and seed, JSON-able; the core writes it, whatever a generator
            returns.
        under: the requested label map of a chain if it has more than ``labels``; for preview grids
            only.
        notes: a generator's own JSON, one key of the provenance; never shared.
        label_class: number of the class that a generator drew of itself, if none was requested.
    """

    image: FloatArray
    labels: LabelArray | None = None
    boxes: Boxes | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    under: LabelArray | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    label_class: int | None = None

    def validate(self, schema: Schema) -> None:
        """Check the arrays against the schema; DataFault names the fault."""
        validate_arrays("sample", self.image, self.labels, schema)


def validate_arrays(
    name: str, image: FloatArray, labels: LabelArray | None, schema: Schema
) -> None:
    """Refuse (DataFault) channels, axes, dtypes, numbers, labels that violate the schema."""
    channels = len(schema.channels)
    if not np.issubdtype(image.dtype, np.floating):
        raise DataFault(
            "schema.image-type-not-floating",
            f"{name}: image has dtype {image.dtype}, expected a floating one",
        )
    if labels is not None and labels.dtype != np.int16:
        raise DataFault(
            "schema.labels-type-differs",
            f"{name}: labels have dtype {labels.dtype}, expected int16",
        )
    if image.ndim != schema.ndim + 1:
        raise DataFault(
            "schema.image-axes-differ",
            f"{name}: image has shape {image.shape}, expected {schema.ndim + 1} axes "
            f"(C, {', '.join(schema.axes)})",
        )
    if image.shape[0] != channels:
        raise DataFault(
            "schema.image-channels-differ",
            f"{name}: image has {image.shape[0]} channel(s), expected {channels} "
            f"({', '.join(schema.channels)}); a missing channel would be broadcast silently",
        )
    if not is_finite(image):
        bad = int(np.size(image) - np.isfinite(image).sum())
        raise DataFault(
            "schema.image-not-finite",
            f"{name}: image holds {bad} NaN or infinite voxel(s), expected finite values",
        )
    if labels is None:
        return
    if labels.shape != image.shape[1:]:
        raise DataFault(
            "schema.labels-shape-differs",
            f"{name}: labels have shape {labels.shape}, image {image.shape[1:]}; expected equal",
        )
    allowed = set(schema.label_values) | ({schema.ignore} if schema.ignore is not None else set())
    present = np.zeros(1 << 16, np.bool_)
    present[labels.ravel()] = True  # faster than sorting; OUTSIDE is the last entry
    unknown = sorted(set(np.flatnonzero(present).astype(np.int16).tolist()) - allowed)
    if unknown:
        raise DataFault(
            "schema.label-values-unknown",
            f"{name}: label value(s) {unknown} unknown, expected among {sorted(allowed)}",
        )


def is_finite(image: npt.NDArray[Any]) -> bool:
    """Return whether a floating image holds no NaN and nothing infinite."""
    if not image.size:
        return True
    return bool(np.isfinite(image.min()) and np.isfinite(image.max()))  # NaN is both, if any is


def content_hash(*arrays: npt.NDArray[Any] | None) -> str:
    """SHA-256 over shapes, dtypes and bytes of arrays, in order; None counts as absent."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def replace_ignored(labels: LabelArray, schema: Schema) -> LabelArray:
    """Return labels with background instead of the ignore value, which conditions never hold."""
    if schema.ignore is None:
        return labels
    return np.where(labels == schema.ignore, np.int16(0), labels)


def known_labels(case: Case, schema: Schema) -> Case:
    """Return a case with background instead of the ignore value."""
    if case.labels is None or schema.ignore is None:
        return case
    return replace(case, labels=replace_ignored(case.labels, schema))


def keep_outside(edited: LabelArray, before: LabelArray) -> LabelArray:
    """Restore ``OUTSIDE`` exactly where it was; edits cannot move, grow or shrink it."""
    inside = np.where(edited == OUTSIDE, np.int16(0), edited)
    return np.where(before == OUTSIDE, np.int16(OUTSIDE), inside)
