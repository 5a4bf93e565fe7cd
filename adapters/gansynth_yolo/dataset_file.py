"""``data.yaml`` as both detectors read it; nothing is downloaded or executed.

A folder of images and label files without one is read by its names.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.data.picture_files import SUFFIXES
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import refuse_unnameable
from gansynth.runtime.yaml_text import read_yaml

SPLITS = ("train", "val", "test")
USUAL = ("data", "dataset")  # generic file names, for which the folder's name is used
ALLOW = "allow it: --read allow_outside=yes"


@dataclass(frozen=True)
class DatasetFile:
    """The content of ``data.yaml``, or of a folder without one."""

    path: Path  # of the file, or of the folder
    home: Path  # its folder, which must hold all files unless `allow_outside` is set
    root: Path  # folder that paths are relative to: its key `path`, else `home`
    names: tuple[str, ...]
    channels: int  # of the detector's images, 1 or 3
    # `train`, `val` and `test`, if there is one: folders and lists as written
    splits: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """The data set's name: the file's, or the folder's if the file is called ``data.yaml``."""
        return self.home.name if self.path.stem.casefold() in USUAL else self.path.stem


def dataset_path(where: str) -> Path:
    """Return the absolute path of the file of ``yolo:WHERE``, or of a folder without one."""
    path = Path(os.path.abspath(os.path.expanduser(where)))
    if path.is_dir():
        candidates = [path / f"{name}{end}" for name in USUAL for end in (".yaml", ".yml")]
        candidates = [p for p in candidates if p.is_file()] or sorted(path.glob("*.y*ml"))
        if len(candidates) == 1 or (candidates and candidates[0].stem in USUAL):
            return candidates[0]
        if not candidates and _folders(path):
            return path
        raise UsageFault(
            f"yolo:{where}: {len(candidates)} YAML files in this folder, expected data.yaml; "
            "name the file: yolo:FOLDER/FILE.yaml"
        )
    if not path.is_file() or path.suffix.lower() not in (".yaml", ".yml"):
        raise DataFault(
            f"yolo:{where}: no such file, expected data.yaml (path, train, val, names), or a "
            "folder that holds it; see: gansynth help sources yolo"
        )
    return path


def _folders(home: Path) -> dict[str, tuple[str, ...]]:
    """Return the folders of images, by split, that have label files; all are ``train`` without."""
    found: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        parts = [f"{split}/images", f"images/{split}", *(["images"] if split == "train" else [])]
        for part in parts:
            if next((home / part.replace("images", "labels")).rglob("*.txt"), None):
                found[split] = (part,)
                break
    pictures = (p for p in home.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found and any(p.with_suffix(".txt").is_file() for p in pictures):
        found["train"] = (".",)
    return found


def _by_names(home: Path) -> DatasetFile:
    """Describe a folder without ``data.yaml``; without names, classes are numbered."""
    splits = _folders(home)
    named = [home / where / "classes.txt" for where in (".", "labels")]
    lines = [line for file in named if file.is_file() for line in file.read_text().splitlines()]
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        homes = [home / part.replace("images", "labels") for (part,) in splits.values()]
        texts = [file.read_text() for labels in homes for file in labels.rglob("*.txt")]
        found = [int(n) for text in texts for n in re.findall(r"^\s*(\d{1,4})\s", text, re.M)]
        names = tuple(f"class_{number}" for number in range(max(found, default=0) + 1))
    return DatasetFile(home, home, home, names, 3, splits)


def read_dataset_file(path: Path, *, allow_outside: bool) -> DatasetFile:
    """Read ``data.yaml``, or the names in a folder without one.

    Raises:
        DataFault: no YAML, or an invalid key.
        IntegrityFault: ``path`` leads out of the file's folder, and that is not allowed.
    """
    if path.is_dir():
        return _by_names(path)
    doc = _document(path)
    names = _names(path, doc)
    splits = {key: _entries(path, key, doc.get(key)) for key in SPLITS if doc.get(key) is not None}
    for key in ("train", "val"):
        if key not in splits:
            raise DataFault(
                f"{path}: {key}: missing, expected a folder of images, a .txt list of them, or "
                "a list of these; add it"
            )
    channels = doc.get("channels", 3)
    if channels not in (1, 3) or isinstance(channels, bool):
        raise DataFault(f"{path}: channels: {channels!r}, expected 1 or 3; correct it")
    home, root = path.parent, path.parent
    if doc.get("path") is not None:
        root = _root(path, doc["path"], allow_outside)
    return DatasetFile(path, home, root, names, channels, splits)


def check_inside(home: Path, target: Path, label: str) -> None:
    """Reject a path or link that leads out of a folder."""
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(home)):
        raise IntegrityFault(
            f"{label} leads out of {home}, expected something inside it. Put it there, or {ALLOW}"
        )


