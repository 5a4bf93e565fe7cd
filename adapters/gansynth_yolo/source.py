"""``yolo:data.yaml``: images with boxes and the split of a detector's data set.

A folder is searched recursively, a ``.txt`` list names one image per line. The path of a label file
has ``/labels/`` for the last ``/images/`` of the image's path, and ends in ``.txt``. A folder
without ``data.yaml`` is read by its names. Nothing is downloaded or executed. Detectors skip
invalid label files with one warning among many; here each bad line is a fault.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gansynth import (
    Boxes,
    Case,
    CheckReport,
    DataFault,
    DecodedCase,
    Finding,
    FloatArray,
    GansynthError,
    IntegrityFault,
    LabelArray,
    Needs,
    PictureSet,
    PictureSource,
    ReadOptions,
    Schema,
    SourceRequest,
    Space,
    StoredCase,
    UsageFault,
    parse_read,
    register_read_options,
)
from gansynth.core.lineage import guard_split, some_names
from gansynth.data.connected_components import boxes_of
from gansynth.data.folds import compile_pattern, is_table, read_subjects
from gansynth.data.picture_files import (
    SUFFIXES,
    PixelSpacing,
    picture_header,
    read_picture,
    resize,
)
from gansynth.data.pictures import PictureFiles, printable
from gansynth.data.read_options import OF_SPLITS, SplitsFile
from gansynth.runtime.errors import refuse_closed
from gansynth.runtime.files import reading, sha256_file, walk_all
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.yaml_text import read_yaml

SPLITS = ("train", "val", "test")
GENERIC_NAMES = ("data", "dataset")  # generic file names, for which the folder's name is used
ENDINGS = (".yaml", ".yml")
MOST_BYTES = 256 << 20  # largest label file or list of images
MOST_FAULTS = 20  # most faults reported of one label file
MOST_CLASSES = 2**15 - 1
COLUMNS = ("class", "xc", "yc", "w", "h")
_Centre = Annotated[float, Field(allow_inf_nan=False)]
_Edge = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_ROW = TypeAdapter(tuple[NonNegativeInt, _Centre, _Centre, _Edge, _Edge])
Rows = npt.NDArray[np.float64]  # (N, 5): class, xc, yc, w, h; shares of the image's edges
OTHERS = {".bmp", ".webp", ".gif", ".dng", ".mpo", ".pfm", ".heic", ".heif", ".avif", ".jp2",
          ".dcm", ".tga", ".ppm", ".pgm"}  # fmt: skip
"""Image formats that detectors may read and this source does not."""
SMALLEST_IMAGE = 10  # least rows and columns; ultralytics skips smaller images
LARGEST = 256  # longest edge of a generator's arrays without `--read size=`
FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Folder names that say the split of their images, and nothing about the subject."""
BACKGROUND = "background"  # class name of an image without boxes
FEW_LEVELS = 64  # grey levels of 256 below which a 16-bit image is warned of
SMALL = 8  # least pixels of a box's shorter side at the detectors' default image size
IMGSZ = 640  # default size of images for detectors, pixels of the longer side
SPARE = {"classes", "obj", "readme", "notes", "license", "requirements"}
"""Text files that tools write among label files."""


def _two_groups(text: str) -> str:
    groups = compile_pattern(text).groups
    if groups < 2:
        raise ValueError(
            f"has {groups} group(s), expected two, of a volume and of a slice's number, "
            "for example (.*)_z([0-9]+)"
        )
    return text


class BoxedOptions(ReadOptions):
    """How images with boxes are read."""

    needs: ClassVar[Needs] = OF_SPLITS
    masks: bool | None

    size: Size2 | None = Field(
        None,
        description="rows and columns, `128x128`, of the generator's arrays, which every image is "
        "resampled to; else the power of two from the training images' longer edge up, at most "
        "`256x256`",
    )
    fit: Literal["pad", "stretch"] = Field(
        "pad",
        description="`pad`: brought to `size` as a whole and undistorted, zeros around it; "
        "`stretch`: rows and columns each on their own",
    )
    classes: Literal["none", "boxes"] = Field(
        "none", description="`boxes`: an image is of the class of its largest box, or `background`"
    )
    overshoot: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="share of width and height that boxes may reach beyond the image; they are "
        "clipped",
    )
    colour: Literal["stored", "grey"] = Field(
        "stored",
        description="`grey`: RGB images are read as grey, as they are where a `data.yaml` says "
        "`channels: 1`",
    )
    volumes: Annotated[str, AfterValidator(_two_groups)] | None = Field(
        None,
        description="regular expression whose two groups, found in a case's name without a "
        "leading `train/` or `val/`, are its volume and the number of its slice; without "
        "`--subjects`, a volume is a subject",
    )
    spacing: PixelSpacing = Field(
        (1.0, 1.0),
        description="size of the files' pixels in mm along y,x (one number for both); where it is "
        "not given, lengths are in pixels",
    )
    least: int = Field(
        1, ge=1, description="least pixels of a part of a sample's label map that gets a box"
    )
    splits: SplitsFile = None
    folds: int = Field(5, ge=2, description="number of folds, where the images have no split")
    seed: int = Field(12345, ge=0, description="seed of the split of subjects into folds")
    allow_outside: bool = Field(
        False, description="`yes`: paths and links may lead out of the data set's folder"
    )


