"""One way to read a file of a volume: a registered reader of its format is asked.

What a header must not say, and what voxels must not hold, is the same for every format, and decided
here. A reader only knows its format: what a file announces, and what it holds.
"""

from __future__ import annotations

import glob
import gzip
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.registry import installed
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import folder_bytes
from gansynth.runtime.volumes import (
    COPY_AGAIN,
    LEAST_MM,
    MAX_VOLUME_BYTES,
    MOST_MM,
    Volume,
    VolumeHeader,
    reading,
)

log = logging.getLogger("gansynth")

T = TypeVar("T")
FOLDER = "/"
"""The ending of a folder whose files are one volume."""
Announced = VolumeHeader | tuple[Sequence[int], npt.DTypeLike, npt.ArrayLike]
"""What a reader says of a file; a tuple of shape, type and affine says enough."""
BOMB_BYTES = 512 << 20
"""Below this size any compression ratio is accepted: an almost empty label map reaches 900:1."""
BOMB_RATIO = 200
NUMBERS = "iufb"  # kinds of arrays


class VolumeReader(ABC):
    """A format of volumes.

    Attributes:
        endings: of its files' names, in lower case, such as ``.nrrd``.
        listed: whether files are taken for volumes by their ending alone; pictures are not, unless
            a pattern, or nnU-Net's ``dataset.json``, names them.
        beside: endings of files beside that belong to them, such as ``.raw``.
    """

    endings: ClassVar[tuple[str, ...]] = ()
    listed: ClassVar[bool] = True
    beside: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def header(self, path: Path) -> Announced:
        """Return what a file announces, without reading its voxels.

        Returns:
            Shape in the file's axes, (x, y, z) or (x, y, z, channel); type of the voxels; and
            affine (4, 4) from voxels to mm, x to the right, y to the front, z to the head.
        """

    @abstractmethod
    def read(self, path: Path) -> npt.NDArray[Any]:
        """Return the voxels, of the shape that ``header`` returns. Any error names the file."""

    def write(self, path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        """Write a label map (x, y, z) in this format. By default it is written as NIfTI."""
        raise NotImplementedError

    @classmethod
    def writes(cls) -> bool:
        """Whether label maps can be written in this format."""
        return cls.write is not VolumeReader.write


def read_volume(
    path: str | Path,
    *,
    max_bytes: int = MAX_VOLUME_BYTES,
    ndim: Collection[int] = (3,),
    labels: bool = False,
) -> Volume:
    """Read a file (or folder) of a volume whole, by the reader of its ending.

    Args:
        path: the file.
        max_bytes: refuse a header that announces more voxels than this, before allocating.
        ndim: accepted numbers of axes.
        labels: refuse a header that scales: a label map holds its labels as they are.
    """
    path = Path(path)
    reader = reader_of(path)
    header = _header(reader, path, max_bytes, ndim)
    if labels and (header.inter != 0 or header.slope not in (0, 1)):
        raise DataFault(
            "nifti.labels-rescaled",
            f"{path}: scl_slope is {header.slope:g} and scl_inter {header.inter:g}, which "
            "change every label, expected 1 and 0; store the labels themselves",
        )
    array = _asked(reader, path, lambda: np.asarray(reader.read(path)))
    array = array.reshape(_plain(array.shape))
    if array.shape != header.shape or array.dtype.kind not in NUMBERS:
        raise DataFault(
            "nifti.voxels-not-as-announced",
            f"{path}: holds {array.dtype} of shape {array.shape}, its header announces numbers of "
            f"shape {header.shape}; {COPY_AGAIN}",
        )
    return _scaled(path, header, array)


def read_volume_header(
    path: str | Path, *, max_bytes: int = MAX_VOLUME_BYTES, ndim: Collection[int] = (3, 4)
) -> VolumeHeader:
    """Read the header of a file of a volume; refuse headers as ``read_volume`` does."""
    path = Path(path)
    return _header(reader_of(path), path, max_bytes, ndim)


def reader_of(path: Path) -> VolumeReader:
    """Return the reader of a file by its ending; that of NIfTI for a name that says nothing."""
    known = _readers()
    ending = FOLDER if path.is_dir() else ending_of(path.name)
    return known[ending or ".nii"]


def ending_of(name: str) -> str | None:
    """Return the ending that says of what format a file is, in lower case; None if none does."""
    known, name = _readers(), name.lower()
    at = name.find(".", 1)
    while at > 0:
        if name[at:] in known:
            return name[at:]
        at = name.find(".", at + 1)
    return None


def endings(*, listed: bool = True) -> tuple[str, ...]:
    """Return the endings of files that are read as volumes, sorted."""
    known = _readers().items()
    return tuple(sorted(e for e, reader in known if e != FOLDER and (reader.listed or not listed)))


def names_beside(file: Path) -> Iterator[str]:
    """Yield the names of files that may lie beside a volume and belong to it."""
    ending = ending_of(file.name)
    if ending is not None and _readers()[ending].listed:
        short = file.name[: -len(ending)]
        for name in (short, re.sub(r"_\d{4}$", "", short)):
            yield from [f"{name}{other}" for other in _readers()[ending].beside]


def written_ending(file: Path) -> str:
    """Return the ending of label maps like a file: its own if that is written, or ``.nii.gz``."""
    ending = None if file.is_dir() else ending_of(file.name)
    return ending if ending and reader_of(file).writes() else ".nii.gz"


def volume_stem(name: str, *, listed: bool = True) -> str | None:
    """Return a volume's name without its ending; None for other files and hidden ones."""
    ending = None if name.startswith(".") else ending_of(name)
    if ending is None or (listed and not _readers()[ending].listed):
        return None
    return name[: -len(ending)] or None


def _readers() -> Mapping[str, VolumeReader]:
    return _by_ending(tuple(installed().loaders["readers"].items()))


@lru_cache(maxsize=8)
def _by_ending(
    offers: tuple[tuple[str, tuple[str, Callable[[], Any]]], ...],
) -> Mapping[str, VolumeReader]:
    """Return ending -> reader; what a plugin offers twice, or cannot load, is left out and told."""
    known: dict[str, VolumeReader] = {}
    for name, _ in offers:
        try:
            reader = installed().load("readers", name)()
        except GansynthError as fault:
            log.warning("%s", fault)
            continue
        for ending in reader.endings:
            if ending in known:
                log.warning("reader %r: %s is read already, so it is not asked", name, ending)
            known.setdefault(ending, reader)
    return known


def _asked(reader: VolumeReader, path: Path, call: Callable[[], T]) -> T:
    """Return what a reader returns; a fault in one line for whatever its libraries raise."""
    try:
        with reading(path):
            path.stat()
            try:
                return call()
            except gzip.BadGzipFile:
                raise
            except OSError as error:
                if error.errno is None:  # a library's, of what it reads
                    raise ValueError(str(error)) from error
                raise
    except GansynthError:
        raise
    except Exception as error:  # libraries assert, and their decoders raise whatever they meet
        words = " ".join(str(error).split()).rpartition("ERROR: ")[2] or type(error).__name__
        raise DataFault(
            "nifti.file-not-of-its-format",
            f"{path}: cannot be read as {ending_of(path.name) or 'a folder of DICOM'}: "
            f"{words:.300}; {COPY_AGAIN}",
        ) from error


def _header(
    reader: VolumeReader, path: Path, max_bytes: int, ndim: Collection[int]
) -> VolumeHeader:
    found = _asked(reader, path, lambda: _complete(reader.header(path)))
    _refuse_absurd(path, found, max_bytes, ndim)
    return found


def _complete(found: Announced) -> VolumeHeader:
    """Return what a reader has found, with what it leaves out: the affine says the rest."""
    kept = _plain(tuple(map(int, found[0])))
    if isinstance(found, VolumeHeader):
        return found._replace(shape=kept)
    affine = np.array(found[2], np.float64).reshape(4, 4)
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return VolumeHeader(kept, np.dtype(found[1]), affine, (x, y, z), affine)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out what says nothing: axes of one entry after the third."""
    return (*shape[:3], *[length for length in shape[3:] if length != 1])


def _refuse_absurd(path: Path, layout: VolumeHeader, max_bytes: int, ndim: Collection[int]) -> None:
    if len(layout.shape) not in ndim:
        expected = " or ".join([f"{n}D" for n in sorted(ndim)])
        raise DataFault(
            "nifti.image-axes-differ",
            f"{path}: image is {len(layout.shape)}D of shape {layout.shape}, expected {expected}; "
            "write one file per channel, with three axes",
        )
    affine = layout.affine
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.maximum(sizes, 1e-30)
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < 1e-6:
        raise DataFault(
            "nifti.affine-singular-or-not-finite",
            f"{path}: affine {affine.round(6).tolist()} is singular or not finite; repair the "
            "header",
        )
    if not ((sizes >= LEAST_MM) & (sizes <= MOST_MM)).all():
        raise DataFault(
            "nifti.affine-voxels-out-of-range",
            f"{path}: voxels of {sizes.tolist()} mm by its affine, expected {LEAST_MM:g} to "
            f"{MOST_MM:g}; repair the header",
        )
    if layout.dtype.kind not in NUMBERS:
        raise DataFault(
            "nifti.voxels-not-numbers",
            f"{path}: voxels are of type {layout.dtype}, expected numbers; convert colour or "
            "complex images to one file per channel",
        )
    if not layout.shape or min(layout.shape) < 1:
        raise DataFault(
            "nifti.announced-layout-impossible",
            f"{path}: header announces shape {layout.shape}; {COPY_AGAIN}",
        )
    if layout.nbytes > max_bytes:
        raise DataFault(
            "nifti.announced-voxels-too-large",
            f"{path}: header announces {layout.nbytes} bytes of voxels, expected at most "
            f"{max_bytes}; {COPY_AGAIN}",
        )
    if layout.nbytes > BOMB_BYTES and layout.nbytes > BOMB_RATIO * _stored_bytes(path):
        raise DataFault(
            "nifti.decompression-bomb",
            f"{path}: {_stored_bytes(path)} bytes announce {layout.nbytes}, expected at most "
            f"{BOMB_RATIO} times as much: cut off, or a decompression bomb? {COPY_AGAIN}",
        )


def _stored_bytes(path: Path) -> int:
    """Return the bytes of a volume, with files of its name beside it: voxels may lie there."""
    if path.is_dir():
        return folder_bytes(path)
    ending = ending_of(path.name) or ""
    name = path.name[: len(path.name) - len(ending)]
    beside = path.parent.glob(f"{glob.escape(name)}.*")
    return sum([file.stat().st_size for file in beside if file.is_file()])


def _scaled(path: Path, layout: VolumeHeader, array: npt.NDArray[Any]) -> Volume:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if layout.scaled:
        wide = np.result_type(array.dtype, np.float32)
        array = array.astype(wide) * wide.type(layout.slope) + wide.type(layout.inter)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise DataFault(
            "nifti.voxels-not-finite",
            f"{path}: {nan} NaN and {inf} infinite voxel(s), expected finite values; replace them, "
            "or leave the case out",
        )
    return Volume(array, layout.affine, layout.spacing, layout.qform, layout.notes)
