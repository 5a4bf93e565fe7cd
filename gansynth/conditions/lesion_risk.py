"""Lesions of a label map by size, place and class, and how much a framework fails on their like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma, pi

import numpy as np

from gansynth.core.schema import LabelArray
from gansynth.data.connected_components import LesionPart, pieces
from gansynth.runtime.serialise import Document

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
        lacking = len(self.shape) - len(centre)  # a slice lacks the case's first axis
        in_array = np.array([0.0] * lacking + list(centre))
        in_case = np.array(self.origin) + (in_array + 0.5) * np.array(self.scale)
        low, high = np.array(self.body).T
        in_body = (in_case / np.array(self.shape) - low) / np.maximum(high - low, 1e-6)
        return tuple(np.clip(in_body, 0.0, 1.0).tolist())

    def extent(self, shape: Sequence[int]) -> Span:
        """Return what an array covers of its case: first voxel and end along each axis."""
        lacking = len(self.shape) - len(shape)
        lengths = np.array([1] * lacking + list(shape))
        first = np.maximum(self.origin, 0.0)
        end = np.minimum(np.array(self.origin) + lengths * np.array(self.scale), self.shape)
        return tuple(zip(first.tolist(), end.tolist(), strict=True))

    def cuts(self, box: Sequence[slice], shape: Sequence[int]) -> bool:
        """Whether a part of the array may go on in the case beyond the array."""
        lacking = len(self.shape) - len(shape)
        for axis, part in enumerate(box):
            start = self.origin[lacking + axis]
            end = start + shape[axis] * self.scale[lacking + axis]
            if part.start == 0 and start > 0:
                return True
            if part.stop == shape[axis] and end < self.shape[lacking + axis]:
                return True
        return False


@dataclass(frozen=True)
class Lesion:
    """A connected part of one class."""

    label: int  # the class's value
    size: float  # in the cube of the source's unit; of a slice in its square
    diameter: float  # of the ball, or the disc, of that size, in the source's unit
    # of its centre in the body, 0 to 1 per axis of the case; None where unknown
    place: tuple[float, ...] | None
    cut_off: bool = False  # whether it may go on beyond the array, so that its size is unknown

    @classmethod
    def of(cls, part: LesionPart, value: int, frame: CropFrame) -> Lesion:
        """Describe a connected part of the class ``value`` of an array."""
        return cls(
            label=value,
            size=part.volume,
            diameter=_diameter(part.volume, len(part.shape)),
            place=frame.place(part.centroid),
            cut_off=frame.cuts(part.box, part.shape),
        )


def lesions_in(
    labels: LabelArray, values: Sequence[int], frame: CropFrame, *, least: int
) -> list[Lesion]:
    """Return all lesions of some classes; parts of less than ``least`` voxels do not count."""
    found = []
    for value in values:
        for part in pieces(labels, labels == value, frame.spacing, least=least):
            found.append(Lesion.of(part, value, frame))
    return found


def _diameter(size: float, axes: int) -> float:
    """Return the diameter of a ball (3 axes) or disc (2) of a size."""
    unit = pi ** (axes / 2) / gamma(axes / 2 + 1)
    return float(2 * (size / unit) ** (1 / axes))


@dataclass(frozen=True)
class RiskBin:
    """Lesions that are alike in one respect."""

    name: str  # `4.2 - 6.1 mm`, `low`, a class
    lesions: int  # number of evaluated lesions
    missed: int  # number of these that were not found
    failure: float  # mean of 1 - Dice; 0 without lesions
    ratio: float  # observed over expected failure, shrunk towards 1


@dataclass(frozen=True)
class RiskFactor:
    """Failure rates by one property of lesions."""

    name: str  # `size`, `class`, `place D`
    edges: tuple[float, ...]  # between bins, of a number; empty for the class
    values: tuple[int, ...]  # of labels, for the class; empty for others
    bins: tuple[RiskBin, ...]  # in order


@dataclass(frozen=True)
class RiskModel(Document):
    """Failure rates of a target framework, the one you train, e.g. nnU-Net."""

    mean_failure: float  # mean of 1 - Dice over all lesions
    bound: float  # largest weight over smallest
    factors: tuple[RiskFactor, ...]  # multiplied to a weight

    def __post_init__(self) -> None:
        for factor in self.factors:
            if len(factor.bins) != (len(factor.values) or len(factor.edges) + 1):
                raise ValueError(f"factor {factor.name}: {len(factor.bins)} bins do not fit it")
            if not all(b.ratio > 0 for b in factor.bins):
                raise ValueError(f"factor {factor.name}: a ratio is not above 0")
        if not self.bound >= 1:
            raise ValueError(f"bound is {self.bound}, expected 1 or more")

    def of(self, lesion: Lesion) -> float:
        """Return the weight of a lesion, 1 on average, within the bound.

        Unknown properties are left out: a place, or the size of a lesion that is cut off.
        """
        product = 1.0
        for factor in self.factors:
            number = bin_of(factor, lesion)
            if number >= 0:
                product *= factor.bins[number].ratio
        return self.bounded(product)

    def bounded(self, weight: float) -> float:
        """Return a weight within the bound."""
        most = float(self.bound**0.5)
        return min(max(weight, 1 / most), most)


def bin_of(factor: RiskFactor, lesion: Lesion) -> int:
    """Return the number of a lesion's bin; -1 where unknown."""
    if factor.name == "class":
        return factor.values.index(lesion.label) if lesion.label in factor.values else -1
    if factor.name == "size":
        if lesion.cut_off:
            return -1
        return int(np.searchsorted(factor.edges, lesion.diameter, side="right"))
    axis = "DHW"[-len(lesion.place) :].find(factor.name[-1]) if lesion.place else -1
    if lesion.place is None or axis < 0:
        return -1
    return int(np.searchsorted(factor.edges, lesion.place[axis], side="right"))
