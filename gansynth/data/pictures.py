"""``pictures:FOLDER``: 2D cases from PNG, TIFF or JPEG files, with masks if there are any."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from gansynth.core.case_store import CaseStore
from gansynth.core.fingerprint import Prints, prints_of
from gansynth.core.identity import neighbours
from gansynth.core.requests.samples import CheckRequest
from gansynth.core.resample import resampling_record
from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Schema, content_hash
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    CheckReport,
    DecodedCase,
    Finding,
    FoldSplit,
    SlicePosition,
    SourceRequest,
    StoredCase,
    places_of,
)
from gansynth.core.space import Space
from gansynth.core.synthetic import has_mark, is_marked, real_file, real_pixels, synthetic_warning
from gansynth.data.connected_components import LabelBoxes, box_record
from gansynth.data.folds import (
    fewer_folds,
    folds_dealt,
    grouped_splits,
    one_fold,
    read_column,
    read_subjects,
    without_cases,
    write_resplit,
)
from gansynth.data.grid import in_eights, rounded_mm
from gansynth.data.label_judge import Held, Judgement, judge
from gansynth.data.listing import located, picture_keys
from gansynth.data.name_patterns import LIKE_LABELS, NamePattern, Pattern, files_fitting
from gansynth.data.pairs import (
    are_label_maps,
    found_layouts,
    label_maps_among,
)
from gansynth.data.picture_files import (
    MAX_PIXELS,
    SUFFIXES,
    PixelSpacing,
    Windows,
    frames_of,
    full_range,
    per_channel,
    picture_header,
    read_picture,
    rescale,
    resize,
)
from gansynth.data.plausibility import Chosen, Place, place_of
from gansynth.data.read_options import (
    OF_BOXES,
    OF_SPLITS,
    LabelNames,
    LeastVoxels,
    OfLabels,
    ReadOptions,
    SplitsFile,
    how_read,
    parse_read,
    register_read_options,
)
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.files import walk_all
from gansynth.runtime.nifti import DICOM, holds_dicom
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.options import Needs
from gansynth.runtime.workers import in_processes, processes_for

IMAGES = "images"
MASKS = ("masks", "labels")


def _classes(value: Any) -> Any:
    values = {"yes": True, "true": True, "no": False, "false": False}
    return values.get(value.casefold(), value) if isinstance(value, str) else value


class PictureOptions(ReadOptions):
    """How a folder of pictures is read."""

    needs: ClassVar[Needs] = {
        **OF_BOXES,
        **OF_SPLITS,
        "label": "image",
        "images": "!image",
        "masks": "!image",
        "mask_suffix": "!image",
        "threshold": "!labels",
    }

    image: Pattern | None = Field(
        None,
        description="pattern of the images' paths below the folder, with {case} in it, for any "
        "other layout: `{case}/photo.jpg`; * and ? fit as in a shell",
    )
    label: Pattern | None = Field(
        None, description="the same of the masks, beside `image`: `{case}/outline.png`"
    )
    images: str | None = Field(
        None,
        description="folder of the images; `images` if there is one, or the only one beside a "
        "folder of masks, else the folder itself",
    )
    masks: str | None = Field(
        None,
        description="folder of the masks, which have the images' names; else `masks`, `labels` or "
        "the like, if there is one whose pictures pair up with the images",
    )
    mask_suffix: str | None = Field(
        None,
        description="suffix of a mask's name after its image's name, for example `_mask`; found "
        "where at least half of the images have such a mask",
    )
    labels: LabelNames | None = Field(
        None,
        description="NAME:NUMBER,... with the numbers of the mask files; cases have 1, 2, ... in "
        "their order. Else `foreground`, drawn as 1 or as 255",
    )
    threshold: int | None = Field(
        None,
        ge=1,
        lt=2**16,
        description="number from which a mask's pixel is `foreground`, for masks with soft or "
        "noisy borders, as of JPEG; 128 of 8 bits. Default: 1 and 255 are, others are refused",
    )
    classes: Annotated[bool | str, BeforeValidator(_classes)] = Field(
        False,
        description="`yes`: the subfolders of the images are classes; else a CSV in the folder, "
        "with the columns `case` and `class`",
    )
    channels: tuple[str, ...] | None = Field(
        None, description="names of the channels; else `grey`, or `red,green,blue`"
    )
    window: Windows | None = Field(
        None,
        description="LOW:HIGH, or percentiles of each picture (`1%:99%`), clipped and mapped to 0 "
        "and 1; one for all channels or for each. Default: the range of 8 or 16 bits",
    )
    spacing: PixelSpacing = Field(
        (1.0, 1.0),
        description="size of the files' pixels in mm along y,x (one number for both); where it is "
        "not given, lengths are in pixels",
    )
    resize: Size2 | None = Field(
        None, description="rows and columns, `64x64`, that every picture is resampled to"
    )
    size: Size2 | None = Field(
        None,
        description="rows and columns of the crops a generator works on; else those of `resize`, "
        "else the training pictures' median, at most 512, in eights",
    )
    splits: SplitsFile = None
    folds: int = Field(
        5,
        ge=2,
        description="number of folds, where there are no `splits`; by default not more than "
        "subjects",
    )
    seed: int = Field(12345, ge=0, description="seed of the split of subjects into folds")
    boxes: OfLabels = None
    least: LeastVoxels = 1


Fault = tuple[str | None, Path, GansynthError]
"""Case or None, file, and the error that opening the source raises."""


@dataclass(frozen=True)
class PictureFiles:
    """The files of one case; ``case`` is the image's path below its folder without its ending.

    ``further``: other masks of the same picture, ``NAME_mask_1``, which are joined with the first.
    """

    case: str
    image: Path
    mask: Path | None
    label_class: int | None
    _: KW_ONLY
    further: tuple[Path, ...] = ()

    @property
    def masks(self) -> tuple[Path, ...]:
        return () if self.mask is None else (self.mask, *self.further)

    @property
    def everything(self) -> tuple[Path, ...]:
        """The files that are read of it."""
        return (self.image, *self.masks)


@dataclass
class PictureSet:
    """A folder of pictures; ``spare``: masks without an image."""

    folder: Path
    pictures: Mapping[str, PictureFiles] = field(default_factory=dict)
    masked: bool = False
    classes: tuple[str, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    spare: list[Path] = field(default_factory=list)


def pair_keys(folder: Path) -> Mapping[str, str]:
    """``--read`` keys that say where the masks of a folder are, by its files and their names.

    Empty without masks for half of the images, and where ``images`` and ``masks`` say it already.
    """
    homes = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] != "."}
    drawn = [name for name in homes if name in MASKS or LIKE_LABELS.search(name)]
    for name in sorted(drawn, key=lambda name: name not in MASKS):
        masks = _files(homes[name])
        filled = [other for other in homes if masks and other not in drawn and _files(homes[other])]
        where = IMAGES if IMAGES in homes else filled[0] if len(filled) == 1 else "."
        suffix = _shared_suffix(_files(folder / where, skip=homes[name]), masks)
        if suffix is not None:
            keys = {"images": where, "masks": name, "mask_suffix": suffix}
            if where in (IMAGES, "."):
                del keys["images"]
            if where == IMAGES and name in MASKS:
                del keys["masks"]
            return {key: text for key, text in keys.items() if text}
    home = homes.get(IMAGES, folder)
    files = _files(home)
    suffixes = _mask_suffixes(files)
    suffixes = [s for s in suffixes if re.sub(r"_\d+\Z", "", s) not in {*suffixes} - {s}]
    if len(suffixes) > 1:
        raise DataFault(
            "pictures.masks-of-several-kinds",
            f"{home}: masks end in {' and '.join(suffixes)}, expected one kind; move the others to "
            "another folder",
        )
    for suffix in suffixes:
        drawn = [n for n in files if re.search(rf"{re.escape(suffix)}(_\d+)?\Z", n)]
        unmasked = [n for n in files if n not in drawn and f"{n}{suffix}" not in files]
        masked = [path for n, path in files.items() if n not in (*drawn, *unmasked)]
        if are_label_maps([files[name] for name in unmasked]) and not are_label_maps(masked):
            raise DataFault(
                "pictures.masks-of-several-kinds",
                f"{files[unmasked[0]]}: holds few numbers as masks do, but masks end in {suffix}, "
                "expected one kind; move the others to another folder",
            )
        return {"mask_suffix": suffix}
    layouts = found_layouts(folder, tuple(SUFFIXES), channels=False)
    if len(layouts) == 1 and layouts[0].whole and not layouts[0].subjects:
        return layouts[0].keys
    if 4 * sum([layout.count for layout in layouts]) >= 3 * len(_files(folder)) > 0:
        ways = " or ".join([layout.typed for layout in layouts])
        raise DataFault(
            "pictures.layout-undecided",
            f"{folder}: masks of several kinds, or several of one person, expected to be told what "
            f"is meant; choose: {ways}",
        )
    return {}


def _shared_suffix(images: Collection[str], masks: Collection[str]) -> str | None:
    """Return what most masks' names add to an image's name, if half of the images have one."""
    counts: Counter[str] = Counter()
    for mask in masks:
        for end in range(len(mask), 0, -1):
            if mask[:end] in images:
                counts[mask[end:]] += 1
                break
    for suffix, count in counts.most_common(1):
        return suffix if 2 * count >= len(images) else None
    return None


def _mask_suffixes(files: Mapping[str, Path]) -> list[str]:
    """Return what masks' names add to those of images beside them, if half of these have one."""
    kinds: dict[str, dict[str, Path]] = {"": dict(files)}
    for name, path in files.items():
        for end in range(1, len(name)):
            if name[:end] in files:
                kinds.setdefault(name[end:], {})[name[:end]] = path
    found = []
    for suffix in label_maps_among(kinds):
        images = [name for name in files if not name.endswith(suffix)]
        if suffix and 2 * len(kinds[suffix]) >= len(images):
            found.append(suffix)
    return found


