"""The mark of files that gansynth generated, and the refusal to read such files as real cases.

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
KEY = "synthetic"  # key in JSON documents: true, or the names of the synthetic cases
_HEAD = 4096  # bytes that contain the mark: all of a NIfTI header, a PNG file's first chunks


def marked(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return the same volume with the mark in its header."""
    image.header["descrip"] = MARK.encode()
    return image


def is_marked(file: Path) -> bool:
    """Whether a NIfTI or PNG file, packed or not, has the mark; False for a missing file."""
    try:
        with open(file, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else open(file, "rb") as stream:
            head = stream.read(_HEAD)
    except (OSError, EOFError):  # the reader of the file reports it better
        return False
    return MARK.encode() in head


def real_file(file: Path, request: SourceRequest) -> Path:
    """Return the same file; IntegrityFault if it has the mark and no generator is named."""
    if request.synthetic is None and is_marked(file):
        raise _refused(str(file))
    return file


def refuse_named(
    document: Mapping[str, Any], where: Path, cases: Collection[str], request: SourceRequest
) -> None:
    """Refuse (IntegrityFault) a data set whose JSON declares synthetic cases."""
    marked_cases = document.get(KEY, ())
    synthetic = sorted(cases if marked_cases is True else set(marked_cases or ()) & set(cases))
    if request.synthetic is None and synthetic:
        raise _refused(f"{where}: {synthetic[0]}")


def _refused(file: str) -> IntegrityFault:
    return IntegrityFault(
        f"{file}: made by gansynth, expected a real case; its generator's lineage would be lost. "
        "Leave it out, or name the run or bank that made it: --synthetic-source RUN"
    )
