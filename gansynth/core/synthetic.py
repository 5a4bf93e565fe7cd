"""The mark of files that gansynth has drawn, and who may take such files for cases.

A NIfTI header has it (``descrip``), a PNG as text, JSON as a key; copies keep it.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.runtime.errors import IntegrityFault

if TYPE_CHECKING:
    import nibabel as nib

    from gansynth.core.source import SourceRequest

MARK = "gansynth synthetic"
KEY = "synthetic"
"""Of JSON documents: true, or the names of the cases that are."""
_HEAD = 4096
"""Bytes in which the mark of a file is: all of a NIfTI header, a PNG file's first chunks."""


def marked(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The same volume with the mark in its header."""
    image.header["descrip"] = MARK.encode()
    return image


def is_marked(file: Path) -> bool:
    """Whether a NIfTI or PNG file, packed or not, has the mark; False for one that is not there."""
    try:
        with open(file, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else open(file, "rb") as stream:
            head = stream.read(_HEAD)
    except (OSError, EOFError):  # whoever reads it says so better
        return False
    return MARK.encode() in head


def real_file(file: Path, request: SourceRequest) -> Path:
    """The same file; IntegrityFault if it has the mark and nobody is said to have drawn it."""
    if request.synthetic is None and is_marked(file):
        raise _refused(str(file))
    return file


def refuse_named(
    document: Mapping[str, Any], where: Path, cases: Collection[str], request: SourceRequest
) -> None:
    """Refuse (IntegrityFault) a data set whose JSON says that cases of it are synthetic."""
    marked_cases = document.get(KEY, ())
    synthetic = sorted(cases if marked_cases is True else set(marked_cases or ()) & set(cases))
    if request.synthetic is None and synthetic:
        raise _refused(f"{where}: {synthetic[0]}")


def _refused(file: str) -> IntegrityFault:
    return IntegrityFault(
        f"{file}: drawn by gansynth, expected a real case; what its generator has seen would be "
        "forgotten. Leave it out, or name the run or bank that drew it: --synthetic-source RUN"
    )
