"""List the files of a folder of pictures; faults are collected, not raised."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from gansynth.data.listing import LIKE_LABELS
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.planes import PixelSpacing, Windows
from gansynth.data.read_options import (
    OF_BOXES,
    OF_SPLITS,
    LabelNames,
    LeastVoxels,
    OfLabels,
    ReadOptions,
    SplitsFile,
    Words,
)
from gansynth.data.subjects import read_column
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.nifti import DICOM, holds_dicom
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.options import Needs

IMAGES = "images"
MASKS = ("masks", "labels")


def _classes(value: Any) -> Any:
    values = {"yes": True, "true": True, "no": False, "false": False}
    return values.get(value.casefold(), value) if isinstance(value, str) else value


class PictureOptions(ReadOptions):
    """How a folder of pictures is read."""

    needs: ClassVar[Needs] = {**OF_BOXES, **OF_SPLITS}

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
    classes: Annotated[bool | str, BeforeValidator(_classes)] = Field(
        False,
        description="`yes`: the subfolders of the images are classes; else a CSV in the folder, "
        "with the columns `case` and `class`",
    )
    channels: Words | None = Field(
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
    folds: int = Field(5, ge=2, description="number of folds, where there are no `splits`")
    seed: int = Field(12345, ge=0, description="seed of the split of subjects into folds")
    boxes: OfLabels = None
    least: LeastVoxels = 1


@dataclass(frozen=True)
class PictureFiles:
    """The files of one case; ``case`` is the image's path below its folder without its ending."""

    case: str
    image: Path
    mask: Path | None
    label_class: int | None


@dataclass
class PictureSet:
    """A folder of pictures. ``faults``: (case, file, error). ``spare``: masks without an image."""

    folder: Path
    pictures: dict[str, PictureFiles] = field(default_factory=dict)
    masked: bool = False
    classes: tuple[str, ...] = ()
    faults: list[tuple[str | None, Path, GansynthError]] = field(default_factory=list)
    spare: list[Path] = field(default_factory=list)


def pair_keys(folder: Path) -> dict[str, str]:
    """``--read`` keys that say where the masks of a folder are, by the names of its files.

    Empty without masks for half of the images, and where ``images`` and ``masks`` say it already.
    """
    scratch = PictureSet(folder)
    homes = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] != "."}
    drawn = [name for name in homes if name in MASKS or LIKE_LABELS.search(name)]
    for name in sorted(drawn, key=lambda name: name not in MASKS):
        masks = _files(homes[name], scratch, None)
        others = [other for other in homes if other not in drawn]
        filled = [other for other in others if masks and _files(homes[other], scratch, None)]
        where = IMAGES if IMAGES in homes else filled[0] if len(filled) == 1 else "."
        suffix = _shared_suffix(_files(folder / where, scratch, homes[name]), masks)
        if suffix is not None:
            said = {} if where in (IMAGES, ".") else {"images": where}
            said |= {} if where == IMAGES and name in MASKS else {"masks": name}
            return {**said, **({"mask_suffix": suffix} if suffix else {})}
    images = _files(homes.get(IMAGES, folder), scratch, None)
    suffix = _shared_suffix(images, images)
    return {} if suffix is None else {"mask_suffix": suffix}


def _shared_suffix(images: Collection[str], masks: Collection[str]) -> str | None:
    """Return what most masks' names add to an image's name, if half of the images have one."""
    counts: Counter[str] = Counter()
    for mask in masks:
        cuts = ((mask[:end], mask[end:]) for end in range(len(mask), 0, -1))
        found = (
            tail
            for start, tail in cuts
            if start in images and (masks is not images or LIKE_LABELS.search(tail))
        )
        counts.update(itertools.islice(found, 1))
    for suffix, count in counts.most_common(1):
        unmasked = [i for i in images if masks is not images or not i.endswith(suffix)]
        return suffix if 2 * count >= len(unmasked) else None
    return None


