"""NRRD and MetaImage, which 3D Slicer, ITK-SNAP and elastix write, as ITK reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import VolumeReader

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's x runs to the left, its y to the back
KINDS = {
    "Int8": "i1",
    "UInt8": "u1",
    "Int16": "i2",
    "UInt16": "u2",
    "Int32": "i4",
    "UInt32": "u4",
    "Int64": "i8",
    "UInt64": "u8",
    "Float32": "f4",
    "Float64": "f8",
}
"""ITK's name of a voxel's type -> numpy's."""


class Itk(VolumeReader):
    """Files of one channel, of several as ITK's components, or of a fourth axis."""

    endings = (".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd", ".gipl")
    beside = (".raw", ".zraw", ".raw.gz")

    def header(self, path: Path) -> tuple[Sequence[int], npt.DTypeLike, npt.ArrayLike]:
        """Read what ITK calls the image's information."""
        found = information(path)
        return shape_of(found), dtype_of(found), affine_of(found)

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read all voxels; channels come last."""
        return voxels_of(quiet_itk().ReadImage(str(path)))

    def write(self, path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        """Write a label map, compressed."""
        itk = quiet_itk()
        image, own = itk.GetImageFromArray(array.T), TO_RAS @ affine
        sizes = np.linalg.norm(own[:3, :3], axis=0)
        image.SetSpacing(sizes.tolist())
        image.SetOrigin(own[:3, 3].tolist())
        image.SetDirection((own[:3, :3] / sizes).ravel().tolist())
        itk.WriteImage(image, str(path), useCompression=True)


def quiet_itk() -> Any:
    """Return SimpleITK, which warns on stderr unless told not to."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def information(path: Path) -> Any:
    """Return ITK's reader of a file, with the file's header read."""
    reader = quiet_itk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def shape_of(image: Any) -> tuple[int, ...]:
    """Return the shape of an image or a reader, channels last."""
    channels = image.GetNumberOfComponents()
    return (*image.GetSize(), channels) if channels > 1 else tuple(image.GetSize())


def dtype_of(image: Any) -> str:
    """Return numpy's type of its voxels; ValueError: no numbers."""
    itk, code = quiet_itk(), image.GetPixelID()
    for name, kind in KINDS.items():
        if code in (getattr(itk, f"sitk{name}"), getattr(itk, f"sitkVector{name}")):
            return kind
    raise ValueError(f"voxels are of type {itk.GetPixelIDValueAsString(code)}, expected numbers")


def affine_of(image: Any) -> npt.NDArray[np.float64]:
    """Return the affine (4, 4) from voxels to mm, of the first three axes."""
    axes = image.GetDimension()
    affine, used = np.eye(4), min(axes, 3)
    turned = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[:used, :used] = turned[:used, :used]
    affine[:used, 3] = image.GetOrigin()[:used]
    return np.asarray(TO_RAS @ affine, np.float64)


def voxels_of(image: Any) -> npt.NDArray[Any]:
    """Return an image's voxels (x, y, z), channels last."""
    array = quiet_itk().GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        return np.asarray(array.T)
    return np.moveaxis(np.asarray(array), -1, 0).T  # of (z, y, x, channel)
