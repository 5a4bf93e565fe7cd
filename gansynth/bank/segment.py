"""One segment of a bank: an immutable HDF5 file, built in memory, that contains its own hash.

The first 512 bytes are HDF5's user block. It holds the SHA-256 of all bytes after the hash, and the
number of samples. Each field of the samples is one data set. Fields of equal shape are stacked, one
row per sample. Otherwise all values are concatenated, with the shapes under ``shapes/``. Extras are
concatenated, one data set per dtype. The same samples make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, LabelArray, Sample
from gansynth.runtime.errors import DataFault, IntegrityFault

FORMAT = 1
HEADER_BYTES = 512
_MAGIC = b"gansynth segment sha256 "
_HASHED_FROM = len(_MAGIC) + 64
_NAME = re.compile(r"segment-(\d{6,})\.h5")
_ID = re.compile(r"(\d{6,})-(\d{2,})")
_STORABLE = "biuf"  # allowed kinds of dtype: booleans, integers, floats

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BankSample:
    """One sample of a bank; its arrays are the caller's own copies.

    Attributes:
        id: segment and row, e.g. ``000012-03``.
        image: float16 or float32 (C, D, H, W) or (C, H, W), as the bank's ``dtype`` says.
        labels: int16 (D, H, W) or (H, W).
        boxes: of the sample.
        extras: the adapter's extra arrays, by name.
        provenance: the request, the generator and the seed.
    """

    id: str
    image: Array
    labels: LabelArray | None
    boxes: Boxes | None
    extras: dict[str, Array]
    provenance: dict[str, Any]


class SegmentHeader(NamedTuple):
    """Content of a segment's first bytes: hash, number, count of samples."""

    sha256: str
    number: int
    samples: int


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"segment-{number:06d}.h5"


def segment_number(name: str) -> int | None:
    """Return the number of a segment by its file name; None for other files."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def sample_id(number: int, row: int) -> str:
    """Return the id of a sample."""
    return f"{number:06d}-{row:02d}"


def parse_id(text: str) -> tuple[int, int]:
    """Return the segment number and row of a sample's id.

    Raises:
        KeyError: the text is not an id.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise KeyError(text)
    return int(match[1]), int(match[2])


