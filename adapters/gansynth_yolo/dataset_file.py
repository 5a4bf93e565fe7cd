"""``data.yaml`` and label files as both detectors read them; nothing is downloaded or executed.

A folder of images and label files without ``data.yaml`` is read by its names. Detectors skip
invalid label files with one warning among many. Here each bad line is a fault.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
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

from gansynth.core.schema import FloatArray
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.pictures import printable
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import reading
from gansynth.runtime.yaml_text import read_yaml

SPLITS = ("train", "val", "test")
USUAL = ("data", "dataset")  # generic file names, for which the folder's name is used
MOST_BYTES = 256 << 20  # largest label file or list of images
MOST_FAULTS = 20  # most faults reported of one label file
MOST_CLASSES = 2**15 - 1
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
COLUMNS = ("class", "xc", "yc", "w", "h")
Rows = npt.NDArray[np.float64]  # (N, 5): class, xc, yc, w, h; shares of the image's edges


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
    allow_outside: bool  # whether paths and links may lead out of `home`

    @property
    def name(self) -> str:
        """The data set's name: the file's, or the folder's if the file is called ``data.yaml``."""
        return self.home.name if self.path.stem.casefold() in USUAL else self.path.stem

    def check_inside(self, target: Path, label: str) -> None:
        """Reject (IntegrityFault) a path or link that leads out of the data set's folder."""
        home = os.path.realpath(self.home)
        if not (self.allow_outside or Path(os.path.realpath(target)).is_relative_to(home)):
            raise IntegrityFault(
                f"{label} leads out of {self.home}, expected something inside it. Put it there, or "
                "allow it: --read allow_outside=yes"
            )


def read_dataset_file(where: str, *, allow_outside: bool) -> DatasetFile:
    """Read the file of ``yolo:WHERE``, or the names in a folder without one.

    Raises:
        UsageFault: a folder with several YAML files.
        DataFault: no such file, no YAML, or an invalid key.
        IntegrityFault: ``path`` leads out of the file's folder, and that is not allowed.
    """
    path = Path(os.path.abspath(os.path.expanduser(where)))
    if path.is_dir():
        usual = [path / f"{name}{end}" for name in USUAL for end in (".yaml", ".yml")]
        files = [file for file in usual if file.is_file()][:1] or sorted(path.glob("*.y*ml"))
        if not files and (splits := _folders(path)):
            return _by_names(path, splits, allow_outside)
        if len(files) != 1:
            raise UsageFault(
                f"yolo:{where}: {len(files)} YAML files in this folder, expected data.yaml; name "
                "the file: yolo:FOLDER/FILE.yaml"
            )
        path = files[0]
    if not os.path.isfile(path) or path.suffix.lower() not in (".yaml", ".yml"):
        raise DataFault(
            f"yolo:{where}: no such file, expected data.yaml (path, train, val, names), or a "
            "folder that holds it; see: gansynth help sources yolo"
        )
    return _by_file(path, allow_outside)


# -- a folder without data.yaml --------------------------------------------------------------------


