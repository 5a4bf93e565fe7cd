"""One segment of a bank: an immutable HDF5 file, built in memory, that carries its own hash.

The first 512 bytes are HDF5's user block, which HDF5 skips: one line of text with the SHA-256 of
all bytes after the hash, and how many samples follow. So a reader learns the number of samples
without opening HDF5, and a flipped bit anywhere in the file is found by ``check_segment``.

Each field of the samples is one data set: stacked, a row per sample, where the shapes agree
(``h5["image"][3]``); else all values end to end, with the shapes under ``shapes/``. Extras lie end
to end, one data set per dtype, whatever their number: a host may add one per label, and opening
each would cost more than reading the image. Nothing in the file depends on the clock: the same
samples make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Sample
from gansynth.runtime.errors import DataFault, IntegrityFault

FORMAT = 1
HEADER_BYTES = 512
_MAGIC = b"gansynth segment sha256 "
_HASHED_FROM = len(_MAGIC) + 64
_NAME = re.compile(r"segment-(\d{6,})\.h5")
_ID = re.compile(r"(\d{6,})-(\d{2,})")
_STORABLE = "biuf"
"""Kinds of dtype an array may have: booleans, integers, floats."""

Array = npt.NDArray[Any]


class Header(NamedTuple):
    """What a segment's first bytes say: its hash, its number, its samples."""

    sha256: str
    number: int
    samples: int


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"segment-{number:06d}.h5"


def segment_number(name: str) -> int | None:
    """Number of a segment by its file name; None for other files."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def sample_id(number: int, row: int) -> str:
    """Id of a sample."""
    return f"{number:06d}-{row:02d}"


def parse_id(text: str) -> tuple[int, int]:
    """Segment number and row of a sample's id.

    Raises:
        KeyError: the text is no id.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise KeyError(text)
    return int(match[1]), int(match[2])


def list_segments(folder: Path) -> dict[int, Path]:
    """Segments of a folder by number, increasing; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    numbers = {name: segment_number(name) for name in names}
    found = sorted((number, name) for name, number in numbers.items() if number is not None)
    return {number: folder / name for number, name in found}


# -- writing -------------------------------------------------------------------------------------


def encode_segment(
    number: int, samples: Sequence[tuple[Sample, Mapping[str, Array]]], dtype: str
) -> tuple[bytes, bytes]:
    """Build a segment in memory.

    Args:
        number: the segment's number.
        samples: at least one; each with what the host wants beside it. All have labels or none,
            all have boxes or none, all have the same extras.
        dtype: ``float16`` or ``float32``, how images are stored.

    Returns:
        The file's bytes in two parts, to be written one after the other.

    Raises:
        DataFault: a sample that cannot be stored so: its values overflow, or it has other fields
            than the rest.
    """
    # In memory, because h5py leaks and crashes when it meets a full disk itself.
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
    with np.errstate(over="ignore"):  # an overflow is infinite, and found below
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
    for other in arrays:
        found = {name: a.dtype.name for name, a in other.items()}
        if found != kinds:
            raise DataFault(
                f"bank: samples of one segment have extras {kinds} and {found}, expected the same; "
                "the adapter's finalise() must give all of them every time"
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


def read_header(path: Path) -> Header:
    """Read a segment's first bytes.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: it is no segment.
    """
    with open(path, "rb") as stream:
        return _parse_header(path, stream.read(HEADER_BYTES))


def _parse_header(path: Path, raw: bytes) -> Header:
    try:
        if len(raw) < HEADER_BYTES or not raw.startswith(_MAGIC):
            raise ValueError("its first bytes are not a segment's")
        facts = json.loads(raw[_HASHED_FROM:].rstrip(b"\0"))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, expected {FORMAT}")
        digest = raw[len(_MAGIC) : _HASHED_FROM].decode("ascii")
        return Header(digest, int(facts["number"]), int(facts["samples"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error


def check_segment(path: Path) -> Header:
    """Hash a whole segment and compare.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: it is not, to the bit, what was published under its name.
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
    """The fault of a segment that is not what it claims."""
    return IntegrityFault(
        f"{path}: damaged segment: {why}; expected what was published. Delete the bank's folder "
        "and make it again"
    )
