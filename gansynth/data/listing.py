"""List the files of a data set of volumes, and its names of channels and labels.

Files are listed, not read. Faults are collected, not raised. Every layout makes a ``VolumeSet``.
Opening a source raises its first fault; ``gansynth check`` reports all.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.data.read_options import complete_labels
from gansynth.runtime.errors import (
    DataFault,
    GansynthError,
    IntegrityFault,
    UsageFault,
    did_you_mean,
)
from gansynth.runtime.files import path_inside, read_json, refuse_unnameable
from gansynth.runtime.nifti import DICOM, holds_dicom

NIFTI = re.compile(r"(?P<stem>.+)\.nii(\.gz)?", re.DOTALL)
LIKE_LABELS = re.compile(r"lab(el|le)|mask|(^|[^a-z])(seg|gt)([^a-z]|$)|segment|annot|truth", re.I)
SPLITS = "splits.json"
SUBJECTS = "subjects.csv"


@dataclass(frozen=True)
class CaseFiles:
    """The expected files of one case: one per channel, or one with the channels last.

    ``part``: ``train``, ``val``, ``test``, the number of the fold that holds it out, or empty.
    """

    case: str
    images: tuple[Path, ...]
    labels: Path | None
    subject: str | None = None
    part: str = ""

    @property
    def reference(self) -> Path:
        """The file that the others of the case are compared with."""
        return self.images[0] if self.labels is None else self.labels

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the reference first."""
        return self.images if self.labels is None else (self.labels, *self.images)


@dataclass(frozen=True)
class ListingFault:
    """A fault found without reading files, and the error that opening the source raises."""

    case: str | None
    file: Path
    error: GansynthError


@dataclass(frozen=True)
class VolumeSet:
    """A data set of volumes."""

    name: str
    root: Path
    where: Path  # the file or folder that says what there is, for messages
    entries: tuple[CaseFiles, ...]
    # names of the channels that are read; None if only the files know how many
    channels: tuple[str, ...] | None
    splits: Path
    subjects: Path
    stacked: bool = False  # each case has one file, of three axes or with the channels last
    total: int | None = None  # how many channels a stacked file has; None if only the files know
    picked: tuple[int, ...] | None = None  # which of them are read; None for all
    # label name -> value; None if only the label files know
    labels: Mapping[str, int] | None = None
    named_in: Path | None = None  # the file that names them, if it is not ``where``
    faults: tuple[ListingFault, ...] = ()
    # its framework trains without validation, so fold 0 may hold nothing out
    unvalidated: bool = False
    # candidates of label names -> values, where `labels` is None. One applies if it has all values
    # found, and its largest is found.
    likely: tuple[Mapping[str, int], ...] = ()
    by_voxel: bool = False  # its framework takes voxels as stored: no affines, rounded labels
    normalised: bool = False  # intensities are used as stored, unless a modality is requested

    def raise_first(self) -> None:
        """Stop at the first fault: DataFault, or IntegrityFault for a path that leads out."""
        for fault in self.faults:
            raise fault.error

    @property
    def labelled(self) -> bool:
        """Whether there are label maps."""
        return any(entry.labels is not None for entry in self.entries)


class Collector:
    """Gathers a data set's cases and faults."""

    def __init__(self, where: Path, allow: bool) -> None:
        self.where = where
        self.root = where if where.is_dir() else where.parent
        self.allow = allow
        self.faults: list[ListingFault] = []
        self._entries: dict[str, CaseFiles] = {}

    def fault(self, case: str | None, file: Path, error: GansynthError) -> None:
        """Record a fault."""
        self.faults.append(ListingFault(case, file, error))

    def file(self, text: str, what: str, case: str | None = None) -> Path | None:
        """Return the path of a file of the data set; None, and a fault, if it is not allowed."""
        odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if odd:
            message = (
                f"{what}: name {text!a} holds {odd[0]!a}, expected names that print on "
                "one line; rename the file"
            )
            self.fault(case, self.where, DataFault(message))
            return None
        path = self.root / (os.path.expanduser(text) if self.allow else text)
        try:
            if self.allow:
                refuse_unnameable(path, what)
            else:
                path_inside(self.root, text, key=what)
        except GansynthError as error:
            leads_out = isinstance(error, IntegrityFault)
            hint = ", or allow it: --read allow_absolute=yes" if leads_out else ""
            self.fault(case, self.where, type(error)(f"{error}{hint}"))
            return None
        return path

    def add(self, entry: CaseFiles) -> None:
        """Add a case; a second one of the same name is a fault."""
        if entry.case in self._entries:
            message = (
                f"{self.where}: case {entry.case!r} occurs twice, expected each once; remove or "
                "rename one"
            )
            self.fault(entry.case, entry.reference, DataFault(message))
            return
        self._entries[entry.case] = entry

    def entries(self, expected: str) -> tuple[CaseFiles, ...]:
        """The cases by id; none, or names that clash, are faults."""
        same: dict[str, list[str]] = defaultdict(list)
        for case in self._entries:
            same[unicodedata.normalize("NFC", case).casefold()].append(case)
        for cases in (sorted(c) for c in same.values() if len(c) > 1):
            message = (
                f"{self.where}: cases {cases} differ in upper and lower case or accents' coding "
                "only, expected names that stay apart on every file system; rename them"
            )
            self.fault(cases[0], self.where, DataFault(message))
        if not self._entries:
            found = DICOM if holds_dicom(self.root) else "no cases"
            self.fault(None, self.where, DataFault(f"{self.where}: {found}, expected {expected}"))
        return tuple(self._entries[case] for case in sorted(self._entries))

    def volumes(self, name: str, expected: str, **about: Any) -> VolumeSet:
        """The data set, with splits and subjects beside its files, if there are any."""
        entries = self.entries(expected)  # may add faults
        return VolumeSet(
            name,
            self.root,
            self.where,
            entries,
            splits=self.root / SPLITS,
            subjects=self.root / SUBJECTS,
            faults=tuple(self.faults),
            **about,
        )


