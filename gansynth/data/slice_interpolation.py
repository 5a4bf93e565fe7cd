"""Interpolate labels between slices, where only every N-th slice is labelled."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import bounding_box
from gansynth.core.schema import LabelArray

Plane = npt.NDArray[np.float32]


def between_record(every: int | None) -> dict[str, Any]:
    """Return the record of ``between``; empty without it."""
    return {} if every is None else {"between": every}


def interpolate_slices(labels: LabelArray, every: int | None = None) -> LabelArray:
    """Fill the slices between labelled ones, by shape (Raya and Udupa, IEEE TMI 9(1):32, 1990).

    The signed distance to the outline, in voxels within the plane, is interpolated linearly between
    two labelled slices. Inside the common outline a voxel has the label it is deepest in, so that
    parts of a tumour leave no gaps. Interpolating values voxel by voxel would repeat the nearer
    slice. So "linear interpolation" of labels (Sun et al. 2020) is read as that of shapes.

    ``labels``: int16 (D, H, W), not changed. ``every``: slices further apart are not joined.
    """
    drawn = labels > 0
    labelled = np.flatnonzero(drawn.any(axis=(1, 2))).tolist()
    gaps = [(a, b) for a, b in pairwise(labelled) if 1 < b - a <= (every or len(labels))]
    if not gaps:
        return labels
    filled = labels.copy()
    for first, last in gaps:
        _fill(filled[first : last + 1])
    return filled


def _fill(planes: LabelArray) -> None:
    """Fill all but the outer ones of some planes."""
    window = bounding_box((planes[0] > 0) | (planes[-1] > 0))
    ends = [np.maximum(plane, 0)[window] for plane in (planes[0], planes[-1])]
    outline = [_depth(end > 0) for end in ends]
    values = np.unique(np.concatenate([end[end > 0] for end in ends]))
    each = [[_depth(end == value) for value in values] for end in ends]
    for number in range(1, len(planes) - 1):
        share = np.float32(number / (len(planes) - 1))
        inside = (1 - share) * outline[0] + share * outline[1] > 0
        deepest = np.argmax(
            [(1 - share) * first + share * last for first, last in zip(*each, strict=True)], axis=0
        )
        planes[number][window][inside] = values[deepest][inside]


def _depth(shape: npt.NDArray[np.bool_]) -> Plane:
    """Depth of each pixel in a shape, (H, W), in pixels; negative outside, far if empty."""
    from scipy import ndimage

    if not shape.any():
        return np.full(shape.shape, -float(sum(shape.shape)), np.float32)
    padded = np.pad(shape, 1)
    inside, outside = (ndimage.distance_transform_edt(p)[1:-1, 1:-1] for p in (padded, ~padded))
    # Half a pixel: the outline runs between pixels.
    return np.where(shape, inside - 0.5, 0.5 - outside).astype(np.float32)