def list_pictures(folder: Path, options: PictureOptions) -> PictureSet:
    """List the pictures of a folder. Raises DataFault: a requested folder is missing."""
    images = _folder(folder, "images", options.images, IMAGES) or folder
    beside = images.parent if images != folder else None
    masks = _folder(folder, "masks", options.masks)
    if masks is None and beside is not None:
        there = [beside / name for name in MASKS if (beside / name).is_dir()]
        masks = there[0] if there else None
        names = [n for _, _, names in walk_all(masks or folder) for n in names if n[0] != "."]
        if names and not any(Path(name).suffix.lower() in SUFFIXES for name in names):
            masks = None  # of other files, for example coordinates of boxes
    suffix = options.mask_suffix or ""
    listing = PictureSet(folder, masked=bool(masks or suffix or options.label))
    files = _files(images, listing, skip=masks)
    drawn: dict[str, Path] = {}
    if options.image is not None:
        files, drawn = _by_patterns(listing, options.image, options.label)
    elif masks is not None and masks != images:
        drawn = _files(masks, listing, skip=images)
    elif suffix:
        mask_of_case = re.compile(rf".*{re.escape(suffix)}(_\d+)?", re.DOTALL)
        drawn = {case: path for case, path in files.items() if mask_of_case.fullmatch(case)}
        files = {case: path for case, path in files.items() if case not in drawn}
    class_of = _class_names(folder, files, listing, options)
    listing.classes = tuple(sorted(set(class_of.values())))
    pictures = {}
    for case, path in files.items():
        number = listing.classes.index(class_of[case]) if case in class_of else None
        first = drawn.pop(f"{case}{suffix}", None)
        further = () if first is None else _further(f"{case}{suffix}", drawn)
        pictures[case] = PictureFiles(case, path, first, number, further=further)
    listing.pictures = pictures
    listing.spare = sorted(drawn.values())
    if not files:
        text = f"{images}: no picture ({', '.join(SUFFIXES)}) in it, expected one for each case"
        if holds_dicom(images):
            text = f"{images}: {DICOM}, and name them slices:nifti:FOLDER"
        listing.faults.append((None, images, DataFault("pictures.no-picture", text)))
    for picture in listing.pictures.values():
        if listing.masked and picture.mask is None:
            where = f"in {masks or images} by the name {Path(picture.case).name}{suffix}"
            if options.label is not None:
                where = f"at {folder / options.label.named(picture.case, '')}"
            text = f"{picture.image}: has no mask, expected one {where}; add it, or remove this"
            listing.faults.append(
                (picture.case, picture.image, DataFault("pictures.picture-without-mask", text))
            )
    return listing


