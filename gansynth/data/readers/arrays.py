"""Arrays without a grid of their own: numpy's files, pictures and stacks of pictures.

A JSON file beside says how large voxels are, as for nnU-Net's TIFF files: ``p1.json`` with
``{"spacing": [z, y, x]}`` for ``p1.npy`` and ``p1_0000.npy``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import VolumeReader, ending_of
from gansynth.data.case_writer import affine_of
from gansynth.data.listing import numbered_channel
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.volumes import LEAST_MM, MOST_MM, VolumeHeader

NO_SPACING = (
    'has no voxel size, read as (z, y, x) of 1 mm. Write {{"spacing": [z, y, x]}} in mm to {}'
)


class NumpyArray(VolumeReader):
    """``.npy``, and ``.npz`` of one array: (z, y, x) or (channel, z, y, x), z from feet to head."""

    endings = (".npy", ".npz")
    beside = (".json",)

    def header(self, path: Path) -> VolumeHeader:
        with _array_in(path) as stream:
            version = np.lib.format.read_magic(stream)
            readers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
            shape, _, dtype = readers[version != (1, 0)](stream)
        return _with_spacing(path, shape[::-1], dtype)

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read an array; one of Python's objects is refused."""
        with _array_in(path) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array.T

    def write(self, path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        """Write a label map, and its voxel size beside it where that is not 1 mm."""
        (np.savez_compressed if path.suffix.lower() == ".npz" else np.save)(path, array.T)
        sizes = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        if sizes != [1.0] * 3:
            write_json_atomic(path.with_suffix(".json"), {"spacing": sizes[::-1]})


@contextmanager
def _array_in(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as stream:
            yield stream
        return
    with path.open("rb") as whole, np.load(whole) as archive:
        if len(archive.files) != 1:
            held = ", ".join(archive.files) or "nothing"
            raise DataFault(
                "readers.npz-not-one-array",
                f"{path}: holds {held}, expected one array; write a file for each, images/CASE.npz "
                "and labels/CASE.npz",
            )
        with archive.zip.open(f"{archive.files[0]}.npy") as stream:
            yield stream


class Picture(VolumeReader):
    """PNG, BMP and JPEG, of one slice, and TIFF, of one or many, as nnU-Net reads them."""

    endings = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
    listed = False
    beside = (".json",)

    def header(self, path: Path) -> VolumeHeader:
        """Read shape and type; a picture of one slice has no size in mm."""
        if path.suffix.lower().startswith(".tif"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape, dtype, axes = series.shape, series.dtype, series.axes
        else:
            from PIL import Image

            with Image.open(path) as picture:
                example = np.asarray(Image.new(picture.mode, (1, 1)))
                shape, dtype = (*picture.size[::-1], *example.shape[2:]), example.dtype
            axes = "YXS"[: len(shape)]
        found = _turned_shape(shape, axes)
        if found[2] > 1:
            return _with_spacing(path, found, dtype)
        affine = affine_of((1.0, 1.0))
        return VolumeHeader(found, np.dtype(dtype), affine, tuple(affine.diagonal()[:3]), affine)

    def read(self, path: Path) -> npt.NDArray[Any]:
        if path.suffix.lower().startswith(".tif"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                return _turned(file.series[0].asarray(), file.series[0].axes)
        from PIL import Image

        with Image.open(path) as picture:
            picture.verify()  # compares a PNG's checksums, and cannot decode after that
        with Image.open(path) as picture:
            array = np.asarray(picture)
        return _turned(array, "YXS"[: array.ndim])


def _turned(array: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """Return pixels as (x, y, z) or (x, y, z, channel)."""
    if axes.endswith("S"):
        return np.moveaxis(array, -1, 0).T.reshape(_turned_shape(array.shape, axes))
    return array.T.reshape(_turned_shape(array.shape, axes))


def _turned_shape(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    colours = tuple(shape[-1:]) if axes.endswith("S") else ()
    x_to_z = tuple(shape[: len(shape) - len(colours)][::-1])
    return (*x_to_z, *[1] * (3 - len(x_to_z)), *colours)


def _with_spacing(path: Path, shape: Sequence[int], dtype: Any) -> VolumeHeader:
    """Return the header of an array whose voxel size is in a JSON file beside, or is not known."""
    short = path.name.removesuffix(path.name[-len(ending_of(path.name) or "") :])
    numbered = numbered_channel(short)
    names = [short] if numbered is None else [short, numbered[0]]
    files = [path.with_name(f"{name}.json") for name in names]
    there = [file for file in files if file.is_file()]
    spacing: Any = read_json(there[0]).get("spacing") if there else None
    notes = () if spacing is not None else (NO_SPACING.format("CASE.json beside"),)
    sizes = [1.0] * 3 if spacing is None else spacing
    if not (isinstance(sizes, list) and len(sizes) == 3 and all(map(_is_size, sizes))):
        raise DataFault(
            "readers.spacing-invalid",
            f"{there[0]}: spacing is {spacing!r:.100}, expected three voxel sizes in mm (z, y, x), "
            'such as {"spacing": [2, 1, 1]}',
        )
    affine = affine_of([float(size) for size in sizes])
    x, y, z = affine.diagonal()[:3].tolist()
    return VolumeHeader(tuple(shape), np.dtype(dtype), affine, (x, y, z), affine, notes)


def _is_size(value: object) -> bool:
    return isinstance(value, (int, float)) and LEAST_MM <= value <= MOST_MM
