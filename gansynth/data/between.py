"""Labels between labelled slices: an organ or a lesion that was drawn on every N-th slice only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import LabelArray

Plane = npt.NDArray[np.float32]


def between_record(every: int | None) -> dict[str, Any]:
    """What of ``between`` changes cases, for the host's record; nothing without it."""
    return {} if every is None else {"between": every}


def interpolate_slices(
    labels: LabelArray,
    axis: int = 0,
    classes: Sequence[int] | None = None,
    every: int | None = None,
) -> LabelArray:
    """Fill the slices between labelled ones, by shape (Raya and Udupa, IEEE TMI 9(1):32, 1990).

    A slice is labelled if any voxel of it is. Between two labelled neighbours the signed distance
    to the outline, in voxels within the plane, runs linearly from one to the other; a voxel is
    filled where it is inside. So what is filled lies within both shapes' union, holds their
    intersection, and shrinks steadily from a shape to one within it. Outlines are those of all
    labels together, and inside of them a voxel has the label it is deepest in: parts of a tumour
    leave no gaps between them, and a label that one neighbour lacks yields to those of both.

    Interpolating the maps' values voxel by voxel instead, and rounding, repeats the nearer slice:
    nothing would be between the two. So "linear interpolation" of labels (Sun et al. 2020) is
    read as that of their shapes.

    Labelled slices stay as they are, as do those before the first and after the last of them.

    ``labels``: int16 (D, H, W), 0 where nothing is labelled; not changed. ``axis``: across the
    slices; 0 is D. ``classes``: labels that count, each of them above 0, and may be written over
    others; None for all above 0. ``every``: labelled slices further apart than this, in slices, are
    not joined; None for any distance. Returns int16 (D, H, W); the array itself where nothing is
    filled.
    """
    planes = np.moveaxis(labels, axis, 0)
    drawn = planes > 0 if classes is None else np.isin(planes, classes)
    labelled = np.flatnonzero(drawn.any(axis=(1, 2))).tolist()
    gaps = [(a, b) for a, b in pairwise(labelled) if 1 < b - a <= (every or len(planes))]
    if not gaps:
        return labels
    filled = labels.copy()
    within = np.moveaxis(filled, axis, 0)
    for first, last in gaps:
        _fill(within[first : last + 1], drawn[first], drawn[last])
    return filled


def _fill(planes: LabelArray, first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_]) -> None:
    """Fill all but the outer ones of some planes; what of the outer ones counts is given."""
    rows, columns = (np.flatnonzero((first | last).any(axis=a)) for a in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    ends = tuple(
        np.where(kept, plane, 0)[window] for kept, plane in ((first, planes[0]), (last, planes[-1]))
    )
    outline = [_depth(end > 0) for end in ends]
    values = np.unique(np.concatenate([end[end > 0] for end in ends]))
    each = [[_depth(end == value) for value in values] for end in ends]
    for number in range(1, len(planes) - 1):
        share = np.float32(number / (len(planes) - 1))
        inside = (1 - share) * outline[0] + share * outline[1] > 0
        deepest = np.argmax(
            [(1 - share) * one + share * other for one, other in zip(*each, strict=True)], axis=0
        )
        planes[number][window][inside] = values[deepest][inside]


def _depth(shape: npt.NDArray[np.bool_]) -> Plane:
    """How deep in a shape a pixel is, (H, W), in pixels; negative outside, all far where empty."""
    from scipy import ndimage

    if not shape.any():
        return np.full(shape.shape, -float(sum(shape.shape)), np.float32)
    padded = np.pad(shape, 1)
    inside, outside = (ndimage.distance_transform_edt(p)[1:-1, 1:-1] for p in (padded, ~padded))
    # Half a pixel: the outline runs between pixels.
    return np.where(shape, inside - 0.5, 0.5 - outside).astype(np.float32)
