"""Lists the images of a YOLO data set and their label files, and collects faults.

A folder is searched recursively, a ``.txt`` list names one image per line. The path of a label file
has ``/labels/`` for the last ``/images/`` of the image's path, and ends in ``.txt``.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from gansynth.data.picture_files import SUFFIXES
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault
from gansynth.runtime.files import reading, refuse_unnameable, sha256_file
from gansynth_yolo.cases import YoloImage, read_header, read_pixels
from gansynth_yolo.dataset_file import DatasetFile, check_inside, printable
from gansynth_yolo.labels import LabelRows, read_labels
from gansynth_yolo.options import YoloOptions

OTHERS = {".bmp", ".webp", ".gif", ".dng", ".mpo", ".pfm", ".heic", ".heif", ".avif", ".jp2",
          ".dcm", ".tga", ".ppm", ".pgm"}  # fmt: skip
"""Image formats that detectors may read and this source does not."""
MOST_BYTES = 256 << 20  # most bytes of a list of images
Fault = tuple[str | None, Path, GansynthError]
"""Case or None, file, and the error that opening the source raises."""


@dataclass
class ImageListing:
    """The images of a data set.

    Attributes:
        images: by case, split after split, each sorted by name.
        faults: all faults; opening the source raises the first.
        repeated: (case, file or list) of images that their split names more than once.
        lists: the ``.txt`` lists of images.
    """

    images: dict[str, YoloImage] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    repeated: list[tuple[str, Path]] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)

    def of(self, split: str) -> tuple[YoloImage, ...]:
        """Return the images of a split."""
        return tuple(image for image in self.images.values() if image.split == split)

    def dealt(self, train: Sequence[str], val: Sequence[str]) -> ImageListing:
        """Return the images in another split; those of neither side are left out."""
        sides = {"train": train, "val": val}
        images = {
            case: replace(self.images[case], split=side)
            for side, cases in sides.items()
            for case in cases
        }
        return replace(self, images=images)


def list_images(file: DatasetFile, options: YoloOptions) -> ImageListing:
    """List all images of a data set with their headers and label files."""
    listing = ImageListing()
    shared: list[str] = []
    for split, entries in file.splits.items():
        paths = _ImagePaths(file, split, options, listing)
        for entry in entries:
            paths.add(entry)
        if not paths.of_case and not any(fault[0] is None for fault in listing.faults):
            message = (
                f"{file.path}: {split}: no image ({', '.join(SUFFIXES)}) in "
                f"{', '.join(entries)}, expected one at least; correct the entry"
            )
            listing.faults.append((None, file.path, DataFault(message)))
        for case, path in sorted(paths.of_case.items()):
            if case in listing.images:
                shared.append(f"{case} ({listing.images[case].split} and {split})")
                continue
            image = _image(case, split, path, file, options, listing)
            if image is not None:
                listing.images[case] = image
    if shared:
        listing.faults.insert(0, (None, file.path, shared_fault(file, shared)))
    return listing


class _ImagePaths:
    """Collects the images of one split."""

    def __init__(
        self, file: DatasetFile, split: str, options: YoloOptions, listing: ImageListing
    ) -> None:
        self.file = file
        self.split = split
        self.options = options
        self.listing = listing
        self.of_case: dict[str, Path] = {}

    def add(self, entry: str) -> None:
        """Add a folder or list as written in ``data.yaml``."""
        place = f"{self.file.path}: {self.split}"
        path = Path(os.path.abspath(self.file.root / os.path.expanduser(entry)))
        try:
            refuse_unnameable(path, place)
            self._check_inside(path, f"{place}: path {entry!r}{self._nearer(entry)}")
            if path.is_dir():
                for image in walk(path):
                    self._take(image, f"{place}: {image}")
            elif path.is_file() and path.suffix.lower() == ".txt":
                self.listing.lists.append(path)
                for number, line in _lines(path):
                    self._take(_listed(path, self.file.root, line), f"{path}: line {number}")
            else:
                raise DataFault(
                    f"{place}: {entry!r} is neither a folder nor a .txt list ({path}), expected "
                    f"one of them{self._nearer(entry)}; correct the entry"
                )
        except GansynthError as fault:
            self.listing.faults.append((None, self.file.path, fault))

    def _check_inside(self, path: Path, label: str) -> None:
        if not self.options.allow_outside:
            check_inside(self.file.home, path, label)

    def _nearer(self, entry: str) -> str:
        """Return a note if the path exists without its leading ``../``, which detectors skip."""
        stripped = entry.removeprefix("../")
        there = stripped != entry and (self.file.root / stripped).exists()
        return f" ({stripped!r} is there)" if there else ""

    def _take(self, path: Path, where: str) -> None:
        case = _case(path, self.file.root)
        try:
            if not printable(str(path)):
                raise DataFault(f"{str(path)!a}: expected a name that prints on one line")
            if path.suffix.lower() not in SUFFIXES:
                raise DataFault(
                    f"{where}: {path.name} is no {', '.join(SUFFIXES)}, expected one of these; "
                    "convert it"
                )
            refuse_unnameable(path, where)
            self._check_inside(path, where)
            if not path.is_file():
                raise DataFault(f"{where}: no image {path}, expected one; add it, or correct this")
        except GansynthError as fault:
            self.listing.faults.append((case, path, fault))
            return
        first = self.of_case.setdefault(case, path)
        if first != path:
            message = f"{path}: has the same label file as {first.name}; remove or rename one"
            self.listing.faults.append((case, path, DataFault(message)))
        elif case in self._seen:
            self.listing.repeated.append((case, path))
        self._seen.add(case)

    @cached_property
    def _seen(self) -> set[str]:
        return set()


def label_path(image: Path) -> Path:
    """Return an image's label file: the last ``/images/`` of its path becomes ``/labels/``."""
    return beside(image, "labels", ".txt")


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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list that name an image."""
    with reading(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataFault(
                f"{path}: {size} bytes, expected a list of images of at most {MOST_BYTES}; split it"
            )
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {bad}: not UTF-8, expected the path of an image; save it as UTF-8"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _listed(path: Path, root: Path, line: str) -> Path:
    """Return the image of a list's line: relative to the list, else to the data set's root."""
    if "\0" in line:
        return path.parent / line
    beside = Path(os.path.abspath(path.parent / line))
    below = Path(os.path.abspath(root / line))
    return below if not beside.exists() and below.exists() else beside


def _case(path: Path, root: Path) -> str:
    parts = list(Path(os.path.relpath(path, root)).with_suffix("").parts)
    places = [n for n, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        del parts[places[-1]]
    return "/".join("outside" if part == ".." else part for part in parts)


def _image(
    case: str,
    split: str,
    path: Path,
    file: DatasetFile,
    options: YoloOptions,
    listing: ImageListing,
) -> YoloImage | None:
    """Read an image's header and labels; None and a fault if that fails."""
    label = label_path(path)
    try:
        header = read_header(path)
        labels, labelled = LabelRows.none(), label.is_file()
        if labelled:
            if not options.allow_outside:
                check_inside(file.home, label, f"{path}: label file {label}")
            labels = read_labels(label, file.names, options.overshoot)
        elif options.missing == "refuse":
            missing = DataFault(
                f"{path}: has no label file {label}, expected one, empty where there is nothing "
                "to find; add it, or say --read missing=background"
            )
            listing.faults.append((case, label, missing))
    except GansynthError as fault:
        listing.faults.append((case, path, fault))
        return None
    listing.faults += [(case, label, fault) for fault in labels.faults]
    return YoloImage(case, split, path, label, header, labels, labelled)


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and the number of the others."""
    tail = f", and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{tail}"


def shared_fault(file: DatasetFile, shared: Sequence[str]) -> IntegrityFault:
    """Return the error for images in two splits."""
    return IntegrityFault(
        f"leakage: {file.path}: {len(shared)} image(s) are in two splits: {some(shared)}; expected "
        "each in one; list other images, of other subjects, under val and test"
    )


PIECE = 4096  # bytes from the middle of a file that distinguish most files of one size


def same_files(file: DatasetFile, listing: ImageListing) -> list[Fault]:
    """Return images of two splits that are one file, or two files of the same bytes.

    Files are compared by inode, then files of one size by content. Images of one constant value are
    identical and do not count.
    """
    files: dict[tuple[int, int], YoloImage] = {}
    sizes: dict[int, list[YoloImage]] = defaultdict(list)
    shared = []
    for image in listing.images.values():
        with reading(image.image):
            status = os.stat(image.image)
        first = files.setdefault((status.st_dev, status.st_ino), image)
        if first.split != image.split:
            shared.append(_pair(first, image, "one file"))
        elif first is image:
            sizes[status.st_size].append(image)
    for alike in sizes.values():
        shared += _same_bytes(alike)
    return [(None, file.path, shared_fault(file, shared))] if shared else []


def _same_bytes(images: Sequence[YoloImage]) -> list[str]:
    if len({image.split for image in images}) < 2:
        return []
    pieces: dict[str, list[YoloImage]] = defaultdict(list)
    for image in images:
        pieces[_piece(image.image)].append(image)
    shared = []
    for group in pieces.values():
        if len({image.split for image in group}) < 2:
            continue
        by_hash: dict[str, YoloImage] = {}
        for image in group:
            first = by_hash.setdefault(sha256_file(image.image), image)
            if first.split != image.split and not _constant(image.image):
                shared.append(_pair(first, image, "the same bytes"))
    return shared


def _piece(path: Path) -> str:
    with reading(path), open(path, "rb") as stream:
        stream.seek(path.stat().st_size // 2)
        return hashlib.sha256(stream.read(PIECE)).hexdigest()


def _constant(path: Path) -> bool:
    pixels = read_pixels(path)
    return bool(pixels.min() == pixels.max())


def _pair(first: YoloImage, second: YoloImage, how: str) -> str:
    return f"{first.case} ({first.split}) and {second.case} ({second.split}), {how}"
