"""Arrays cut, padded and resampled: what bringing a case to another grid comes to, voxel by voxel.

Needs numpy only (and scipy to resample).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.schema import FloatArray, LabelArray

T = TypeVar("T", bound=np.generic)


def crop_pad(
    array: npt.NDArray[T], corner: Sequence[int], size: Sequence[int], fill: float
) -> npt.NDArray[T]:
    """Cut ``size`` voxels from ``corner`` (last axes), padding with ``fill``; always a copy."""
    lead = array.ndim - len(size)
    out = np.full((*array.shape[:lead], *size), fill, dtype=array.dtype)
    source, target = [slice(None)] * lead, [slice(None)] * lead
    for start, length, extent in zip(corner, size, array.shape[lead:], strict=True):
        first, last = max(start, 0), min(start + length, extent)
        if last <= first:
            return out
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    out[tuple(target)] = array[tuple(source)]
    return out


def crop_edge(array: npt.NDArray[T], corner: Sequence[int], size: Sequence[int]) -> npt.NDArray[T]:
    """Cut ``size`` voxels from ``corner`` (last axes); beyond its border it goes on as there."""
    lead = array.ndim - len(size)
    inside: list[slice] = [slice(None)] * lead
    more = [(0, 0)] * lead
    for first, length, extent in zip(corner, size, array.shape[lead:], strict=True):
        # Of what lies wholly beyond, the outermost voxel is all there is to go on with.
        low = min(max(first, 0), extent - 1)
        high = max(min(first + length, extent), low + 1)
        before = min(max(low - first, 0), length - 1)
        inside.append(slice(low, high))
        more.append((before, length - before - (high - low)))
    cut = array[tuple(inside)]
    if not any(before or after for before, after in more):
        return cut.copy()
    return np.pad(cut, more, mode="edge")


def draw_corner(
    shape: Sequence[int],
    size: Sequence[int],
    centre: npt.NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Where to cut ``size`` voxels from ``shape``: at random, or around a voxel if one is given."""
    corner = []
    for axis, (n, s) in enumerate(zip(shape, size, strict=True)):
        # A case smaller than the crop lies in its middle, as where nnU-Net pads.
        start = (n - s) // 2 if n <= s else int(rng.integers(n - s + 1))
        if centre is not None and n > s:
            start = int(np.clip(int(centre[axis]) - s // 2, 0, n - s))
        corner.append(start)
    return tuple(corner)


def resample(
    image: FloatArray, labels: LabelArray | None, shape: Sequence[int], *, nearest: bool = False
) -> tuple[FloatArray, LabelArray | None]:
    """Bring image (C, D, H, W) and labels (D, H, W) to a shape: linear, and nearest for labels.

    Args:
        image: any float image.
        labels: its label map, if there is one.
        shape: wanted; where it is there already, nothing is interpolated.
        nearest: the image takes the nearest voxel, too.
    """
    from scipy.ndimage import zoom

    if tuple(shape) == image.shape[1:]:
        return image.astype(np.float32), None if labels is None else labels.copy()
    factors = [t / s for t, s in zip(shape, image.shape[1:], strict=True)]
    order: Literal[0, 1] = 0 if nearest else 1
    resized = np.empty((len(image), *shape), np.float32)
    for to, channel in zip(resized, image, strict=True):
        zoom(channel, factors, to, order=order, grid_mode=True, mode="nearest")
    drawn = (
        None if labels is None else zoom(labels, factors, order=0, grid_mode=True, mode="nearest")
    )
    return resized, drawn
