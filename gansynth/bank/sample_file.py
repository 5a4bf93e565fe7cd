"""One sample of a bank: a file in the safetensors layout, which cannot point to another file.

Eight bytes hold the length of a JSON header. The header holds the dtype, shape and place of each
array, and the provenance. It begins with the SHA-256 of all other bytes. The arrays follow without
gaps. The same sample makes the same bytes. A reader compares everything with the file's own size
before it allocates memory, and needs numpy alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, LabelArray, Sample
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault
from gansynth.runtime.files import parse_json

MAX_HEADER_BYTES, MAX_SAMPLE_BYTES = 16 << 20, 4 << 30
_MAX_AXES = 8
_BEGIN = b'{"__metadata__":{"sha256":"'
_DIGITS = slice(8 + len(_BEGIN), 8 + len(_BEGIN) + 64)  # place of the SHA-256 in the file
_NAME = re.compile(r"sample-(\d{6,})\.safetensors")
_EXTRA = "extra:"
"""Prefix of an adapter's arrays; all others are named in ``_check_forms``."""
_DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {text: code for code, text in _DTYPES.items()}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BankSample:
    """One sample of a bank; its arrays are the caller's own copies."""

    id: str  # number of the sample in its bank, e.g. ``000012``
    image: Array  # float16 or float32 (C, D, H, W) or (C, H, W), as the bank's ``dtype`` says
    labels: LabelArray | None  # int16 (D, H, W) or (H, W)
    boxes: Boxes | None
    extras: dict[str, Array]  # the adapter's extra arrays, by name
    provenance: dict[str, Any]  # the request, the generator and the seed


_Form = tuple[str, tuple[int, ...]]  # a key of _DTYPES, and a shape


def sample_path(folder: Path, sample_id: str) -> Path:
    """Return the file of a sample."""
    return folder / f"sample-{sample_id}.safetensors"


