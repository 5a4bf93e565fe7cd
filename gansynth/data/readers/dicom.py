"""A folder of one DICOM series, whose slices are put in order by where they lie."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import (
    FOLDER,
    Announced,
    VolumeReader,
    read_volume,
    read_volume_header,
)
from gansynth.data.readers.itk import (
    TO_RAS,
    asked,
    dtype_of,
    information,
    quiet_itk,
    shape_of,
    voxels_of,
)
from gansynth.runtime.errors import DataFault

APART = 0.02  # share of their distance by which neighbouring slices may lie elsewhere
DRAWN = re.compile(rb"\x08\x00\x60\x00(?:CS..|....)(?:SEG |RTSTRUCT)", re.DOTALL)  # its modality
WAY_OUT = "convert it: dcm2niix -z y -o OUT {}"


class DicomSeries(VolumeReader):
    """Slices of one size and direction at equal distances, or one segmentation of such slices."""

    endings = (FOLDER,)

    def header(self, path: Path) -> Announced:
        drawn = _drawn_in(path)
        if drawn is not None:
            return read_volume_header(drawn)
        _, shape, dtype, affine = slices_of(path)
        return shape, dtype, affine

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read the slices, rescaled as their headers say (Hounsfield units)."""
        drawn = _drawn_in(path)
        if drawn is not None:
            return read_volume(drawn, labels=True).array
        files, *_ = slices_of(path)
        return voxels_of(asked(lambda: quiet_itk().ReadImage(files)))


def _drawn_in(folder: Path) -> Path | None:
    """Return the only file of a folder, if labels are drawn in it: archives keep each in one."""
    files = list(islice(folder.iterdir(), 2))
    if len(files) == 1 and files[0].is_file():
        with files[0].open("rb") as stream:
            return files[0] if DRAWN.search(stream.read(4096)) else None
    return None


def slices_of(folder: Path) -> tuple[list[str], tuple[int, ...], str, Any]:
    """Return the files of a folder's slices from first to last, and what they announce."""
    return _slices(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _slices(folder: Path, stamp: int) -> tuple[list[str], tuple[int, ...], str, Any]:
    itk, way_out = quiet_itk(), WAY_OUT.format(folder)
    series = itk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise DataFault(
            "readers.dicom-not-one-series",
            f"{folder}: holds {len(series)} DICOM series, expected one; put each into a folder of "
            f"its own, or {way_out}",
        )
    files = itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    slices = [information(Path(file)) for file in files]
    kinds = {(shape_of(one), one.GetDirection(), one.GetSpacing()[:2]) for one in slices}
    if len(kinds) != 1 or len(slices) == 1:
        raise DataFault(
            "readers.dicom-slices-differ",
            f"{folder}: {len(slices)} slice(s) of {len(kinds)} sizes, directions or pixel sizes, "
            f"expected several of one; {way_out}",
        )
    direction = np.reshape(slices[0].GetDirection(), (3, 3))
    places = np.array([one.GetOrigin() for one in slices])  # (slice, 3)
    order = np.argsort(places @ direction[:, 2], kind="stable")
    steps = np.diff(places[order], axis=0)
    step = steps.mean(axis=0)
    off = np.abs(steps - step).max()
    tilt = np.linalg.norm(step - direction[:, 2] * (step @ direction[:, 2]))
    if not np.linalg.norm(step) > 0 or max(off, tilt) > APART * np.linalg.norm(step):
        raise DataFault(
            "readers.dicom-slices-not-even",
            f"{folder}: distances of its {len(slices)} slices differ by up to {off:.3g} mm, "
            f"expected equal ones along {direction[:, 2].round(3).tolist()}: slices are missing, "
            f"tilted, or of several times; {way_out}",
        )
    affine = np.eye(4)
    affine[:3, :2] = direction[:, :2] * slices[0].GetSpacing()[:2]
    affine[:3, 2], affine[:3, 3] = step, places[order[0]]
    columns, rows, _, *colours = shape_of(slices[0])
    shape = (columns, rows, len(slices), *colours)
    return [files[place] for place in order], shape, dtype_of(slices[0]), TO_RAS @ affine