def _by_patterns(
    listing: PictureSet, image: NamePattern, label: NamePattern | None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and masks by case; a second file that fits alike is a fault."""
    files: dict[str, Path] = {}
    drawn: dict[str, Path] = {}
    for path, found, is_mask in files_fitting(listing.folder, image, label):
        if path.suffix.lower() not in SUFFIXES:
            continue
        into = drawn if is_mask else files
        if found.case in into:
            text = (
                f"{path}: fits case {found.case!r}, as {into[found.case]} does; expected one file"
            )
            listing.faults.append(
                (
                    found.case,
                    path,
                    DataFault("pictures.case-file-twice", f"{text}; narrow the pattern"),
                )
            )
        into.setdefault(found.case, path)
    return dict(sorted(files.items())), drawn


def _pattern_of(file: Path, case: str, folder: Path) -> str:
    """Return the pattern of a file of a case below a folder."""
    above, name = file.relative_to(folder).parent, Path(case).name
    below = above.as_posix().removesuffix(Path(case).parent.as_posix()).strip("/")
    home = f"{below}/" if below not in (".", "") else ""
    wild = "**/" if "/" in case else ""
    return f"{home}{wild}{file.name.replace(name, '{case}', 1)}"


def _further(name: str, drawn: dict[str, Path]) -> tuple[Path, ...]:
    """Take further masks of a picture, ``NAME_1``, ``NAME_2``, ... out of those that are left."""
    files: list[Path] = []
    while f"{name}_{len(files) + 1}" in drawn:
        files.append(drawn.pop(f"{name}_{len(files) + 1}"))
    return tuple(files)


def _folder(folder: Path, key: str, name: str | None, usual: str = "") -> Path | None:
    """The requested folder, else the usual one, if there is one."""
    path = folder / Path(name or usual).expanduser()
    if name is not None and not path.is_dir():
        raise DataFault(
            "pictures.folder-missing",
            f"--read {key}={name}: no folder {path}, expected one below {folder}",
        )
    return path if (path.is_dir() and path != folder) or name is not None else None


def _class_names(
    folder: Path, files: dict[str, Path], listing: PictureSet, options: PictureOptions
) -> dict[str, str]:
    """Case -> name of its class, of the cases that have one; for others a fault is noted."""
    if not options.classes:
        return {}
    if options.classes is True:
        named = {case: case.split("/")[0] for case in files if "/" in case}
    else:
        table = folder / Path(options.classes).expanduser()
        if not table.is_file():
            raise DataFault(
                "pictures.class-table-missing",
                f"--read classes={options.classes}: no file {table}, expected yes, no, or a CSV "
                f"with the columns case and class, by its path from {folder}",
            )
        named = read_column(table, "class")
    for case, path in files.items():
        if not named.get(case):
            text = f"{path}: lies in no subfolder, expected one, its class; move it there"
            if options.classes is not True:
                text = f"{table}: {case!r} has no class, expected one for each picture; add a line"
            listing.faults.append((case, path, DataFault("pictures.picture-without-class", text)))
    return {case: named[case] for case in files if named.get(case)}


def _files(
    home: Path, listing: PictureSet | None = None, skip: Path | None = None
) -> dict[str, Path]:
    """Pictures below a folder, by their path without ending, sorted; faults go to the listing."""
    files: dict[str, Path] = {}
    for folder, below, names in walk_all(home):
        here = Path(folder)
        below[:] = [b for b in below if not b.startswith(".") and here / b != skip]
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            case = path.relative_to(home).with_suffix("").as_posix()
            text = None
            if not printable(case):
                text = f"{str(path)!a}: expected a name that prints on one line; rename it"
            elif case in files:
                text = f"{path}: has the same name as {files[case].name}; remove or rename one"
            if text is None:
                files[case] = path
            elif listing is not None:
                listing.faults.append((None, home, DataFault("pictures.name-unusable", text)))
    return dict(sorted(files.items()))


def printable(text: str) -> bool:
    """Return whether a name prints on one line."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def flat_files(
    case_id: str,
    shape: tuple[int, ...],
    numbers: Mapping[int, int],
    **facts: Any,
) -> StoredCase:
    """Return how a 2D case lies in its file; host's label maps of it are PNG files.

    ``shape``: rows and columns of the file; ``numbers``: label -> its number in a PNG file;
    ``facts``: other fields of ``StoredCase``, ``spacing`` among them.
    """
    label_of = {number: label for label, number in numbers.items()}
    hint = "predict again with a model of this data"

    def read(file: Path) -> LabelArray:
        return _labels_of(file, shape, label_of, f"case {case_id!r} has", hint)

    return StoredCase(
        shape=shape,
        affine=np.diag([*facts["spacing"][::-1], 1.0, 1.0]),
        read=read,
        numbers=numbers,
        **facts,
    )


