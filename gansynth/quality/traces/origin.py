"""The source that exports are compared with: its files, their times and headers, its images."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gansynth.integrity import sha256_file
from gansynth.quality.traces.kinds import look_into
from gansynth.quality.traces.look import Look, Notes
from gansynth.quality.traces.names import Name, Names, words_of
from gansynth.quality.traces.nifti import frames, header_of, is_nifti
from gansynth.quality.traces.prints import Print, prints_of
from gansynth.quality.traces.wanted import folder_names
from gansynth.schema import FloatArray
from gansynth.sources.base import CaseSource

IMAGES = (
    *(".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".h5", ".hdf5", ".npz", ".npy"),
    *(".b2nd", ".pkl", ".mha", ".mhd", ".nrrd", ".dcm", ".img", ".hdr"),
)
"""Endings of files that are called as cases are."""
_NIFTI, _PICTURES = (".nii", ".nii.gz"), (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
MOST_FACES = 3
"""A file name that so many folders have, such as ``flair.nii.gz``, is no case's."""
T = TypeVar("T")


@dataclass(frozen=True)
class SourceFile:
    """A file of the source: its path, its folder's share of that, its size and time."""

    path: Path
    stat: os.stat_result

    @property
    def stem(self) -> str:
        """Its name without endings and without the number of a channel."""
        name = self.path.name
        for ending in sorted(IMAGES, key=len, reverse=True):
            if name.lower().endswith(ending):
                name = name[: -len(ending)]
                break
        start, _, last = name.rpartition("_")
        return start if start and len(last) == 4 and last.isdigit() else name


