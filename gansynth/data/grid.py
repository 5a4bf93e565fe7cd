"""From a NIfTI file's axes to (C, D, H, W), and whether the files of a case fit together.

All arrays have one orientation and one spacing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core import resample as regrid
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.volumes import read_volume_header
from gansynth.runtime.errors import DataFault
from gansynth.runtime.volumes import MAX_VOLUME_BYTES, Volume

SAME = 0.01  # spacings closer than this share of each other count as one


def canonical(volume: Volume) -> tuple[npt.NDArray[Any], tuple[float, float, float]]:
    """Turn and flip a volume until it runs as ``space.ORIENTATION``.

    Returns:
        The array (D, H, W), and its spacing (z, y, x) in mm.
    """
    array = oriented(volume.array, volume.affine)
    return np.ascontiguousarray(array), canonical_spacing(volume.affine)


def oriented(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return a file's array as ``canonical`` does, (D, H, W) or (C, D, H, W), without a copy."""
    from nibabel import orientations

    return np.asarray(orientations.apply_orientation(array, orientations.io_orientation(affine)).T)


def canonical_spacing(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the voxel size (z, y, x) in mm after ``canonical``."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = [float(sizes[axis]) for axis in _file_axes(affine)]
    return z, y, x


def canonical_shape(shape: Sequence[int], affine: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """Return the shape (D, H, W) after ``canonical``."""
    x, y, z = [int(shape[axis]) for axis in _file_axes(affine)]
    return z, y, x


def _file_axes(affine: npt.NDArray[np.float64]) -> list[int]:
    """Return the axis of a file that becomes x, the one that becomes y, and the one for z."""
    turned_to = [axis for axis, _ in stored_axes(affine)]
    return [turned_to.index(axis) for axis in range(3)]


def stored_axes(affine: npt.NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    """Return for each axis of a file: its axis (x, y, z) after ``canonical``; -1 if it is flipped.

    The second number is 1 for an axis that is not flipped.
    """
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    return tuple([(int(axis), int(way)) for axis, way in turn])


def axes_of(files: Iterable[Path]) -> str:
    """Return along which axes files are stored, as ``RAS``; "" if they differ, or none is there."""
    found = {axes_in(read_volume_header(file).affine) for file in files}
    return found.pop() if len(found) == 1 else ""


def axes_in(affine: npt.NDArray[np.float64]) -> str:
    """Return along which axes a file of this affine is stored."""
    from nibabel import aff2axcodes

    return "".join(aff2axcodes(affine))


def in_eights(lengths: Iterable[float], most: float = inf) -> tuple[int, ...]:
    """Round edges of a generator's arrays up to multiples of 8: networks halve them."""
    return tuple([8 * ceil(min(length, most) / 8) for length in lengths])


def rounded_mm(spacing: Iterable[float]) -> tuple[float, ...]:
    """Return a spacing in Python's numbers, rounded to a millionth of a mm."""
    return tuple([round(float(mm), 6) for mm in spacing])


def same_spacing(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two spacings differ by at most 1 % on every axis."""
    return all(abs(a - b) <= SAME * max(a, b) for a, b in zip(first, second, strict=True))


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the shape (D, H, W) of the same body at another spacing; no axis vanishes."""
    axes = zip(shape, spacing, target, strict=True)
    return tuple([max(1, round(length * old / new)) for length, old, new in axes])


def resample(
    case: str, image: FloatArray, labels: LabelArray | None, shape: Sequence[int]
) -> tuple[FloatArray, LabelArray | None]:
    """``core.resample.resample`` of a case; DataFault if the result would be absurdly large."""
    size = len(image) * int(np.prod(shape, dtype=object)) * 4
    if size > MAX_VOLUME_BYTES:
        raise DataFault(
            "grid.resampled-case-too-large",
            f"case {case!r}: would take {size} bytes at this spacing, expected at most "
            f"{MAX_VOLUME_BYTES}; ask for a coarser one: --read spacing=MM",
        )
    return regrid.resample(image, labels, shape)


# -- whether the files of a case fit together, and what their labels are ---------------------------


AFFINE_TOLERANCE = 1e-3  # largest difference of affine entries (mm) between the files of a case
QFORM_TOLERANCE = 0.01  # of a voxel; quaternions are rounded
LABELS = 256  # largest number of different values in a label map
FEW_VALUES, BLOCK = 1 << 16, 1 << 18  # values that may be counted, and voxels of which at once


def mismatches(file: Path, volume: Volume, reference_file: Path, reference: Volume) -> list[str]:
    """List how a file's grid differs from that of another file of its case."""
    problems = other_shape(file, volume.array.shape, reference_file, reference.array.shape)
    difference = affine_difference(volume.affine, reference.affine)
    if difference > AFFINE_TOLERANCE:
        problems.append(
            f"{file}: affine differs from that of {reference_file.name} by up to "
            f"{difference:.3g} mm, expected at most {AFFINE_TOLERANCE}; resample, or copy the "
            "header if only that is off"
        )
    return problems


def other_qform(
    file: Path, volume: Volume, reference_file: Path, reference: Volume
) -> tuple[Path, str] | None:
    """Return which of two files of one affine has another qform, and its fault; None if none."""
    tolerance = QFORM_TOLERANCE * max(volume.spacing)
    difference = affine_difference(volume.qform, reference.qform)
    if difference <= tolerance:
        return None
    # The odd one is the reference if its own two affines disagree, else the other file.
    odd = file
    if affine_difference(reference.qform, reference.affine) > tolerance:
        odd = reference_file
    return odd, (
        f"by its qform it lies up to {difference:.3g} mm from another file of its case, by its "
        "sform in the same place, expected so by both; read by the sform. ITK, and so nnU-Net, may "
        "go by the qform; copy the header"
    )


def other_shape(
    file: Path, shape: tuple[int, ...], reference_file: Path, expected: tuple[int, ...]
) -> list[str]:
    """List how a file's shape (x, y, z) differs from that of another file of its case."""
    if shape[:3] == expected[:3]:
        return []
    return [
        f"{file}: shape is {shape[:3]}, but {expected[:3]} in {reference_file.name}; expected "
        "equal; resample one to the other"
    ]


def affine_difference(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Return the largest difference of two affines' entries, in mm."""
    return float(np.abs(first - second).max())


def values_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array's different values as ``np.unique`` does; those of label maps sooner."""
    if array.dtype.kind not in "iu" or not array.size:
        return np.unique(array)
    least, most = int(array.min()), int(array.max())
    if most - least >= FEW_VALUES:
        return np.unique(array)
    found, flat = np.zeros(most - least + 1, bool), array.ravel(order="K")
    for start in range(0, flat.size, BLOCK):
        places = flat[start : start + BLOCK].astype(np.int64) - least
        found |= np.bincount(places, minlength=len(found)) > 0
    return (np.flatnonzero(found) + least).astype(array.dtype)


def whole_labels(file: Path, labels: npt.NDArray[Any]) -> LabelArray:
    """Return labels as int16. Raises DataFault: fractions, or numbers that int16 cannot hold."""
    with np.errstate(invalid="ignore"):
        whole: LabelArray = labels.astype(np.int16)
    if not np.array_equal(whole, labels):
        odd = labels[whole != labels].flat[0].item()
        raise DataFault(
            "grid.labels-not-whole-numbers",
            f"{file}: holds label {odd}, expected whole numbers from 0 to 32767; "
            f"is it a label map?",
        )
    return whole
