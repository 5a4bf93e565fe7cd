"""Lesions as they are counted: how large, where, of which class, and how well a host found them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gamma, pi

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Mask, bounding_box, nearest_voxels
from gansynth.core.schema import LabelArray
from gansynth.data.connected_components import Parts

FOUND = 0.1
"""Dice from which a lesion counts as found."""
Span = tuple[tuple[float, float], ...]
"""From where to where along each axis, as shares of a case's shape."""


@dataclass(frozen=True)
class Frame:
    """Where an array lies in its case.

    Attributes:
        spacing: of the array's voxels, in the source's unit: mm, or px where no size is known.
        origin: the case's voxel that the array begins at, per axis of the case.
        scale: the case's voxels to one of the array's, per axis of the case.
        shape: of the case.
        body: of the case's body, as shares of the shape; None where nobody knows.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    scale: tuple[float, ...]
    shape: tuple[int, ...]
    body: Span | None

    def place(self, centre: Sequence[float]) -> tuple[float, ...] | None:
        """Where a voxel of the array lies in the body, 0 to 1 per axis of the case."""
        if self.body is None:
            return None
        # Of a slice the array lacks the case's first axis.
        inner = (0.0,) * (len(self.shape) - len(centre)) + tuple(centre)
        axes = zip(inner, self.origin, self.scale, self.shape, self.body, strict=True)
        each = ((o + (c + 0.5) * k) / n - low for c, o, k, n, (low, _) in axes)
        spans = (max(high - low, 1e-6) for low, high in self.body)
        return tuple(min(max(x / span, 0.0), 1.0) for x, span in zip(each, spans, strict=True))

    def cuts(self, box: Sequence[slice], shape: Sequence[int]) -> bool:
        """Whether a part of the array may go on where the case does and the array does not."""
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
    """A connected part of one class.

    Attributes:
        label: the class's value.
        size: in the cube of the source's unit; of a slice in its square.
        diameter: of the ball, or the disc, of that size, in the source's unit.
        place: of its centre in the body, 0 to 1 per axis of the case; None where nobody knows.
        cut_off: whether it may go on beyond the array, so that its size is not known.
    """

    label: int
    size: float
    diameter: float
    place: tuple[float, ...] | None
    cut_off: bool = False


@dataclass(frozen=True)
class Judged:
    """A lesion, and how well a host found it.

    Attributes:
        dice: of the lesion and what the host marked there as its class.
        recall: share of its voxels that the host marked so.
    """

    lesion: Lesion
    dice: float
    recall: float

    @property
    def found(self) -> bool:
        """Whether the host marked it at all."""
        return self.dice >= FOUND


def lesions_in(
    labels: LabelArray, values: Sequence[int], frame: Frame, *, least: int
) -> list[Lesion]:
    """Every lesion of the classes that count; parts of less than ``least`` voxels are crumbs."""
    return [
        _lesion(part, value, labels.shape, frame)
        for value in values
        for part in _parts(labels, value, least)
    ]


def judge(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    frame: Frame,
    *,
    least: int,
) -> list[Judged]:
    """Every lesion of a case with what a host made of it.

    What the host marked belongs to the lesion of that class which is nearest, if the piece that it
    is of touches one; pieces that touch none are no lesion's.
    """
    found: list[Judged] = []
    for value in values:
        parts = list(_parts(labels, value, least))
        if not parts:
            continue
        owner = _owners(labels.shape, parts, predicted == value, frame.spacing)
        for number, part in enumerate(parts, 1):
            marked = int(np.count_nonzero(owner == number))
            right = int(np.count_nonzero(predicted[part.box][part.mask] == value))
            total = int(np.count_nonzero(part.mask))
            lesion = _lesion(part, value, labels.shape, frame)
            found.append(Judged(lesion, 2 * right / (marked + total), right / total))
    return found


@dataclass(frozen=True)
class _Part:
    """Its voxels within a box, and the box in the whole array."""

    mask: Mask
    box: tuple[slice, ...]


def _parts(labels: LabelArray, value: int, least: int) -> Iterator[_Part]:
    from scipy.ndimage import find_objects

    mask = labels == value
    if not mask.any():
        return
    near = bounding_box(mask)
    parts = Parts.of(mask[near])
    boxes = find_objects(parts.numbered)
    for number in parts.numbers[parts.sizes >= least].tolist():
        box = boxes[number - 1]
        moved = [slice(a.start + b.start, a.start + b.stop) for a, b in zip(near, box, strict=True)]
        yield _Part(np.asarray(parts.numbered[box] == number), tuple(moved))


def _lesion(part: _Part, value: int, shape: Sequence[int], frame: Frame) -> Lesion:
    size = int(np.count_nonzero(part.mask)) * float(np.prod(frame.spacing))
    starts = [axis.start for axis in part.box]
    centre = [float(c.mean()) + s for c, s in zip(np.nonzero(part.mask), starts, strict=True)]
    return Lesion(
        label=value,
        size=size,
        diameter=diameter(size, len(shape)),
        place=frame.place(centre),
        cut_off=frame.cuts(part.box, shape),
    )


def diameter(size: float, axes: int) -> float:
    """Of a ball (3 axes) or disc (2) of a size."""
    unit = pi ** (axes / 2) / gamma(axes / 2 + 1)
    return float(2 * (size / unit) ** (1 / axes))


def _owners(
    shape: tuple[int, ...], parts: Sequence[_Part], marked: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Number of the lesion, from 1, that each marked voxel belongs to; 0 for none."""
    truth = np.zeros(shape, np.int32)
    for number, part in enumerate(parts, 1):
        truth[part.box][part.mask] = number
    pieces = Parts.of(marked)
    touching = np.zeros(len(pieces.numbers) + 1, bool)
    touching[pieces.numbered[truth > 0]] = True
    touching[0] = False
    kept = touching[pieces.numbered]
    if len(parts) == 1 or not kept.any():
        return np.where(kept, np.int32(1), np.int32(0))
    box = bounding_box(kept | (truth > 0))
    nearest = nearest_voxels(truth[box] > 0, spacing)
    owner = np.zeros(shape, np.int32)
    owner[box] = np.where(kept[box], truth[box][nearest], np.int32(0))
    return owner


def body_span(body: Mask) -> Span:
    """Where a body lies in its case, as shares of the shape."""
    box = bounding_box(body)
    axes = zip(box, body.shape, strict=True)
    return tuple((a.start / n, a.stop / n) for a, n in axes)