class YoloOptions(BoxedOptions):
    """How a YOLO data set is read."""

    needs: ClassVar[Needs] = {"least": "masks", **OF_SPLITS}

    missing: Literal["refuse", "background"] = Field(
        "refuse",
        description="an image without a label file; the detectors treat it as `background`, as "
        "with an empty file",
    )
    masks: bool = Field(
        False,
        description="`yes`: each image has a label map, a PNG of the same name with `/masks/` for "
        "the last `/images/` of its path. 0 is background, 1 the first class, 2 the second",
    )


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
    keypoints: int = 0  # columns of keypoints behind a box, if the data set has some

    def check_inside(self, target: Path, label: str) -> None:
        """Reject (IntegrityFault) a path or link that leads out of the data set's folder."""
        home = os.path.realpath(self.home)
        if not (self.allow_outside or Path(os.path.realpath(target)).is_relative_to(home)):
            raise IntegrityFault(
                "yolo.path-leads-outside",
                f"{label} leads out of {self.home}, expected something inside it. Put it there, or "
                "allow it: --read allow_outside=yes",
            )


def read_dataset_file(where: str, *, allow_outside: bool) -> DatasetFile:
    """Read the file of ``yolo:WHERE``, or the names in a folder without one."""
    path = Path(os.path.abspath(os.path.expanduser(where)))
    if path.is_dir():
        files = usual_files(path)[:1] or sorted(path.glob("*.y*ml"))
        splits = {} if files else _image_folders(path)
        if splits:
            return _dataset_by_names(path, splits, allow_outside)
        if len(files) != 1:
            raise UsageFault(
                "yolo.not-one-yaml-file",
                f"yolo:{where}: {len(files)} YAML files in this folder, expected data.yaml; name "
                "the file: yolo:FOLDER/FILE.yaml",
            )
        path = files[0]
    if not os.path.isfile(path) or path.suffix.lower() not in ENDINGS:
        raise DataFault(
            "yolo.data-yaml-missing",
            f"yolo:{where}: no such file, expected data.yaml (path, train, val, names), or a "
            "folder that holds it; see: gansynth help boxes yolo",
        )
    return _dataset_by_file(path, allow_outside)


def usual_files(folder: Path) -> list[Path]:
    """Return the files of a folder with the names that a ``data.yaml`` usually has."""
    usual = [folder / f"{name}{end}" for name in GENERIC_NAMES for end in ENDINGS]
    return [file for file in usual if file.is_file()]


def describes(kind: str, where: Path) -> bool:
    """Whether a path is a ``data.yaml``, or a folder with one."""
    return where.suffix.lower() in ENDINGS or bool(usual_files(where))


# -- a folder without data.yaml --------------------------------------------------------------------


def _image_folders(home: Path) -> dict[str, tuple[str, ...]]:
    """Return the folders of images, by split, that have label files; all are ``train`` without."""
    found: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        for part in (f"{split}/images", f"images/{split}", "images" if split == "train" else ""):
            if part and next((home / part.replace("images", "labels")).rglob("*.txt"), None):
                found.setdefault(split, (part,))
    if not found:
        pictures = [p for p in home.iterdir() if p.suffix.lower() in SUFFIXES]
        if any(p.with_suffix(".txt").is_file() for p in pictures):
            found["train"] = (".",)
    return found


def _dataset_by_names(home: Path, splits: Mapping[str, Any], allow_outside: bool) -> DatasetFile:
    """Describe a folder by ``classes.txt``; without it, classes are numbered."""
    named = [home / "classes.txt", home / "labels" / "classes.txt"]
    lines = [line.strip() for file in named if file.is_file() for line in read_lines(file)]
    names = tuple(dict.fromkeys(filter(None, lines)))
    if not names:
        homes = [home / part.replace("images", "labels") for (part,) in splits.values()]
        files = [file for labels in homes for file in labels.rglob("*.txt")]
        most = 0
        for line in [line for file in files for line in read_lines(file)]:
            row = re.match(r"\s*(\d{1,4})\s", line)
            most = max(most, int(row[1])) if row else most
        names = _numbered(most + 1)
    return DatasetFile(home, home, home, names, 3, splits, allow_outside)


# -- data.yaml -------------------------------------------------------------------------------------


def _printable_line(text: str) -> str:
    if not text.strip() or not printable(text):
        raise ValueError("does not print on one line")
    return text.strip()


def _names_by_number(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    named = {int(key) if str(key).isdecimal() else key: name for key, name in value.items()}
    if set(named) != set(range(len(value))):
        raise ValueError(f"has the keys {list(value)[:8]!r}, not 0, 1, 2, ...")
    return [named[number] for number in range(len(named))]


Line = Annotated[str, AfterValidator(_printable_line)]
Entries = Annotated[
    list[Line],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1, description="a folder of images, a .txt list of them, or a list of these"),
]


