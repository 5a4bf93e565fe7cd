"""Coordinate maps of moved labels, and interpolation of labels at them.

A map is a pull: for each voxel of the result, the point of the old array, in voxels, that it takes
its label from. ``n`` is the number of axes, ``shape`` ``(D, H, W)`` or ``(H, W)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, LabelArray, Mask

Matrix = npt.NDArray[np.float64]
Rng = np.random.Generator
SLAB = 1 << 20  # voxels that are worked on at once
COMPARED = 8  # values up to which comparing one after the other is faster than a table


def mask_of(labels: LabelArray, values: Sequence[int]) -> Mask:
    """Return the voxels that hold one of ``values``: bool (D, H, W) or (H, W)."""
    if 0 < len(values) <= COMPARED:
        held = labels == values[0]
        for value in values[1:]:
            held |= labels == value
        return np.asarray(held)
    top = max(int(labels.max(initial=0)), *values, 0)
    # The last entry stands for OUTSIDE: numpy reads index -1 as the end of the table.
    table = np.zeros(top + 2, bool)
    table[list(values)] = True
    return np.asarray(table[labels])


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Part an array's first axis, so that what is made of a part takes little memory.

    Of a large volume each copy of the whole takes a GB. Small arrays, and pictures, are one part.
    """
    thick = max(1, SLAB // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], thick):
        yield slice(start, start + thick)


def centroid(mask: Mask) -> tuple[float, ...]:
    """Return the mean position of the voxels of a mask, in voxels per axis."""
    return tuple(float(axis.mean()) for axis in np.nonzero(mask))


def other_axes(ndim: int) -> list[tuple[int, ...]]:
    """Return for each axis of an array all others."""
    axes = tuple(range(ndim))
    return [axes[:axis] + axes[axis + 1 :] for axis in axes]


def unpacked_mask(bits: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Mask:
    """Return the mask of a shape that ``np.packbits`` was given."""
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(bool)


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around a mask, grown by ``margin`` voxels and cut at the array."""
    box = []
    for length, others in zip(mask.shape, other_axes(mask.ndim), strict=True):
        used = np.flatnonzero(mask.any(axis=others))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
        box.append(slice(max(first - margin, 0), min(last + margin, length)))
    return tuple(box)


def affine_coordinates(shape: Sequence[int], matrix: Matrix, centre: Sequence[float]) -> FloatArray:
    """Return the pull ``matrix @ (x - centre) + centre``, float32 (n, *shape); (n, n [+ 1])."""
    n = len(shape)
    shift = matrix[:, n] if matrix.shape[1] > n else np.zeros(n)
    out = np.empty((n, *shape), np.float32)
    for i in range(n):
        out[i] = np.float32(centre[i] + shift[i])
        for j, length in enumerate(shape):
            term = (matrix[i, j] * (np.arange(length) - centre[j])).astype(np.float32)
            out[i] += term.reshape([length if axis == j else 1 for axis in range(n)])
    return out


def pull_labels(source: LabelArray, coordinates: FloatArray) -> LabelArray:
    """Interpolate labels: each label's mask linearly, and the label of largest weight wins.

    A ball's surface then grows by 4 %, against 16 % with the nearest voxel, which is used around
    structures one voxel wide only. Ties go to the lower voxel. ``source``: int16, 0 beyond the
    array. ``coordinates``: float32 (n, *shape). Returns int16 of that shape.
    """
    out = np.zeros(coordinates.shape[1:], np.int16)
    box = bounding_box(source > 0)
    cut = np.pad(source[box], 1)
    near: Mask = np.ones(out.shape, bool)
    for axis, (part, length) in enumerate(zip(box, cut.shape, strict=True)):
        low = part.start - 1
        near &= (coordinates[axis] > low) & (coordinates[axis] < low + length - 1)
    targets = np.flatnonzero(near)
    if not targets.size:
        return out
    lows = np.array([[part.start - 1] for part in box], np.float32)
    points = coordinates.reshape(len(box), -1)[:, targets] - lows
    out.ravel()[targets] = _vote(cut, points)
    return out


def _vote(cut: LabelArray, points: FloatArray) -> LabelArray:
    """Return labels (N,) at points (n, N) that all lie within ``cut``."""
    strides = np.array(cut.strides) // cut.itemsize
    flat = np.zeros(points.shape[1], np.intp)
    for axis, stride, length in zip(points, strides, cut.shape, strict=True):
        flat += stride * np.minimum(axis.astype(np.intp), length - 2)
    plain, thin = _kinds_of_cells(cut)
    found = cut.ravel()[flat]
    # In most cells all corners have one label; only in the others does the place matter.
    uneven = np.flatnonzero(~plain.ravel()[flat])
    cells, corners = points[:, uneven].astype(np.intp), flat[uneven]
    fractions = points[:, uneven] - np.minimum(cells, np.array(cut.shape)[:, None] - 2)
    nearest = np.asarray(cut.ravel()[corners + strides @ (fractions >= 0.5)])
    mixed = np.flatnonzero(~thin.ravel()[corners])
    if mixed.size:
        nearest[mixed] = _weigh(cut, corners[mixed], fractions[:, mixed], strides)
    found[uneven] = nearest
    return found


def _kinds_of_cells(cut: LabelArray) -> tuple[Mask, Mask]:
    """Return the cells, by lower corner, of one label, and those at a thin structure."""
    lowest, highest = cut, cut
    for axis in range(cut.ndim):
        low, high = neighbours(axis)
        lowest = np.minimum(lowest[low], lowest[high])
        highest = np.maximum(highest[low], highest[high])
    plain = np.pad(lowest == highest, [(0, 1)] * cut.ndim)
    thin = ~_spread(plain, 1) & (cut > 0)
    return plain, _spread(thin, -1) if thin.any() else thin


def _spread(mask: Mask, step: int) -> Mask:
    """Dilate a mask by ``step`` voxels along every combination of axes."""
    for axis in range(mask.ndim):
        low, high = neighbours(axis)
        grown = mask.copy()
        if step > 0:
            grown[high] |= mask[low]
        else:
            grown[low] |= mask[high]
        mask = grown
    return mask


def _weigh(
    cut: LabelArray,
    flat: npt.NDArray[np.intp],
    fractions: FloatArray,
    strides: npt.NDArray[np.intp],
) -> LabelArray:
    """Return the label of largest linear weight among a cell's corners, for N cells."""
    corners = np.array(list(itertools.product((0, 1), repeat=cut.ndim)))
    labels = cut.ravel()[flat + (corners @ strides)[:, None]]  # (2^n, N)
    weights = np.ones(labels.shape, np.float32)
    for axis in range(cut.ndim):
        high = corners[:, axis, None] == 1
        weights *= np.where(high, fractions[axis], 1 - fractions[axis])
    # The sums over equal corners take the same time for two labels as for a hundred.
    scores = weights.copy()
    for a, b in itertools.combinations(range(len(corners)), 2):
        same = labels[a] == labels[b]
        scores[a] += weights[b] * same
        scores[b] += weights[a] * same
    return np.asarray(np.take_along_axis(labels, scores.argmax(axis=0)[None], axis=0)[0])


def neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return two views of an array that pair each voxel with the next along an axis."""
    lead = (slice(None),) * axis
    return (*lead, slice(None, -1)), (*lead, slice(1, None))


def nearest_index(
    coordinates: FloatArray, shape: Sequence[int]
) -> tuple[npt.NDArray[np.intp], Mask]:
    """Return the flat index of the voxel nearest to each coordinate (0 outside), and if inside."""
    flat = np.zeros(coordinates.shape[1:], np.intp)
    within: Mask = np.ones(coordinates.shape[1:], bool)
    for axis, length in enumerate(shape):
        voxel = np.floor(coordinates[axis] + np.float32(0.5)).astype(np.intp)
        within &= (voxel >= 0) & (voxel < length)
        flat = flat * length + voxel
    return np.where(within, flat, 0), within


def random_direction(n: int, rng: np.random.Generator) -> Matrix:
    """Draw a unit vector (n,), uniform over directions."""
    vector = rng.standard_normal(n)
    return np.asarray(vector / math.hypot(*vector))


def distance_within(mask: Mask, spacing: Sequence[float], most: float) -> FloatArray:
    """Return the distance of each voxel from a mask, in mm; of those beyond ``most`` it is more.

    Where ``most`` is a few voxels it takes less time than a distance transform. float32.
    """
    squares = np.where(mask, np.float32(0), np.float32(np.inf))
    for axis, mm in enumerate(spacing):
        nearest, lead = squares.copy(), (slice(None),) * axis
        for step in range(1, min(math.ceil(most / mm), mask.shape[axis] - 1) + 1):
            low, high = (*lead, slice(None, -step)), (*lead, slice(step, None))
            for here, there in ((low, high), (high, low)):
                away = squares[there] + np.float32((step * mm) ** 2)
                np.minimum(nearest[here], away, out=nearest[here])
        squares = nearest
    return np.asarray(np.sqrt(squares))


def fill_nearest(
    values: LabelArray, gaps: Mask, valid: Mask, spacing: Sequence[float]
) -> LabelArray:
    """Return a copy whose gaps hold the value of the nearest known voxel, by distance in mm."""
    out, known = values.copy(), values[valid]
    if not gaps.any() or not known.size:
        return out
    if known.min() == known.max():  # whichever is nearest
        out[gaps] = known[0]
    else:
        out[gaps] = values[nearest_voxels(valid, spacing)][gaps]
    return out


def nearest_voxels(mask: Mask, spacing: Sequence[float]) -> tuple[npt.NDArray[np.intp], ...]:
    """Return index arrays of the voxel of ``mask`` nearest to each voxel, by distance in mm."""
    from scipy.ndimage import distance_transform_edt

    indices = distance_transform_edt(
        ~mask, sampling=spacing, return_distances=False, return_indices=True
    )
    return tuple(np.asarray(indices, np.intp))
