"""Volumes as NIfTI files, on the grid and with the affine of the case's own file."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.integrity import disk_errors, read_nifti_header, write_bytes_atomic
from gansynth.schema import FloatArray, LabelArray
from gansynth.sources.base import CaseSource
from gansynth.sources.grid import canonical_shape
from gansynth.sources.volumes import VolumeSource


def write_prediction(
    source: CaseSource, case_id: str, labels: LabelArray, folder: Path
) -> Path | None:
    """Write a label map; None where the case is of no NIfTI file.

    Args:
        source: that the case was read from.
        case_id: the case.
        labels: int16 (D, H, W), on the grid of ``source.load``; where the source resamples, each
            voxel of the file takes the nearest one.
        folder: made where it is missing.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    if not isinstance(source, VolumeSource):
        return None
    header = read_nifti_header(source.entry(case_id).reference)
    shape = canonical_shape(header.shape, header.affine)
    path = folder / f"{file_name(case_id)}.nii.gz"
    return write_volume(path, nearest(labels, shape), header.affine)


def file_name(case_id: str) -> str:
    """A case's name as files may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", case_id)


def write_volume(
    path: Path, array: LabelArray | FloatArray, affine: np.ndarray[Any, np.dtype[np.float64]]
) -> Path:
    """Write a volume: the same bytes for the same voxels, always.

    Args:
        path: ``.nii.gz``; its folder is made where it is missing.
        array: (D, H, W), of ``sources.grid.ORIENTATION``.
        affine: of the file whose axes it is to have.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, _nifti(array, affine))
    return path


def nearest(labels: LabelArray, shape: Sequence[int]) -> LabelArray:
    """A label map on another grid of the same extent: each voxel takes the nearest one."""
    at = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(shape, labels.shape, strict=True)
    ]
    return labels[np.ix_(*at)]


def _nifti(array: LabelArray | FloatArray, affine: np.ndarray[Any, np.dtype[np.float64]]) -> bytes:
    import nibabel as nib
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    back = orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), turn)
    image = nib.Nifti1Image(orientations.apply_orientation(array.T, back), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 4, mtime=0)
