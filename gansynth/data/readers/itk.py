"""NRRD and MetaImage, which 3D Slicer, ITK-SNAP and elastix write, as ITK reads them."""

from __future__ import annotations

import locale
import re
import zlib
from collections.abc import Callable, Sequence
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
_PACKED = {("compresseddata", "true"), ("encoding", "gzip"), ("encoding", "gz")}
_ELSEWHERE = {"elementdatafile", "data file", "datafile"}
_LONGEST, _CHUNK = 1 << 16, 1 << 20  # bytes of a line, and of what is unpacked at once
_ZLIB_OR_GZIP = 47  # of zlib's window bits: it looks which of them a stream is


class Itk(VolumeReader):
    """Files of one channel, of several as ITK's components, or of a fourth axis."""

    endings = (".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")
    beside = (".raw", ".zraw", ".raw.gz")

    def header(self, path: Path) -> tuple[Sequence[int], npt.DTypeLike, npt.ArrayLike]:
        found = information(path)
        return shape_of(found), dtype_of(found), affine_of(found)

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read all voxels; channels come last."""
        image = asked(lambda: quiet_itk().ReadImage(str(path)))
        _compare_checksum(path)
        return voxels_of(image)

    def write(self, path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        itk = quiet_itk()
        image, own = itk.GetImageFromArray(array.T), TO_RAS @ affine
        sizes = np.linalg.norm(own[:3, :3], axis=0)
        image.SetSpacing(sizes.tolist())
        image.SetOrigin(own[:3, 3].tolist())
        image.SetDirection((own[:3, :3] / sizes).ravel().tolist())
        asked(lambda: itk.WriteImage(image, str(path), useCompression=True))


def quiet_itk() -> Any:
    """Return SimpleITK, which warns on stderr unless told not to."""
    import SimpleITK as sitk

    library: Any = sitk
    library.ProcessObject.SetGlobalWarningDisplay(False)
    return library


def information(path: Path) -> Any:
    """Return ITK's reader of a file, with the file's header read."""
    reader = quiet_itk().ImageFileReader()
    reader.SetFileName(str(path))
    asked(reader.ReadImageInformation)
    return reader


def asked(call: Callable[[], Any]) -> Any:
    """Return what ITK returns; of its long messages the last part, which says why.

    Where ITK looks for a format that fits, it sets the process's locale to C, in which Python then
    reads texts as ASCII; the process keeps its own.
    """
    own = locale.setlocale(locale.LC_ALL)
    try:
        return call()
    except RuntimeError as error:
        words = " ".join(str(error).split()).rpartition("ERROR: ")[2]
        if words.startswith("File cannot be read"):  # which is all that MetaIO says
            words = "its voxels are cut off, or the file that has them is missing"
        raise ValueError(re.split(r"\(0x\w+\): |\[\w+\] ", words)[-1]) from error
    finally:
        locale.setlocale(locale.LC_ALL, own)


def _compare_checksum(path: Path) -> None:
    """Unpack compressed voxels to their checksum, which ITK ignores: it returns what it has."""
    with path.open("rb") as stream:
        voxels, packed = path, False
        for line in iter(lambda: stream.readline(_LONGEST), b""):
            key, _, value = line.decode("latin-1").replace("=", ":", 1).partition(":")
            key, value = key.strip().lower(), value.strip()
            packed |= (key, value.lower()) in _PACKED
            if key in _ELSEWHERE and value != "LOCAL":
                voxels = path.with_name(value)
            if key == "elementdatafile" or not line.strip():  # the last line of a header
                break
        begin = stream.tell() if voxels == path else 0
    if packed and voxels.is_file():
        unpack = zlib.decompressobj(_ZLIB_OR_GZIP)
        with voxels.open("rb") as stream:
            stream.seek(begin)
            while not unpack.eof:
                chunk = unpack.unconsumed_tail or stream.read(_CHUNK)
                if not chunk:
                    raise EOFError
                unpack.decompress(chunk, _CHUNK)


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
