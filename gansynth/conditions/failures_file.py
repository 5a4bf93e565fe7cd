"""The file that ``gansynth failures`` writes: lesions, how they were found, what follows from it.

JSON with a hash of its own content. It names cases and holds numbers; no image is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json, write_json_atomic

FORMAT, VERSION = "gansynth failures", 1
AGAIN = "make it again: gansynth failures --data KIND:WHERE --fold FOLD -o FILE"


def write_failures(path: Path, document: Mapping[str, Any]) -> str:
    """Write a file of failures; returns its hash.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    told = {"format": FORMAT, "version": VERSION, **document}
    digest = _digest(told)
    write_json_atomic(path, {**told, "sha256": digest})
    return digest


def read_failures(path: Path) -> dict[str, Any]:
    """Read what ``write_failures`` wrote.

    Raises:
        DataFault: no such file.
        UsageFault: none of this kind or version.
        IntegrityFault: it is not as it was written.
    """
    if not path.is_file():
        raise DataFault(f"{path}: no such file, expected one of failures; {AGAIN}")
    try:
        document: dict[str, Any] = read_json(path, way_out=AGAIN)
    except DataFault as fault:
        raise IntegrityFault(str(fault)) from fault
    found = document.get("format"), document.get("version")
    if found != (FORMAT, VERSION):
        raise UsageFault(
            f"{path}: format is {found[0]!r}, version {found[1]!r}, expected {FORMAT!r}, version "
            f"{VERSION}; {AGAIN}"
        )
    noted = document.pop("sha256", None)
    if noted != _digest(document):
        raise IntegrityFault(
            f"{path}: its content does not have the SHA-256 it was written with, expected the "
            f"same; it was changed or damaged; {AGAIN}"
        )
    return {**document, "sha256": noted}


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
