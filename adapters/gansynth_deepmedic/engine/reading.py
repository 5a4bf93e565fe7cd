"""Reading a case's files as DeepMedic does: arrays as stored, scaled; affine and spacing unused."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_nifti


def read_volume(file: str) -> npt.NDArray[Any]:
    """The array (X, Y, Z) of a NIfTI file.

    An image of two axes has Z of 1; a fourth axis has to be 1 and is left out.

    Raises:
        DataFault: the file is damaged, missing, or has more than three axes.
        EnvironmentFault: it may not be read.
    """
    array = read_nifti(file, ndim=(2, 3, 4)).array
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 4 and array.shape[3] != 1:
        raise DataFault(
            f"{file}: image is 4D of shape {array.shape}, expected three axes; write one file per "
            "channel"
        )
    return array[..., 0] if array.ndim == 4 else array
