"""Decoding of ``.b2nd`` arrays, and the first decoding of each, in a process that it may end.

The decoder of blosc2 is not made for damaged bytes: some end the process, others never return.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.processes import ChildCommand

MAX_CASE_BYTES = 16 << 30  # largest accepted size of a decompressed array
SECONDS = 120  # most time for one array


def opened(data: bytes) -> Any:
    """Return an array (C, D, H, W) that is not decompressed yet; ValueError if it is none.

    ``blosc2.open`` would also follow links and evaluate expressions in a file.
    """
    import blosc2

    array = blosc2.ndarray_from_cframe(data, copy=True)
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(shape) != 4 or dtype.kind not in "iuf" or not 0 < size <= MAX_CASE_BYTES:
        raise ValueError(
            f"shape {shape} of {dtype}, expected numbers of shape (C, D, H, W), at most "
            f"{MAX_CASE_BYTES} bytes"
        )
    return array


def words_of(error: Exception) -> str:
    """Return what the decoder says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def decode_apart(files: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Decode files in a process of their own, and another one after each that ends it.

    Returns:
        SHA-256 of each that could be decoded, by name; what is wrong with the others.
    """
    hashes: dict[str, str] = {}
    damaged: dict[str, str] = {}
    left = list(files)
    while left:
        words = [sys.executable, "-m", __name__, *map(str, left)]
        ended = ChildCommand(words, os.environ, document=True).run()
        for line in ended.output.splitlines():
            name, digest, fault = json.loads(line)
            (damaged if fault else hashes)[name] = fault or digest
        left = [file for file in left if file.name not in {*hashes, *damaged}]
        if left and ended.code >= 0:
            raise EnvironmentFault(
                f"{left[0]}: not decoded: {ended.errors.strip()[-300:]}; try again"
            )
        if left:  # killed at the first that it has not reported
            how = (
                "does not end" if ended.code == -signal.SIGALRM else f"dies of signal {-ended.code}"
            )
            damaged[left.pop(0).name] = f"the decoder {how}"
    return hashes, damaged


def main(files: Sequence[str]) -> None:
    """Print name, SHA-256 and fault of each file as a line of JSON, as soon as it is known."""
    for file in map(Path, files):
        signal.alarm(SECONDS)
        digest, fault = "", ""
        try:
            data = file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            opened(data)[...]
        except MemoryError:
            raise
        except Exception as error:  # the decoder has no error class of its own
            fault = words_of(error)
        print(json.dumps([file.name, digest, fault]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