def printable(text: str) -> bool:
    """Return whether a name prints on one line."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _document(path: Path) -> Mapping[str, Any]:
    expected = "data.yaml with path, train, val and names; correct it"
    doc, _ = read_yaml(path, expected, DataFault)
    if not isinstance(doc, dict):
        raise DataFault(f"{path}: holds a {type(doc).__name__}, expected {expected}")
    return doc


def _names(path: Path, doc: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = doc.get("names"), doc.get("nc")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise DataFault(f"{path}: nc: {count!r}, expected the number of classes; correct it")
    if names is None and count is not None:
        return tuple(f"class_{number}" for number in range(min(count, 2**15)))
    if isinstance(names, dict):
        keys = list(names)
        if keys != list(range(len(keys))):
            raise DataFault(
                f"{path}: names: has the keys {keys[:8]!r}, expected 0, 1, 2, ... in this order; "
                "number the classes so"
            )
        names = list(names.values())
    if not isinstance(names, list) or not 1 <= len(names) < 2**15:
        raise DataFault(
            f"{path}: names: {_short(names)}, expected the names of the classes: a list, or 0: "
            "NAME, 1: NAME, ...; correct it"
        )
    classes = tuple(_name(path, number, name) for number, name in enumerate(names))
    twice = next((name for number, name in enumerate(classes) if name in classes[:number]), None)
    if twice is not None:
        raise DataFault(f"{path}: names: {twice!r} occurs twice, expected each once; rename one")
    if count is not None and count != len(classes):
        raise DataFault(
            f"{path}: nc: {count}, but names has {len(classes)}, expected equal; correct one"
        )
    return classes


def _name(path: Path, number: int, name: object) -> str:
    if isinstance(name, bool):
        raise DataFault(
            f"{path}: names: class {number} is {name!r}, expected a name (YAML takes yes, no, on "
            "and off for booleans); put it in quotes"
        )
    text = str(name).strip() if isinstance(name, (str, int, float)) else ""
    if not text or not printable(text):
        raise DataFault(
            f"{path}: names: class {number} is {_short(name)}, expected a name that prints on one "
            "line; correct it"
        )
    return text


def _entries(path: Path, key: str, value: object) -> tuple[str, ...]:
    entries: list[Any] = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip() or not printable(entry):
            raise DataFault(
                f"{path}: {key}: {_short(entry)}, expected a folder of images, a .txt list of "
                "them, or a list of these; correct it"
            )
    if not entries:
        raise DataFault(f"{path}: {key}: an empty list, expected folders or .txt lists; add one")
    return tuple(entry.strip() for entry in entries)


def _root(path: Path, value: object, allow_outside: bool) -> Path:
    if not isinstance(value, str) or not printable(value):
        raise DataFault(f"{path}: path: {_short(value)}, expected a folder; correct it")
    root = Path(os.path.abspath(path.parent / os.path.expanduser(value.strip())))
    refuse_unnameable(root, f"{path}: path")
    if not allow_outside:
        check_inside(path.parent, root, f"{path}: path: {value!r}")
    if not root.is_dir():
        raise DataFault(
            f"{path}: path: {value!r} is no folder ({root}), expected the folder that train and "
            f"val are relative to. Correct it, or leave it out if that is {path.parent}"
        )
    return root


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}..."
