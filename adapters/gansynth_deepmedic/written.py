"""NIfTI files as gansynth writes them for DeepMedic: the same bytes for the same voxels, always."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.synthetic import marked
from gansynth.runtime.files import disk_errors, read_nifti, read_nifti_header
from gansynth_deepmedic.files import MISSING, HostCase
from gansynth_deepmedic.insertion import Loaded
from gansynth_deepmedic.layout import ENDING, LABELS, ROI, file_names
from gansynth_deepmedic.subepochs import read_case

_PACKED = 4
"""gzip's level: images of noise hardly get smaller beyond, and every subepoch unpacks them."""


def nifti(
    array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, synthetic: bool = False
) -> bytes:
    """A gzipped NIfTI file without texts, names or times; marked if it is synthetic.

    Args:
        array: (X, Y, Z) as it is to be stored.
        affine: (4, 4), voxel to mm.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(array), affine)
    image.header.set_xyzt_units("mm")
    image = marked(image) if synthetic else image
    return gzip.compress(image.to_bytes(), _PACKED, mtime=0)


def volume(file: str) -> npt.NDArray[Any]:
    """The voxels (X, Y, Z) of a NIfTI file, scaled as its header says; a ``subepochs.Read``."""
    return read_nifti(file).array


def read_host(case: HostCase) -> Loaded:
    """A real case as its files have it."""
    return read_case(case, volume)


def stored_shape(case: HostCase) -> tuple[int, ...]:
    """(X, Y, Z) of a case's files."""
    return tuple(case.shape[2 - axis] for axis, _ in case.stored)


def affine_of(file: str) -> npt.NDArray[np.float64]:
    """Voxel to mm, of a NIfTI file."""
    return read_nifti_header(file).affine


def write_case(
    folder: Path,
    channels: Sequence[str],
    case: HostCase,
    loaded: Loaded,
    *,
    synthetic: bool = False,
) -> HostCase:
    """Write the files of a case, each with the affine of the real file that it stands for.

    Args:
        folder: to write into; made where it is missing.
        channels: names of the channels.
        case: the real case; channels that it lacks are not written.
        loaded: what to write.
        synthetic: whether a sample is in it.

    Returns:
        The case with the files that were written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, array: npt.NDArray[Any], like: str) -> str:
        file = folder / f"{name}{ENDING}"
        data = nifti(array, affine_of(like), synthetic=synthetic)
        with disk_errors(file, len(data)):
            file.write_bytes(data)
        return str(file)

    files = [
        MISSING if real == MISSING else write(name, channel, real)
        for name, channel, real in zip(
            file_names(channels), loaded.image, case.channels, strict=True
        )
    ]
    labels = write(LABELS, loaded.labels, case.labels)
    roi = None if loaded.roi is None else write(ROI, loaded.roi, case.roi or case.labels)
    return HostCase(case.id, tuple(files), labels, roi, case.shape, case.stored, case.units)


def folder_names(cases: Sequence[str]) -> tuple[str, ...]:
    """Names of cases as folders, all different, whatever the cases are called."""
    plain = [name for name in cases if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name)]
    if len({name.lower() for name in plain}) == len(cases):
        return tuple(cases)
    return tuple(f"case_{number:04d}" for number in range(len(cases)))
