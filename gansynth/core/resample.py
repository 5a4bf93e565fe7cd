"""Cropping, padding and resampling of arrays, one axis after another. Needs numpy only.

Resampling gives the same bits on every machine: a matrix product adds in another order with another
number of threads or another kind of CPU, so terms are added one by one, in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, LabelArray

T = TypeVar("T", bound=np.generic)
BLOCK = 1 << 16  # voxels that are resampled at once: they stay in a CPU's cache


def crop_pad(
    array: npt.NDArray[T], corner: Sequence[int], size: Sequence[int], fill: float
) -> npt.NDArray[T]:
    """Cut ``size`` voxels from ``corner`` (last axes), padding with ``fill``; always a copy."""
    lead = array.ndim - len(size)
    source, target = [slice(None)] * lead, [slice(None)] * lead
    for start, length, extent in zip(corner, size, array.shape[lead:], strict=True):
        first = max(start, 0)
        last = max(min(start + length, extent), first)
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    cut, shape = array[tuple(source)], (*array.shape[:lead], *size)
    if cut.shape == shape:
        return cut.copy()
    out = np.full(shape, fill, dtype=array.dtype)
    out[tuple(target)] = cut
    return out


def crop_edge(array: npt.NDArray[T], corner: Sequence[int], size: Sequence[int]) -> npt.NDArray[T]:
    """Cut ``size`` voxels from ``corner`` (last axes); the border value continues outside."""
    lead = array.ndim - len(size)
    inside: list[slice] = [slice(None)] * lead
    padding = [(0, 0)] * lead
    for first, length, extent in zip(corner, size, array.shape[lead:], strict=True):
        # A crop wholly outside continues the outermost voxel.
        low = min(max(first, 0), extent - 1)
        high = max(min(first + length, extent), low + 1)
        before = min(max(low - first, 0), length - 1)
        inside.append(slice(low, high))
        padding.append((before, length - before - (high - low)))
    cut = array[tuple(inside)]
    if not any(before or after for before, after in padding):
        return cut.copy()
    return np.pad(cut, padding, mode="edge")


def draw_corner(
    shape: Sequence[int],
    size: Sequence[int],
    centre: npt.NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Draw where to cut ``size`` voxels from ``shape``: at random, or around a given voxel."""
    corner = []
    for axis, (n, s) in enumerate(zip(shape, size, strict=True)):
        # A case smaller than the crop is centred, as nnU-Net pads.
        start = (n - s) // 2 if n <= s else int(rng.integers(n - s + 1))
        if centre is not None and n > s:
            start = int(np.clip(int(centre[axis]) - s // 2, 0, n - s))
        corner.append(start)
    return tuple(corner)


def resample(
    image: FloatArray, labels: LabelArray | None, shape: Sequence[int], *, nearest: bool = False
) -> tuple[FloatArray, LabelArray | None]:
    """Resample image (C, D, H, W), labels (D, H, W), or 2D ones, to a shape; returns float32.

    Along a shrinking axis, a voxel becomes the mean of the voxels it covers. Along a growing one,
    it is interpolated linearly between the old centres. Labels take the label in the middle of each
    new voxel, which keeps every label's volume. With ``nearest`` the image does so too.
    """
    new_labels = None if labels is None else pick(labels, shape)
    if nearest:
        return pick(image, shape).astype(np.float32), new_labels
    old = image.shape[1:]
    if tuple(shape) == old:
        return image.astype(np.float32), new_labels
    # Relative to the corner's intensity: a constant background stays constant, bit for bit.
    corner = image[(slice(None), *[slice(1)] * len(old))]
    resized: FloatArray = np.subtract(image, corner, dtype=np.float32)
    # The axis that shrinks most comes first: it leaves less work for the others.
    for axis in sorted(range(len(old)), key=lambda axis: shape[axis] / old[axis]):
        if shape[axis] != old[axis]:
            resized = _along(resized, axis + 1, shape[axis])
    resized += corner.astype(np.float32)
    return resized, new_labels


def resampling_record(resampled: bool) -> dict[str, str]:
    """Return the host record's entry for resampled images; empty for others."""
    return {"resampled": "area down, linear up"} if resampled else {}


def pick(array: npt.NDArray[T], shape: Sequence[int]) -> npt.NDArray[T]:
    """Take the voxel in the middle of each new one, along the last axes; always a copy."""
    inner = array.shape[array.ndim - len(shape) :]
    middles = []
    for old, new in zip(inner, shape, strict=True):
        middles.append((2 * np.arange(new) + 1) * old // (2 * new))
    return array[(..., *np.ix_(*middles))]


@lru_cache(maxsize=32)
def _terms(old: int, new: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return which old voxels a new one is made of, and their weights, which sum to one.

    Both are (terms, new), read-only; where a voxel has fewer terms, the others have weight 0.
    """
    if new < old:
        edges = np.arange(new + 1) * (old / new)
        first = np.floor(edges[:-1]).astype(np.intp)
        covered = first + np.arange(int((np.ceil(edges[1:]) - first).max()))[:, None]
        ends = np.minimum(edges[1:], covered + 1)
        weights = (ends - np.maximum(edges[:-1], covered)).clip(0) * (new / old)
    else:
        centres = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        first = np.floor(centres).astype(np.intp)
        covered = first + np.arange(2)[:, None]
        weights = 1 - np.abs(centres - covered)
    index = np.minimum(covered, old - 1)
    index.flags.writeable = weights.flags.writeable = False
    return index, weights


def _along(array: FloatArray, axis: int, new: int) -> FloatArray:
    """Resample one axis to a length."""
    before, old, after = array.shape[:axis], array.shape[axis], array.shape[axis + 1 :]
    resized = np.empty((*before, new, *after), np.float32)
    columns = max(1, BLOCK // old)
    if after:
        inner = int(np.prod(after))
        flat, into = array.reshape(-1, old, inner), resized.reshape(-1, new, inner)
    else:  # the axis comes first, so that whole rows are added
        flat, into = array.reshape(1, -1, old), resized.reshape(1, -1, new)
        flat, into = flat.swapaxes(1, 2), into.swapaxes(1, 2)
    for part in range(len(flat)):
        for start in range(0, flat.shape[2], columns):
            block = slice(start, start + columns)
            into[part, :, block] = _weighted(flat[part, :, block], new)
    return resized


def _weighted(rows: npt.NDArray[np.float32], new: int) -> npt.NDArray[np.float64]:
    """Return so many new rows, weighted sums of the old ones."""
    index, weights = _terms(len(rows), new)
    rows = np.ascontiguousarray(rows, np.float64)
    total: npt.NDArray[np.float64] = rows[index[0]] * weights[0][:, None]
    term = np.empty_like(total)
    for chosen, weight in zip(index[1:], weights[1:], strict=True):
        np.take(rows, chosen, axis=0, out=term, mode="clip")
        term *= weight[:, None]
        total += term
    return total