def list_samples(folder: Path) -> list[str]:
    """List the ids of a folder's samples by increasing number; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((match[1] for name in names if (match := _NAME.fullmatch(name))), key=int)


def damaged(path: Path, why: object) -> IntegrityFault:
    """Return the fault of a damaged file of a bank."""
    return IntegrityFault(
        f"{path}: damaged: {why}; expected what the bank's writer published. Delete the bank's "
        "folder and make it again"
    )


# -- writing -------------------------------------------------------------------------------------


def encode_sample(sample: Sample, extras: Mapping[str, Array], dtype: str) -> list[bytes]:
    """Return the bytes of a sample's file, in parts.

    Raises:
        DataFault: its image overflows, its arrays do not fit together, or cannot be stored.
    """
    arrays = {"image": _stored_image(sample.image, np.dtype(dtype))}
    if sample.labels is not None:
        arrays["labels"] = np.asarray(sample.labels, "<i2")
    if sample.boxes is not None:
        arrays["boxes"] = np.asarray(sample.boxes.coords, "<f4")
        arrays["box_labels"] = np.asarray(sample.boxes.labels, "<i2")
    arrays |= {_EXTRA + name: np.asarray(array) for name, array in sorted(extras.items())}
    provenance = json.dumps(dict(sample.provenance), sort_keys=True, default=_plain)
    header: dict[str, Any] = {"__metadata__": {"sha256": "0" * 64, "provenance": provenance}}
    forms, data, end = {}, [], 0
    for name, array in arrays.items():
        code = _CODES.get(array.dtype.newbyteorder("<").str)
        if code is None:
            raise DataFault(
                f"bank: {name!r} is {array.dtype}, expected booleans, integers or floats"
            )
        data.append(array.astype(_DTYPES[code], copy=False).tobytes())
        forms[name] = (code, array.shape)
        offsets = [end, end := end + len(data[-1])]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        _check_forms(forms)
        if len(text) > MAX_HEADER_BYTES or end > MAX_SAMPLE_BYTES - 8 - len(text):
            raise ValueError(f"a sample of {end} bytes with a header of {len(text)} is too large")
    except ValueError as error:
        raise DataFault(f"bank: {error}; expected what a host can read") from error
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head[: _DIGITS.start] + head[_DIGITS.stop :])
    for part in data:
        digest.update(part)
    sha256 = digest.hexdigest().encode()
    return [head[: _DIGITS.start] + sha256 + head[_DIGITS.stop :], *data]


def _stored_image(image: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is detected below
        stored = np.asarray(image).astype(dtype)
    if not np.isfinite(stored).all():
        raise DataFault(
            f"bank: an image reaches {np.abs(image).max():g}, which is not finite as {dtype}; "
            "expected admitted samples. Store float32, or check the generator"
        )
    return stored


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise DataFault(f"bank: provenance holds a {type(value).__name__}, expected what JSON can hold")


# -- reading -------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a bank's file and yield it with its size; never a link, folder, pipe or device.

    Raises:
        FileNotFoundError: there is none (any more).
        IntegrityFault: it is not a regular file.
        EnvironmentFault: it cannot be opened.
    """
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        if regular:  # with flags that hold if it is exchanged now
            flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: cannot be opened: {error}; expected a readable file. Check permissions, and "
            "the limit of open files (ulimit -n)"
        ) from error
    if not regular:
        raise damaged(path, "a link, folder, pipe or device, not a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream, os.fstat(descriptor).st_size


def read_sample(path: Path) -> BankSample:
    """Read one sample into fresh, writable arrays.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: it is not a sample's file.
        EnvironmentFault: it cannot be opened.
    """
    arrays = {}
    with open_regular(path) as (stream, size):
        _, provenance, forms = _read_header(path, stream, size)
        for name, (code, shape) in forms.items():
            array = arrays[name] = np.empty(shape, _DTYPES[code])
            if array.size and stream.readinto(array.reshape(-1).view(np.uint8)) < array.nbytes:  # type: ignore[attr-defined]
                raise damaged(path, "it was cut while it was read")
    boxes = arrays.get("boxes")
    return BankSample(
        id=path.name[len("sample-") : -len(".safetensors")],
        image=arrays["image"],
        labels=arrays.get("labels"),
        boxes=None if boxes is None else Boxes(boxes, arrays["box_labels"]),
        extras={n.removeprefix(_EXTRA): a for n, a in arrays.items() if n.startswith(_EXTRA)},
        provenance=provenance,
    )


def read_sha256(path: Path, *, check: bool = False) -> str:
    """Return the SHA-256 that a sample's file holds of itself; raises as ``read_sample``.

    ``check``: hash the whole file and compare.
    """
    with open_regular(path) as (stream, size):
        expected, *_ = _read_header(path, stream, size)
        if check:
            stream.seek(0)
            digest = hashlib.sha256(stream.read(_DIGITS.start))
            stream.seek(_DIGITS.stop)
            while part := stream.read(1 << 20):
                digest.update(part)
            if digest.hexdigest() != expected:
                raise damaged(path, f"its SHA-256 is {digest.hexdigest()}, expected {expected}")
    return expected


def _read_header(
    path: Path, stream: BinaryIO, size: int
) -> tuple[str, dict[str, Any], dict[str, _Form]]:
    """Return SHA-256, provenance and arrays, compared with the file's size; arrays come next."""
    try:
        length = int.from_bytes(stream.read(8), "little")
        if size > MAX_SAMPLE_BYTES or not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        text = stream.read(length)
        header = json.loads(text, object_pairs_hook=_without_repeats)
        metadata = header.pop("__metadata__")
        if not text.startswith(_BEGIN) or metadata.keys() != {"sha256", "provenance"}:
            raise ValueError("its header is not that of a bank's sample")
        provenance = parse_json(metadata["provenance"])
        if not isinstance(provenance, dict):
            raise ValueError("its provenance is not an object")
        forms, end = dict[str, _Form](), 0
        for name, entry in header.items():
            code, shape = forms[name] = entry.pop("dtype"), tuple(entry.pop("shape"))
            possible = all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
            if code not in _DTYPES or len(shape) > _MAX_AXES or not possible:
                raise ValueError(f"{name!r} has an impossible dtype or shape")
            begin, end = end, end + math.prod(shape) * np.dtype(_DTYPES[code]).itemsize
            if entry != {"data_offsets": [begin, end]}:
                raise ValueError(f"{name!r} has other offsets than its dtype and shape")
        if end != size - 8 - length:
            raise ValueError(f"{size - 8 - length} bytes of arrays, expected {end}")
        _check_forms(forms)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}"[:300]) from error
    return metadata["sha256"], provenance, forms


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in its header")
    return found


def _check_forms(arrays: Mapping[str, _Form]) -> None:
    own = {name: form for name, form in arrays.items() if not name.startswith(_EXTRA)}
    code, shape = own.get("image", ("", ()))
    number = own["box_labels"][1][:1] if "box_labels" in own else ()
    if code not in ("F16", "F32") or len(shape) not in (3, 4):
        raise ValueError("no image of two or three dimensions in float16 or float32")
    fitting = {
        "image": (code, shape),
        "labels": ("I16", shape[1:]),
        "boxes": ("F32", (*number, 2 * len(shape[1:]))),
        "box_labels": ("I16", number),
    }
    for name, form in own.items():
        if form != fitting.get(name):
            raise ValueError(f"{name!r} of {form[0]} {list(form[1])} beside this image")
    if ("boxes" in own) != ("box_labels" in own):
        raise ValueError("boxes without classes, or classes without boxes")
