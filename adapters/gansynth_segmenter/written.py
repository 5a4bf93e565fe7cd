"""Label maps on the grid of the case's own file: NIfTI with its affine, or PNG."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.integrity import disk_errors, read_nifti_header, write_bytes_atomic
from gansynth.regrid import pick
from gansynth.schema import LabelArray
from gansynth.sources.base import CaseSource
from gansynth.sources.flat import FlatSource
from gansynth.sources.grid import canonical_shape
from gansynth.sources.volumes import VolumeSource


def write_prediction(
    source: CaseSource, case_id: str, labels: LabelArray, folder: Path
) -> Path | None:
    """Write a label map; None where the case is of no file of its own.

    Args:
        source: that the case was read from.
        case_id: the case.
        labels: int16 (D, H, W), on the grid of ``source.load``; where the source resamples, each
            voxel of the file takes the nearest one.
        folder: made where it is missing.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    if isinstance(source, FlatSource):
        path = folder.joinpath(*map(_plain, case_id.split("/"))).with_suffix(".png")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, _png(source.encode_labels(case_id, labels)))
        return path
    if not isinstance(source, VolumeSource) or source.options.between is not None:
        return None
    header = read_nifti_header(source.entry(case_id).reference)
    shape = canonical_shape(header.shape, header.affine)
    if shape != labels.shape:
        labels = pick(labels, shape)
    path = folder / f"{_plain(case_id)}.nii.gz"
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, _nifti(labels, header.affine))
    return path


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


def _png(numbers: npt.NDArray[np.uint16]) -> bytes:
    """A grey PNG of 8 bits, or of 16 where numbers need them."""
    from PIL import Image

    stream = io.BytesIO()
    small = numbers.max(initial=0) < 256
    Image.fromarray(numbers.astype(np.uint8) if small else numbers).save(stream, format="PNG")
    return stream.getvalue()


def _nifti(labels: LabelArray, affine: np.ndarray[Any, np.dtype[np.float64]]) -> bytes:
    """The same bytes for the same label map, always.

    Args:
        labels: int16 (D, H, W), of ``sources.grid.ORIENTATION``.
        affine: of the file whose axes it is to have.
    """
    import nibabel as nib
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    back = orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), turn)
    image = nib.Nifti1Image(orientations.apply_orientation(labels.T, back), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 4, mtime=0)
