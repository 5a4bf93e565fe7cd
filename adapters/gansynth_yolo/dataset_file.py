"""``data.yaml`` as both detectors read it; nothing is downloaded or executed.

A folder of images and label files without one is read by its names.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    model_validator,
)

from gansynth.data.picture_files import SUFFIXES
from gansynth.data.pictures import printable
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import refuse_unnameable
from gansynth.runtime.yaml_text import read_yaml

SPLITS = ("train", "val", "test")
USUAL = ("data", "dataset")  # generic file names, for which the folder's name is used


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


def _line(text: str) -> str:
    if not text.strip() or not printable(text):
        raise ValueError("does not print on one line")
    return text.strip()


def _names(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if list(value) != list(range(len(value))):
        raise ValueError(f"has the keys {list(value)[:8]!r}, not 0, 1, 2, ... in this order")
    return list(value.values())


Line = Annotated[str, AfterValidator(_line)]
Entries = Annotated[
    list[Line],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1),
]
EXPECTED = {
    **dict.fromkeys(SPLITS, "a folder of images, a .txt list of them, or a list of these"),
    "names": "the names of the classes: a list, or 0: NAME, 1: NAME; yes, no, on and off in quotes",
    "nc": "the number of classes",
    "channels": "1 or 3",
}


class _Document(BaseModel):
    """Keys that a detector reads; others are left alone, ``download`` among them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    path: Line | None = None
    train: Entries
    val: Entries
    test: Entries | None = None
    nc: Annotated[StrictInt, Field(ge=1, lt=2**15)] | None = None
    names: Annotated[list[Line], BeforeValidator(_names), Field(max_length=2**15 - 1)] = []
    channels: Literal[1, 3] = 3

    @model_validator(mode="after")
    def _counted(self) -> _Document:
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(f"names: {name!r} occurs twice, expected each once")
        if not self.names and self.nc is None:
            raise ValueError(f"names: none, expected {EXPECTED['names']}")
        if self.names and self.nc not in (None, len(self.names)):
            raise ValueError(f"nc: {self.nc}, but names has {len(self.names)}, expected equal")
        return self


def read_dataset_file(path: Path, *, allow_outside: bool) -> DatasetFile:
    """Read ``data.yaml``, or the names in a folder without one.

    Raises:
        DataFault: no YAML, or an invalid key.
        IntegrityFault: ``path`` leads out of the file's folder, and that is not allowed.
    """
    if path.is_dir():
        return _by_names(path)
    expected = "data.yaml with path, train, val and names; correct it"
    document, _ = read_yaml(path, expected, DataFault)
    if not isinstance(document, dict):
        raise DataFault(f"{path}: holds a {type(document).__name__}, expected {expected}")
    given = {key: value for key, value in document.items() if value is not None}
    try:
        read = _Document.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(next(iter(first["loc"]), ""))
        value = "" if isinstance(first["input"], (dict, list)) else f"{first['input']!r:.80}, "
        words = first["msg"].removeprefix("Value error, ")
        if key:
            words = f"{key}: {value}{words}, expected {EXPECTED.get(key, 'a folder')}"
        raise DataFault(f"{path}: {words}; correct it") from None
    home = root = path.parent
    if read.path is not None:
        root = Path(os.path.abspath(home / os.path.expanduser(read.path)))
        refuse_unnameable(root, f"{path}: path")
        if not allow_outside:
            check_inside(home, root, f"{path}: path: {read.path!r}")
        if not root.is_dir():
            raise DataFault(
                f"{path}: path: {read.path!r} is no folder ({root}), expected the folder that "
                f"train and val are relative to. Correct it, or leave it out if that is {home}"
            )
    splits = {split: tuple(getattr(read, split)) for split in SPLITS if getattr(read, split)}
    names = tuple(read.names or (f"class_{number}" for number in range(read.nc or 0)))
    return DatasetFile(path, home, root, names, read.channels, splits)


def check_inside(home: Path, target: Path, label: str) -> None:
    """Reject a path or link that leads out of a folder."""
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(home)):
        raise IntegrityFault(
            f"{label} leads out of {home}, expected something inside it. Put it there, or allow "
            "it: --read allow_outside=yes"
        )
