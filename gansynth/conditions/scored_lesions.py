"""Lesions by size, place and class, how well a framework found them, and its false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma, pi

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Mask, bounding_box, nearest_voxels
from gansynth.core.schema import LabelArray
from gansynth.data.connected_components import LabelComponents
from gansynth.data.lesions import LesionPart, pieces

FOUND = 0.1  # Dice from which a lesion counts as found
Span = tuple[tuple[float, float], ...]  # start and end along each axis


@dataclass(frozen=True)
class CropFrame:
    """Position of an array in its case."""

    # of the array's voxels, in the source's unit: mm, or px where no size is known
    spacing: tuple[float, ...]
    origin: tuple[float, ...]  # the case's voxel at the array's first voxel, per axis of the case
    scale: tuple[float, ...]  # the case's voxels per voxel of the array, per axis of the case
    shape: tuple[int, ...]  # of the case
    body: Span | None  # extent of the case's body, as shares of `shape`; None where unknown

    def place(self, centre: Sequence[float]) -> tuple[float, ...] | None:
        """Return the place of an array's voxel in the body, 0 to 1 per axis of the case."""
        if self.body is None:
            return None
        # Of a slice the array lacks the case's first axis.
        inner = (0.0,) * (len(self.shape) - len(centre)) + tuple(centre)
        axes = zip(inner, self.origin, self.scale, self.shape, self.body, strict=True)
        each = ((o + (c + 0.5) * k) / n - low for c, o, k, n, (low, _) in axes)
        spans = (max(high - low, 1e-6) for low, high in self.body)
        return tuple(min(max(x / span, 0.0), 1.0) for x, span in zip(each, spans, strict=True))

    def extent(self, shape: Sequence[int]) -> Span:
        """Return what an array covers of its case: first voxel and end along each axis."""
        lengths = (1,) * (len(self.shape) - len(shape)) + tuple(shape)
        axes = zip(self.origin, lengths, self.scale, self.shape, strict=True)
        return tuple((max(o, 0.0), min(o + n * k, float(end))) for o, n, k, end in axes)

    def cuts(self, box: Sequence[slice], shape: Sequence[int]) -> bool:
        """Whether a part of the array may go on in the case beyond the array."""
        first = len(self.shape) - len(shape)
        axes = zip(
            box, shape, self.origin[first:], self.scale[first:], self.shape[first:], strict=True
        )
        return any(
            (a.start == 0 and start > 0) or (a.stop == n and start + n * k < end)
            for a, n, start, k, end in axes
        )


@dataclass(frozen=True)
class Lesion:
    """A connected part of one class."""

    label: int  # the class's value
    size: float  # in the cube of the source's unit; of a slice in its square
    diameter: float  # of the ball, or the disc, of that size, in the source's unit
    # of its centre in the body, 0 to 1 per axis of the case; None where unknown
    place: tuple[float, ...] | None
    cut_off: bool = False  # whether it may go on beyond the array, so that its size is unknown


@dataclass(frozen=True)
class ScoredLesion:
    """A lesion, and how well a prediction found it."""

    lesion: Lesion
    dice: float  # of the lesion and the voxels of its class predicted there
    recall: float  # share of its voxels predicted as its class

    @property
    def found(self) -> bool:
        """Whether the Dice is at least ``FOUND``."""
        return self.dice >= FOUND


def lesions_in(
    labels: LabelArray, values: Sequence[int], frame: CropFrame, *, least: int
) -> list[Lesion]:
    """Return all lesions of some classes; parts of less than ``least`` voxels do not count."""
    return [
        _lesion(part, value, frame)
        for value in values
        for part in pieces(labels, labels == value, frame.spacing, least=least)
    ]


def score_lesions(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    frame: CropFrame,
    *,
    least: int,
) -> list[ScoredLesion]:
    """Evaluate a prediction on every lesion of a case.

    Predicted voxels belong to the nearest lesion of their class, if their connected piece touches
    one. Other pieces are ``false_alarms``.
    """
    judged: list[ScoredLesion] = []
    for value in values:
        parts = pieces(labels, labels == value, frame.spacing, least=least)
        if not parts:
            continue
        owner = _owners(labels.shape, parts, predicted == value, frame.spacing)
        for number, part in enumerate(parts, 1):
            marked = int(np.count_nonzero(owner == number))
            right = int(np.count_nonzero(predicted[part.box][part.mask] == value))
            dice, recall = 2 * right / (marked + part.voxels), right / part.voxels
            judged.append(ScoredLesion(_lesion(part, value, frame), dice, recall))
    return judged


def false_alarms(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    spacing: tuple[float, ...],
    *,
    least: int,
) -> list[LesionPart]:
    """Return predicted pieces, of ``least`` voxels or more, that touch no lesion of their class."""
    return [
        part
        for value in values
        for part in pieces(predicted, predicted == value, spacing, least=least)
        if not (labels[part.box][part.mask] == value).any()
    ]


def _lesion(part: LesionPart, value: int, frame: CropFrame) -> Lesion:
    return Lesion(
        label=value,
        size=part.volume,
        diameter=diameter(part.volume, len(part.shape)),
        place=frame.place(part.centroid),
        cut_off=frame.cuts(part.box, part.shape),
    )


def diameter(size: float, axes: int) -> float:
    """Return the diameter of a ball (3 axes) or disc (2) of a size."""
    unit = pi ** (axes / 2) / gamma(axes / 2 + 1)
    return float(2 * (size / unit) ** (1 / axes))


def _owners(
    shape: tuple[int, ...], parts: Sequence[LesionPart], marked: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Number each marked voxel by the lesion it belongs to, from 1; 0 for none."""
    truth = np.zeros(shape, np.int32)
    for number, part in enumerate(parts, 1):
        truth[part.box][part.mask] = number
    pieces = LabelComponents.of(marked)
    touching = np.zeros(len(pieces.numbers) + 1, bool)
    touching[pieces.numbered[truth > 0]] = True
    touching[0] = False
    assigned = touching[pieces.numbered]
    if len(parts) == 1 or not assigned.any():
        return np.where(assigned, np.int32(1), np.int32(0))
    box = bounding_box(assigned | (truth > 0))
    nearest = nearest_voxels(truth[box] > 0, spacing)
    owner = np.zeros(shape, np.int32)
    owner[box] = np.where(assigned[box], truth[box][nearest], np.int32(0))
    return owner


def body_span(body: Mask) -> Span:
    """Return the extent of a body in its case, as shares of the shape."""
    box = bounding_box(body)
    axes = zip(box, body.shape, strict=True)
    return tuple((a.start / n, a.stop / n) for a, n in axes)
