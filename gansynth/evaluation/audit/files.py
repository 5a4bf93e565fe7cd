"""Texts, NIfTI headers and PNG metadata: what the files that gansynth exports hold beside images.

A file of any other kind, and a damaged one, is a finding: nobody has read it.
"""

from __future__ import annotations

import csv
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from gansynth.core.synthetic import MARK
from gansynth.runtime.files import reading
from gansynth.sampling.identifiers import Names, marks

HEADER_TEXTS = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
"""Fields of a NIfTI header for anything that a program cares to write."""
HEADER_NUMBERS = (
    *("cal_min", "cal_max", "toffset"),
    *("slice_duration", "slice_start", "slice_end", "slice_code"),
)
"""Fields that tell of a scan: its range of intensities, its timing."""
PNG_PLAIN = frozenset({"interlace", "gamma", "srgb", "chromaticity", "transparency", "dpi"})
"""What Pillow says of how pixels are coded."""
DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, SyntaxError, RecursionError, csv.Error),
    *(zlib.error, struct.error, ImageFileError, HeaderDataError, Image.DecompressionBombError),
)
"""What readers raise at files that are not what they are called."""
_GZIP_HEAD = 512


class Finding(NamedTuple):
    """One thing that should not be handed on: in which file, and what."""

    file: str
    said: str

    def __str__(self) -> str:
        return " ".join(f"{self.file}: {self.said}".split())


@dataclass(frozen=True)
class Look:
    """A look into one file: its path in the folder, what is looked for, and what was found."""

    file: str
    names: Names
    findings: list[Finding]

    def odd(self, place: str, found: str) -> None:
        """Note what should not be there, whoever it names."""
        self.findings.append(Finding(self.file, f"{place}: {found}"))

    def text(self, place: str, text: str, *, key: str = "", odd: str = "") -> None:
        """Look through the value of a key; ``odd`` says what is wrong with there being any text."""
        said = [odd] if odd else []
        seen, named = marks(text), self.names.valued(key, text)
        # Of a path that is quoted as a whole the folders are not named again.
        said += [f"names {name}" for name in named if not (seen and name.what == "folder")]
        said += [f"holds {mark}" for mark in seen]
        if said:
            self.odd(place, "; ".join(said))


def look_at(path: Path, look: Look) -> None:
    """Look at the name of a file, folder or link, and into a file; links are not followed.

    Raises:
        EnvironmentFault: the file or folder may not be read.
    """
    look.text("name", path.name)
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        look.text("link", target, odd=f"leads to {target!r}, expected a file: not read")
    elif stat.S_ISDIR(mode):
        with reading(path):
            os.listdir(path)
    else:
        ending = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
        kind, read = KINDS.get(ending.lower(), ("", None))
        if read is None or not stat.S_ISREG(mode):
            look.odd("not read", "gansynth exports no files of this kind; look at it, or remove it")
            return
        with reading(path), open(path, "rb"):
            pass
        try:
            read(path, look)
        except DAMAGED as error:
            look.odd("not read", f"damaged, or no {kind} file: {error!s:.200}")


# -- texts ----------------------------------------------------------------------------------------


def _read_text(path: Path, look: Look) -> None:
    """Look through a text line by line; a line ``key: value`` is YAML, or written alike."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        look.text(f"line {number}", line)
        key, _, value = line.partition(":")
        for short in set(look.names.valued(key, value)) - set(look.names.within(line)):
            look.odd(f"line {number}", f"names {short}")


def _read_json(path: Path, look: Look) -> None:
    _walk(json.loads(path.read_text("utf-8")), "", look)


def _walk(value: Any, place: str, look: Look, key: str = "") -> None:
    """Look through a JSON document; a list's entries are values of its key."""
    if isinstance(value, dict):
        for name, entry in value.items():
            where = f"{place}.{name}" if place else name
            look.text(f"key {where!r:.200}", name)
            _walk(entry, where, look, name)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _walk(entry, f"{place}[{number}]", look, key)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        look.text(f"value of {place!r:.200}", str(value), key=key)


def _read_table(path: Path, look: Look) -> None:
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    head = rows[0] if rows else []
    for number, row in enumerate(rows, 1):
        for column, cell in enumerate(row):
            key = head[column] if column < len(head) and number > 1 else ""
            look.text(f"line {number}, column {column + 1}", cell, key=key)


# -- images ---------------------------------------------------------------------------------------


def _read_nifti(path: Path, look: Look) -> None:
    """Look through the headers: samples have spacing, the mark, and nothing else."""
    _look_at_gzip(path, look)
    image: Any = nib.load(path)
    header = image.header
    for name in HEADER_TEXTS:
        if name in header:
            said = header[name].item().rstrip(b"\0").decode("latin-1")
            if said.strip() and said != MARK:
                odd = f"holds {said!r}, expected none"
                look.text(f"NIfTI header, {name}", said, key=name, odd=odd)
    for name in HEADER_NUMBERS:
        if value := float(header[name].item()):
            look.odd(f"NIfTI header, {name}", f"is {value:g}, expected 0")
    for extension in header.extensions:
        said = _as_text(extension.get_content())
        look.text("NIfTI header extension", said, odd=f"holds {said!r:.120}, expected none")
    for form in ("qform", "sform"):
        affine = getattr(header, f"get_{form}")(coded=True)[0]
        if affine is not None and _of_a_scan(affine):
            look.odd(
                f"NIfTI header, {form}", "is a scan's: an origin or turned axes, expected none"
            )


def _of_a_scan(affine: Any) -> bool:
    """Whether a volume (affine (4, 4), voxel to mm) lies anywhere but along the axes from 0."""
    return bool(affine[:3, 3].any() or (np.count_nonzero(affine[:3, :3], axis=0) > 1).any())


def _look_at_gzip(path: Path, look: Look) -> None:
    with open(path, "rb") as raw:
        head = raw.read(_GZIP_HEAD)
    if head[:2] == b"\x1f\x8b" and head[3:8] != bytes(5):
        said = head[10:].partition(b"\0")[0].decode("latin-1") if head[3] else ""
        look.text("gzip header", said, odd=f"has a time or a name, {said!r:.80}, expected neither")


def _read_png(path: Path, look: Look) -> None:
    """Look through texts and other metadata, those behind the pixels too."""
    with Image.open(path, formats=("PNG",)) as picture:
        picture.load()
        unknown = {c[0].decode("latin-1"): c[1] for c in getattr(picture, "private_chunks", ())}
        found = {**picture.info, **unknown}
    for key, value in found.items():
        said = _as_text(value)
        if key not in PNG_PLAIN and said != MARK:
            odd = f"holds {said!r:.120}, expected none"
            look.text(f"PNG metadata {key!r}", said, key=str(key), odd=odd)


def _as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_NIFTI, _TEXT = ("NIfTI", _read_nifti), ("text", _read_text)
KINDS: dict[str, tuple[str, Callable[[Path, Look], None]]] = {
    **dict.fromkeys((".nii", ".nii.gz"), _NIFTI),
    ".png": ("PNG", _read_png),
    ".json": ("JSON", _read_json),
    ".csv": ("CSV", _read_table),
    **dict.fromkeys((".txt", ".md", ".html", ".yaml", ".yml", ".cfg"), _TEXT),
}
"""Ending of a file name -> what such a file is, and its reader."""
