"""Lists the images of a YOLO data set and their label files, and collects faults.

A folder is searched recursively, a ``.txt`` list names one image per line. The path of a label file
has ``/labels/`` for the last ``/images/`` of the image's path, and ends in ``.txt``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from gansynth.core.lineage import some_names
from gansynth.core.schema import Boxes, FloatArray
from gansynth.data.picture_files import GREY, MAX_PIXELS, SUFFIXES, picture_header, read_picture
from gansynth.data.pictures import PictureFiles, PictureSet, printable
from gansynth.data.planes import PixelSpacing
from gansynth.data.read_options import ReadOptions, SplitsFile
from gansynth.data.subjects import compile_pattern
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault
from gansynth.runtime.files import refuse_unnameable, sha256_file
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.options import Needs
from gansynth_yolo.dataset_file import DatasetFile, check_inside
from gansynth_yolo.labels import Rows, corners, read_labels, read_lines

OTHERS = {".bmp", ".webp", ".gif", ".dng", ".mpo", ".pfm", ".heic", ".heif", ".avif", ".jp2",
          ".dcm", ".tga", ".ppm", ".pgm"}  # fmt: skip
"""Image formats that detectors may read and this source does not."""
NO_ROWS: Rows = np.zeros((0, 5))
LEAST = 10  # least rows and columns; ultralytics skips smaller images
MOST_BYTES = 256 << 20  # most bytes of a list of images


def _two_groups(text: str) -> str:
    groups = compile_pattern(text).groups
    if groups < 2:
        raise ValueError(
            f"has {groups} group(s), expected two, of a volume and of a slice's number, "
            "for example (.*)_z([0-9]+)"
        )
    return text


class YoloOptions(ReadOptions):
    """Options for reading a YOLO data set."""

    needs: ClassVar[Needs] = {"least": "masks"}

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
    missing: Literal["refuse", "background"] = Field(
        "refuse",
        description="an image without a label file; the detectors treat it as `background`, as "
        "with an empty file",
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
        description="`grey`: RGB images are read as grey, as they are where `data.yaml` says "
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
    masks: bool = Field(
        False,
        description="`yes`: each image has a label map, a PNG of the same name with `/masks/` for "
        "the last `/images/` of its path. 0 is background, 1 the first class, 2 the second",
    )
    least: int = Field(
        1, ge=1, description="least pixels of a part of a sample's label map that gets a box"
    )
    splits: SplitsFile = None
    allow_outside: bool = Field(
        False, description="`yes`: paths and links may lead out of the folder of `data.yaml`"
    )


@dataclass(frozen=True)
class YoloImage(PictureFiles):
    """An image and its boxes; ``case`` is its path below the root without its last ``images/``."""

    split: str  # of the data set: `train`, `val` or `test`
    label: Path  # path of its label file, which may be missing
    labelled: bool
    rows: Rows  # as written, without repeats: float64 (N, 5) class, xc, yc, w, h
    shape: tuple[int, int]  # rows and columns of the file
    grey: bool  # one channel; else RGB

    @cached_property
    def boxes(self) -> FloatArray:
        """The boxes, clipped to the image: float32 (N, 4) ``ymin, xmin, ymax, xmax`` in pixels."""
        return corners(self.rows, self.shape)

    @property
    def annotated(self) -> Boxes:
        """The boxes with the numbers of their classes."""
        return Boxes(self.boxes, self.rows[:, 0].astype(np.int16))


@dataclass
class ImageListing(PictureSet):
    """The images of a data set.

    Attributes:
        pictures: by case, split after split, each sorted by name.
        repeated: (case, file or list) of images that their split names more than once.
        lists: the ``.txt`` lists of images.
    """

    pictures: dict[str, YoloImage] = field(default_factory=dict)
    repeated: list[tuple[str, Path]] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)


def list_images(file: DatasetFile, options: YoloOptions) -> ImageListing:
    """List all images of a data set with their headers and label files."""
    return _Lister(file, options).listing


class _Lister:
    def __init__(self, file: DatasetFile, options: YoloOptions) -> None:
        self.file, self.options = file, options
        self.listing = ImageListing(file.path, masked=True)
        self.faults = self.listing.faults
        shared: list[str] = []
        images = self.listing.pictures
        for split in file.splits:
            for case, path in sorted(self.paths(split).items()):
                if case in images:
                    shared.append(f"{case} ({images[case].split} and {split})")
                    continue
                try:
                    images[case] = self.image(case, split, path)
                except GansynthError as fault:
                    self.faults.append((case, path, fault))
        if shared:
            self.faults.insert(0, (None, file.path, shared_fault(file, shared)))
        if options.colour != "grey":
            self.refuse_other_colours()

    def inside(self, path: Path, label: str) -> None:
        if not self.options.allow_outside:
            check_inside(self.file.home, path, label)

    def paths(self, split: str) -> dict[str, Path]:
        """Return the images of a split by case."""
        paths: dict[str, Path] = {}
        before = len(self.faults)
        for entry in self.file.splits[split]:
            try:
                for path, where in self.entry(split, entry):
                    self.take(paths, path, where)
            except GansynthError as fault:
                self.faults.append((None, self.file.path, fault))
        if not paths and len(self.faults) == before:
            message = (
                f"{self.file.path}: {split}: no image ({', '.join(SUFFIXES)}) in "
                f"{', '.join(self.file.splits[split])}, expected one at least; correct the entry"
            )
            self.faults.append((None, self.file.path, DataFault(message)))
        return paths

    def entry(self, split: str, entry: str) -> Iterator[tuple[Path, str]]:
        """Yield the images of a folder or list as written in ``data.yaml``, and who names them."""
        root, place = self.file.root, f"{self.file.path}: {split}"
        path = Path(os.path.abspath(root / os.path.expanduser(entry)))
        refuse_unnameable(path, place)
        self.inside(path, f"{place}: path {entry!r}")
        if path.is_dir():
            yield from ((image, f"{place}: {image}") for image in walk(path))
        elif path.is_file() and path.suffix.lower() == ".txt":
            self.listing.lists.append(path)
            lines = read_lines(path, MOST_BYTES, "the path of an image in each line")
            for number, line in enumerate(map(str.strip, lines), start=1):
                if line and not line.startswith("#"):
                    # Relative to the list, else to the data set's root.
                    image, below = (os.path.abspath(home / line) for home in (path.parent, root))
                    found = "\0" in line or os.path.exists(image) or not os.path.exists(below)
                    yield Path(image if found else below), f"{path}: line {number}"
        else:
            raise DataFault(
                f"{place}: {entry!r} is neither a folder nor a .txt list ({path}), expected one "
                "of them; correct the entry"
            )

    def take(self, paths: dict[str, Path], path: Path, where: str) -> None:
        """Add an image to those of its split, or a fault."""
        parts = list(Path(os.path.relpath(path, self.file.root)).with_suffix("").parts)
        if "images" in parts[:-1]:
            del parts[len(parts) - 2 - parts[-2::-1].index("images")]
        case = "/".join("outside" if part == ".." else part for part in parts)
        try:
            if not printable(str(path)):
                raise DataFault(f"{str(path)!a}: expected a name that prints on one line")
            if path.suffix.lower() not in SUFFIXES:
                expected = f"{', '.join(SUFFIXES)}, expected one of these; convert it"
                raise DataFault(f"{where}: {path.name} is no {expected}")
            refuse_unnameable(path, where)
            self.inside(path, where)
            if not path.is_file():
                raise DataFault(f"{where}: no image {path}, expected one; add it, or correct this")
            if paths.get(case, path) != path:
                other = paths[case].name
                raise DataFault(f"{path}: has the same label file as {other}; remove or rename one")
        except GansynthError as fault:
            self.faults.append((case, path, fault))
            return
        if case in paths:
            self.listing.repeated.append((case, path))
        paths[case] = path

    def image(self, case: str, split: str, path: Path) -> YoloImage:
        """Read an image's header and labels. Raises DataFault: the image is of no use."""
        shape, mode, turned = picture_header(path)
        if min(shape) < LEAST or shape[0] * shape[1] > MAX_PIXELS:
            raise DataFault(
                f"{path}: {shape[0]} x {shape[1]} pixels, expected at least {LEAST} x {LEAST} and "
                f"at most {MAX_PIXELS} pixels; leave it out"
            )
        if mode not in (*GREY[:-2], "RGB"):
            raise DataFault(
                f"{path}: mode {mode}, expected grey of 8 or 16 bits or RGB of 8 bits; convert it"
            )
        if turned not in (0, 1):
            raise DataFault(
                f"{path}: its EXIF orientation is {turned}, expected 1 (no rotation), because "
                "boxes would be ambiguous; save it without"
            )
        label, options = beside(path, "labels", ".txt"), self.options
        rows, labelled = NO_ROWS, label.is_file()
        if labelled:
            self.inside(label, f"{path}: label file {label}")
            rows, faults = read_labels(label, self.file.names, options.overshoot)
            self.faults += [(case, label, fault) for fault in faults]
        elif options.missing == "refuse":
            raise DataFault(
                f"{path}: has no label file {label}, expected one, empty where there is nothing "
                "to find; add it, or say --read missing=background"
            )
        mask = beside(path, "masks", ".png") if options.masks else None
        if mask is not None and not mask.is_file():
            raise DataFault(
                f"{mask}: no such file, expected the label map of {path}; add it (all zeros "
                "without a lesion), or leave --read masks out"
            )
        number = None
        if options.classes == "boxes":
            number = 1 + int(rows[(rows[:, 3] * rows[:, 4]).argmax(), 0]) if len(rows) else 0
        return YoloImage(
            case, path, mask, number, split, label, labelled, rows, shape, grey=mode != "RGB"
        )

    def refuse_other_colours(self) -> None:
        """Note RGB images where most are grey, or grey images where most are RGB."""
        images = list(self.listing.pictures.values())
        grey = sum(image.grey for image in images)
        mostly, most = 2 * grey >= len(images), max(grey, len(images) - grey)
        for image in images:
            if image.grey != mostly:
                kinds = ("grey", "RGB") if image.grey else ("RGB", "grey")
                message = (
                    f"{image.image}: is {kinds[0]}, expected {kinds[1]} as {most} of "
                    f"{len(images)} images; convert it, or read all as grey: --read colour=grey"
                )
                self.faults.append((image.case, image.image, DataFault(message)))


