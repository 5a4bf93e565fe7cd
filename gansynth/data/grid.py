"""From a NIfTI file's axes to (C, D, H, W): one orientation, one spacing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core import resample as regrid
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import MAX_VOLUME_BYTES, NiftiVolume

ORIENTATION = "RAS, read as (z, y, x)"
"""D runs from feet to head, H from back to front, W from left to right."""
SAME = 0.01  # spacings closer than this share of each other count as one


def canonical(volume: NiftiVolume) -> tuple[npt.NDArray[Any], tuple[float, float, float]]:
    """Turn and flip a volume until it runs as ``ORIENTATION``; its spacing (z, y, x) in mm."""
    from nibabel import orientations

    turn = orientations.io_orientation(volume.affine)
    array = orientations.apply_orientation(volume.array, turn)
    return np.ascontiguousarray(array.T), canonical_spacing(volume.affine)


def canonical_spacing(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Voxel size (z, y, x) in mm after ``canonical``."""
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = (float(sizes[list(turn[:, 0]).index(axis)]) for axis in range(3))
    return z, y, x


def canonical_shape(shape: Sequence[int], affine: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """Shape (D, H, W) after ``canonical``."""
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    x, y, z = (int(shape[list(turn[:, 0]).index(axis)]) for axis in range(3))
    return z, y, x


def stored_axes(affine: npt.NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    """For each axis (x, y, z) of a file: its axis (x, y, z) after ``canonical``, and 1 or -1."""
    from nibabel import orientations

    return tuple((int(axis), int(way)) for axis, way in orientations.io_orientation(affine))


def in_eights(lengths: Iterable[float], most: float = inf) -> tuple[int, ...]:
    """Round edges of a generator's arrays up to multiples of 8: networks halve them."""
    return tuple(8 * ceil(min(length, most) / 8) for length in lengths)


def same_spacing(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two spacings differ by at most 1 % on every axis."""
    return all(abs(a - b) <= SAME * max(a, b) for a, b in zip(first, second, strict=True))


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Shape (D, H, W) of the same body at another spacing; no axis vanishes."""
    return tuple(
        max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, target, strict=True)
    )


def resample(
    case: str, image: FloatArray, labels: LabelArray | None, shape: Sequence[int]
) -> tuple[FloatArray, LabelArray | None]:
    """``core.resample.resample`` of a case; DataFault if the result would be absurdly large."""
    size = len(image) * int(np.prod(shape, dtype=object)) * 4
    if size > MAX_VOLUME_BYTES:
        raise DataFault(
            f"case {case!r}: would take {size} bytes at this spacing, expected at most "
            f"{MAX_VOLUME_BYTES}; ask for a coarser one: --read spacing=MM"
        )
    return regrid.resample(image, labels, shape)