class _Document(BaseModel):
    """Keys that a detector reads; others are left alone, ``download`` among them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    path: Line | None = Field(None, description="a folder")
    train: Entries
    val: Entries
    test: Entries | None = None
    names: Annotated[list[Line], BeforeValidator(_names_by_number)] = Field(
        [],
        max_length=MOST_CLASSES,
        description="the names of the classes: a list, or 0: NAME, 1: NAME; yes, no, on and off "
        "in quotes",
    )
    nc: int = Field(0, ge=1, le=MOST_CLASSES, description="the number of classes")
    channels: Literal[1, 3] = Field(3, description="1 or 3")
    kpt_shape: tuple[NonNegativeInt, NonNegativeInt] = Field(
        (0, 0), description="the number of keypoints and the columns of each"
    )

    @model_validator(mode="after")
    def _counted(self) -> _Document:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"names: {twice[0]!r} occurs twice, expected each once")
        if not self.names and not self.nc:
            raise ValueError("names: none, expected the names of the classes")
        if self.names and self.nc not in (0, len(self.names)):
            raise ValueError(f"nc: {self.nc}, but names has {len(self.names)}, expected equal")
        return self


def _numbered(count: int) -> tuple[str, ...]:
    return tuple([f"class_{number}" for number in range(count)])


def _dataset_by_file(path: Path, allow_outside: bool) -> DatasetFile:
    expected = "data.yaml with path, train, val and names; correct it"
    document, _ = read_yaml(path, expected, DataFault)
    if not isinstance(document, dict):
        raise DataFault(
            "yolo.data-yaml-not-mapping",
            f"{path}: holds a {type(document).__name__}, expected {expected}",
        )
    given = {key: value for key, value in document.items() if value is not None}
    if "val" not in given and "validation" in given:
        given["val"] = given["validation"]
    try:
        read = _Document.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        words = first["msg"].removeprefix("Value error, ")
        for key in first["loc"][:1]:
            value = "" if isinstance(first["input"], dict | list) else f"{first['input']!r:.80}, "
            description = _Document.model_fields[str(key)].description
            words = f"{key}: {value}{words}, expected {description}"
        raise DataFault("yolo.data-yaml-value-refused", f"{path}: {words}; correct it") from None
    home = path.parent
    root = Path(os.path.abspath(home / os.path.expanduser(read.path or ".")))
    splits = {split: tuple(getattr(read, split)) for split in SPLITS if getattr(read, split)}
    names = tuple(read.names or _numbered(read.nc))
    points, columns = read.kpt_shape
    file = DatasetFile(
        path, home, root, names, read.channels, splits, allow_outside, points * columns
    )
    file.check_inside(root, f"{path}: path: {read.path!r}")
    if not os.path.isdir(root):
        refuse_closed(root)
        raise DataFault(
            "yolo.data-yaml-path-no-folder",
            f"{path}: path: {read.path!r} is no folder ({root}), expected the folder that train "
            f"and val are relative to. Correct it, or leave it out if that is {home}",
        )
    return file


# -- label files -----------------------------------------------------------------------------------


def read_lines(path: Path, expected: str = "rows CLASS XC YC W H") -> list[str]:
    """Read the lines of a text file; DataFault: too large, or not UTF-8."""
    with reading(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataFault(
                "yolo.text-file-too-large",
                f"{path}: {size} bytes, expected at most {MOST_BYTES} of {expected}",
            )
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            "yolo.text-file-not-utf8",
            f"{path}: line {line}: byte {error.start} is not UTF-8, expected {expected}; save it "
            "as UTF-8",
        ) from error


def read_labels(
    path: Path, names: Sequence[str], overshoot: float, keypoints: int = 0
) -> tuple[Rows, int, list[DataFault]]:
    """Read a label file: its boxes as written, each once, and the faults of its lines.

    A polygon is read as the box around it. The second value is the number of polygons. Boxes may
    reach beyond the image by ``overshoot``, a share of its width and height. ``keypoints`` columns
    behind a box are left out.
    """
    rows: dict[tuple[float, ...], None] = {}
    polygons, faults = 0, list[DataFault]()
    for number, line in enumerate(read_lines(path), start=1):
        try:
            words = line.split()
            if words:
                if keypoints and len(words) == 5 + keypoints:
                    words = words[:5]
                if len(words) > 5:
                    words = _row_around_polygon(words)
                    polygons += 1
                rows[checked_row(words, names, overshoot)] = None
        except ValueError as error:
            faults.append(
                DataFault(
                    "yolo.label-line-refused", f"{path}: line {number}: {error}; correct the line"
                )
            )
        if len(faults) == MOST_FAULTS:
            break
    return np.array(list(rows)).reshape(-1, 5), polygons, faults


def _row_around_polygon(words: Sequence[str]) -> list[str]:
    """Return the row of the box around a polygon, CLASS X1 Y1 X2 Y2 X3 Y3 and so on."""
    if len(words) < 7 or len(words) % 2 == 0:
        raise ValueError(
            f"{len(words)} column(s), expected 5: CLASS XC YC W H, without a confidence, or CLASS "
            "and the X and Y of each corner of a polygon"
        )
    corners = np.array(words[1:], np.float64).reshape(-1, 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if not (low < high).all():
        raise ValueError("the polygon has no area, or a corner that is not a number")
    return [words[0], *map(str, ((low + high) / 2).tolist()), *map(str, (high - low).tolist())]


def checked_row(words: Sequence[str], names: Sequence[str], overshoot: float) -> tuple[float, ...]:
    """Return the numbers of a row; ValueError: another form, class or place."""
    if len(words) != 5:
        raise ValueError(f"{len(words)} column(s), expected 5: CLASS XC YC W H")
    try:
        number, xc, yc, width, height = row = _ROW.validate_python(words)
    except ValidationError as error:
        first = error.errors()[0]
        column = int(first["loc"][0])
        message = f"{COLUMNS[column]} is {words[column][:40]!r}: {first['msg']}"
        raise ValueError(message) from None
    if number >= len(names):
        raise ValueError(f"class is {number}, but data.yaml names {len(names)}, counted from 0")
    left, top, right, bottom = xc - width / 2, yc - height / 2, xc + width / 2, yc + height / 2
    if min(left, top) < -overshoot or max(right, bottom) > 1 + overshoot:
        unit = "; are these pixels?" if max(right, bottom) > 2 else ""
        raise ValueError(
            f"the box reaches from x {left:.4g}, y {top:.4g} to x {right:.4g}, y {bottom:.4g}, "
            f"expected shares of the image, 0 to 1 (and --read overshoot={overshoot:g} beyond)"
            f"{unit}"
        )
    return row


# -- images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class YoloImage(PictureFiles):
    """An image and its boxes; ``case`` is its path below the root without its last ``images/``."""

    split: str  # of the data set: `train`, `val` or `test`
    label: Path  # path of its label file, which may be missing
    labelled: bool
    rows: Rows  # as written, without repeats: float64 (N, 5) class, xc, yc, w, h
    polygons: int  # how many rows of the label file are polygons
    shape: tuple[int, int]  # rows and columns of the file
    grey: bool  # one channel; else RGB

    @property
    def everything(self) -> tuple[Path, ...]:
        return (*super().everything, *[self.label] * self.labelled)

    @property
    def boxes(self) -> Boxes:
        """The boxes, clipped to the image, in pixels, with the numbers of their classes."""
        centre, half = self.rows[:, [2, 1]], self.rows[:, [4, 3]] / 2
        shares = np.clip(np.hstack([centre - half, centre + half]), 0, 1)
        corners = (shares * np.tile(np.array(self.shape, np.float64), 2)).astype(np.float32)
        return Boxes(corners, self.rows[:, 0].astype(np.int16))


class ImageListing(PictureSet):
    """All images of a data set with their headers and label files, and what is wrong with them.

    Attributes:
        pictures: by case, split after split, each sorted by name.
        repeated: (case, file) of images that their split names more than once.
        lists: the ``.txt`` lists of images.
    """

    pictures: dict[str, YoloImage]

    def __init__(self, file: DatasetFile, options: BoxedOptions) -> None:
        super().__init__(file.path, {}, masked=True)
        self.file, self.options = file, options
        self.repeated, self.lists = list[tuple[str, Path]](), list[Path]()
        shared = []
        for split in file.splits:
            for case, path in sorted(self.paths(split).items()):
                if case in self.pictures:
                    shared.append(f"{case} ({self.pictures[case].split} and {split})")
                    continue
                with self.noting(case, path):
                    self.pictures[case] = self.image(case, split, path)
        if shared:
            self.faults.insert(0, (None, file.path, shared_fault(file, shared)))
        counts = Counter(image.grey for image in self.pictures.values())
        if len(counts) > 1 and options.colour != "grey":
            rare, usual = min(counts, key=counts.__getitem__), max(counts.values())
            odd = next(image for image in self.pictures.values() if image.grey == rare)
            text = (
                f"{odd.image}: is {'grey' if odd.grey else 'RGB'}, expected as {usual} of "
                f"{len(self.pictures)} images are; convert it, or read all as grey: "
                "--read colour=grey"
            )
            self.faults.append((odd.case, odd.image, DataFault("yolo.image-colour-differs", text)))

    @contextlib.contextmanager
    def noting(self, case: str | None, path: Path) -> Iterator[None]:
        """Note a fault, and go on."""
        try:
            yield
        except GansynthError as fault:
            self.faults.append((case, path, fault))

    def paths(self, split: str) -> dict[str, Path]:
        """Return the images of a split by case."""
        paths: dict[str, Path] = {}
        before, entries = len(self.faults), self.file.splits[split]
        for entry in entries:
            with self.noting(None, self.file.path):
                for path, where in self.entry(split, entry):
                    case = self.case(path)
                    with self.noting(case, path):
                        self.check_path(path, where)
                        if paths.get(case, path) != path:
                            raise DataFault(
                                "yolo.label-file-shared",
                                f"{path}: has the same label file as {paths[case].name}; remove or "
                                "rename one",
                            )
                        if case in paths:
                            self.repeated.append((case, path))
                        paths[case] = path
        if not paths and len(self.faults) == before:
            text = (
                f"{self.file.path}: {split}: no image ({', '.join(SUFFIXES)}) in "
                f"{', '.join(entries)}, expected one at least; correct the entry"
            )
            self.faults.append((None, self.file.path, DataFault("yolo.split-without-image", text)))
        return paths

    def entry(self, split: str, entry: str) -> Iterator[tuple[Path, str]]:
        """Yield the images of a folder or list as written in ``data.yaml``, and who names them.

        A path in a list is relative to the list; if nothing is there, to the data set's root.
        """
        root, place = self.file.root, f"{self.file.path}: {split}"
        path = Path(os.path.abspath(root / os.path.expanduser(entry)))
        if entry.startswith("../") and not os.path.exists(path):
            # Roboflow writes them so, relative to a folder in the set; ultralytics reads them so.
            path = Path(os.path.abspath(root / entry.removeprefix("../")))
        self.file.check_inside(path, f"{place}: path {entry!r}")
        if os.path.isdir(path):
            for image in walk(path):
                yield image, f"{place}: {image}"
        elif os.path.isfile(path) and path.suffix.lower() == ".txt":
            self.lists.append(path)
            lines = read_lines(path, "the path of an image in each line")
            for number, line in enumerate(map(str.strip, lines), start=1):
                if line and not line.startswith("#"):
                    image = Path(os.path.abspath(path.parent / line))
                    by_root = Path(os.path.abspath(root / line))
                    if not os.path.exists(image) and os.path.exists(by_root):
                        image = by_root
                    yield image, f"{path}: line {number}"
        else:
            refuse_closed(path)
            raise DataFault(
                "yolo.entry-neither-folder-nor-list",
                f"{place}: {entry!r} is neither a folder nor a .txt list ({path}), expected one "
                f"of them; correct the entry{', or leave it out' if split == 'test' else ''}",
            )

    def case(self, path: Path) -> str:
        """Return an image's case: its path below the root without its last ``images/``."""
        parts = list(Path(os.path.relpath(path, self.file.root)).with_suffix("").parts)
        place = _last_images_folder(parts)
        if place is not None:
            del parts[place]
        return "/".join(["outside" if part == ".." else part for part in parts])

    def check_path(self, path: Path, where: str) -> None:
        """Refuse a file that is missing, of another format, or outside of the data set.

        ``where``: who names it, for the message.
        """
        if not printable(str(path)):
            raise DataFault(
                "yolo.image-name-not-printable",
                f"{str(path)!a}: expected a name that prints on one line",
            )
        if path.suffix.lower() not in SUFFIXES:
            expected = f"{', '.join(SUFFIXES)}, expected one of these; convert it"
            raise DataFault(
                "yolo.image-format-unsupported", f"{where}: {path.name} is no {expected}"
            )
        self.file.check_inside(path, where)
        if not os.path.isfile(path):
            refuse_closed(path)
            raise DataFault(
                "yolo.image-missing",
                f"{where}: no image {path}, expected one; add it, or correct this",
            )

    def image(self, case: str, split: str, path: Path) -> YoloImage:
        """Read an image's header and labels. Raises DataFault: the image is of no use."""
        shape, grey = usable_header(path)
        label, options = beside(path, "labels", ".txt"), self.options
        assert isinstance(options, YoloOptions)
        rows, polygons, labelled = np.zeros((0, 5)), 0, label.is_file()
        if labelled:
            self.file.check_inside(label, f"{path}: label file {label}")
            rows, polygons, faults = read_labels(
                label, self.file.names, options.overshoot, self.file.keypoints
            )
            self.faults += [(case, label, fault) for fault in faults]
        elif options.missing == "refuse":
            raise DataFault(
                "yolo.label-file-missing",
                f"{path}: has no label file {label}, expected one, empty where there is nothing "
                "to find; add it, or say --read missing=background",
            )
        mask = beside(path, "masks", ".png") if options.masks else None
        if mask is not None and not mask.is_file():
            raise DataFault(
                "yolo.mask-missing",
                f"{mask}: no such file, expected the label map of {path}; add it (all zeros "
                "without a lesion), or leave --read masks out",
            )
        number = self.class_of(rows)
        return YoloImage(
            case, path, mask, number, split, label, labelled, rows, polygons, shape, grey
        )

    def class_of(self, rows: Rows) -> int | None:
        """Return the number of an image's class by its boxes, if images have one."""
        if self.options.classes != "boxes":
            return None
        return 1 + int(rows[(rows[:, 3] * rows[:, 4]).argmax(), 0]) if len(rows) else 0


