"""Checked reading of nnU-Net's preprocessed arrays (``.b2nd``), which carry no checksum.

The hash of every file is noted beside their folder, by ``prepare`` or after a first decoding, and
reading compares. ``check`` says which arrays nobody has noted: it decodes them, which is no proof.
The decoder of blosc2 is not made for damaged bytes: some end the process, others never return. So
the first decoding of each array is in a process of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth import DataFault, EnvironmentFault, IntegrityFault, read_json, write_json_atomic
from gansynth.runtime.files import reading, sha256_file

MAX_CASE_BYTES = 16 << 30  # largest accepted size of a decompressed array
SECONDS = 120  # most time for one array


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
        self.folder, self.hint, self._keep = folder, hint, keep
        hashes = hashes_of(folder)
        self._hashes: dict[str, str] = dict(read_json(hashes)) if hashes.is_file() else {}
        self._damaged: dict[str, str] = {}
        self._checked: dict[str, int] = {}  # times of the files whose hashes were compared

    def read(self, name: str, box: Sequence[slice] = ()) -> npt.NDArray[Any]:
        """Read an array (C, D, H, W), or the part of it in a box: a slice for each spatial axis."""
        data = self.checked(name)
        try:
            return _decode(data, box)
        except MemoryError as error:
            raise EnvironmentFault(
                "nnunet.arrays-beyond-memory",
                f"{self.folder / name}: not enough memory to read it; free some",
            ) from error
        except Exception as error:  # the decoder has no error class of its own
            raise self._fault(name, _words(error)) from error

    def checked(self, name: str) -> bytes:
        """Return a file's bytes, which are those whose hash was noted.

        Where none was noted, each new array is decoded in another process first.
        """
        path = self.folder / name
        with reading(path):
            data, changed = path.read_bytes(), path.stat().st_mtime_ns
        if self._checked.get(name) == changed:
            return data
        if name not in self._hashes and name not in self._damaged:
            for new, digest, fault in _decode_apart(self.unnoted()):
                (self._damaged if fault else self._hashes)[new] = fault or digest
            with contextlib.suppress(EnvironmentFault):  # a folder that may not be written to
                if self._keep:
                    write_json_atomic(hashes_of(self.folder), self._hashes)
        if name in self._damaged:
            raise self._fault(name, self._damaged[name])
        if self._hashes.get(name) != hashlib.sha256(data).hexdigest():
            raise IntegrityFault(
                "nnunet.array-hash-differs",
                f"{path}: its SHA-256 is not the one noted in {hashes_of(self.folder).name}, "
                "expected the same: the disk or a copy has damaged it, or nnU-Net has preprocessed "
                f"again; remove that note if it did, else {self.hint}",
            )
        self._checked[name] = changed
        return data

    def unnoted(self) -> list[Path]:
        """Return the arrays whose hash is not noted."""
        known = {*self._hashes, *self._damaged}
        return [file for file in sorted(self.folder.glob("*.b2nd")) if file.name not in known]

    def _fault(self, name: str, words: str) -> DataFault:
        path = self.folder / name
        return DataFault(
            "nnunet.array-damaged",
            f"{path}: damaged ({words}), expected a blosc2 array; {self.hint}",
        )


def _decode(data: bytes, box: Sequence[slice] = ()) -> npt.NDArray[Any]:
    # `blosc2.open` would also follow links and evaluate expressions in a file.
    import blosc2

    array: Any = blosc2.ndarray_from_cframe(data, copy=True)
    size = int(np.prod(array.shape, dtype=object)) * np.dtype(array.dtype).itemsize
    if len(array.shape) != 4 or array.dtype.kind not in "iuf" or not 0 < size <= MAX_CASE_BYTES:
        raise ValueError(
            f"shape {tuple(array.shape)} of {array.dtype}, expected numbers of shape "
            f"(C, D, H, W), at most {MAX_CASE_BYTES} bytes"
        )
    return np.asarray(array[(slice(None), *box)])


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _decode_apart(files: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """Yield name, SHA-256 and fault of each file; another process follows one that dies."""
    while files:
        words = [sys.executable, "-m", __name__, *map(str, files)]
        ended = subprocess.run(words, capture_output=True, text=True)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        yield from lines
        if len(lines) == len(files):
            return
        late = ended.stderr.startswith("Timeout (")
        if ended.returncode >= 0 and not late:
            raise EnvironmentFault(
                "nnunet.array-not-decoded",
                f"{files[0]}: not decoded: {ended.stderr.strip()[-300:]}; try again",
            )
        killer = "does not end" if late else f"dies of signal {-ended.returncode}"
        yield files[len(lines)].name, "", f"the decoder {killer}"
        files = files[len(lines) + 1 :]


def main(files: Sequence[str]) -> None:
    """Print name, SHA-256 and fault of each file as a line of JSON, as soon as it is known."""
    for file in map(Path, files):
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # also from within C
        data, fault = file.read_bytes(), ""
        try:
            _decode(data)
        except MemoryError:
            raise
        except Exception as error:  # as above
            fault = _words(error)
        print(json.dumps([file.name, hashlib.sha256(data).hexdigest(), fault]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
