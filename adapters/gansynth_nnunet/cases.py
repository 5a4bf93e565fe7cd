"""Checked reading of nnU-Net's preprocessed arrays (``.b2nd``).

They carry no checksum: one flipped bit in five goes unnoticed. So ``prepare`` records the hash of
every file beside their folder, and reading compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.source import CaseSource
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault
from gansynth.runtime.files import read_json, reading, sha256_file, write_json_atomic
from gansynth_nnunet.dataset import LabelTable
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.plans import NnunetPlans

MAX_CASE_BYTES = 16 << 30
"""Largest accepted size of a decompressed array."""


def write_hashes(folder: Path, *, again: bool = True) -> None:
    """Write date and SHA-256 of a folder's arrays to ``gansynth_<folder>.json`` beside it."""
    if not again and hashes_of(folder).is_file():
        return
    files = sorted(folder.glob("*.b2nd"))
    doc = {file.name: [file.stat().st_mtime_ns, sha256_file(file)] for file in files}
    write_json_atomic(hashes_of(folder), doc)


def hashes_of(folder: Path) -> Path:
    """Return the file with the hashes of a folder's arrays."""
    return folder.with_name(f"gansynth_{folder.name}.json")


class PreprocessedArrays:
    """The arrays of one preprocessed folder.

    Args:
        way_out: hint for a damaged array, for messages.
    """

    def __init__(self, folder: Path, hint: str) -> None:
        self.folder = folder
        self.hint = hint
        hashes = hashes_of(folder)
        self._hashes: dict[str, Any] = read_json(hashes) if hashes.is_file() else {}

    def open(self, name: str) -> Any:
        """Open an array (C, D, H, W) without decompressing it.

        ``blosc2.open`` would also follow links and evaluate expressions in a file.

        Raises:
            DataFault: missing, damaged, or other than a numeric array with four axes.
            IntegrityFault: changed since preprocessing, although its date is the same.
        """
        import blosc2

        path = self.folder / name
        with reading(path):
            data, date = path.read_bytes(), path.stat().st_mtime_ns
        noted = self._hashes.get(name)
        # Another date: nnU-Net, or a copy, has rewritten the file, which is legitimate.
        if noted and noted[0] == date and noted[1] != hashlib.sha256(data).hexdigest():
            raise IntegrityFault(
                f"{path}: its SHA-256 is not the one noted when it was preprocessed, expected the "
                f"same; the disk or a copy has damaged it; {self.hint}"
            )
        try:
            array = blosc2.ndarray_from_cframe(data, copy=True)
            shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype)
        except Exception as error:  # the decoder has no error class of its own for damaged bytes
            raise self._damaged(path, error) from error
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if len(shape) != 4 or dtype.kind not in "iuf" or not 0 < size <= MAX_CASE_BYTES:
            raise DataFault(
                f"{path}: shape {shape} of {dtype}, expected numbers of shape (C, D, H, W), at "
                f"most {MAX_CASE_BYTES} bytes; {self.hint}"
            )
        return array

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read an array (C, D, H, W).

        Raises:
            DataFault, IntegrityFault: as ``open``.
            EnvironmentFault: not enough memory.
        """
        array = self.open(name)
        try:
            return np.asarray(array[...])
        except MemoryError as error:
            raise EnvironmentFault(
                f"{self.folder / name}: not enough memory to read it; free some"
            ) from error
        except Exception as error:  # as above
            raise self._damaged(self.folder / name, error) from error

    def _damaged(self, path: Path, error: Exception) -> DataFault:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        return DataFault(f"{path}: damaged ({words}), expected a blosc2 array; {self.hint}")


class Preprocessed(CaseSource):
    """One configuration of a preprocessed data set, before its cases are read.

    Attributes:
        dataset: full name, ``Dataset004_Hippocampus``.
        dataset_json: nnU-Net's copy of ``dataset.json`` beside the plans.
        labels: its labels, regions and the ignore label.
    """

    root: NnunetRoot
    dataset: str
    plans: NnunetPlans
    configuration: str
    config: dict[str, Any]
    dataset_json: Mapping[str, Any]
    labels: LabelTable
