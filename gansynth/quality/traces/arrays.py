"""HDF5, ``.npy`` and safetensors: attributes, names and texts beside the numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.quality.traces.look import Look
from gansynth.quality.traces.texts import look_through

_HDF5, _NPY = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
RAW_BYTES = 256 << 20
"""HDF5 files up to here are looked through byte by byte, too: what was deleted may still be in."""


def is_hdf5(data: bytes, name: str) -> bool:
    """Whether it is an HDF5 file, with a block of the user's before it or without."""
    return data.startswith(_HDF5) or any(
        data[at : at + 8] == _HDF5 for at in (512 << n for n in range(12)) if at < len(data)
    )


def read_hdf5(data: bytes, look: Look) -> None:
    """Look through names, attributes and texts; note arrays.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: it is damaged.
    """
    import h5py

    begin, known = data.index(_HDF5), len(look.notes.findings)
    if data[:begin].strip(b"\0"):
        said = data[:begin].decode("latin-1")
        look.text("HDF5 user block", said, odd=f"{begin} bytes, expected none")
    with h5py.File(io.BytesIO(data), "r") as file:
        _attributes(file, "/", look)
        for path in _paths(file):
            _entry(file, path, look)
    told = " ".join(str(finding) for finding in look.notes.findings[known:])
    if len(data) <= RAW_BYTES:
        for name in look.names.raw(data):
            if name.text not in told:
                look.odd("HDF5 file, unused bytes", f"names {name}")


def _paths(group: Any, home: str = "") -> Iterator[str]:
    """Paths of all links; those of groups before what is in them."""
    import h5py

    for name in group:
        path = f"{home}/{name}"
        yield path
        own = isinstance(group.get(name, getlink=True), h5py.HardLink)
        entry = group[name] if own else None
        if isinstance(entry, h5py.Group):
            yield from _paths(entry, path)


def _entry(file: Any, path: str, look: Look) -> None:
    import h5py

    look.text(f"HDF5 name {path!r}", path.rsplit("/", 1)[-1])
    link = file.get(path, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        look.text(f"HDF5 link {path!r}", link.filename, odd=f"leads to {link.filename!r}")
        return
    if isinstance(link, h5py.SoftLink):
        return
    entry = file[path]
    _attributes(entry, path, look)
    if not isinstance(entry, h5py.Dataset) or entry.shape is None:
        return
    for name, *_ in entry.external or ():
        look.text(f"HDF5 data set {path!r}", str(name), odd=f"lies in another file, {name!r}")
        return
    key = path.rsplit("/", 1)[-1]
    if entry.dtype.kind in "OSUV":
        _texts(f"HDF5 data set {path!r}", key, entry[()], look)
    else:
        array = entry[()]
        look.picture(f"HDF5 data set {path!r}", array, stack=max(0, min(2, array.ndim - 2)))


def _attributes(entry: Any, path: str, look: Look) -> None:
    for key, value in entry.attrs.items():
        place = f"HDF5 attribute {key!r} of {path!r}"
        look.text(f"{place}, its name", key)
        _texts(place, key, value, look)


def _texts(place: str, key: str, value: Any, look: Look) -> None:
    """Look through texts, single or many, and whole numbers."""
    if isinstance(value, bytes):
        look_through(place, key, _decoded(value), look)
    elif isinstance(value, str):
        look_through(place, key, value, look)
    elif isinstance(value, np.void) and value.dtype.names:
        for name in value.dtype.names:
            _texts(f"{place}, {name}", name, value[name], look)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "OSUViu" and value.size:
        for entry in value.reshape(-1):
            _texts(place, key, entry, look)
    elif isinstance(value, np.integer | int):
        look.text(place, str(int(value)), key=key)
    elif isinstance(value, np.void):
        look.text(place, value.tobytes().decode("latin-1"), key=key)


def is_npy(data: bytes, name: str) -> bool:
    """Whether it is one array of numpy's."""
    return data.startswith(_NPY)


def read_npy(data: bytes, look: Look) -> None:
    """Look through texts; note numbers. Nothing is unpickled.

    Raises:
        ValueError: it is damaged, or pickled.
    """
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names or array.dtype.kind in "SUV":
        key = look.name.removesuffix(".npy").rsplit("/", 1)[-1]
        _texts("array", key, array if array.ndim else array[()], look)
    look.picture("array", array, stack=max(0, min(2, array.ndim - 2)))


def is_safetensors(data: bytes, name: str) -> bool:
    """Whether it is a file of tensors with a JSON header."""
    length = int.from_bytes(data[:8], "little")
    return len(data) > 10 and data[8:9] == b"{" and 2 <= length <= len(data) - 8


def read_safetensors(data: bytes, look: Look) -> None:
    """Look through its header: metadata and the names of tensors.

    Raises:
        ValueError: it is damaged.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for key, value in header.pop("__metadata__", {}).items():
        look.text("safetensors metadata, a key", key)
        look_through(f"safetensors metadata {key!r}", key, str(value), look)
    for name in header:
        look.text(f"safetensors tensor {name!r}", name)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
