"""Places in a body, relative to the box around it, and their depth below its surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.geometry import Matrix, bounding_box
from gansynth.core.schema import Mask


@dataclass(frozen=True)
class BodyBox:
    """A box in an array's voxels; it may reach beyond the array."""

    low: tuple[float, ...]  # where it begins, one number per axis
    high: tuple[float, ...]  # where it ends, exclusive

    @classmethod
    def of(cls, mask: Mask) -> BodyBox:
        """The bounding box of a mask; the whole array's if the mask is empty."""
        box = bounding_box(mask if mask.any() else np.ones_like(mask))
        return cls(tuple(float(s.start) for s in box), tuple(float(s.stop) for s in box))

    @property
    def size(self) -> Matrix:
        """Voxels per axis: float64 (n,)."""
        return np.subtract(self.high, self.low, dtype=np.float64)

    def diameter(self, voxels: int) -> float:
        """Edge of a cube, or square, of so many voxels, in lengths of the box (their mean)."""
        return float((voxels / self.size.prod()) ** (1 / len(self.size)))

    def relative(self, voxels: Matrix) -> Matrix:
        """Relative coordinates (N, n) of positions (N, n) in voxels."""
        return np.asarray((voxels + 0.5 - np.asarray(self.low)) / self.size)

    def voxels(self, relative: Matrix) -> Matrix:
        """Positions (N, n) in voxels of relative coordinates (N, n)."""
        return np.asarray(relative * self.size + np.asarray(self.low) - 0.5)

    def last(self, n: int) -> BodyBox:
        """The box along the last ``n`` axes, for slices."""
        return BodyBox(self.low[-n:], self.high[-n:])

    def moved(self, by: Sequence[float]) -> BodyBox:
        """The same box in an array that begins at ``by``."""
        low, high = np.subtract(self.low, by), np.subtract(self.high, by)
        return BodyBox(tuple(low.tolist()), tuple(high.tolist()))


def depths(body: Mask, frame: BodyBox) -> Matrix:
    """Depth of voxels in a body: float64 of its shape, 0 beyond it; in lengths of its box.

    The array's border is no outline. In a body that fills the array, depths are infinite.
    """
    from scipy.ndimage import distance_transform_edt

    if body.all():
        return np.full(body.shape, np.inf)
    deep, box = np.zeros(body.shape), bounding_box(body, margin=1)
    deep[box] = distance_transform_edt(body[box], sampling=1 / frame.size)
    return deep


def across_middle(lesion: Matrix) -> Matrix:
    """Share of a lesion, relative coordinates (N, n), on its lesser side of the middle: (n,)."""
    beyond = (lesion > 0.5).mean(axis=0)
    return np.asarray(np.minimum(beyond, 1 - beyond))