def list_segments(folder: Path) -> dict[int, Path]:
    """List a folder's segments by increasing number; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    numbers = {name: segment_number(name) for name in names}
    segments = sorted((number, name) for name, number in numbers.items() if number is not None)
    return {number: folder / name for number, name in segments}


# -- writing -------------------------------------------------------------------------------------


def encode_segment(
    number: int, samples: Sequence[tuple[Sample, Mapping[str, Array]]], dtype: str
) -> tuple[bytes, bytes]:
    """Build a segment in memory, as two parts that are written one after the other.

    Raises:
        DataFault: a sample's values overflow, or its fields or extras differ from the others'.
    """
    # In memory, because h5py leaks and crashes when it writes to a full disk.
    with h5py.File(
        segment_name(number), "w", driver="core", backing_store=False, block_size=1 << 20
    ) as file:
        _write_samples(file, samples, np.dtype(dtype))
        file.flush()
        body: bytes = file.id.get_file_image()
    facts = json.dumps({"format": FORMAT, "number": number, "samples": len(samples)})
    tail = f"\n{facts}\n".encode().ljust(HEADER_BYTES - _HASHED_FROM, b"\0")
    digest = hashlib.sha256(tail)
    digest.update(body)
    return _MAGIC + digest.hexdigest().encode() + tail, body


def _write_samples(
    file: h5py.File, pairs: Sequence[tuple[Sample, Mapping[str, Array]]], dtype: np.dtype[Any]
) -> None:
    samples = [sample for sample, _ in pairs]
    _write_field(file, "image", [_stored_image(s.image, dtype) for s in samples], chunked=True)
    labels = _all_or_none("labels", [s.labels for s in samples])
    if labels:
        _write_field(file, "labels", [np.asarray(a, np.int16) for a in labels])
    boxes = _all_or_none("boxes", [s.boxes for s in samples])
    if boxes:
        _write_field(file, "boxes", [np.asarray(b.coords, np.float32) for b in boxes])
        _write_field(file, "box_labels", [np.asarray(b.labels, np.int16) for b in boxes])
    _write_extras(file, [extras for _, extras in pairs])
    lines = [_to_json(s.provenance) for s in samples]
    file.create_dataset("provenance", data=np.array(lines), track_times=False)


def _stored_image(image: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is detected below
        stored = np.asarray(image).astype(dtype)
    if not np.isfinite(stored).all():
        raise DataFault(
            f"bank: an image reaches {np.abs(image).max():g}, which is not finite as {dtype}; "
            "expected admitted samples. Store float32, or check the generator"
        )
    return stored


def _all_or_none(name: str, values: Sequence[Any]) -> list[Any]:
    present = [v for v in values if v is not None]
    if present and len(present) != len(values):
        raise DataFault(
            f"bank: {len(present)} of {len(values)} samples of one segment have {name}, expected "
            "all or none of them"
        )
    return present


def _write_field(
    file: h5py.File, name: str, arrays: Sequence[Array], *, chunked: bool = False
) -> None:
    first = arrays[0]
    if any(a.ndim != first.ndim for a in arrays):
        raise DataFault(f"bank: {name} differs in the number of axes in one segment, expected one")
    if all(a.shape == first.shape for a in arrays):
        shape = (len(arrays), *first.shape)
        chunks = (1, *first.shape) if chunked and first.size else None
        data = file.create_dataset(name, shape, first.dtype, chunks=chunks, track_times=False)
        for row, array in enumerate(arrays):
            data[row] = array
    else:
        values = np.concatenate([a.ravel() for a in arrays])
        file.create_dataset(name, data=values, track_times=False)
        shapes = np.array([a.shape for a in arrays], np.int64)
        file.create_dataset(f"shapes/{name}", data=shapes, track_times=False)


def _write_extras(file: h5py.File, extras: Sequence[Mapping[str, Array]]) -> None:
    arrays = [{name: np.asarray(a) for name, a in sorted(e.items())} for e in extras]
    kinds = {name: a.dtype.name for name, a in arrays[0].items()}
    for extra in arrays:
        dtypes = {name: a.dtype.name for name, a in extra.items()}
        if dtypes != kinds:
            raise DataFault(
                f"bank: samples of one segment have extras {kinds} and {dtypes}, expected the "
                "same; the adapter's finalise() must return all of them every time"
            )
    for name, a in arrays[0].items():
        if a.dtype.kind not in _STORABLE:
            raise DataFault(
                f"bank: extra {name!r} is {a.dtype}, expected booleans, integers or floats"
            )
    for dtype in sorted(set(kinds.values())):
        values = [a.ravel() for e in arrays for name, a in e.items() if kinds[name] == dtype]
        file.create_dataset(f"extras/{dtype}", data=np.concatenate(values), track_times=False)
    index = {"dtypes": kinds, "shapes": [[a.shape for a in e.values()] for e in arrays]}
    file.create_dataset("extras_index", data=np.bytes_(json.dumps(index)), track_times=False)


def _to_json(provenance: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(provenance), sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise DataFault(f"bank: provenance holds a {type(value).__name__}, expected what JSON can hold")


# -- reading -------------------------------------------------------------------------------------


def read_header(path: Path) -> SegmentHeader:
    """Read a segment's first bytes.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: it is not a segment.
    """
    with open(path, "rb") as stream:
        return _parse_header(path, stream.read(HEADER_BYTES))


def _parse_header(path: Path, raw: bytes) -> SegmentHeader:
    try:
        if len(raw) < HEADER_BYTES or not raw.startswith(_MAGIC):
            raise ValueError("its first bytes are not a segment's")
        facts = json.loads(raw[_HASHED_FROM:].rstrip(b"\0"))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, expected {FORMAT}")
        digest = raw[len(_MAGIC) : _HASHED_FROM].decode("ascii")
        return SegmentHeader(digest, int(facts["number"]), int(facts["samples"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error


def check_segment(path: Path) -> SegmentHeader:
    """Hash a whole segment and compare.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: its bytes or its number differ from what was published.
    """
    with open(path, "rb") as stream:
        raw = stream.read(HEADER_BYTES)
        digest = hashlib.sha256(raw[_HASHED_FROM:])
        while part := stream.read(1 << 20):
            digest.update(part)
    header = _parse_header(path, raw)
    if header.sha256 != digest.hexdigest():
        raise damaged(path, f"its SHA-256 is {digest.hexdigest()}, expected {header.sha256}")
    if header.number != segment_number(path.name):
        raise damaged(path, f"it was published as {segment_name(header.number)}")
    return header


def damaged(path: Path, why: object) -> IntegrityFault:
    """Return the fault of a damaged segment."""
    return IntegrityFault(
        f"{path}: damaged segment: {why}; expected what was published. Delete the bank's folder "
        "and make it again"
    )


class SegmentFile:
    """An open segment; h5py's own errors tell that it is gone or damaged."""

    def __init__(self, path: Path) -> None:
        self.number = segment_number(path.name) or 0
        # Without HDF5's lock: segments are immutable, and some shared file systems have no locks.
        self._file = h5py.File(path, "r", locking=False)
        try:
            self._fields: dict[str, tuple[Any, Array | None, Array]] = {}
            for name in ("image", "labels", "boxes", "box_labels"):
                if name in self._file:
                    self._open_field(name)
            self._open_extras()
            self._provenance = self._file["provenance"]
        except BaseException:
            self._file.close()
            raise

    def _open_field(self, name: str) -> None:
        shapes, ends = None, np.zeros(0, np.int64)
        if f"shapes/{name}" in self._file:
            shapes = self._file[f"shapes/{name}"][()]
            ends = np.cumsum(np.prod(shapes, axis=1))
        self._fields[name] = (self._file[name], shapes, ends)

    def _open_extras(self) -> None:
        """Find the data set and the start of each extra of each sample."""
        index = json.loads(self._file["extras_index"][()])
        self._dtypes: dict[str, str] = index["dtypes"]
        self._shapes: list[list[list[int]]] = index["shapes"]
        self._values = {dtype: self._file[f"extras/{dtype}"] for dtype in {*self._dtypes.values()}}
        ends = dict.fromkeys(self._values, 0)
        self._starts = []
        for shapes in self._shapes:
            self._starts.append(dict(ends))
            for dtype, shape in zip(self._dtypes.values(), shapes, strict=True):
                ends[dtype] += math.prod(shape)
        self._starts.append(ends)

    def _read_extras(self, row: int) -> dict[str, Array]:
        first, last = self._starts[row], self._starts[row + 1]
        remaining = {
            dtype: data[first[dtype] : last[dtype]] for dtype, data in self._values.items()
        }
        extras = {}
        for (name, dtype), shape in zip(self._dtypes.items(), self._shapes[row], strict=True):
            size = math.prod(shape)
            extras[name] = remaining[dtype][:size].reshape(shape)
            remaining[dtype] = remaining[dtype][size:]
        return extras

    def read(self, row: int) -> BankSample:
        """Read one sample into fresh, writable arrays."""
        boxes = None
        if "boxes" in self._fields:
            boxes = Boxes(self._read_field("boxes", row), self._read_field("box_labels", row))
        return BankSample(
            id=sample_id(self.number, row),
            image=self._read_field("image", row),
            labels=self._read_field("labels", row) if "labels" in self._fields else None,
            boxes=boxes,
            extras=self._read_extras(row),
            provenance=json.loads(self._provenance[row]),
        )

    def _read_field(self, name: str, row: int) -> Array:
        data, shapes, ends = self._fields[name]
        if shapes is None:
            stacked: Array = data[row]
            return stacked
        shape = tuple(int(s) for s in shapes[row])
        last = int(ends[row])
        values: Array = data[last - int(np.prod(shape)) : last]
        return values.reshape(shape)

    def close(self) -> None:
        """Close the file, which frees the memory of a retired segment on a tmpfs."""
        self._file.close()
