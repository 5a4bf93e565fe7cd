"""What the network sees of a volume: segments, their subsampled contexts, tiles of all of it.

As DeepMedic's ``dataManagement/sampling.py`` (commit e10ba7c) cuts them; ``tests/adapters/
deepmedic/reference`` holds its numbers. One thing differs: where a context begins before a volume
does, DeepMedic moves the grid onto the volume's first voxel, by 0 to factor - 1 voxels (and so a
context's voxels no longer lie where the network takes them to). Here the grid stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.engine.geometry import Geometry, Triple

Image = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)
_NONE = slice(0, 0)


def corner_mean(image: Image) -> Image:
    """Mean (C,) of the eight corners of each channel (C, X, Y, Z): what lies outside of a volume.

    Worth keeping where many contexts are cut of one volume.
    """
    ends = [image[:, x, y, z].astype(np.float64) for z in (0, -1) for y in (0, -1) for x in (0, -1)]
    mean: Image = np.mean(np.stack(ends, axis=-1), axis=-1).astype(np.float32)
    return mean


def high_segment(image: Image, start: Sequence[int], geometry: Geometry) -> Image:
    """The segment (C, *segment) of an image (C, X, Y, Z) that begins there: a view."""
    return image[(slice(None), *geometry.box(start))]


def low_start(start: Sequence[int], factor: Sequence[int], receptive: Sequence[int]) -> Triple:
    """First voxel of the context of a segment, maybe outside of the volume.

    Args:
        start: first voxel of the segment.
        factor: how many voxels apart the context's are.
        receptive: voxels that a prediction is made from, before subsampling.
    """
    first = []
    for begin, times, seen in zip(start, factor, receptive, strict=True):
        if times % 2:
            first.append(begin + times // 2 - (times - 1) // 2 * seen)
        else:
            first.append(begin + times // 2 - 1 - (times - 2) // 2 * seen - seen // 2)
    return first[0], first[1], first[2]


def low_context(
    image: Image,
    start: Sequence[int],
    factor: Sequence[int],
    geometry: Geometry,
    outside: Image | None = None,
) -> Image:
    """Every factor-th voxel around a segment (C, *low); nearest voxels, nothing is averaged.

    Args:
        image: (C, X, Y, Z).
        start: first voxel of the segment.
        outside: (C,), value outside of the volume; None for ``corner_mean``.
    """
    shape = geometry.low[geometry.factors.index((factor[0], factor[1], factor[2]))]
    fill = corner_mean(image) if outside is None else outside
    context = np.empty((len(image), *shape), np.float32)
    context[:] = fill[:, None, None, None]
    first = low_start(start, factor, geometry.receptive)
    into: list[slice] = [slice(None)]
    of: list[slice] = [slice(None)]
    for begin, count, times, length in zip(first, shape, factor, image.shape[1:], strict=True):
        low = max(0, -(begin // times))  # the first one that lies in the volume
        high = max(low, min(count, -((begin - length) // times)))
        into.append(slice(low, high))
        of.append(slice(begin + low * times, begin + high * times, times) if high > low else _NONE)
    context[tuple(into)] = image[tuple(of)]
    return context


def tiles(
    shape: Sequence[int], geometry: Geometry, roi: npt.NDArray[np.generic] | None = None
) -> list[Triple]:
    """First voxels of segments whose predictions together cover a volume but for its margin.

    The last one along each axis ends with the volume. x runs fastest, z slowest.

    Args:
        shape: of the (padded) volume, at least a segment's: see ``padded``.
        roi: (X, Y, Z); segments without any of it are left out.
    """
    along = [
        _starts(length, size, step)
        for length, size, step in zip(shape, geometry.segment, geometry.output, strict=True)
    ]
    found = [(x, y, z) for z in along[2] for y in along[1] for x in along[0]]
    if roi is None:
        return found
    return [start for start in found if roi[geometry.box(start)].any()]


def padding(shape: Sequence[int], geometry: Geometry, pad: bool = True) -> list[tuple[int, int]]:
    """Voxels before and after along each axis that a volume is padded by."""
    widths = []
    for length, size, (before, after) in zip(shape, geometry.segment, geometry.margin, strict=True):
        low, high = (before, after) if pad else (0, 0)
        widths.append((low, high + max(0, size - low - length - high)))
    return widths


def padded(array: npt.NDArray[T], widths: Sequence[tuple[int, int]]) -> npt.NDArray[T]:
    """An array (..., X, Y, Z) mirrored at its border, its outermost voxels once (``reflect``)."""
    whole = [(0, 0)] * (array.ndim - 3) + list(widths)
    return np.pad(array, whole, mode="reflect")


def _starts(length: int, size: int, step: int) -> list[int]:
    """Where segments begin along one axis."""
    return [*range(0, length - size, step), length - size]
