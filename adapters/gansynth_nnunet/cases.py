"""Checked reading of nnU-Net's preprocessed arrays (``.b2nd``).

They carry no checksum, and many a flipped bit goes unnoticed. So the hash of every file is noted
beside their folder, by ``prepare`` or after a first decoding, and reading compares. ``check`` says
which arrays nobody has noted: it decodes them, which is no proof.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.source import CaseSource
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError, IntegrityFault
from gansynth.runtime.files import read_json, reading, sha256_file, write_json_atomic
from gansynth_nnunet.dataset import LabelTable
from gansynth_nnunet.decoding import decode_apart, opened, words_of
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.plans import NnunetPlans


def write_hashes(folder: Path) -> None:
    """Write the SHA-256 of a folder's arrays to ``gansynth_<folder>.json`` beside it."""
    doc = {file.name: sha256_file(file) for file in sorted(folder.glob("*.b2nd"))}
    write_json_atomic(hashes_of(folder), doc)


def hashes_of(folder: Path) -> Path:
    """Return the file with the hashes of a folder's arrays."""
    return folder.with_name(f"gansynth_{folder.name}.json")


class PreprocessedArrays:
    """The arrays of one preprocessed folder.

    Args:
        hint: way out for a damaged array, for messages.
        keep: note the hash of what could be decoded, where none is noted.
    """

    def __init__(self, folder: Path, hint: str, *, keep: bool = True) -> None:
        self.folder = folder
        self.hint = hint
        self._keep = keep
        hashes = hashes_of(folder)
        noted = read_json(hashes) if hashes.is_file() else {}
        self._hashes = {name: str(value) for name, value in noted.items()}
        self._damaged: dict[str, str] = {}

    def open(self, name: str) -> Any:
        """Open an array (C, D, H, W) without decompressing it.

        Raises:
            DataFault: missing, damaged, or other than a numeric array with four axes.
            IntegrityFault: changed since its hash was noted.
        """
        try:
            return opened(self.checked(name))
        except GansynthError:
            raise
        except Exception as error:  # the decoder has no error class of its own for damaged bytes
            raise self._fault(name, words_of(error)) from error

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read an array (C, D, H, W)."""
        array = self.open(name)
        try:
            return np.asarray(array[...])
        except MemoryError as error:
            raise EnvironmentFault(
                f"{self.folder / name}: not enough memory to read it; free some"
            ) from error
        except Exception as error:  # as above
            raise self._fault(name, words_of(error)) from error

    def checked(self, name: str) -> bytes:
        """Return a file's bytes, which are those whose hash was noted.

        Where none was noted, each new array is decoded in another process first.
        """
        path = self.folder / name
        with reading(path):
            data = path.read_bytes()
        if name not in self._hashes and name not in self._damaged:
            self._note_new()
        if name in self._damaged:
            raise self._fault(name, self._damaged[name])
        if self._hashes.get(name) != hashlib.sha256(data).hexdigest():
            raise IntegrityFault(
                f"{path}: its SHA-256 is not the one noted in {hashes_of(self.folder).name}, "
                "expected the same: the disk or a copy has damaged it, or nnU-Net has preprocessed "
                f"again; remove that note if it did, else {self.hint}"
            )
        return data

    def unnoted(self) -> list[Path]:
        """Return the arrays whose hash is not noted."""
        known = {*self._hashes, *self._damaged}
        return [file for file in sorted(self.folder.glob("*.b2nd")) if file.name not in known]

    def _note_new(self) -> None:
        """Decode the arrays whose hash is not noted, in another process, and note it."""
        hashes, damaged = decode_apart(self.unnoted())
        self._hashes |= hashes
        self._damaged |= damaged
        with contextlib.suppress(EnvironmentFault):  # a folder that may not be written to
            if self._keep:
                write_json_atomic(hashes_of(self.folder), self._hashes)

    def _fault(self, name: str, words: str) -> DataFault:
        path = self.folder / name
        return DataFault(f"{path}: damaged ({words}), expected a blosc2 array; {self.hint}")


class Preprocessed(CaseSource):
    """One configuration of a preprocessed data set, before its cases are read."""

    root: NnunetRoot
    dataset: str  # full name, `Dataset004_Hippocampus`
    plans: NnunetPlans
    configuration: str
    config: dict[str, Any]
    folder: Path  # of the configuration's cases
    dataset_json: Mapping[str, Any]  # nnU-Net's copy of `dataset.json` beside the plans
    labels: LabelTable  # its labels, regions and the ignore label