def _labels_of(
    path: Path,
    shape: tuple[int, ...],
    label_of: Mapping[int, int],
    whose: str,
    hint: str,
    threshold: int | None = None,
    nameable: bool = False,
    typed: Mapping[str, int] | None = None,
) -> LabelArray:
    """Labels int16 (H, W) by a mask's numbers. Raises DataFault: another shape, odd numbers."""
    mask = read_picture(path, "mask")
    if mask.shape != tuple(shape):
        raise DataFault(
            "pictures.mask-shape-differs",
            f"{path}: {mask.shape[0]} x {mask.shape[1]} pixels, {whose} {shape[0]} x {shape[1]}; "
            "expected equal; draw, predict or resample it on the pixels of its image",
        )
    mask = mask if threshold is None else (mask >= threshold).astype(np.uint8)
    values = np.unique(mask)
    if not set(values.tolist()) <= label_of.keys() or (label_of is BINARY and len(values) > 2):
        held = [Held.of(mask, values)]
        said = judge(held, pictures=True, typed=typed).typed if values[-1] else ""
        hint += f", or say what its numbers are: {said}" if said and nameable else ""
        raise DataFault(
            "pictures.mask-numbers-unknown",
            f"{path}: holds the numbers {values[:16].astype(int).tolist()}, expected among "
            f"{list(label_of)}; {hint}",
        )
    table = np.array([label_of[int(v)] for v in values], np.int16)
    labels: LabelArray = table[np.searchsorted(values, mask)]
    return labels


LARGEST = 512  # longest edge of a generator's arrays by default
BINARY = {0: 0, 1: 1, 255: 1}  # numbers in mask files that name no labels -> label


@register_read_options(PictureOptions)
def open_pictures(request: SourceRequest) -> PictureSource:
    """Open ``pictures:FOLDER``."""
    source = PictureSource(request)
    for _, _, fault in source.faults():
        raise fault
    _ = source.train_ids
    return source