def beside(image: Path, folder: str, suffix: str) -> Path:
    """Return the file that has another folder for the last ``/images/`` of an image's path."""
    parts = list(image.with_suffix(suffix).parts)
    places = [n for n, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = folder
    return Path(*parts)


def walk(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, sorted, also of unsupported formats, but not hidden ones."""
    been: set[str] = set()
    for here, below, names in os.walk(folder, followlinks=True):
        been.add(os.path.realpath(here))
        below[:] = sorted(
            name
            for name in below
            if name[0] != "." and os.path.realpath(os.path.join(here, name)) not in been
        )
        for name in sorted(names):
            if name[0] != "." and Path(name).suffix.lower() in {*SUFFIXES, *OTHERS}:
                yield Path(here, name)


def shared_fault(file: DatasetFile, shared: Sequence[str]) -> IntegrityFault:
    """Return the error for images in two splits."""
    return IntegrityFault(
        f"leakage: {file.path}: {len(shared)} image(s) are in two splits: {some_names(shared)}; "
        "expected each in one; list other images, of other subjects, under val and test"
    )


def same_files(images: Mapping[str, Sequence[YoloImage]]) -> list[str]:
    """Name the images of two splits that are one file, or two files of the same bytes.

    Only files of one size are read. Images of one constant value do not count.
    """
    sizes: dict[int, list[tuple[str, YoloImage]]] = defaultdict(list)
    for split, members in images.items():
        for image in members:
            sizes[image.image.stat().st_size].append((split, image))
    shared = []
    for alike in sizes.values():
        first: dict[str, tuple[str, YoloImage]] = {}
        for split, image in alike if len({split for split, _ in alike}) > 1 else ():
            other, twin = first.setdefault(sha256_file(image.image), (split, image))
            if other != split and np.ptp(read_picture(image.image)):
                pair = f"{twin.case} ({other}) and {image.case} ({split})"
                shared.append(f"{pair}, the same bytes")
    return shared
