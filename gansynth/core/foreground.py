"""Where a case's foreground lies: enough to draw a place in it without reading all of it.

The same random numbers draw the same voxel from any outline of a case, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import LabelArray

Voxel = npt.NDArray[np.int64]
ReadLabels = Callable[[tuple[slice, ...]], LabelArray]


class Outline(Protocol):
    """What drawing a place needs to know of a case."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape in voxels."""

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""

    def foreground_voxel(self, rng: np.random.Generator) -> Voxel | None:
        """A voxel of a label above 0, each label equally likely; None where there is none."""


@dataclass(frozen=True)
class LabelOutline:
    """The outline of labels at hand, worked out anew at each draw."""

    shape: tuple[int, ...]
    labels: LabelArray | None

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.labels is not None

    def foreground_voxel(self, rng: np.random.Generator) -> Voxel | None:
        """As ``Outline`` says."""
        assert self.labels is not None
        values = np.unique(self.labels)
        values = values[values > 0]
        if not values.size:
            return None
        voxels = np.argwhere(self.labels == rng.choice(values))
        voxel: Voxel = voxels[rng.integers(len(voxels))]
        return voxel


@dataclass(frozen=True)
class Planes:
    """How many voxels of each label lie in each plane along the first axis, and in which box.

    ``values``: int16 (V,), above 0, increasing. ``counts``: int64 (V, D). ``boxes``: int64 (V,
    axes, 2), half-open.
    """

    values: LabelArray
    counts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: LabelArray) -> Planes:
        """Count the labels of a case."""
        from scipy.ndimage import find_objects

        drawn = np.maximum(labels, 0)
        most = int(drawn.max(initial=0))
        counts = np.stack([np.bincount(p.ravel(), minlength=most + 1) for p in drawn], axis=1)
        values = np.flatnonzero(counts[1:].any(axis=1)) + 1
        found = find_objects(drawn, most)
        boxes = [[(s.start, s.stop) for s in found[v - 1] or ()] for v in values]
        return cls(
            values.astype(np.int16),
            counts[values].astype(np.int64),
            np.array(boxes, np.int64).reshape(len(values), labels.ndim, 2),
        )


@dataclass(frozen=True)
class PlaneOutline:
    """An outline from counts (None: no labels): a draw reads one plane of the labels at most."""

    shape: tuple[int, ...]
    planes: Planes | None
    read: ReadLabels

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.planes is not None

    def foreground_voxel(self, rng: np.random.Generator) -> Voxel | None:
        """As ``Outline`` says, with the random numbers of ``LabelOutline``."""
        assert self.planes is not None
        if not self.planes.values.size:
            return None
        value = rng.choice(self.planes.values)
        row = int(np.searchsorted(self.planes.values, value))
        ends = np.cumsum(self.planes.counts[row])
        index = int(rng.integers(ends[-1]))
        plane = int(np.searchsorted(ends, index, side="right"))
        within = index - int(ends[plane] - self.planes.counts[row, plane])
        box = self.planes.boxes[row].copy()
        box[0] = plane, plane + 1
        labels = self.read(tuple(slice(int(a), int(b)) for a, b in box))
        voxel: Voxel = np.argwhere(labels == value)[within] + box[:, 0]
        return voxel
