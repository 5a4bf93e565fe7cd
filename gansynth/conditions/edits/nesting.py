"""Nesting of classes in a label map, and whether an edit keeps it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Mask, bounding_box, mask_of, neighbours
from gansynth.core.schema import OUTSIDE, LabelArray

Slices = tuple[slice, ...]


def wrapped_classes(labels: LabelArray) -> tuple[int, ...]:
    """Return classes that touch other foreground, and no background, by faces.

    ``OUTSIDE`` does not count. An example is an enhancing rim in a core in its oedema.
    """
    box = bounding_box(labels > 0, margin=1)
    cut = labels[box]
    bare: set[int] = set()
    within: set[int] = set()
    for here, there in facing(cut.ndim):
        solid, beside = cut[here], cut[there]
        bare.update(np.unique(solid[(solid > 0) & (beside == 0)]).tolist())
        within.update(np.unique(solid[(solid > 0) & (beside > 0) & (solid != beside)]).tolist())
    return tuple(sorted(within - bare))


def keeps_nesting(before: LabelArray, after: LabelArray) -> bool:
    """Whether no class that was wrapped in others has come to touch background."""
    wrapped = wrapped_classes(before)
    if not wrapped:
        return True
    inner = mask_of(after, wrapped)
    box = bounding_box(inner, margin=1)
    inner, bare = inner[box], after[box] == 0
    return not any((inner[here] & bare[there]).any() for here, there in facing(after.ndim))


def filled(mask: Mask) -> Mask:
    """A mask with its holes."""
    from scipy.ndimage import binary_fill_holes

    box, out = bounding_box(mask), mask.copy()
    out[box] = binary_fill_holes(mask[box])
    return out


def beside(mask: Mask) -> Mask:
    """A mask and all voxels that touch it, be it by a corner."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    around = generate_binary_structure(mask.ndim, mask.ndim)
    return np.asarray(binary_dilation(mask, around))


def nested_bodies(labels: LabelArray, bodies: npt.NDArray[np.integer]) -> Mask:
    """Which bodies have more than half of their faces on other foreground: bool, by number.

    ``bodies`` is the number of each voxel's body, 0 where there is none.
    """
    faces = np.zeros((2, int(bodies.max(initial=0)) + 1))
    for here, there in facing(labels.ndim):
        edge = (bodies[here] > 0) & (bodies[there] == 0) & (labels[there] != OUTSIDE)
        touched = (labels[there][edge] > 0).astype(np.intp)
        np.add.at(faces, (touched, bodies[here][edge]), 1)
    return np.asarray(faces[1] > faces[0])


def classes_around(labels: LabelArray, solid: Mask) -> list[int]:
    """Return classes around a body: they touch it with less than half of their faces.

    A class within an open ring has most of its faces on the ring.
    """
    box = bounding_box(labels > 0, margin=1)
    cut, body = np.where(solid, np.int16(0), labels)[box], solid[box]
    size = max(int(cut.max(initial=0)), 0) + 1
    all_, on_it = np.zeros(size), np.zeros(size)
    for here, there in facing(cut.ndim):
        edge = (cut[here] > 0) & (cut[here] != cut[there]) & (cut[there] != OUTSIDE)
        values = cut[here][edge]
        all_ += np.bincount(values, minlength=size)
        on_it += np.bincount(values[body[there][edge]], minlength=size)
    return np.flatnonzero((on_it > 0) & (2 * on_it < all_)).tolist()


def facing(ndim: int) -> Iterator[tuple[Slices, Slices]]:
    """Views of an array that pair each voxel with its neighbour, each axis both ways."""
    for axis in range(ndim):
        low, high = neighbours(axis)
        yield low, high
        yield high, low
