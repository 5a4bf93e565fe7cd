"""Volumes as their files store them, and the faults of reading a file, whatever its format."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault, EnvironmentFault, refuse_closed

MAX_VOLUME_BYTES = 4 << 30
LEAST_MM, MOST_MM = 1e-4, 1e4  # bounds of a voxel's edges; beyond them a header is damaged
COPY_AGAIN = "copy it from its source again, or leave the case out"


class Volume(NamedTuple):
    """Content of a file of one volume."""

    # voxels in the file's own axis order (x, y, z) or (x, y, z, channel), native byte order. Float
    # if the header scales, else as stored.
    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]  # float64 (4, 4), voxel to mm, x to the right, y to the front
    spacing: tuple[float, float, float]  # voxel size in mm along x, y, z
    # float64 (4, 4), the affine by the qform, which other programs take; else `affine`
    qform: npt.NDArray[np.float64]
    notes: tuple[str, ...]  # what the header leaves open, and how it was read


class VolumeHeader(NamedTuple):
    """Header of a file of one volume; see ``Volume`` for ``affine`` to ``notes``."""

    shape: tuple[int, ...]  # in the file's own axis order (x, y, z) or (x, y, z, channel)
    dtype: np.dtype[Any]  # of the voxels as stored
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, float, float]
    qform: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()
    slope: float = 0.0  # 0 where the header does not scale; other programs may still add `inter`
    inter: float = 0.0

    @property
    def scaled(self) -> bool:
        """Whether the header scales the voxels, which makes them floats."""
        return self.slope != 0 and (self.slope, self.inter) != (1, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels as stored."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the errors of a reader of a file into one-line faults."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which may never end
            raise DataFault(
                "nifti.pipe-or-device", f"{path}: a pipe or a device, expected a file; {COPY_AGAIN}"
            )
        yield
    except FileNotFoundError as error:
        raise DataFault("nifti.file-missing", f"{path}: no such file; {COPY_AGAIN}") from error
    except IsADirectoryError as error:
        raise DataFault("nifti.folder-not-file", f"{path}: a folder, expected a file") from error
    except EOFError as error:
        raise DataFault(
            "nifti.gzip-truncated",
            f"{path}: truncated at byte {path.stat().st_size}, its gzip stream has no end; "
            f"{COPY_AGAIN}",
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFault(
            "nifti.gzip-damaged", f"{path}: damaged, its gzip stream says {error}; {COPY_AGAIN}"
        ) from error
    except MemoryError as error:
        raise EnvironmentFault(
            "nifti.not-enough-memory", f"{path}: not enough memory to read it; free some"
        ) from error
    except OSError as error:
        refuse_closed(path)
        raise EnvironmentFault(
            "nifti.cannot-be-read", f"{path}: cannot be read: {error.strerror or error}"
        ) from error
