"""Opens a file of any kind, by its first bytes rather than by its name."""

from __future__ import annotations

import csv
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from gansynth.quality.traces.arrays import (
    is_hdf5,
    is_npy,
    is_safetensors,
    read_hdf5,
    read_npy,
    read_safetensors,
)
from gansynth.quality.traces.look import Look
from gansynth.quality.traces.nifti import is_nifti, read_nifti
from gansynth.quality.traces.packed import is_gzip, is_tar, is_zip, read_gzip, read_tar, read_zip
from gansynth.quality.traces.pictures import is_picture, read_picture
from gansynth.quality.traces.texts import is_text, read_text

KINDS: tuple[tuple[str, Callable[[bytes, str], bool], Callable[[bytes, Look], None]], ...] = (
    ("gzip", is_gzip, read_gzip),
    ("zip", is_zip, read_zip),
    ("NIfTI", is_nifti, read_nifti),
    ("picture", is_picture, read_picture),
    ("HDF5", is_hdf5, read_hdf5),
    ("npy", is_npy, read_npy),
    ("tar", is_tar, read_tar),
    ("safetensors", is_safetensors, read_safetensors),
    ("text", is_text, read_text),
)
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, SyntaxError),
    *(NotImplementedError, zlib.error, struct.error, zipfile.BadZipFile, tarfile.TarError),
    *(csv.Error, OverflowError),
)
"""What readers raise at files that are not what their first bytes say."""


def look_into(data: bytes, look: Look) -> None:
    """Look into a file of any kind; what cannot be looked into is a finding itself."""
    if not data:
        return
    if data[128:132] == b"DICM":
        look.odd("content", "a DICOM file, whose fields tell whose it is; expected none")
        return
    for kind, fits, read in KINDS:
        if fits(data, look.name):
            try:
                read(data, look)
            except DAMAGED as error:
                said = " ".join(str(error).split())
                look.odd("content", f"cannot be looked into as {kind}: {said:.200}")
                _raw(data, look)
            return
    look.odd("content", "of a kind that is not known here, looked through byte by byte alone")
    _raw(data, look)


def _raw(data: bytes, look: Look) -> None:
    for name in look.names.raw(data):
        look.odd("content", f"names {name}")
