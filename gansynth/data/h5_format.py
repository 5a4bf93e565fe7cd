"""The HDF5 file behind ``h5:FILE``: its names, its index, and safe reading.

``/index`` is one JSON document. ``/cases/000000`` holds ``image`` (C, D, H, W), ``labels`` (D, H,
W), ``boxes`` and ``box_labels``. It also holds ``planes``, counts of labels (see
``gansynth.core.foreground``). All are chunked, each chunk with a Fletcher-32 checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.fingerprint import Prints
from gansynth.core.foreground import PlaneIndex
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Schema
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import reading
from gansynth.runtime.serialise import Document

FORMAT = 1
LIBVER = ("v110", "v110")
"""HDF5's file format: its metadata carries checksums too, and HDF5 1.10 and later read it."""
MAX_INDEX_BYTES = 256 << 20
MAX_CASE_BYTES = 16 << 30  # largest array that is read
MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_SAYS = (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError)
"""Exceptions that h5py raises for a damaged file."""


@dataclass(frozen=True)
class CaseEntry(Document, later=("label_class", "image", "prints")):
    """One case; hashes are for lineage (``sha256``) and of what reading gives back (``stored``).

    ``boxes``: how many; None if there is no list. ``label_class``, ``image``, ``prints`` are not
    written down where there are none.
    """

    id: str
    subject: str
    sha256: str
    stored: str
    shape: tuple[int, ...]
    labelled: bool
    boxes: int | None
    label_class: int | None = None
    image: str = ""
    prints: Prints = ()

    @property
    def record(self) -> CaseRecord:
        """The case's record in the lineage."""
        return CaseRecord(self.id, self.subject, self.sha256, self.image, self.prints)


@dataclass(frozen=True)
class CacheIndex(Document):
    """The index of a cache. ``dtype``: type of stored images, ``float32`` or ``float16``."""

    name: str
    fold: str
    schema: Schema
    space: Space
    request: Mapping[str, Any]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    cases: tuple[CaseEntry, ...]
    dtype: str
    ancestors: tuple[Lineage, ...] = ()

    def to_bytes(self) -> bytes:
        """JSON that ``from_bytes`` reads back."""
        doc = {"format": FORMAT, **self.to_json()}
        return json.dumps(doc, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> CacheIndex:
        """Read what ``to_bytes`` wrote."""
        doc = json.loads(raw)
        del doc["format"]
        return cls.from_json(doc)


def group(number: int) -> str:
    """Name of a case's group."""
    return f"cases/{number:06d}"


# -- planes --------------------------------------------------------------------------------------


def pack_planes(planes: PlaneIndex) -> npt.NDArray[np.int64]:
    """Counts of a case's labels as one table: value, box, then a column per plane."""
    rows, axes, _ = planes.boxes.shape
    boxes = planes.boxes.reshape(rows, 2 * axes)
    return np.hstack([planes.values[:, None].astype(np.int64), boxes, planes.counts])


def unpack_planes(table: npt.NDArray[np.int64], axes: int) -> PlaneIndex:
    """Read what ``pack_planes`` wrote."""
    boxes = table[:, 1 : 1 + 2 * axes].reshape(len(table), axes, 2)
    return PlaneIndex(table[:, 0].astype(np.int16), table[:, 1 + 2 * axes :], boxes)


# -- reading -------------------------------------------------------------------------------------


def damaged(path: Path, why: object, part: str = "") -> DataFault:
    """The fault of a file that is not what ``gansynth cache`` wrote."""
    words = " ".join(str(why).split())[:200]
    return DataFault(
        f"{path}: {part}damaged ({words}), expected what gansynth cache wrote; copy it again, or "
        "make it again: gansynth cache KIND:WHERE -o FILE"
    )


@contextlib.contextmanager
def hdf5(path: Path, part: str = "") -> Iterator[None]:
    """Turn HDF5's errors of a file into one line; ``part`` is being read, e.g. ``case 'a': ``."""
    try:
        yield
    except GansynthError:
        raise
    except MemoryError as error:
        raise EnvironmentFault(f"{path}: {part}not enough memory to read it; free some") from error
    except HDF5_SAYS as error:
        if isinstance(error, OSError) and error.errno:
            with reading(path):
                raise
        raise damaged(path, error, part) from error


def open_file(path: Path) -> Any:
    """Open a cache with h5py; DataFault: none, EnvironmentFault: not readable."""
    import h5py

    with reading(path), open(path, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise DataFault(
                f"{path}: not an HDF5 file, expected one made by: gansynth cache KIND:WHERE -o FILE"
            )
    # Without HDF5's lock: a published cache never changes, and some file systems have no locks.
    # Without its cache of chunks: random patches rarely meet a chunk again.
    with hdf5(path):
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)


def read_index(path: Path) -> CacheIndex:
    """Read the index of a cache; DataFault: none, damaged, or of another format."""
    with open_file(path) as file, hdf5(path):
        version = file.attrs.get("gansynth cache")
        if version is None:
            raise DataFault(
                f"{path}: an HDF5 file without the attribute 'gansynth cache', expected one made "
                "by: gansynth cache KIND:WHERE -o FILE"
            )
        if int(version) != FORMAT:
            raise DataFault(
                f"{path}: attribute 'gansynth cache' is {version}, expected {FORMAT}: another "
                "gansynth made it; make it again: gansynth cache KIND:WHERE -o FILE"
            )
        stored = dataset(file, "index")
        if stored.dtype != np.uint8 or not 0 < stored.size <= MAX_INDEX_BYTES:
            raise ValueError(f"index is {stored.shape} of {stored.dtype}")
        raw = stored[()].tobytes()
        if hashlib.sha256(raw).hexdigest() != file.attrs.get("index sha256"):
            raise ValueError("its index is not the one that was written")
        return CacheIndex.from_bytes(raw)


def dataset(file: Any, name: str) -> Any:
    """A data set that lies in the file itself, no link, no view; else ValueError, KeyError."""
    import h5py

    parts = name.split("/")
    for last in range(1, len(parts) + 1):
        if not isinstance(file.get("/".join(parts[:last]), getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is not in the file")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
        raise ValueError(f"{name} is not an array in the file")
    return array


def checked(file: Any, name: str, shape: Sequence[int], kinds: str) -> Any:
    """A data set of a known shape. Raises ValueError, KeyError: it is another."""
    array = dataset(file, name)
    size = math.prod(shape) * array.dtype.itemsize
    if array.shape != tuple(shape) or array.dtype.kind not in kinds or size > MAX_CASE_BYTES:
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, expected {tuple(shape)}")
    return array