class PictureSource(CaseSource):
    """A folder of pictures, its subjects split into folds.

    A kind that lists its pictures otherwise is a subclass, with a ``scan`` of its own.

    Attributes:
        found: the pictures.
        numbers: number in a mask's file -> label.
        threshold: number from which a mask's pixel is foreground; None: as ``numbers`` says.
        alike: whether all pictures must have the channels and the dtype of the first one.
    """

    alike: ClassVar[bool] = True
    options: PictureOptions
    found: PictureSet
    numbers: Mapping[int, int]
    threshold: int | None = None

    def __init__(self, request: SourceRequest) -> None:
        self.scan(request)

    def scan(self, request: SourceRequest) -> None:
        """Set the attributes of the class, and ``request`` with absolute paths."""
        folder = located(request, folder=True)
        asked = {"image", "images", "masks", "mask_suffix"}.intersection(request.read)
        found = picture_keys(folder)
        if not asked:
            found.update(pair_keys(folder))
        request = replace(request, read=found | dict(request.read))
        self.options = parse_read(PictureOptions, request)
        self.request = request.absolute(folder)
        self.found = list_pictures(folder, self.options)
        self._refuse_stacks()
        self.numbers, self.threshold = BINARY, self.options.threshold
        if self._named is not None:
            self.numbers = {n: label for label, n in enumerate(self._named.values())}

    def _refuse_stacks(self) -> None:
        """Raise DataFault where the first file holds several pictures, as volumes of ImageJ do."""
        for first in list(self.found.pictures.values())[:1]:
            frames = frames_of(first.image)
            if frames > 1:
                named = {"image": first.image, "label": first.mask}
                read = {key: _pattern_of(file, first.case, self.found.folder)
                        for key, file in named.items() if file is not None}  # fmt: skip
                there = replace(self.request, kind="nifti", read=read)
                raise DataFault(
                    "pictures.volumes",
                    f"{first.image}: holds {frames} pictures, expected one; read such files as "
                    f"volumes: {there.command(CheckRequest)}",
                )

    def faults(self) -> Sequence[Fault]:
        """Return what is found without decoding a picture; opening raises the first."""
        return self.found.faults

    def check(
        self, progress: Callable[[int, int], None], more: PictureCheck | None = None
    ) -> CheckReport:
        """Check the pictures, decode each, and ask ``more`` what it finds in its pixels."""
        return _check(self, progress, more)

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"pictures:{self.found.folder.name}"

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self._split[0]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Held-out pictures of the fold, sorted; none for fold ``all``."""
        return self._split[1]

    def header(self, case_id: str) -> CaseHeader:
        """Subject and class of a picture, and its shape from the header of its file."""
        shape = self.resized or self._file_shape(case_id)
        number = self._picture(case_id).label_class
        return CaseHeader(self._subjects[case_id], shape, self.schema.spacing, number)

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the pictures into other folds: two small files in a folder."""
        return write_resplit(self, self.found.pictures, splits, folder).request(self.request)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if there are none."""
        return self.found.classes

    @cached_property
    def schema(self) -> Schema:
        """Channels of the first training picture; labels 1, 2, ... as named, or ``foreground``."""
        channels = self._channels
        labels = {"background": 0}
        if self.found.masked:
            names = self._named or {"background": 0, "foreground": 1}
            labels = {name: number for number, name in enumerate(names)}
        how: dict[str, Any] = {"axes": "HW", "ignore": self.ignored, "classes": self.classes}
        plain = Schema(channels, labels, self._spacing(), **how)
        boxes = LabelBoxes.asked(self.options.boxes, self.options.least, plain, self.name)
        return plain if boxes is None else replace(plain, box_classes=tuple(boxes.classes))

    @property
    def _named(self) -> dict[str, int] | None:
        """Label name -> number in the masks' files, the background's first; None if unnamed."""
        named = getattr(self.options, "labels", None)
        if named is None or "background" not in named:
            return named
        return {"background": named["background"], **named}

    @property
    def ignored(self) -> int | None:
        """The label of pixels without an annotation, if it is named."""
        names = list(self._named or ())
        return names.index("ignore") if "ignore" in names else None

    @property
    def unit(self) -> str:
        """``mm`` where ``--read spacing=`` says how large the files' pixels are, else ``px``."""
        return "mm" if "spacing" in self.request.read else "px"

    @property
    def resized(self) -> tuple[int, ...] | None:
        """Rows and columns that every picture is brought to, or None."""
        return self.options.resize

    def _spacing(self) -> tuple[float, ...]:
        """Size of the arrays' pixels; 1 where that of the files' is unknown."""
        spacing, size = self.options.spacing, self.resized
        if self.unit == "px" or size is None:
            return spacing
        shapes = [self._file_shape(case) for case in self.train_ids]
        factors = np.median(shapes, axis=0) / size
        return rounded_mm(np.array(spacing) * factors)

    @cached_property
    def _boxes(self) -> LabelBoxes | None:
        return LabelBoxes.asked(self.options.boxes, self.options.least, self.schema, self.name)

    @cached_property
    def space(self) -> Space:
        """Crops of pictures; all options that change the arrays are in the record."""
        options = self.options.model_dump(
            mode="json", include={"labels", "window", "spacing", "resize"}
        )
        host: dict[str, Any] = {"dataset": self.name, "channels": list(self._channels)}
        host["classes"] = list(self.classes)
        host |= options
        if self.threshold is not None:
            host["threshold"] = self.threshold
        host |= resampling_record(self.options.resize is not None)
        host |= box_record(self.options.boxes, self.options.least)
        return Space("crop", self._size(), host=host, pad_label=0)

    @cached_property
    def _number_of(self) -> dict[int, int]:
        number_of = {label: number for number, label in self.numbers.items()}
        if self.numbers is BINARY and self.threshold is None:
            for case in self.train_ids:
                for path in self.found.pictures[case].masks:
                    largest = int(read_picture(path, "mask").max())
                    if largest in BINARY and largest:
                        return {0: 0, 1: largest}
        return number_of

    @cached_property
    def _subjects(self) -> dict[str, str]:
        ids = list(self.found.pictures)
        option = self.request.subjects
        return {case: case for case in ids} if option is None else read_subjects(option, ids)

    @property
    def sides(self) -> dict[str, str]:
        """Case -> its side of the split, of which none may share an image with another."""
        return dict.fromkeys(self.train_ids, "train") | dict.fromkeys(self.held_out_ids, "val")

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        ids, subjects = tuple(sorted(self.found.pictures)), len(set(self._subjects.values()))
        folds = folds_dealt(self.options, subjects)
        if self.request.fold == "all":
            return ids, ()
        if self.options.splits is not None:
            path = Path(self.options.splits)
            return one_fold(path, self.request.fold, self._subjects, self.found.folder)
        if not self.request.fold.isdecimal() or int(self.request.fold) >= folds:
            raise UsageFault(
                "pictures.fold-unknown",
                f"--fold {self.request.fold!r}: {self.found.folder} has folds 0 to {folds - 1}, or "
                "'all'; set their number with --read folds=N",
            )
        splits = grouped_splits(ids, self._subjects, folds, self.options.seed)
        self.note = fewer_folds(self.found.folder, self.options, subjects)
        split = splits[int(self.request.fold)]
        return tuple(split["train"]), tuple(split["val"])

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one picture: image float32 (C, H, W), labels int16 (H, W).

        Raises DataFault: unknown, damaged, of another kind than the first one, or a mask that does
        not fit.
        """
        return self.decode(case_id).prepare()

    def decode(self, case_id: str) -> DecodedCase:
        picture = self._picture(case_id)
        array = read_picture(real_file(picture.image, self.request))
        real_pixels(array, picture.image, self.request)
        if self.alike and kind_of(array) != self._first:
            raise unlike(picture.image, kind_of(array), self._first)
        labels = self.read_labels(picture, array.shape[:2])

        def prepare() -> Case:
            image, subject = self.scaled(array), self._subjects[case_id]
            case = Case(case_id, subject, image, labels, None, picture.label_class)
            return self.fitted(replace(case, boxes=self.boxes_of(case)))

        return DecodedCase(
            prepare,
            np.moveaxis(np.atleast_3d(array), -1, 0),
            labels,
            (1.0, 1.0),
            label_class=picture.label_class,
        )

    def boxes_of(self, case: Case) -> Boxes | None:
        """Return the boxes of a case on the grid of its file, if there are any."""
        return None if self._boxes is None else self._boxes.of_case(case)

    def fitted(self, case: Case) -> Case:
        """Bring a case from the grid of its file to the size of ``load``."""
        return case if self.resized is None else resize(case, self.resized)

    def files(self, case_id: str) -> StoredCase:
        """A picture's file and its mask; neighbours of a picture are unknown."""
        picture, shape = self._picture(case_id), self._file_shape(case_id)

        def arrays() -> tuple[FloatArray, LabelArray | None]:
            labels = self.read_labels(picture, shape)
            return _channels_first(read_picture(picture.image)), labels

        return flat_files(
            case_id,
            shape,
            self._number_of,
            folders=places_of(self.request),
            spacing=self.options.spacing,
            position=SlicePosition(self._subjects[case_id]),
            arrays=arrays,
        )

    def store_of(self, case_id: str) -> CaseStore:
        """In the user's cache folder."""
        picture = self._picture(case_id)
        store = CaseStore.of(case_id, picture.everything, self.found.folder, beside=False)
        return store.read_as(how_read(self.request, picture.label_class))

    def _file_shape(self, case_id: str) -> tuple[int, ...]:
        return picture_header(self._picture(case_id).image).shape

    def _picture(self, case_id: str) -> PictureFiles:
        if case_id not in self.found.pictures:
            raise DataFault(
                "pictures.picture-unknown",
                f"{self.found.folder}: no picture {case_id!r}, expected one of "
                f"{len(self.found.pictures)}, for example "
                f"{next(iter(self.found.pictures), None)!r}",
            )
        return self.found.pictures[case_id]

    def scaled(self, array: npt.NDArray[Any]) -> FloatArray:
        """Return a file's pixels as an image (C, H, W) in the source's intensities."""
        image = _channels_first(array)
        windows = per_channel(self.options.window, len(image))
        if windows is None:
            low, high = full_range(array)
            return image / np.float32(high - low)
        return rescale(image, [w.bounds(c) for w, c in zip(windows, image, strict=True)])

    def read_mask(self, path: Path, shape: tuple[int, ...]) -> LabelArray:
        """Read a mask as labels, int16 (H, W); DataFault: another shape, odd numbers."""
        return _labels_of(
            path,
            shape,
            self.numbers,
            "its image",
            "correct the mask",
            self.threshold,
            nameable="labels" in type(self.options).model_fields,
            typed=self._named,
        )

    def read_labels(self, picture: PictureFiles, shape: tuple[int, ...]) -> LabelArray | None:
        """Read all masks of a picture as one label map; where they overlap, the larger label."""
        if not picture.masks:
            return None
        drawn = [self.read_mask(path, shape) for path in picture.masks]
        return np.asarray(np.maximum.reduce(drawn), np.int16)

    # -- learnt from the training pictures -------------------------------------------------------

    @cached_property
    def _first(self) -> Kind:
        return kind_of(read_picture(self._picture(self.train_ids[0]).image))

    @cached_property
    def _channels(self) -> tuple[str, ...]:
        count = self._first[0]
        names = self.options.channels or (("grey",) if count == 1 else ("red", "green", "blue"))
        if len(names) != count:
            raise UsageFault(
                "pictures.channel-count-differs",
                f"--read channels={','.join(names)}: {len(names)} name(s), but the pictures of "
                f"{self.found.folder} have {count} channel(s); expected a name for each",
            )
        per_channel(self.options.window, count)
        return names

    def _size(self) -> tuple[int, ...]:
        size = self.options.size or self.resized
        if size is not None:
            return size
        median = np.median([self._file_shape(case) for case in self.train_ids], axis=0)
        return in_eights(median, LARGEST)


