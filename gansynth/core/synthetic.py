"""The mark of files that gansynth generated, and the refusal to read such files as real cases.

A NIfTI header has it (``descrip``), a PNG as text, JSON as a key; copies keep it. A picture has it
in its pixels, too: other programs drop the text when they save it again.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import IntegrityFault

if TYPE_CHECKING:
    import nibabel as nib

    from gansynth.core.source import SourceRequest

MARK = "gansynth synthetic"
KEY = "synthetic"  # key in JSON documents: true, or the names of the synthetic cases
_MARK_BYTES = hashlib.sha256(MARK.encode()).digest()[:8]
_MARK_BITS = np.unpackbits(np.frombuffer(_MARK_BYTES, np.uint8))[:, None]
"""The lowest bits of the first pixels of a synthetic picture, (64, 1): the same in each channel."""
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
            raw.seek(0)
            head = (gzip.GzipFile(fileobj=raw) if packed else raw).read(_HEAD)
    except (OSError, EOFError, zlib.error):  # the reader of the file reports it better
        return False
    return MARK.encode() in head


def marked_pixels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a picture of whole numbers, (H, W) or (H, W, C), with the mark in its first pixels.

    A value changes by 1 at most; a picture of fewer than 64 pixels has no mark.
    """
    rows = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1).copy()  # (H * W, C)
    if len(rows) >= len(_MARK_BITS):
        without_lowest_bit = rows[: len(_MARK_BITS)] >> 1 << 1
        rows[: len(_MARK_BITS)] = without_lowest_bit | _MARK_BITS
    return rows.reshape(pixels.shape)


def real_pixels(pixels: npt.NDArray[Any], file: Path, request: SourceRequest) -> npt.NDArray[Any]:
    """Return the pixels of a file, (H, W) or (H, W, C); refuse the mark as ``real_file`` does."""
    if request.synthetic is None and has_mark(pixels):
        raise _synthetic_fault(str(file))
    return pixels


def has_mark(pixels: npt.NDArray[Any]) -> bool:
    """Whether the pixels of a file, (H, W) or (H, W, C), have the mark."""
    if pixels.dtype.kind not in "ui":
        return False
    first = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)[: len(_MARK_BITS)]  # (64, C)
    return len(first) == len(_MARK_BITS) and bool(((first & 1) == _MARK_BITS).all())


def synthetic_warning(files: Sequence[Path]) -> str:
    """Return in words that these files are no real cases, for a check."""
    return (
        f"{files[0]}: made by gansynth, as {len(files)} file(s) are; a generator learns from them "
        "only where the run or bank that made them is named: --synthetic-source RUN"
    )


def real_file(file: Path, request: SourceRequest) -> Path:
    """Return the same file; IntegrityFault if it has the mark and no generator is named."""
    if request.synthetic is None and is_marked(file):
        raise _synthetic_fault(str(file))
    return file


def refuse_named(
    document: Mapping[str, Any], where: Path, cases: Collection[str], request: SourceRequest
) -> None:
    """Refuse (IntegrityFault) a data set whose JSON declares synthetic cases."""
    marked_cases = document.get(KEY, ())
    synthetic = sorted(cases if marked_cases is True else set(marked_cases or ()) & set(cases))
    if request.synthetic is None and synthetic:
        raise _synthetic_fault(f"{where}: {synthetic[0]}")


def _synthetic_fault(file: str) -> IntegrityFault:
    return IntegrityFault(
        "synthetic.case-made-by-gansynth",
        f"{file}: made by gansynth, expected a real case; its generator's lineage would be lost. "
        "Leave it out, or name the run or bank that made it: --synthetic-source RUN",
    )