def list_pictures(folder: Path, options: PictureOptions) -> PictureSet:
    """List the pictures of a folder. Raises DataFault: a requested folder is missing."""
    images = _asked(folder, "images", options.images) or _first(folder, IMAGES) or folder
    masks = _asked(folder, "masks", options.masks)
    if masks is None and images != folder:
        masks = _first(images.parent, *MASKS)
        masks = None if masks is None or _other_files(masks) else masks
    suffix = options.mask_suffix or ""
    listing = PictureSet(folder, masked=bool(masks or suffix))
    files = _files(images, listing, skip=masks)
    drawn: dict[str, Path] = {}
    if masks is not None and masks != images:
        drawn = _files(masks, listing, skip=images)
    elif suffix:
        drawn = {case: path for case, path in files.items() if case.endswith(suffix)}
        files = {case: path for case, path in files.items() if case not in drawn}
    class_of = _class_names(folder, files, listing, options)
    listing.classes = tuple(sorted(set(class_of.values())))
    for case, path in files.items():
        number = listing.classes.index(class_of[case]) if case in class_of else None
        listing.pictures[case] = PictureFiles(
            case, path, drawn.pop(f"{case}{suffix}", None), number
        )
    listing.spare = sorted(drawn.values())
    if not files:
        message = f"{images}: no picture ({', '.join(SUFFIXES)}) in it, expected one for each case"
        if holds_dicom(images):
            message = f"{images}: {DICOM}, and name them slices:nifti:FOLDER"
        listing.faults.append((None, images, DataFault(message)))
    for picture in listing.pictures.values():
        if listing.masked and picture.mask is None:
            where = f"in {masks or images} by the name {Path(picture.case).name}{suffix}"
            message = f"{picture.image}: has no mask, expected one {where}; add it, or remove this"
            if suffix and suffix in picture.case:
                message += f" (or if it is a second mask of a picture, merge it into {suffix!r})"
            listing.faults.append((picture.case, picture.image, DataFault(message)))
    return listing


def _asked(folder: Path, key: str, name: str | None) -> Path | None:
    if name is None:
        return None
    path = folder / Path(name).expanduser()
    if not path.is_dir():
        raise DataFault(f"--read {key}={name}: no folder {path}, expected one below {folder}")
    return path


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _other_files(folder: Path) -> bool:
    """Whether a folder holds files but no picture, for example coordinates of boxes."""
    names = [name for _, _, names in os.walk(folder) for name in names if name[0] != "."]
    return bool(names) and not any(Path(name).suffix.lower() in SUFFIXES for name in names)


def _class_names(
    folder: Path, files: dict[str, Path], listing: PictureSet, options: PictureOptions
) -> dict[str, str]:
    """Case -> name of its class, of the cases that have one; for others a fault is noted."""
    if not options.classes:
        return {}
    if options.classes is True:
        for case, path in files.items():
            if "/" not in case:
                message = f"{path}: lies in no subfolder, expected one, its class; move it there"
                listing.faults.append((case, path, DataFault(message)))
        return {case: case.split("/")[0] for case in files if "/" in case}
    table = folder / Path(options.classes).expanduser()
    if not table.is_file():
        raise DataFault(
            f"--read classes={options.classes}: no file {table}, expected yes, no, or a CSV with "
            f"the columns case and class, by its path from {folder}"
        )
    named = read_column(table, "class")
    for case, path in files.items():
        if not named.get(case):
            message = f"{table}: {case!r} has no class, expected one for each picture; add a line"
            listing.faults.append((case, path, DataFault(message)))
    return {case: named[case] for case in files if named.get(case)}


def _files(home: Path, listing: PictureSet, skip: Path | None) -> dict[str, Path]:
    """Pictures below a folder, by their path without ending, sorted."""
    files: dict[str, Path] = {}
    for folder, below, names in os.walk(home):
        here = Path(folder)
        below[:] = [b for b in below if not b.startswith(".") and here / b != skip]
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            case = path.relative_to(home).with_suffix("").as_posix()
            fault = None
            if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in case):
                fault = f"{str(path)!a}: expected a name that prints on one line; rename it"
            elif case in files:
                fault = f"{path}: has the same name as {files[case].name}; remove or rename one"
            if fault is not None:
                listing.faults.append((None, home, DataFault(fault)))
            else:
                files[case] = path
    return dict(sorted(files.items()))