class Origin:
    """What is known of a source's files and images.

    Args:
        places: files and folders it lies in; what is not there is passed over.
        cases: its cases, whose images are compared; None compares files alone.
        ids: ids of cases, by which files are told apart.
        without: a folder that is not of the source, even if it lies there.
    """

    def __init__(
        self,
        places: Collection[Path],
        cases: CaseSource | None,
        ids: Collection[str],
        without: Path,
    ) -> None:
        self.places, self.cases, self.without = (
            tuple(places),
            cases,
            Path(os.path.realpath(without)),
        )
        self._ids = sorted({words_of(i): i for i in ids}.items(), key=lambda e: -len(e[0]))

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """Its files, links followed; none twice."""
        found: dict[str, SourceFile] = {}
        for place in self.places:
            for path in _walk(place):
                real = os.path.realpath(path)
                if real in found or Path(real).is_relative_to(self.without):
                    continue
                found[real] = SourceFile(path, os.stat(real))
        return tuple(found.values())

    def names(self) -> Iterator[Name]:
        """Names of its image files, and of the folders it lies in."""
        faces: dict[tuple[str, ...], set[Path]] = defaultdict(set)
        stems: dict[tuple[str, ...], str] = {}
        for file in self.files:
            if file.path.name.lower().endswith(IMAGES):
                stems.setdefault(words_of(file.stem), file.stem)
                faces[words_of(file.stem)].add(file.path.parent)
        for words, stem in stems.items():
            if len(faces[words]) < MOST_FACES:
                yield Name(stem, "file")
        for place in self.places:
            yield from folder_names(place)

    @cached_property
    def times(self) -> Mapping[int, str]:
        """Times (ns) of files that tell a case: those that few cases have -> a file's name."""
        return self._telling(lambda file: [file.stat.st_mtime_ns])

    @cached_property
    def frames(self) -> Mapping[bytes, str]:
        """Positions in the scanner that tell a case -> a file's name."""
        return self._telling(_frames)

    @cached_property
    def inodes(self) -> Mapping[tuple[int, int], str]:
        """Device and number of each file -> its name: a second name of one is a hard link."""
        return {(f.stat.st_dev, f.stat.st_ino): f.path.name for f in self.files}

    def copies(self, sizes: Collection[int]) -> Mapping[str, str]:
        """SHA-256 of files of some sizes -> the name of one with that content."""
        wanted = set(sizes) - {0}
        alike = [f for f in self.files if f.stat.st_size in wanted and _pictures(f.path)]
        return {sha256_file(file.path): file.path.name for file in alike}

    def images(self, wanted: Collection[Print]) -> tuple[dict[Print, str], int]:
        """Prints of its images that are among some prints: as its files have them, and as read.

        Args:
            wanted: prints of what may be copies.

        Returns:
            Prints -> what they are of; and how many cases were looked at.
        """
        found: dict[Print, str] = {}
        sizes = {size for _, size, _ in wanted}
        for file in self.files if wanted else ():
            for print_ in _prints_of_file(file.path, sizes) & set(wanted):
                found.setdefault(print_, f"the source's {file.path.name}")
        if self.cases is None or not wanted:
            return found, 0
        ids = (*self.cases.train_ids, *self.cases.held_out_ids)
        for case_id in ids:
            image = self.cases.load(case_id).image
            for part in (image, *image, *_planes(image)):
                if part.size in sizes:  # hashing is what takes time
                    for print_ in prints_of(part) & set(wanted):
                        found[print_] = f"case {case_id!r}"
        return found, len(ids)

    def _owner(self, file: SourceFile) -> str:
        """The case that a file is of, as far as its path says so."""
        words = words_of(str(file.path))
        for case_words, case_id in self._ids:
            if case_words and any(
                words[at : at + len(case_words)] == case_words for at in range(len(words))
            ):
                return case_id
        return file.stem

    def _telling(self, of: Callable[[SourceFile], Collection[T]]) -> dict[T, str]:
        """Facts of single cases: what more than half of several have in common is left out."""
        owners: dict[T, set[str]] = defaultdict(set)
        names: dict[T, str] = {}
        everyone: set[str] = set()
        for file in self.files:
            if not _pictures(file.path):
                continue
            owner = self._owner(file)
            everyone.add(owner)
            for fact in of(file):
                owners[fact].add(owner)
                names.setdefault(fact, file.path.name)
        many = max(1, len(everyone) // 2)
        return {fact: names[fact] for fact, held in owners.items() if len(held) <= many}


def _walk(place: Path) -> Iterator[Path]:
    """Files at or below a place; links are followed, and no folder is walked twice."""
    if place.is_file():
        yield place
        return
    seen: set[str] = set()
    for home, folders, files in os.walk(place, followlinks=True):
        real = os.path.realpath(home)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(home, name)
            if path.is_file():
                yield path


def _pictures(path: Path) -> bool:
    return path.name.lower().endswith(IMAGES)


def _planes(image: FloatArray) -> Iterator[FloatArray]:
    """Slices of a volume (C, D, H, W) in all three directions; none of an image."""
    for channel in image if image.ndim == 4 else ():
        for axis in range(3):
            yield from np.moveaxis(channel, axis, 0)


def _frames(file: SourceFile) -> set[bytes]:
    """Positions in a NIfTI file's header; none in any other file."""
    header = _header(file.path)
    return set() if header is None else frames(header)


def _header(path: Path) -> Any:
    """The header of a NIfTI file; None of any other, and of a damaged one."""
    if not path.name.lower().endswith((*_NIFTI, ".hdr")):
        return None
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        data = gzip.GzipFile(fileobj=raw).read(540) if packed else raw.read(540)
        return header_of(data) if is_nifti(data, path.name) else None
    return None


def _prints_of_file(path: Path, sizes: set[int]) -> set[Print]:
    """Prints of the images in a file, NIfTI or picture, if it is large enough for one of a size."""
    header = _header(path)
    if header is not None:
        shape = header.get_data_shape()
        if sizes.isdisjoint({math.prod(shape), math.prod(shape[:3])}):
            return set()
    elif not path.name.lower().endswith(_PICTURES):
        return set()
    notes = Notes()
    with contextlib.suppress(OSError):
        look_into(path.read_bytes(), Look(path.name, Names(()), notes, look_into))
    return {print_ for shown in notes.shown for print_ in shown.prints}


def hash_of(data: bytes) -> str:
    """SHA-256 of bytes, as ``copies`` has them."""
    return hashlib.sha256(data).hexdigest()
