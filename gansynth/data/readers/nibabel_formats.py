"""NIfTI and its pairs, Analyze and FreeSurfer's MGH: formats that nibabel knows."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import VolumeReader
from gansynth.runtime.nifti import nifti_header, nifti_voxels
from gansynth.runtime.volumes import VolumeHeader

NO_ORIENTATION = (
    "Analyze has no orientation; read with x to the left, y to the front, z to the head, as "
    "nibabel and FSL do. If that is wrong, write NIfTI"
)


class Nifti(VolumeReader):
    """Whole NIfTI files, compressed or not, read by ``runtime.nifti`` to their last byte."""

    endings = (".nii", ".nii.gz")

    def header(self, path: Path) -> VolumeHeader:
        return nifti_header(path)

    def read(self, path: Path) -> npt.NDArray[Any]:
        return nifti_voxels(path)


class Analyze(VolumeReader):
    """Pairs of .hdr and .img: Analyze 7.5, SPM's, and NIfTI in two files."""

    endings = (".hdr",)
    beside = (".img", ".mat")

    def header(self, path: Path) -> VolumeHeader:
        if path.read_bytes()[344:346] == b"ni":
            return nifti_header(path, single=False)
        image = _loaded(path)
        x, y, z = map(float, image.header.get_zooms()[:3])
        slope = getattr(image.header, "get_slope_inter", lambda: (None, None))()[0] or 0.0
        dtype = image.header.get_data_dtype()
        affine = np.array(image.affine, np.float64)
        return VolumeHeader(
            image.shape, dtype, affine, (x, y, z), affine, (NO_ORIENTATION,), float(slope)
        )

    def read(self, path: Path) -> npt.NDArray[Any]:
        return np.asarray(_loaded(path).dataobj.get_unscaled())


class AnalyzeVoxels(Analyze):
    """The other file of such a pair, where a list or a pattern names it."""

    endings, listed = (".img",), False

    def header(self, path: Path) -> VolumeHeader:
        return super().header(path.with_suffix(".hdr"))


class FreeSurfer(VolumeReader):
    """FreeSurfer's .mgz, and .mgh, which is not compressed."""

    endings = (".mgz", ".mgh")

    def header(self, path: Path) -> tuple[tuple[int, ...], Any, npt.NDArray[np.float64]]:
        import nibabel

        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            header: Any = nibabel.MGHImage.header_class.from_fileobj(stream)
        return header.get_data_shape(), header.get_data_dtype(), header.get_affine()

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read the voxels, and the file to the last byte of its checksum."""
        import nibabel

        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return np.asarray(nibabel.MGHImage.from_bytes(data).dataobj)

    def write(self, path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        import nibabel

        nibabel.MGHImage(array, affine).to_filename(path)


def _loaded(path: Path) -> Any:
    import nibabel

    return nibabel.load(path)
