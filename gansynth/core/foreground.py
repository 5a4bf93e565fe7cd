"""Foreground positions of a case, to draw a place without reading the whole case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import bounding_box
from gansynth.core.schema import Case, LabelArray

Voxel = npt.NDArray[np.int64]
TRIES = 100  # voxels drawn at most to find one of the background, as outside of it are labels of -1
ReadLabels = Callable[[tuple[slice, ...]], LabelArray]


@dataclass(frozen=True)
class PlaneIndex:
    """Voxel counts of each label in each plane along the first axis, and bounding boxes.

    ``values``: int16 (V,), above 0, increasing. ``counts``: int64 (V, D). ``boxes``: int64 (V,
    axes, 2), half-open.
    """

    values: LabelArray
    counts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: LabelArray) -> PlaneIndex:
        """Count the labels of a case."""
        from scipy.ndimage import find_objects

        box = bounding_box(labels > 0)
        foreground = np.maximum(labels[box], 0)
        most = int(foreground.max(initial=0))
        counts = np.zeros((most + 1, len(labels)), np.int64)
        for number, plane in enumerate(foreground, box[0].start):
            counts[:, number] = np.bincount(plane.ravel(), minlength=most + 1)
        values = np.flatnonzero(counts[1:].any(axis=1)) + 1
        slices = find_objects(foreground, most) if most else []
        ends = np.array(
            [[(s.start, s.stop) for s in box_slices] for box_slices in slices if box_slices]
        )
        boxes = ends.reshape(-1, labels.ndim, 2) + [[part.start] * 2 for part in box]
        return cls(values.astype(np.int16), counts[values], boxes.astype(np.int64))

    def without(self, value: int | None) -> PlaneIndex:
        """Return the counts of the other labels: the ignore value is no foreground."""
        if value is None or value not in self.values:
            return self
        others = self.values != value
        return PlaneIndex(self.values[others], self.counts[others], self.boxes[others])


@dataclass(frozen=True)
class ForegroundIndex:
    """The facts of a case that drawing a place needs; at most one plane of labels is read.

    ``planes``: None without labels. ``read``: the labels in a box.
    """

    shape: tuple[int, ...]
    planes: PlaneIndex | None = None
    read: ReadLabels | None = None

    @classmethod
    def of(cls, case: Case, ignore: int | None = None) -> ForegroundIndex:
        """Return the outline of a case in memory."""
        if case.labels is None:
            return cls(case.image.shape[1:])
        return cls.of_labels(case.labels, ignore)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was counted of a case with labels, to be kept."""
        assert self.planes is not None, "labels were counted"
        return {"shape": np.array(self.shape), **vars(self.planes)}

    @classmethod
    def from_arrays(
        cls, kept: Mapping[str, npt.NDArray[Any]], ignore: int | None, read: ReadLabels
    ) -> ForegroundIndex:
        """Return what ``to_arrays`` was of, without the ignore value."""
        planes = PlaneIndex(kept["values"], kept["counts"], kept["boxes"])
        return cls(tuple(kept["shape"].tolist()), planes.without(ignore), read)

    @classmethod
    def of_labels(cls, labels: LabelArray, ignore: int | None = None) -> ForegroundIndex:
        """Return the outline of a case whose labels are in memory."""
        return cls(labels.shape, PlaneIndex.of(labels).without(ignore), labels.__getitem__)

    def foreground_voxel(self, rng: np.random.Generator) -> Voxel | None:
        """Draw a voxel of a label above 0, each label equally likely; None if there is none."""
        if self.planes is None or self.read is None or not self.planes.values.size:
            return None
        value = rng.choice(self.planes.values)
        row = int(np.searchsorted(self.planes.values, value))
        ends = np.cumsum(self.planes.counts[row])
        index = int(rng.integers(ends[-1]))
        plane = int(np.searchsorted(ends, index, side="right"))
        within = index - int(ends[plane] - self.planes.counts[row, plane])
        box = self.planes.boxes[row].copy()
        box[0] = plane, plane + 1
        labels = self.read(tuple([slice(int(first), int(end)) for first, end in box]))
        voxel: Voxel = np.argwhere(labels == value)[within] + box[:, 0]
        return voxel

    def class_voxel(self, rng: np.random.Generator) -> Voxel:
        """Draw a voxel of a class, each equally likely, background too; one of any if it fails."""
        classes = 0 if self.planes is None else len(self.planes.values)
        voxel = self.foreground_voxel(rng) if rng.random() * (1 + classes) >= 1 else None
        for _ in range(TRIES if voxel is None else 0):
            voxel = np.array([rng.integers(n) for n in self.shape])
            box = tuple([slice(i, i + 1) for i in voxel])
            if self.read is None or self.read(box).item() == 0:
                break
        assert voxel is not None, "tried at least once"
        return voxel