def usable_header(path: Path) -> tuple[tuple[int, int], bool]:
    """Return an image's rows and columns, and whether it is grey; DataFault: it is of no use."""
    shape, mode, turned = picture_header(path)
    grey = mode == "L" or mode.startswith("I;16")
    if min(shape) < SMALLEST_IMAGE or not (grey or mode == "RGB") or turned not in (0, 1):
        raise DataFault(
            "yolo.image-header-unusable",
            f"{path}: {shape[0]} x {shape[1]} pixels, mode {mode}, EXIF orientation {turned}; "
            f"expected at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE}, grey of 8 or 16 bits or RGB "
            "of 8 bits, and orientation 1 (else boxes are ambiguous); convert it, or leave it out",
        )
    return shape, grey


def beside(image: Path, folder: str, suffix: str) -> Path:
    """Return the file that has another folder for the last ``/images/`` of an image's path."""
    parts = list(image.with_suffix(suffix).parts)
    place = _last_images_folder(parts)
    if place is not None:
        parts[place] = folder
    return Path(*parts)


def _last_images_folder(parts: Sequence[str]) -> int | None:
    """Return the place of the last folder ``images`` in a file's path; None without one."""
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    return places[-1] if places else None


def walk(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, sorted, also of unsupported formats, but not hidden ones."""
    visited: set[str] = set()  # a link may lead back up
    for here, below, names in walk_all(folder, followlinks=True):
        visited.add(os.path.realpath(here))
        new = [name for name in below if os.path.realpath(os.path.join(here, name)) not in visited]
        below[:] = sorted(name for name in new if name[0] != ".")
        for name in sorted(names):
            if name[0] != "." and Path(name).suffix.lower() in {*SUFFIXES, *OTHERS}:
                yield Path(here, name)


def shared_fault(file: DatasetFile, shared: Sequence[str]) -> IntegrityFault:
    """Return the error for images in two splits."""
    return IntegrityFault(
        "yolo.images-in-two-splits",
        f"leakage: {file.path}: {len(shared)} image(s) are in two splits: {some_names(shared)}; "
        "expected each in one; list other images, of other subjects, under val and test",
    )


def same_files(images: Mapping[str, Sequence[YoloImage]]) -> list[str]:
    """Name the images of two splits that are one file, or two files of the same bytes.

    Only files of one size are read. Images of one constant value do not count.
    """
    members = [(split, image) for split, found in images.items() for image in found]
    splits_of_size = defaultdict[int, set[str]](set)
    for split, image in members:
        splits_of_size[image.image.stat().st_size].add(split)
    first_of_hash: dict[str, tuple[str, YoloImage]] = {}
    shared = []
    for split, image in members:
        if len(splits_of_size[image.image.stat().st_size]) > 1:
            other, twin = first_of_hash.setdefault(sha256_file(image.image), (split, image))
            if other != split and np.ptp(read_picture(image.image)):
                pair = f"{twin.case} ({other}) and {image.case} ({split})"
                shared.append(f"{pair}, the same bytes")
    return shared


@register_read_options(YoloOptions)
def open_yolo(request: SourceRequest) -> YoloSource:
    """Open ``yolo:data.yaml``, or the folder it lies in."""
    source = YoloSource(request)
    for _, _, fault in source.faults():
        raise fault
    return source


open_yolo.describes = describes  # type: ignore[attr-defined]


class YoloSource(PictureSource):
    """A YOLO data set. Fold 0 is its own split, ``all`` trains on train and val.

    A folder without ``data.yaml`` and without a split of its own has five folds by subject.

    Attributes:
        file: the content of ``data.yaml``.
    """

    alike: ClassVar[bool] = False  # ``found`` refuses other colours, and 8 and 16 bits may mix
    options: BoxedOptions  # type: ignore[assignment]
    found: ImageListing
    file: DatasetFile

    def scan(self, request: SourceRequest) -> None:
        self.options = parse_read(YoloOptions, request)
        allow = self.options.allow_outside
        self.file = read_dataset_file(request.where, allow_outside=allow)
        self.request = request.absolute(self.file.path)
        self.numbers = {number: number for number in range(len(self.file.names) + 1)}
        self.found = ImageListing(self.file, self.options)

    @property
    def has_masks(self) -> bool:
        """Whether images have label maps."""
        return bool(self.options.masks)

    def faults(self) -> Sequence[tuple[str | None, Path, GansynthError]]:
        """See ``PictureSource.faults``; also leaks, and training images without a box."""
        path = self.file.path
        if self.found.faults:
            return self.found.faults
        try:
            shared = same_files(self.images)
            if shared:
                raise shared_fault(self.file, shared)
            if not any(len(image.rows) for image in self.images["train"]):
                raise DataFault(
                    "yolo.no-box-in-train",
                    f"{path}: train: none of {len(self.images['train'])} images has a box, "
                    "expected one at least; are the label files in labels/ instead of images/? "
                    f"The first should be {self.images['train'][0].label}",
                )
            train, held_out = self._split
            guard_split(
                [(case, self._subjects[case]) for case in train],
                [(case, self._subjects[case]) for case in held_out],
                fold=self.request.fold,
                repair=f"list all images of a subject under one of train, val and test in {path}",
            )
            _ = self.schema
        except GansynthError as fault:
            return [(None, path, fault)]
        return []

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        path, home = self.file.path, self.file.home
        return f"yolo:{home.name if path.stem.casefold() in GENERIC_NAMES else path.stem}"

    @property
    def has_split(self) -> bool:
        """Whether train, val and test are those of the data set itself."""
        return self.request.fold == "all" or (
            self.options.splits is None and "val" in self.file.splits
        )

    @cached_property
    def images(self) -> Mapping[str, tuple[YoloImage, ...]]:
        """Images by split, ``train``, ``val`` and ``test`` (empty if there is none)."""
        images, sides = self.found.pictures, self.sides
        of_splits: dict[str, list[YoloImage]] = {split: [] for split in SPLITS}
        for case in sorted(sides):
            of_splits[sides[case]].append(images[case])
        return {split: tuple(found) for split, found in of_splits.items()}

    @property
    def sides(self) -> dict[str, str]:
        if not self.has_split:
            return super().sides
        return {case: image.split for case, image in self.found.pictures.items()}

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        fold, images = self.request.fold, self.found.pictures
        if not self.has_split:
            return super()._split
        if fold not in ("0", "all"):
            raise UsageFault(
                "yolo.fold-of-one-split",
                f"--fold {fold!r}: {self.file.path} has one split, expected 0, or all: train and "
                "val together",
            )
        trained = ("train", "val") if fold == "all" else ("train",)
        train = tuple([case for case in sorted(images) if images[case].split in trained])
        return train, tuple(sorted(images.keys() - train))

    def files(self, case_id: str) -> StoredCase:
        return StoredCase(tuple(dict.fromkeys((self.file.home, self.file.root))))

    def place(self, case_id: str) -> tuple[str | None, int | None]:
        """Return an image's volume and slice number, if ``volumes`` is set."""
        return self._places[case_id]

    @cached_property
    def schema(self) -> Schema:
        """The channels (grey, or red, green, blue) and the box classes of ``data.yaml``.

        With label maps the classes are their labels, too.
        """
        names, masks = self.file.names, self.has_masks
        if (self.classes or masks) and BACKGROUND in names:
            raise UsageFault(
                "yolo.class-named-background",
                f"--read {'masks=yes' if masks else 'classes=boxes'}: {self.file.path} names a "
                f"class {BACKGROUND!r}, which means no lesion; expected another name; rename it",
            )
        labels = {name: number for number, name in enumerate(names, 1) if masks}
        return Schema(
            ("grey",) if self.grey else ("red", "green", "blue"),
            {BACKGROUND: 0} | labels,
            self._spacing(),
            axes="HW",
            classes=self.classes,
            box_classes=names,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        return (BACKGROUND, *self.file.names) if self.options.classes == "boxes" else ()

    @cached_property
    def space(self) -> Space:
        """Whole images of one size, which is not recorded: detectors take any."""
        host: dict[str, Any] = {
            "dataset": self.name,
            "box_classes": list(self.file.names),
            "channels": list(self.schema.channels),
        }
        return Space("crop", self._size(), host=host, pad_label=0)

    @cached_property
    def resized(self) -> tuple[int, int] | None:
        """Rows and columns of the arrays of ``load``; None for those of the files."""
        if self.options.size is not None:
            return self.options.size
        edge = np.median([max(self.image(case).shape) for case in self.train_ids])
        edge = min(LARGEST, 2 ** ceil(log2(float(edge))))
        return edge, edge

    @cached_property
    def grey(self) -> bool:
        """Whether images are read as one channel."""
        forced = self.options.colour == "grey" or self.file.channels == 1
        return forced or all(image.grey for image in self.found.pictures.values())

    # -- reading ---------------------------------------------------------------------------------

    def scaled(self, array: npt.NDArray[Any]) -> FloatArray:
        """Scale pixels to float32 (C, H, W), 0 to 1 over the range of their type.

        Detectors read the upper byte of 16 bits. Rounding 255 times this value gives that byte.
        RGB becomes one channel with OpenCV's weights, where images are read as grey.
        """
        if self.grey and array.ndim == 3:
            red, green, blue = np.moveaxis(array[..., :3].astype(np.int32), -1, 0)
            array = ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
        flat = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        if array.dtype == np.uint16:
            share = (flat.astype(np.float32) - np.float32(127.5)) / np.float32(256 * 255)
            return np.asarray(np.clip(share, 0, 1), np.float32)
        return np.ascontiguousarray(flat, np.float32) / np.float32(255)

    def decode(self, case_id: str) -> DecodedCase:
        """Read an image's pixels, boxes and masks; its class, if any, follows from its boxes."""
        decoded = super().decode(case_id)
        return replace(decoded, boxes=self.image(case_id).boxes, label_class=None)

    def boxes_of(self, case: Case) -> Boxes:
        return self.image(case.id).boxes

    def fitted(self, case: Case) -> Case:
        """Resize a case; zeros are around it unless it is stretched."""
        shape, size = case.image.shape[1:], self.resized
        if size is None:
            return case
        if self.options.fit == "stretch" or shape == size:
            return resize(case, size)
        scale = min(size[0] / shape[0], size[1] / shape[1])
        height = min(size[0], max(1, round(shape[0] * scale)))
        width = min(size[1], max(1, round(shape[1] * scale)))
        inner = (height, width)
        case = resize(case, inner)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        around = ((top, size[0] - inner[0] - top), (left, size[1] - inner[1] - left))
        image = np.pad(case.image, ((0, 0), *around))
        labels = None if case.labels is None else np.pad(case.labels, around)
        boxes = self.boxes_of(case) if case.boxes is None else case.boxes
        moved = boxes.coords + np.array([top, left, top, left], np.float32)
        boxes = Boxes(moved.astype(np.float32), boxes.labels)
        return replace(case, image=image, labels=labels, boxes=boxes)

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        """Boxes around the connected parts of a sample's label map; None without ``masks``."""
        if not self.has_masks:
            return None
        boxes = boxes_of(labels, self.schema, self.options.least)
        return Boxes(boxes.coords, boxes.labels - np.int16(1))

    def image(self, case_id: str) -> YoloImage:
        """Return the files of a case."""
        return self.found.pictures[self._picture(case_id).case]

    # -- learnt from the files -------------------------------------------------------------------

    @cached_property
    def _places(self) -> dict[str, tuple[str | None, int | None]]:
        if self.options.volumes is None:
            return dict.fromkeys(self.found.pictures, (None, None))
        pattern = compile_pattern(self.options.volumes)
        places: dict[str, tuple[str | None, int | None]] = {}
        for case, image in self.found.pictures.items():
            match = pattern.search(unsplit(case))
            if match is None or not match[1] or not (match[2] or "").isdecimal():
                raise DataFault(
                    "yolo.volumes-expression-without-match",
                    f"{image.image}: --read volumes={self.options.volumes} finds no volume and "
                    f"number of a slice in {case!r}, expected both; correct the expression",
                )
            places[case] = (match[1], int(match[2]))
        return places

    @cached_property
    def _subjects(self) -> dict[str, str]:
        subjects, cases = self.request.subjects, self.found.pictures
        if subjects is None:
            return {case: volume or case for case, (volume, _) in self._places.items()}
        if is_table(subjects):
            return read_subjects(subjects, cases)
        by_name = read_subjects(subjects, {unsplit(case) for case in cases})
        return {case: by_name[unsplit(case)] for case in cases}

    def _spacing(self) -> tuple[float, ...]:
        if self.unit == "px" or self.resized is None:
            return self.options.spacing
        if self.options.fit == "stretch":
            return super()._spacing()
        shapes = [self.image(case).shape for case in self.train_ids]
        factor = float(np.median(np.array(shapes) / self.resized, axis=0).max())
        return tuple([round(edge * factor, 6) for edge in self.options.spacing])


def unsplit(case_id: str) -> str:
    """Return a case's id without a leading split folder, e.g. ``train/``."""
    first, _, tail = case_id.partition("/")
    return tail if tail and first.casefold() in FOLDERS else case_id


# -- gansynth check -------------------------------------------------------------------------------


def check_yolo(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``yolo:data.yaml``; every image is decoded."""
    source = YoloSource(request)
    report = source.check(progress, check_pixels)
    own: list[Finding] = []
    with contextlib.suppress(GansynthError):  # told already
        own = [*_check_set(source), *check_boxes(source)]
    return CheckReport(report.name, report.cases, [*report.findings, *own])


def warning(file: Path, text: str, case: str | None = None) -> Finding:
    """Return a warning that begins with the file."""
    return Finding("warning", case, file, f"{file}: {text}")


def check_pixels(picture: PictureFiles, pixels: npt.NDArray[Any]) -> Iterator[Finding]:
    """Warn of 16 bits of which detectors see little, and of grey pixels stored as RGB."""
    levels = (int(pixels.max()) >> 8) - (int(pixels.min()) >> 8) + 1
    if pixels.dtype == np.uint16 and levels < FEW_LEVELS:
        text = (
            f"pixels from {pixels.min()} to {pixels.max()} of 65535: detectors see "
            f"the upper byte, {levels} grey level(s) of 256; stretch all images by one window"
        )
        yield warning(picture.image, text, picture.case)
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all():
        text = "RGB, but red and green are equal; if all are grey, say --read colour=grey"
        yield warning(picture.image, text, picture.case)


def _check_set(source: YoloSource) -> Iterator[Finding]:
    file, path = source.file, source.file.path
    if path.is_dir():
        folds = "" if source.has_split else "; five folds are made, by --subjects if it is given"
        named = f"{', '.join(file.names)}, as in classes.txt or by their numbers{folds}"
        yield warning(path, f"no data.yaml; classes are {named}")
    for case, image in source.found.repeated:
        yield warning(image, "its split names it more than once; it counts once", case)
    polygons = sum(image.polygons for image in source.found.pictures.values())
    if polygons:
        text = f"{polygons} row(s) are polygons, read as the boxes around them, as ultralytics does"
        yield warning(path, text)
    listed = source.found.pictures.values()
    for labels, home in sorted(
        {image.label.parent: image.image.parent for image in listed}.items()
    ):
        known = {p.stem for p in home.iterdir() if p.suffix.lower() in {*SUFFIXES, *OTHERS}} | SPARE
        for text_file in sorted(labels.glob("[!.]*.txt")):
            other = {text_file.stem, text_file.stem.casefold()} & known
            if not other and text_file not in source.found.lists:
                yield warning(text_file, "a label file without an image; it is not used")


def check_boxes(source: YoloSource) -> Iterator[Finding]:
    """Warn of splits and classes without a box, and of boxes too small to be learnt from."""
    file, images = source.file, source.images
    path = file.path
    for split in ("val", "test"):
        if images[split] and not any(len(image.rows) for image in images[split]):
            yield warning(path, f"{split}: no image has a box; nothing can be measured on it")
    shortest: dict[str, float] = {}  # case -> pixels of its boxes' shortest side at IMGSZ
    for image in [image for members in images.values() for image in members]:
        if len(image.rows):
            pixels = image.rows[:, 3:] * image.shape[::-1]  # (N, 2): width, height
            shortest[image.case] = float(pixels.min()) * IMGSZ / max(image.shape)
    small = [case for case, side in shortest.items() if side < SMALL]
    if small:
        text = (
            f"{len(small)} image(s) have boxes of less than {SMALL} pixels at an image size of "
            f"{IMGSZ}, the least {min(shortest.values()):.1f} ({small[0]}); use a larger one, and "
            "little mosaic and scaling, or training drops such boxes"
        )
        yield warning(path, text, small[0])
    if source.has_masks and source.options.size is None and source.resized == (LARGEST, LARGEST):
        text = (
            f"images and label maps are read as {LARGEST} x {LARGEST} pixels; to train a segmenter "
            "on more say --read size=ROWSxCOLUMNS"
        )
        yield warning(path, text)
    used = {int(number) for image in images["train"] for number in image.rows[:, 0]}
    for number, name in enumerate(file.names):
        if number not in used:
            yield warning(path, f"class {number} {name!r} has no box in train")