def _folders(home: Path) -> dict[str, tuple[str, ...]]:
    """Return the folders of images, by split, that have label files; all are ``train`` without."""
    found: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        for part in (f"{split}/images", f"images/{split}", "images" if split == "train" else ""):
            if part and next((home / part.replace("images", "labels")).rglob("*.txt"), None):
                found.setdefault(split, (part,))
    pictures = (p for p in home.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found and any(p.with_suffix(".txt").is_file() for p in pictures):
        found["train"] = (".",)
    return found


def _by_names(
    home: Path, splits: Mapping[str, tuple[str, ...]], allow_outside: bool
) -> DatasetFile:
    """Describe a folder by ``classes.txt``; without it, classes are numbered."""
    named = [home / "classes.txt", home / "labels" / "classes.txt"]
    lines = [line.strip() for file in named if file.is_file() for line in read_lines(file)]
    names = tuple(dict.fromkeys(filter(None, lines)))
    if not names:
        homes = [home / part.replace("images", "labels") for (part,) in splits.values()]
        rows = (line for labels in homes for f in labels.rglob("*.txt") for line in read_lines(f))
        numbers = (int(row[1]) for row in map(re.compile(r"\s*(\d{1,4})\s").match, rows) if row)
        names = tuple(f"class_{number}" for number in range(max(numbers, default=0) + 1))
    return DatasetFile(home, home, home, names, 3, splits, allow_outside)


# -- data.yaml -------------------------------------------------------------------------------------


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
    nc: Annotated[StrictInt, Field(ge=1, le=MOST_CLASSES)] | None = None
    names: Annotated[list[Line], BeforeValidator(_names), Field(max_length=MOST_CLASSES)] = []
    channels: Literal[1, 3] = 3

    @model_validator(mode="after")
    def _counted(self) -> _Document:
        for name, count in Counter(self.names).most_common(1):
            if count > 1:
                raise ValueError(f"names: {name!r} occurs twice, expected each once")
        if not self.names and self.nc is None:
            raise ValueError(f"names: none, expected {EXPECTED['names']}")
        if self.names and self.nc not in (None, len(self.names)):
            raise ValueError(f"nc: {self.nc}, but names has {len(self.names)}, expected equal")
        return self


def _by_file(path: Path, allow_outside: bool) -> DatasetFile:
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
    home = path.parent
    root = Path(os.path.abspath(home / os.path.expanduser(read.path or ".")))
    splits = {split: tuple(getattr(read, split)) for split in SPLITS if getattr(read, split)}
    names = tuple(read.names or (f"class_{number}" for number in range(read.nc or 0)))
    file = DatasetFile(path, home, root, names, read.channels, splits, allow_outside)
    file.check_inside(root, f"{path}: path: {read.path!r}")
    if not os.path.isdir(root):
        raise DataFault(
            f"{path}: path: {read.path!r} is no folder ({root}), expected the folder that train "
            f"and val are relative to. Correct it, or leave it out if that is {home}"
        )
    return file


# -- label files -----------------------------------------------------------------------------------


def read_lines(path: Path, expected: str = "rows CLASS XC YC W H") -> list[str]:
    """Read the lines of a text file; DataFault: too large, or not UTF-8."""
    with reading(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataFault(f"{path}: {size} bytes, expected at most {MOST_BYTES} of {expected}")
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {line}: byte {error.start} is not UTF-8, expected {expected}; save it "
            "as UTF-8"
        ) from error


def read_labels(path: Path, names: Sequence[str], overshoot: float) -> tuple[Rows, list[DataFault]]:
    """Read a label file: its rows as written, each once, and the faults of its lines.

    Boxes may reach beyond the image by ``overshoot``, a share of its width and height.
    """
    rows: dict[tuple[float, ...], None] = {}
    faults: list[DataFault] = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        wrong = _wrong(words, names, overshoot) if words else ""
        if wrong:
            faults.append(DataFault(f"{path}: line {number}: {wrong}; correct the line"))
        elif words:
            rows[tuple(map(float, words))] = None
        if len(faults) == MOST_FAULTS:
            break
    return np.array(list(rows)).reshape(-1, 5), faults


def _wrong(words: Sequence[str], names: Sequence[str], overshoot: float) -> str:
    """Return why a line is not a valid box, or nothing."""
    count = len(words)
    if count != 5:
        kind = f", not a polygon of {count // 2} points" if count >= 7 and count % 2 else ""
        kind = ", without a confidence" if count == 6 else kind
        return f"{count} column(s), expected 5: CLASS XC YC W H{kind}"
    for column, word in zip(COLUMNS, words, strict=True):
        if not NUMBER.fullmatch(word):
            return f"{column} is {word[:40]!r}, expected a finite number"
    number, xc, yc, width, height = map(float, words)
    if number not in range(len(names)):
        return (
            f"class is {words[0]}, expected a whole number from 0 to {len(names) - 1} "
            f"({', '.join(names[:8])}), as data.yaml names the classes"
        )
    if not (width > 0 and height > 0):
        return f"w and h are {words[3]} and {words[4]}, expected both above 0"
    left, top, right, bottom = xc - width / 2, yc - height / 2, xc + width / 2, yc + height / 2
    if min(left, top) < -overshoot or max(right, bottom) > 1 + overshoot:
        unit = "; are these pixels?" if max(right, bottom) > 2 else ""
        return (
            f"the box reaches from x {left:.4g}, y {top:.4g} to x {right:.4g}, y {bottom:.4g}, "
            f"expected shares of the image, 0 to 1 (and --read overshoot={overshoot:g} beyond)"
            f"{unit}"
        )
    return ""


def corners(rows: Rows, shape: Sequence[int]) -> FloatArray:
    """Return boxes clipped to the image: float32 (N, 4) ``ymin, xmin, ymax, xmax`` in pixels."""
    half = rows[:, 3:] / 2
    low, high = rows[:, 1:3] - half, rows[:, 1:3] + half
    shares = np.clip(np.hstack([low[:, ::-1], high[:, ::-1]]), 0, 1)
    return (shares * np.tile(np.array(shape, np.float64), 2)).astype(np.float32)