def _channels_first(array: npt.NDArray[Any]) -> FloatArray:
    flat = array[..., None] if array.ndim == 2 else array
    return np.ascontiguousarray(np.moveaxis(flat, -1, 0), np.float32)


Kind = tuple[int, np.dtype[Any]]
PictureCheck = Callable[[PictureFiles, npt.NDArray[Any]], Iterator[Finding]]


def kind_of(array: npt.NDArray[Any]) -> Kind:
    """Channels and dtype."""
    return 1 if array.ndim == 2 else array.shape[2], array.dtype


def unlike(path: Path, kind: Kind, expected: Kind) -> DataFault:
    """Return the fault of a picture of another kind than the others."""
    return DataFault(
        "pictures.picture-channels-differ",
        f"{path}: {kind[0]} channel(s) of {kind[1]}, expected {expected[0]} of {expected[1]} as "
        "the other pictures have; convert it",
    )


def check_pictures(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``pictures:FOLDER`` for all faults; every file is decoded."""
    return PictureSource(request).check(progress)


@dataclass
class PictureFound:
    """What is found of a picture and its masks; ``place``: of its label map, if asked for.

    ``held``: what each mask holds. ``unknown``: findings on numbers that nobody has named.
    """

    findings: list[Finding] = field(default_factory=list)
    kind: Kind | None = None
    content: str = ""
    prints: Prints = ()
    marked: bool = False
    place: Place | None = None
    held: list[Held] = field(default_factory=list)
    unknown: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class PictureReader:
    """Decodes a picture and its masks, and asks ``more`` what it finds in its pixels."""

    source: PictureSource
    more: PictureCheck | None

    def __call__(self, task: tuple[str, bool]) -> PictureFound:
        """Return what is found of a case; the second of a task asks for its label map's place."""
        case, placed = task
        picture, found = self.source.found.pictures[case], PictureFound()
        file, array = picture.image, None
        try:
            array = read_picture(file)
            found.kind = kind_of(array)
            found.marked = is_marked(file) or has_mark(array)
            found.prints = prints_of(np.moveaxis(np.atleast_3d(array), -1, 0), (1.0, 1.0))
            if array.min() == array.max():
                text = f"{file}: every pixel is {array.flat[0]}; is it meant to be there?"
                found.findings.append(Finding("warning", case, file, text))
            else:
                found.content = content_hash(array)
                found.findings += self.more(picture, array) if self.more is not None else ()
        except GansynthError as fault:
            found.findings.append(Finding.of(case, file, fault))
        drawn = []
        for path in picture.masks:
            try:
                mask = read_picture(path, "mask")
                found.held.append(Held.of(mask))
                shape = mask.shape if array is None else array.shape[:2]
                drawn.append(self.source.read_mask(path, shape))
            except GansynthError as fault:
                into = found.unknown if fault.id == UNKNOWN else found.findings
                into.append(Finding.of(case, path, fault))
        if placed and array is not None and drawn and not (found.findings or found.unknown):
            labels = np.asarray(np.maximum.reduce(drawn), np.int16)
            found.place = place_of(case, _channels_first(array), labels, self.source.ignored)
        return found


def _processes(pictures: Mapping[str, PictureFiles]) -> int:
    """Return in how many processes pictures are read."""
    sizes = []
    for picture in pictures.values():
        for file in (picture.image, *picture.masks):
            with suppress(OSError):
                sizes.append(file.stat().st_size)
    return processes_for(len(sizes), sum(sizes), MAX_PIXELS)


def _check(
    source: PictureSource, progress: Callable[[int, int], None], more: PictureCheck | None
) -> CheckReport:
    listing, pictures = source.found, source.found.pictures
    findings = [Finding.of(*fault) for fault in source.faults()]
    content: dict[str, list[str]] = defaultdict(list)
    kinds: dict[Kind, list[str]] = defaultdict(list)
    prints: dict[str, Prints] = {}
    marked: list[Path] = []
    held: list[Held] = []
    unknown: list[Finding] = []
    order = tuple(pictures)
    with suppress(GansynthError):  # told elsewhere
        order = (*source.train_ids, *source.held_out_ids)
    chosen = Chosen(order)
    # Whether a case's place is still wanted is asked when a process is free to read it.
    tasks = ((case, chosen.wants(case)) for case in pictures)
    count = _processes(pictures)
    with closing(in_processes(PictureReader(source, more), tasks, count)) as pass_over:
        for done, (case, found) in enumerate(zip(pictures, pass_over, strict=True)):
            progress(done, len(pictures))
            findings += found.findings
            held += found.held
            unknown += found.unknown
            prints[case] = found.prints
            if found.kind is not None:
                kinds[found.kind].append(case)
            if found.marked:
                marked.append(pictures[case].image)
            if found.content:
                content[found.content].append(case)
            if found.place is not None:
                chosen.add(found.place)
    progress(len(pictures), len(pictures))
    findings += _judged(source, held, unknown)
    findings += _check_set(source, content, kinds)
    findings += [Finding("warning", None, marked[0], synthetic_warning(marked))] if marked else []
    if not any(f.level == "error" for f in findings):
        seen = {case: prints[case] for case in source.train_ids}
        held_out = {case: prints[case] for case in source.held_out_ids}
        named = source.request.subjects is not None
        text = neighbours(seen, held_out, named=named)
        if text:
            text = f"{listing.folder}: {text}"
            level: Literal["error", "warning"] = "error" if named else "warning"
            findings.append(Finding(level, None, listing.folder, text))
    findings.sort(key=lambda finding: finding.level)  # errors before warnings
    drawn = any(picture.masks for picture in pictures.values())
    looked = chosen.looked() if drawn else None
    return CheckReport(source.name, len(pictures), findings, looked=looked)


UNKNOWN = "pictures.mask-numbers-unknown"


def _judged(source: PictureSource, held: Sequence[Held], unknown: list[Finding]) -> list[Finding]:
    """Say of all masks together what their numbers are, where it differs from what is read.

    What is proposed was read with; it stands in place of ``unknown``, what is said of each file.
    """
    drawn = [each for each in held if _shows(each)]
    if "labels" not in type(source.options).model_fields or not drawn:
        return unknown
    judged, least = judge(drawn, pictures=True, typed=source._named), source.threshold
    numbers = sorted({number for each in drawn for number in each.filled})
    empty = [each for each in drawn if least is not None and max(each.filled) < least]
    level: Literal["error", "warning"] = "error"
    if unknown:
        text = f"{len(unknown)} mask(s) hold other numbers than {sorted(source.numbers)}"
    elif 2 * len(empty) > len(drawn):
        text = f"{len(empty)} of {len(drawn)} masks have no number from threshold={least} on"
    elif judged.kind == "void" and least is not None:
        text = f"threshold={least} takes what is not annotated for the foreground"
    elif judged.kind == "inverted" and source.numbers is BINARY:
        text, level = "masks may be inverted", "warning"
    else:
        return []
    odd_ones = bool(unknown) and judged.kind == "named" and 2 * len(unknown) < len(drawn)
    if odd_ones or not judged.keys or not _tried(source, judged, numbers):
        return unknown
    file = unknown[0].file if unknown else source.found.folder
    because = f"{judged.reason}: " if judged.reason else "name them: "
    text = f"{file}: {text}; all hold {numbers[:16]}; {because}{judged.typed}"
    return [Finding(level, None, file, text)]


def _shows(held: Held) -> bool:
    return len(held.filled) > 1 or 0 not in held.filled


def _tried(source: PictureSource, judged: Judgement, numbers: Sequence[int]) -> bool:
    """Whether masks are read with the keys that are proposed."""
    read = {key: text for key, text in source.request.read.items()
            if key not in ("labels", "threshold")}  # fmt: skip
    try:
        fresh = type(source)(replace(source.request, read=read | dict(judged.keys)))
        for picture in list(fresh.found.pictures.values())[:3]:
            for path in picture.masks:
                fresh.read_mask(path, picture_header(path).shape)
    except GansynthError:
        return False
    return fresh.threshold is not None or set(numbers) <= fresh.numbers.keys()


def _check_set(
    source: PictureSource, content: dict[str, list[str]], kinds: dict[Kind, list[str]]
) -> Iterator[Finding]:
    """Report faults of the data set as a whole."""
    folder, pictures = source.found.folder, source.found.pictures
    usual = max(kinds, key=lambda kind: len(kinds[kind]), default=None)
    for kind, cases in kinds.items():
        for case in cases if source.alike and kind != usual else ():
            path = pictures[case].image
            yield Finding("error", case, path, str(unlike(path, kind, usual or kind)))
    side_of: Mapping[str, str] = {}
    with suppress(GansynthError):  # told elsewhere
        side_of = source.sides
    for cases in content.values():
        for case in cases[1:]:
            path, sides = pictures[case].image, {side_of.get(case, "") for case in cases}
            text = f"{path}: same pixels as {cases[0]}; remove one, or give both one subject"
            level: Literal["error", "warning"] = "error" if len(sides) > 1 else "warning"
            yield Finding(level, case, path, text, {"write_subjects": "subjects.csv"})
    for path in source.found.spare:
        text = f"{path}: a mask without an image; it is not used"
        yield Finding("warning", None, path, text)
    if not source.found.masked:
        yield from _check_unread(folder, pictures)
    try:
        yield from without_cases(source, source.classes, folder)
    except GansynthError as fault:
        yield Finding.of(None, folder, fault)


def _check_unread(folder: Path, pictures: Collection[str]) -> Iterator[Finding]:
    """Report files of a folder without masks that may be masks or boxes."""
    alike = [case for case in pictures if LIKE_LABELS.search(case)]
    if alike:
        text = (
            f"{folder}: {len(alike)} of {len(pictures)} names are like those of masks and are read "
            f"as images, {alike[0]!r} first. If they are masks, put them in masks/ by the names of "
            "their images in images/, or name their suffix: --read mask_suffix=_mask"
        )
        yield Finding("warning", alike[0], folder, text)
    texts = {path.stem for path in folder.rglob("*.txt")}
    boxed = len([case for case in pictures if Path(case).name in texts])
    if pictures and 2 * boxed >= len(pictures):
        text = (
            f"{folder}: {boxed} of {len(pictures)} images have a text file of their name, as a "
            "detector's boxes have, which are not read here: open it as a data set of boxes"
        )
        yield Finding("warning", None, folder, text)