def stem(name: str) -> str | None:
    """A NIfTI file's name without its ending; None for other files and hidden ones."""
    match = NIFTI.fullmatch(name)
    return match["stem"] if match and not name.startswith(".") else None


def located(request: SourceRequest, *, folder: bool = False) -> Path:
    """The file or folder a request names, absolute. Raises DataFault: there is none."""
    path = Path(os.path.abspath(os.path.expanduser(request.where)))
    if not (path.is_dir() or (path.is_file() and not folder)):
        kind = "a folder" if folder else "a folder or a manifest"
        raise DataFault(
            f"{request.kind}:{request.where}: no such {'folder' if folder else 'file or folder'}, "
            f"expected {kind} with cases; see: gansynth help sources"
        )
    return path


def like_labels(names: Iterable[str]) -> str | None:
    """Return the first name that looks like label maps, if any."""
    return next((name for name in names if LIKE_LABELS.search(name)), None)


def missing(file: Path, case: str) -> DataFault:
    """Return the fault of a missing file."""
    return DataFault(
        f"{file}: missing, expected for case {case!r}; add it, or remove its other files"
    )


FILE = "dataset.json"


@dataclass(frozen=True)
class DataSetNames:
    """Names in a folder's ``dataset.json``; None where it has none.

    ``normalised``: intensities are used as stored, as ``gansynth sample`` writes them. ``spacing``:
    mm per axis.
    """

    where: Path
    channels: tuple[str, ...] | None
    labels: dict[str, int] | None
    normalised: bool = False
    spacing: tuple[float, ...] | None = None


def read_names(folder: Path) -> DataSetNames | None:
    """``channel_names`` and ``labels`` as nnU-Net writes them, if any; DataFault if unfit."""
    path = folder / FILE
    if not path.is_file():
        return None
    doc = read_json(path, hint="see: gansynth help sources")
    return DataSetNames(
        path,
        _channels(path, doc.get("channel_names")),
        _labels(path, doc.get("labels")),
        doc.get("normalised") is True,
        _spacing(path, doc.get("spacing")) if doc.get("normalised") is True else None,
    )


def picture_keys(folder: Path) -> dict[str, str]:
    """``--read`` keys of pictures that ``gansynth sample`` wrote; none of other folders."""
    names = read_names(folder)
    if names is None or not names.normalised:
        return {}
    keys = {"channels": ",".join(names.channels or ())}
    if names.labels is not None:
        keys["labels"] = ",".join(f"{name}:{value}" for name, value in names.labels.items())
    if names.spacing is not None:
        keys["spacing"] = ",".join(f"{mm:g}" for mm in names.spacing)
    return keys


def _spacing(path: Path, spacing: Any) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    numbers = spacing if isinstance(spacing, list) else []
    if not numbers or not all(type(mm) in (int, float) and 0 < mm < 1e6 for mm in numbers):
        raise DataFault(
            f"{path}: spacing is {spacing!r:.200}, expected mm per axis, for example [1.0, 0.5]; "
            "correct it, or remove it"
        )
    return tuple(map(float, numbers))


def _channels(path: Path, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    numbers = {str(i) for i in range(len(names))} if isinstance(names, dict) else set()
    each = list(names.values()) if isinstance(names, dict) else []
    texts = all(isinstance(name, str) and name.strip() for name in each)
    if not numbers or set(names) != numbers or not texts or len(set(each)) < len(each):
        raise DataFault(
            f"{path}: channel_names is {names!r:.200}, expected different names numbered from 0, "
            'for example {"0": "T1"}; correct it, or remove it'
        )
    return tuple(names[str(i)] for i in range(len(names)))


def _labels(path: Path, labels: Any) -> dict[str, int] | None:
    if labels is None:
        return None
    values = list(labels.values()) if isinstance(labels, dict) else []
    whole = all(type(value) is int and 0 <= value < 2**15 for value in values)
    if not values or not whole or len(set(values)) < len(values):
        raise DataFault(
            f"{path}: labels is {labels!r:.200}, expected a different whole number for each name, "
            'for example {"background": 0, "tumour": 1}; correct it, or remove it'
        )
    return complete_labels(labels)


def channel_places(names: Sequence[str], available: Sequence[str], where: Path) -> tuple[int, ...]:
    """Return indices of channels by name, in any case of letters; UsageFault for an unknown one."""
    places = {name.casefold(): place for place, name in reversed(list(enumerate(available)))}
    places |= {name: place for place, name in enumerate(available)}
    unknown = [name for name in names if name not in places and name.casefold() not in places]
    if unknown:
        raise UsageFault(
            f"--read channels={','.join(names)}: {where} has no channel {unknown[0]!r}, expected "
            f"among: {', '.join(available) or 'none'}.{did_you_mean(unknown[0], available)}"
        )
    return tuple(places.get(name, places.get(name.casefold(), 0)) for name in names)
