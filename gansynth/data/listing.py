"""List the cases of a data set of volumes and its names of channels and labels, in six layouts.

Every layout fills one table of cases. Files are listed, not read, but for one of each channel
where none is a label map by its name. Faults are collected, not raised:
opening a source raises the first, ``gansynth check`` reports all.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.core.volumes import endings, names_beside, volume_stem
from gansynth.data.grid import axes_of
from gansynth.data.label_files import LabelFile, read_label_map
from gansynth.data.name_patterns import LIKE_LABELS, NamedFile, files_below, files_fitting
from gansynth.data.pairs import FoundLayout, are_label_maps, found_layouts, label_maps_among
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.read_options import FileOptions, VolumeOptions, complete_labels
from gansynth.runtime.errors import (
    DataFault,
    GansynthError,
    IntegrityFault,
    UsageFault,
    did_you_mean,
    refuse_closed,
)
from gansynth.runtime.files import (
    MAX_JSON_BYTES,
    path_inside,
    read_json,
    reading,
    refuse_unnameable,
    walk_all,
)
from gansynth.runtime.nifti import DICOM, holds_dicom, is_series
from gansynth.runtime.tables import read_cell

FILE, SPLITS, SUBJECTS = "dataset.json", "splits.json", "subjects.csv"


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaseFiles:
    """The expected files of one case: one per channel, or one with the channels last.

    ``part``: ``train``, ``val``, ``test``, the number of the fold that holds it out, or empty.
    ``joined``: the files that the label map is made of, where it is not ``labels`` alone, which is
    the first of them.
    """

    case: str
    images: tuple[Path, ...]
    labels: Path | None
    subject: str | None = None
    part: str = ""
    joined: tuple[LabelFile, ...] = ()

    @property
    def drawn(self) -> tuple[LabelFile, ...]:
        """The files of the label map, in the order in which they are joined."""
        return self.joined or (() if self.labels is None else (LabelFile(self.labels),))

    @property
    def reference(self) -> Path:
        """The file that the others of the case are compared with."""
        return self.images[0] if self.labels is None else self.labels

    @property
    def files(self) -> tuple[Path, ...]:
        """The first file of labels, if any, and the images."""
        return self.images if self.labels is None else (self.labels, *self.images)

    @property
    def everything(self) -> tuple[Path, ...]:
        """All of them, the reference first."""
        return (*[each.file for each in self.drawn], *self.images)

    @property
    def axes(self) -> str:
        """Along which axes its first image is stored, as ``RAS``."""
        return axes_of(self.images[:1])

    @property
    def columns(self) -> tuple[Path | None, ...]:
        """Its cell of each list that names files of all cases, the first image first."""
        return (*self.images, self.labels)


@dataclass(frozen=True)
class ListingFault:
    """A fault found without reading files, and the error that opening the source raises.

    ``read`` and ``subjects``: of a request, which mend it.
    """

    case: str | None
    file: Path
    error: GansynthError
    read: Mapping[str, str] = field(default_factory=dict)
    subjects: str = ""


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
    one_subject: str = "--subjects FILE"  # how cases are given one subject
    # its framework trains without validation, so fold 0 may hold nothing out
    unvalidated: bool = False
    # candidates of label names -> values, where `labels` is None. One applies if it has all values
    # found, and its largest is found.
    likely: tuple[Mapping[str, int], ...] = ()
    by_voxel: bool = False  # its framework takes voxels as stored: no affines, rounded labels
    normalised: bool = False  # intensities are used as stored, unless a modality is requested
    # `--read` keys that say of which files label maps are, where contents have told
    understood: Mapping[str, str] = field(default_factory=dict)
    layered: bool = False  # a label map may have layers, as 3D Slicer writes it

    @property
    def labelled(self) -> bool:
        """Whether there are label maps."""
        return any(entry.labels is not None for entry in self.entries)

    def with_channels(self, names: Sequence[str]) -> VolumeSet:
        """Return the set with some of its channels, by name; UsageFault: it has no such one."""
        places, entries = channel_places(names, self.channels or (), self.where), self.entries
        if self.stacked:
            return replace(self, picked=places, channels=tuple(names))
        each = [[entry.images[place] for place in places] for entry in entries]
        entries = tuple([replace(e, images=tuple(i)) for e, i in zip(entries, each, strict=True)])
        return replace(self, entries=entries, channels=tuple(names))


@dataclass
class CaseRow:
    """What a layout has found of a case: suffix of a file's name -> files, of which one counts."""

    case: str
    folder: Path = Path()
    files: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    subject: str | None = None
    joined: list[LabelFile] = field(default_factory=list)  # of which a label map is made


class _Rows(dict[str, CaseRow]):
    def __missing__(self, case: str) -> CaseRow:
        return self.setdefault(case, CaseRow(case))


class Collector:
    """Gathers a data set's cases and faults. A case with a path that is not allowed is left out."""

    def __init__(self, where: Path, allow: bool) -> None:
        self.where = where
        self.root = where if where.is_dir() else where.parent
        self.allow = allow
        self.faults: list[ListingFault] = []
        self._entries: dict[str, CaseFiles] = {}
        self._refused: set[str | None] = set()

    def fault(self, case: str | None, file: Path, error: GansynthError | str) -> None:
        """Record a fault; a text is a DataFault's."""
        error = DataFault("listing.faulty-entry", error) if isinstance(error, str) else error
        self.faults.append(ListingFault(case, file, error))

    def file(self, text: str, what: str, case: str | None = None) -> Path | None:
        """Return the path of a file of the data set; None, and a fault, if it is not allowed."""
        odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        path = self.root / (os.path.expanduser(text) if self.allow else text)
        try:
            if odd:
                raise DataFault(
                    "listing.name-not-printable",
                    f"{what}: name {text!a} holds {odd[0]!a}, expected names that print on one "
                    "line; rename the file",
                )
            if self.allow:
                refuse_unnameable(path, what)
            else:
                path_inside(self.root, text, key=what)
        except GansynthError as error:
            leads_out = isinstance(error, IntegrityFault)
            hint = ", or allow it: --read allow_absolute=yes" if leads_out else ""
            self.fault(case, self.where, error.reworded(f"{error}{hint}"))
            self._refused.add(case)
            return None
        return path

    def put(self, row: CaseRow, suffix: str, path: Path) -> None:
        allowed = self.file(os.path.relpath(path, self.root), str(path.parent), row.case)
        if allowed is not None:
            row.files[suffix].append(allowed)

    def fill(
        self,
        rows: Iterable[CaseRow],
        channels: Sequence[str],
        label: str | None,
        missing_file: Callable[[CaseRow, str], Path],
    ) -> None:
        """Add cases by the suffixes of their channels and of their label maps, if there are any.

        ``missing_file`` names the file that is expected where a row has none.
        """
        suffixes = channels if label is None else [*channels, label]
        for row in rows:
            files = [row.files.get(suffix) or [missing_file(row, suffix)] for suffix in suffixes]
            for first, *more in files:
                if more:
                    text = (
                        f"{more[0]}: there is {first.name} too, expected one file of its kind for "
                        f"case {row.case!r}; remove one, or list the files in a manifest (gansynth "
                        "help nifti)"
                    )
                    self.fault(row.case, more[0], text)
            each = tuple([first for first, *_ in files])
            count = len(channels)
            if count:
                drawn = None if label is None else each[count]
                parts = tuple(row.joined)
                self.add(CaseFiles(row.case, each[:count], drawn, row.subject, joined=parts))

    def add(self, entry: CaseFiles) -> None:
        """Add a case; a second one of the same name is a fault."""
        if entry.case in self._entries:
            text = (
                f"{self.where}: case {entry.case!r} occurs twice, expected each once; remove or "
                "rename one"
            )
            self.fault(entry.case, entry.reference, text)
        elif entry.case not in self._refused:
            self._entries[entry.case] = entry

    def volumes(self, name: str, expected: str, **about: Any) -> VolumeSet:
        """The data set, with splits and subjects beside its files; no case, or a clash, is a fault.

        ``about``: other fields of ``VolumeSet``.
        """
        same: dict[str, list[str]] = defaultdict(list)
        for case in self._entries:
            same[unicodedata.normalize("NFC", case).casefold()].append(case)
        for cases in [sorted(cases) for cases in same.values() if len(cases) > 1]:
            text = (
                f"{self.where}: cases {cases} differ in upper and lower case or accents' coding "
                "only, expected names that stay apart on every file system; rename them"
            )
            self.fault(cases[0], self.where, text)
        if not self._entries and not self.faults:
            found = DICOM if holds_dicom(self.root) else "no cases"
            self.fault(None, self.where, f"{self.where}: {found}, expected {expected}")
        return VolumeSet(
            name,
            self.root,
            self.where,
            tuple([self._entries[case] for case in sorted(self._entries)]),
            splits=self.root / SPLITS,
            subjects=self.root / SUBJECTS,
            faults=tuple(self.faults),
            **about,
        )


def volumes_in(folder: Path) -> list[tuple[str, Path]]:
    """Stems and paths of a folder's volumes, sorted by name; empty if there is no folder.

    A folder of DICOM files is a volume, too.
    """
    found = []
    if folder.is_dir():
        with os.scandir(folder) as there:
            for item in there:
                short = volume_stem(item.name)
                if short is None and item.is_dir() and is_series(Path(item.path)):
                    short = item.name
                if short:
                    found.append((item.name, short, folder / item.name))
    return [(short, path) for _, short, path in sorted(found)]


def numbered_channel(short: str) -> tuple[str, str] | None:
    """Case and number of a channel in a name like ``case_0001``; None for another name."""
    match = _CHANNEL.fullmatch(short)
    return None if match is None else (match["case"], match["channel"])


def _folders_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def located(request: SourceRequest, *, folder: bool = False) -> Path:
    """The file or folder a request names, absolute. Raises DataFault: there is none."""
    path = Path(os.path.abspath(os.path.expanduser(request.where)))
    if not (path.is_dir() or (path.is_file() and not folder)):
        kind = "a folder" if folder else "a folder or a manifest"
        raise DataFault(
            "listing.path-missing",
            f"{request.kind}:{request.where}: no such {'folder' if folder else 'file or folder'}, "
            f"expected {kind} with cases; see: gansynth help sources",
        )
    return path


def like_labels(names: Iterable[str]) -> str | None:
    """Return the first name that looks like label maps, if any."""
    for name in names:
        if LIKE_LABELS.search(name):
            return name
    return None


def holds_labels(files: Mapping[str, Path]) -> str | None:
    """Return the first name whose file holds few whole numbers, as label maps do, if any."""
    for name, path in files.items():
        if are_label_maps([path]):
            return name
    return None


def missing(file: Path, case: str) -> DataFault:
    """Return the fault of a missing file; EnvironmentFault: its folder may not be entered."""
    refuse_closed(file)
    return DataFault(
        "listing.case-file-missing",
        f"{file}: missing, expected for case {case!r}; add it, or remove its other files",
    )


# -- names in dataset.json -----------------------------------------------------------------------


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
    channels, labels = doc.get("channel_names"), doc.get("labels")
    numbered, normalised = _numbered(channels), doc.get("normalised") is True
    distinct = len({str(name).strip() for name in numbered} - {""}) == len(numbered)
    texts = all(isinstance(name, str) for name in numbered)
    if channels is not None and not (numbered and distinct and texts):
        raise _odd(
            path, "channel_names", channels, 'different names numbered from 0, as {"0": "T1"}'
        )
    values = list(labels.values()) if isinstance(labels, dict) else []
    whole = all(type(value) is int and 0 <= value < 2**15 for value in values)
    if labels is not None and not (values and whole and len(set(values)) == len(values)):
        example = 'a different whole number for each name, as {"background": 0, "tumour": 1}'
        raise _odd(path, "labels", labels, example)
    spacing = doc.get("spacing") if normalised else None
    sizes = spacing if isinstance(spacing, list) else []
    positive = all(type(mm) in (int, float) and 0 < mm < 1e6 for mm in sizes)
    if spacing is not None and not (sizes and positive):
        raise _odd(path, "spacing", spacing, "mm per axis, as [1.0, 0.5]")
    return DataSetNames(
        path,
        numbered or None,
        None if labels is None else complete_labels(labels),
        normalised,
        tuple(map(float, sizes)) or None,
    )


def described(file: Path) -> Mapping[str, Any]:
    """Return what a JSON file says, if it is there and a dictionary; DataFault: no JSON."""
    found = read_json(file, hint="see: gansynth help sources") if file.is_file() else None
    return found if isinstance(found, dict) else {}


def objects_named_in(listing: VolumeSet) -> Path | None:
    """Return a file beside a label map that says which class each of its objects has."""
    for entry in listing.entries[:3]:
        if entry.labels is not None:
            file = entry.labels.with_name(f"{entry.case}.json")
            with suppress(GansynthError):
                if isinstance(described(file).get("instances"), Mapping):
                    return file
    return None


def _odd(path: Path, key: str, value: object, expected: str) -> DataFault:
    return DataFault(
        "listing.entry-invalid",
        f"{path}: {key} is {value!r:.200}, expected {expected}; correct it, or remove it",
    )


def _numbered(names: Any) -> tuple[Any, ...]:
    """Values of ``{"0": ..., "1": ...}``; empty if it is anything else."""
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        return ()
    return tuple([names[str(i)] for i in range(len(names))])


def picture_keys(folder: Path) -> dict[str, str]:
    """``--read`` keys of pictures that ``gansynth sample`` wrote; none of other folders."""
    names = read_names(folder)
    if names is None or not names.normalised:
        return {}
    keys = {"channels": ",".join(names.channels or ())}
    if names.labels is not None:
        keys["labels"] = ",".join(
            [f"{name if value else 'background'}:{value}" for name, value in names.labels.items()]
        )
    if names.spacing is not None:
        keys["spacing"] = ",".join([f"{mm:g}" for mm in names.spacing])
    return keys


def channel_places(names: Sequence[str], available: Sequence[str], where: Path) -> tuple[int, ...]:
    """Return indices of channels by name, in any case of letters; UsageFault for an unknown one."""
    places = {name.casefold(): place for place, name in reversed(list(enumerate(available)))}
    places |= {name: place for place, name in enumerate(available)}
    unknown = [name for name in names if name not in places and name.casefold() not in places]
    if unknown:
        raise UsageFault(
            "listing.channel-unknown",
            f"--read channels={','.join(names)}: {where} has no channel {unknown[0]!r}, expected "
            f"among: {', '.join(available) or 'none'}.{did_you_mean(unknown[0], available)}",
        )
    return tuple([places.get(name, places.get(name.casefold(), 0)) for name in names])


def places_of_channels(there: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return where wanted channels are among those of some files; None if they are not.

    Names may differ in upper and lower case. Files that are numbered have them in this order.
    """
    places = {name.casefold(): place for place, name in enumerate(there)}
    if all(name.casefold() in places for name in wanted):
        return [places[name.casefold()] for name in wanted]
    numbered = all(name.isdecimal() or name.startswith("channel ") for name in there)
    return list(range(len(there))) if numbered and len(there) == len(wanted) else None


# -- folders -------------------------------------------------------------------------------------

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
BIDS_LABELS = ("dseg", "mask", "roi")
"""BIDS suffixes of label files."""
LABELS = ("seg", "dseg", "label", "mask")
"""Suffixes of label maps; the first one that any case has counts."""
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)
_SPACE = re.compile(r"(space|res|den)-[^_]+_")
_DRAWN = "labels"  # a row's label map, besides its channels
_BIDS = re.compile(r"(?P<sub>sub-[^_]+)(_(?P<ses>ses-[^_]+))?(_[^_]+-[^_]+)*_(?P<suffix>[^_-]+)")


def list_folder(kind: str, folder: Path, options: FileOptions) -> VolumeSet:
    """List a folder: by a pattern, if asked to; BIDS; pairs; or files named by case."""
    collector = Collector(folder, options.allow_absolute)
    name = f"{kind}:{folder.resolve().name}"
    if options.image is not None:
        return _list_by_pattern(name, collector, options)
    listing = _list_known(name, collector, options)
    complete = _complete(listing)
    odd = [fault for fault in listing.faults if isinstance(fault.error, IntegrityFault)]
    if odd or (complete == len(listing.entries) > 0 and not listing.faults):
        return listing
    tried: list[tuple[FoundLayout, VolumeSet]] = []
    layouts = found_layouts(folder, endings(), label=options.label or "")
    for found in layouts:
        asked = options.model_copy(update=_parsed(found.keys))
        with suppress(GansynthError):
            other = _list_by_pattern(name, Collector(folder, options.allow_absolute), asked)
            if _is_better(other, listing, complete):
                tried.append((found, replace(other, understood=found.keys)))
    if len(layouts) == len(tried) == 1 and not complete and options.label is None:
        [(found, other)] = tried
        if found.whole and not found.subjects:
            return other
    told = complete == len(listing.entries) and all(f.case is None for f in listing.faults)
    more = [found for found, other in tried if found.joins or len(other.entries) > complete]
    if not tried or (told and not more):
        return listing  # which names the files that are missing, or the kinds there are
    return replace(listing, entries=(), faults=(_undecided(folder, tried),))


MEANINGS = {
    "label": "a file for each label, of which later ones win",
    "rater": "of each voxel what most raters say",
    "part": "parts of one label map",
}
"""How files of labels are joined, by what their pattern has."""


def _parsed(keys: Mapping[str, str]) -> dict[str, Any]:
    """Return some ``--read`` values as options."""
    read = FileOptions.model_validate(keys)
    return {key: getattr(read, key) for key in keys}


def _complete(listing: VolumeSet) -> int:
    """Return how many cases have label maps and all of their files."""
    return len(
        [
            entry
            for entry in listing.entries
            if entry.labels is not None and all([file.exists() for file in entry.everything])
        ]
    )


def _is_better(other: VolumeSet, listing: VolumeSet, complete: int) -> bool:
    """Return whether another layout reads a folder without faults, and cases that the first lacks.

    Some label maps are joined, which DataFault refuses.
    """
    count = _complete(other)
    if (
        other.faults
        or count < len(other.entries)
        or count < max(2, complete + (not listing.faults))
    ):
        return False
    for entry in other.entries[:2]:
        read_label_map(entry.drawn)
    return True


def _undecided(folder: Path, tried: Sequence[tuple[FoundLayout, VolumeSet]]) -> ListingFault:
    """Return the fault of a folder that another layout reads; each of them was tried."""
    ways = []
    for found, listing in tried:
        words = [MEANINGS[word] for word in MEANINGS if f"{{{word}}}" in found.keys["label"]]
        joined = ", ".join(["", *words])
        ways.append(f"{found.typed} ({len(listing.entries)} cases{joined})")
    kinds = "label maps of several kinds" if len(ways) > 1 else "a layout of its own"
    text = f"{folder}: {kinds}, expected to be told which is meant; choose: {' or '.join(ways)}"
    fault, [first, *_] = DataFault("listing.layout-undecided", text), [found for found, _ in tried]
    return ListingFault(None, folder, fault, first.keys, first.subjects)


def _list_known(name: str, collector: Collector, options: FileOptions) -> VolumeSet:
    """List a folder of BIDS, of pairs, of a folder per case, or of files named by case."""
    subjects = sorted(p for p in collector.root.glob("sub-*") if p.is_dir())
    if subjects:
        return _list_bids(name, collector, subjects, options)
    if not any((collector.root / part).is_dir() for pair in PAIRS for part in pair):
        rows = list(_case_folders(collector))
        if rows:
            return _list_by_suffix(name, collector, rows, options)
        rows, labels = _flat_cases(collector, options.label)
        if rows:
            return _list_by_suffix(name, collector, rows, options, labels)
    return _list_pairs(name, collector, options)


def _list_by_pattern(name: str, collector: Collector, options: FileOptions) -> VolumeSet:
    image, label, rows = options.image, options.label_pattern, _Rows()
    assert image is not None
    several: dict[str, list[tuple[NamedFile, Path]]] = defaultdict(list)
    for path, found, is_label in files_fitting(collector.root, image, label, options.labels):
        if volume_stem(path.name, listed=False) is None and not path.is_dir():
            continue
        if is_label and label is not None and label.several:
            several[found.case].append((found, path))
        else:
            collector.put(rows[found.case], _DRAWN if is_label else found.channel, path)
    labels = _join(collector, rows, several, options) if several else None
    channels = sorted({suffix for row in rows.values() for suffix in row.files} - {_DRAWN})
    one_file = channels in ([], [""])
    if options.channels is not None and not one_file:
        places = channel_places(options.channels, channels, collector.root)
        channels = [channels[place] for place in places]

    def missing_file(row: CaseRow, suffix: str) -> Path:
        pattern = label if suffix == _DRAWN and label is not None else image
        return collector.root / pattern.named(row.case, suffix)

    in_order = [rows[case] for case in sorted(rows)]
    collector.fill(in_order, channels, None if label is None else _DRAWN, missing_file)
    return collector.volumes(
        name,
        f"files like {image.text}",
        channels=options.channels if one_file else tuple(channels),
        stacked=one_file,
        labels=labels,
    )


def _join(
    collector: Collector,
    rows: Mapping[str, CaseRow],
    several: Mapping[str, Sequence[tuple[NamedFile, Path]]],
    options: FileOptions,
) -> Mapping[str, int] | None:
    """Give cases the files that their label maps are joined of; return the labels' numbers.

    Labels are numbered by name, unless ``--read labels`` numbers some, which alone are read then.
    """
    cases_of: dict[str, set[str]] = defaultdict(set)
    for case, files in several.items():
        for found, _ in files:
            cases_of[found.label].add(case)
    labels: Mapping[str, int] | None = None
    values = {"": 0}  # of files without a label of their own
    if "" not in cases_of:
        named = {label: number for number, label in enumerate(sorted(cases_of), start=1)}
        labels = options.labels or complete_labels(named)
        values = {name: value for name, value in labels.items() if value}
    unknown = [name for name in values if name not in cases_of]
    if unknown:
        raise UsageFault(
            "listing.label-file-unknown",
            f"--read labels: {collector.root} has no file of label {unknown[0]!r} that --read "
            f"label={options.label} fits, expected among: {', '.join(sorted(cases_of))}."
            f"{did_you_mean(unknown[0], cases_of)}",
        )
    for case, files in several.items():
        known = [(found, path) for found, path in files if found.label in values]
        for found, path in sorted(known, key=lambda f: (f[0].rater, values[f[0].label], f[1])):
            allowed = collector.file(os.path.relpath(path, collector.root), str(path), case)
            if allowed is not None:
                label, value = found.label or None, values[found.label] or None
                rows[case].joined.append(LabelFile(allowed, label, value, found.rater))
                rows[case].files[_DRAWN] = [rows[case].joined[0].file]
    lacking = [name for name in values if cases_of[name] < several.keys()]
    if lacking:
        without = sorted(several.keys() - cases_of[lacking[0]])
        rest = [name for name in values if name not in lacking]
        order = ",".join([f"{name}:{number}" for number, name in enumerate(rest, start=1)])
        text = (
            f"{collector.root}: {len(without)} of {len(several)} cases have no file of label "
            f"{lacking[0]!r}, such as {without[0]!r}, expected one in each, which is 0 where there "
            "is none; add them"
        )
        way = f", or read the labels that all have: --read labels='{order}'" if rest else ""
        collector.fault(None, collector.root, f"{text}{way}")
    return labels


def _list_pairs(name: str, collector: Collector, options: FileOptions) -> VolumeSet:
    folder, rows = collector.root, _Rows()
    if options.label is not None:
        raise UsageFault(
            "listing.label-with-separate-folders",
            f"--read label={options.label}: {folder} has images and label maps in folders of their "
            "own, expected label where a case's files lie together; or name both by patterns: "
            "--read image='images/{case}.nii.gz' --read label='labels/{case}.nii.gz'",
        )
    there = [pair for pair in PAIRS if (folder / pair[0]).is_dir()]
    images, labels = there[0] if there else PAIRS[0]
    loose = [numbered_channel(short) for short, _ in volumes_in(folder)]
    if not there and loose and all(loose):  # scans alone, named as nnU-Net predicts them
        images = ""
    below = [home.name for home in _folders_in(folder)]
    if labels not in below:
        others = [name for name in below if LIKE_LABELS.search(name)]
        if len(others) > 1:
            text = (
                f"{folder}: {' and '.join(others)} are called like folders of label maps, expected "
                f"one; choose: --read image='{images}/{{case}}.nii.gz' "
                f"--read label='{others[0]}/{{case}}.nii.gz'"
            )
            collector.fault(None, folder, text)
        labels = others[0] if others else labels
    shown = (folder / images).is_dir()
    drawn = volumes_in(folder / labels) if shown else []
    for short, path in drawn:
        collector.put(rows[short], "labels", path)
    for short, path in volumes_in(folder / images):
        numbered = None if short in dict(drawn) else numbered_channel(short)
        case, channel = numbered or (short, "")
        collector.put(rows[case], channel, path)
    numbers = sorted({suffix for row in rows.values() for suffix in row.files} - {"", "labels"})
    # Beside imagesTr/ it is nnU-Net's or the Decathlon's own: they have kinds of source.
    names = read_names(folder) if images == PAIRS[0][0] else None
    called, picked = _called(collector, len(numbers), names, options)
    chosen = numbers or [""]
    if numbers and picked is not None:
        chosen = [numbers[place] for place in picked]
    for row in list(rows.values()):
        if numbers and "" in row.files:
            file = row.files[""][0]
            text = (
                f"{file}: one file for all channels, where other cases have one for each (_0000, "
                "...); expected the same for all cases; rename or split it"
            )
            collector.fault(row.case, file, text)
            del rows[row.case]

    def missing_file(row: CaseRow, suffix: str) -> Path:
        if suffix == "labels":
            return folder / labels / f"{row.case}.nii.gz"
        return folder / images / f"{row.case}{suffix and '_'}{suffix}.nii.gz"

    labelled = (folder / labels).is_dir()
    in_order = [rows[case] for case in sorted(rows)]
    collector.fill(in_order, chosen, "labels" if labelled else None, missing_file)
    known = None if names is None or numbers else names.channels
    return collector.volumes(
        name,
        "images/CASE.nii.gz (or CASE_0000.nii.gz, ...), and labels/CASE.nii.gz if there are any; "
        "or CASE_T1.nii.gz beside CASE_mask.nii.gz; name others by a pattern: gansynth help nifti",
        channels=called,
        stacked=not numbers,
        total=None if known is None else len(known),
        picked=None if known is None else picked,
        labels=None if names is None or not labelled else names.labels,
        normalised=names is not None and names.normalised,
    )


def _called(
    collector: Collector, count: int, names: DataSetNames | None, options: VolumeOptions
) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """Names of the channels to read, and their places among those that are named.

    ``count``: of numbered files of a case; 0 where one file has all channels, and may alone know
    how many there are: then the names are None.
    """
    asked = options.channels
    if names is not None and names.channels is not None:
        called = asked or names.channels
        picked = channel_places(called, names.channels, collector.root)
        if count in (0, len(names.channels)):
            return called, picked
        text = (
            f"{names.where}: channel_names has {len(names.channels)} name(s), but "
            f"{collector.root} has {count} channel(s); expected a name for each; correct or remove "
            "it"
        )
        collector.fault(None, names.where, text)
        return called, None
    if count and asked is not None and len(asked) != count:
        raise UsageFault(
            "listing.channel-count-differs",
            f"--read channels={','.join(asked)}: {len(asked)} name(s), but {collector.root} has "
            f"{count} channel(s); expected a name for each",
        )
    return asked or tuple([f"channel {i}" for i in range(count)]) or None, None


def _list_bids(
    name: str, collector: Collector, subjects: list[Path], options: FileOptions
) -> VolumeSet:
    folder, rows = collector.root, _Rows()
    drawn: dict[str, list[tuple[CaseRow, Path]]] = defaultdict(list)  # by what their names end in
    for home in (*subjects, folder / "derivatives"):
        for at, folders, _ in walk_all(home):
            folders.sort()
            raw = Path(at).name == "anat" and home.name != "derivatives"
            for short, path in volumes_in(Path(at)):
                match = _BIDS.fullmatch(short)
                if match is not None and (raw or match["suffix"] in BIDS_LABELS):
                    row = rows["_".join(filter(None, (match["sub"], match["ses"])))]
                    row.subject = match["sub"]
                    if match["suffix"] in BIDS_LABELS:
                        ending = short.removeprefix(row.case).lstrip("_")
                        drawn[_SPACE.sub("", ending)].append((row, path))
                    else:
                        collector.put(row, match["suffix"], path)
    label = _bids_label(collector, tuple(drawn), options.label)
    for row, path in drawn.get(label or "", ()):
        collector.put(row, _DRAWN, path)
    each = [row.files.keys() - {_DRAWN} for row in rows.values()]
    each = [suffixes for suffixes in each if suffixes]
    shared = set.intersection(*each) if each else set()
    channels = options.channels or tuple(sorted(shared or set().union(*each)))

    def missing_file(row: CaseRow, suffix: str) -> Path:
        anat = Path(row.case.replace("_", "/"), "anat")
        if suffix == _DRAWN:
            return folder / "derivatives" / "labels" / anat / f"{row.case}_{label}.nii.gz"
        return folder / anat / f"{row.case}_{suffix}.nii.gz"

    in_order = [rows[case] for case in sorted(rows)]
    collector.fill(in_order, channels, None if label is None else _DRAWN, missing_file)
    return collector.volumes(
        name,
        "sub-XX/anat/sub-XX_T1w.nii.gz, and derivatives/NAME/sub-XX/anat/sub-XX_dseg.nii.gz if "
        "there are label maps",
        channels=channels or ("T1w",),
    )


def _bids_label(collector: Collector, found: Sequence[str], asked: str | None) -> str | None:
    """Return what the names of label maps end in, as asked, else the only one; None without any."""
    if asked is not None:
        meant = [ending for ending in found if re.search(rf"(^|[_-]){re.escape(asked)}$", ending)]
        if len(meant) == 1:
            return meant[0]
        raise UsageFault(
            "listing.bids-label-not-one",
            f"--read label={asked}: {len(meant)} kinds of label maps in {collector.root} end so, "
            f"expected one of: {', '.join(sorted(found)) or 'none'}",
        )
    likely = sorted(ending for ending in found if "brain" not in ending)  # an outline, no label
    if len(likely) > 1:
        text = (
            f"{collector.root}: label maps end in {', '.join(likely)}, expected one kind; choose: "
            f"--read label={likely[-1]}"
        )
        collector.fault(None, collector.root, text)
    return likely[-1] if likely else None


# -- files named by case -------------------------------------------------------------------------

BRATS = frozenset({"flair", "t1", "t1ce", "t2", "t1n", "t1c", "t2w", "t2f"})
"""Channels of the BraTS challenges."""
PARTS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
"""Labels of BraTS from 2017 to 2021."""
PARTS_2023 = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}
"""Labels of BraTS's gliomas since 2023."""
_PERSON = re.compile(r"(?P<person>BraTS-[A-Za-z]+-\d{5})-\d{3}")
_GLIOMA_2017 = re.compile(r"BraTS_?(20)?(1[7-9]|2[01])(?!\d)", re.I)
_GLIOMA_2023 = re.compile(r"BraTS-(GLI|SSA)-\d{5}-\d{3}")


def _case_folders(collector: Collector) -> Iterator[CaseRow]:
    """Rows of the case folders of a folder, at most one level further down, sorted by path."""
    for child in _folders_in(collector.root):
        row = _case_folder(collector, child)
        if row.files:
            yield row
            continue
        for folder in _folders_in(child):
            row = _case_folder(collector, folder)
            if row.files:
                yield row


def _case_folder(collector: Collector, folder: Path) -> CaseRow:
    row, start = CaseRow(folder.name, folder), len(folder.name)
    for short, path in volumes_in(folder):
        joint, suffix = short[start : start + 1], short[start + 1 :]
        if short == folder.name or (short.startswith(folder.name) and joint in "_-" and suffix):
            collector.put(row, suffix, path)
    return row


def _flat_cases(collector: Collector, asked: str | None) -> tuple[list[CaseRow], list[str]]:
    """Group the files of one folder by case; return the cases and the suffixes of label maps.

    ``pat01_T1.nii.gz`` and ``pat01_hippo_mask.nii.gz`` are the channel ``T1`` and the label map of
    ``pat01``. Without such pairs there is no case. ``asked``: the suffix of label maps, if known.
    """
    names = dict(volumes_in(collector.root))
    kinds: dict[str, dict[str, Path]] = defaultdict(dict)  # suffix -> case -> file
    cuts = {}
    for short, path in names.items():
        cuts[short] = [(short[: m.start()], short[m.end() :]) for m in re.finditer("[._ -]", short)]
        for start, tail in [(short, ""), *cuts[short]]:
            kinds[tail][start] = path
    begun = Counter([start for files in kinds.values() for start in files])
    labels = label_maps_among(kinds)
    if asked and any(begun[start] > 1 for start in kinds.get(asked, ())):
        labels = [asked, *[suffix for suffix in labels if suffix != asked]]
    if not labels:
        return [], []
    cases = {start for start in kinds[labels[0]] if begun[start] > 1}
    known = {}  # the longest case that a name begins with, and the rest
    for short in names:
        found = [cut for cut in [(short, ""), *reversed(cuts[short])] if cut[0] in cases]
        if found:
            known[short] = found[0]
    suffixes = {suffix for _, suffix in known.values()}
    rows = _Rows()
    for short, path in names.items():  # a case without its label map ends in a known suffix
        others = [cut for cut in cuts[short] if cut[1] in suffixes] or [(short, "")]
        case, suffix = known.get(short, others[0])
        rows[case].folder = collector.root
        collector.put(rows[case], suffix, path)
    return [rows[case] for case in sorted(rows)], labels


def _list_by_suffix(
    name: str,
    collector: Collector,
    rows: list[CaseRow],
    options: FileOptions,
    labels: Sequence[str] = (),
) -> VolumeSet:
    """List cases: channels as requested (else UsageFault), or those of half the cases.

    ``labels``: suffixes of label maps; empty where they are not known.
    """
    folder = collector.root
    counts = Counter([suffix for row in rows for suffix in row.files])
    flat, labels = bool(labels), labels or _label_suffixes(rows, counts)
    meant = [each for each in labels if "brain" not in each] or labels  # an outline is no label
    label = meant[0] if meant else None
    if options.label is not None:
        if options.label not in counts:
            raise UsageFault(
                "listing.label-suffix-unknown",
                f"--read label={options.label}: no file of a case in {folder} ends so, expected "
                f"one of: {', '.join(sorted(filter(None, counts)))}",
            )
        label = options.label
    likely: tuple[Mapping[str, int], ...] = ()
    if label is not None and (flat or label not in LABELS):
        likely = ({"background": 0, label: 1},)
    suffixes = sorted(suffix for suffix in counts if suffix not in (*LABELS, label))
    images = [suffix for suffix in suffixes if suffix not in labels]
    usual = [suffix for suffix in images if 2 * counts[suffix] >= len(rows)] or images
    if options.channels is not None:
        names = [suffix or "image" for suffix in suffixes]
        usual = [suffixes[place] for place in channel_places(options.channels, names, folder)]
    elif options.label is None and len(meant) > 1:
        ways = " or ".join([f"--read label={each}" for each in meant])
        text = (
            f"{folder}: files of cases end in {' and '.join(meant)} and hold few whole numbers, "
            f"expected one kind of label maps; choose: {ways}, or merge them"
        )
        collector.fault(None, folder, text)
    if not usual:
        text = f"{folder}: no images, expected CASE/CASE_T1.nii.gz or the like; add them"
        collector.fault(None, folder, text)
    for row in rows:
        match = _PERSON.fullmatch(row.case)
        row.subject = None if match is None else match["person"]

    def missing_file(row: CaseRow, suffix: str) -> Path:
        """Its name is spelled as a case's other files are."""
        other = next(iter(row.files.values()))[0].name
        short = volume_stem(other) or ""
        joint = (short[len(row.case) :][:1] or "_") if suffix else ""
        path = row.folder / f"{row.case}{joint}{suffix}{other[len(short) :]}"
        strays = [p for short, p in volumes_in(row.folder) if not short.startswith(row.case)]
        if strays and row.folder != folder:
            text = (
                f"{strays[0]}: does not begin with its folder's name, and {path.name} is missing; "
                "rename it if it is that, else remove it"
            )
            collector.fault(row.case, strays[0], text)
        return path

    collector.fill(rows, usual, label, missing_file)
    if label == "seg" and suffixes and BRATS.issuperset(suffixes):
        if all(_GLIOMA_2023.fullmatch(row.case) for row in rows):
            likely = (PARTS_2023,)
        elif all(_GLIOMA_2017.search(os.path.relpath(row.folder, folder.parent)) for row in rows):
            likely = (PARTS,)
    return collector.volumes(
        name,
        "CASE/CASE_T1.nii.gz, and CASE/CASE_seg.nii.gz if there are label maps",
        channels=options.channels or tuple([file or "image" for file in usual]) or ("image",),
        likely=likely,
        understood={} if label is None or label in LABELS else {"label": label},
    )


def _label_suffixes(rows: Sequence[CaseRow], counts: Collection[str]) -> list[str]:
    """Return the suffixes of label maps in folders per case, by what their files hold."""
    called = [suffix for suffix in LABELS if suffix in counts]
    if BRATS.issuperset(set(counts) - set(called)):
        return called[:1]
    kinds: dict[str, dict[str, Path]] = defaultdict(dict)
    for row in rows:
        for suffix, files in row.files.items():
            kinds[suffix][row.case] = files[0]
    found = label_maps_among(kinds)
    return called[:1] + [suffix for suffix in found if suffix not in called]


# -- manifests -----------------------------------------------------------------------------------

_SUBJECT = ("subject", "subject_group")
_COLUMNS = ("case", "label", "split", "fold", *_SUBJECT)
_Lines = Sequence[tuple[str, dict[str, str]]]  # (place in the file, column -> text) of each row


def list_manifest(kind: str, path: Path, options: FileOptions) -> VolumeSet:
    """List what a manifest says; without a column ``label`` its cases are unlabelled."""
    if options.image is not None:
        raise UsageFault(
            "listing.image-pattern-with-manifest",
            f"--read image={options.image.text}: {path} lists its files, expected a pattern for a "
            "folder; leave it out",
        )
    if volume_stem(path.name) is not None:
        raise DataFault(
            "listing.one-scan",
            f"{path}: is one scan, expected a folder or a list (CSV or JSON) of cases; name its "
            f"folder: {kind}:{path.parent}",
        )
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    if options.label is not None:
        rows = _with_label(path, rows, options.label)
    channels = _columns(path, rows, options)
    labelled = any("label" in row for _, row in rows)
    collector = Collector(path, options.allow_absolute)
    rows = _with_cases(rows, "label" if labelled else channels[0])
    for number, row in rows:
        _add_row(collector, f"{path}: {number}", row, channels, labelled)
    expected = "rows with an image per channel, and a label if there are any"
    return collector.volumes(f"{kind}:{path.stem}", expected, channels=channels)


def _header(rows: _Lines) -> list[str]:
    return list(dict.fromkeys([key for _, row in rows for key in row]))


def _with_label(path: Path, rows: _Lines, column: str) -> _Lines:
    """Call a column of label maps ``label``."""
    header = _header(rows)
    if column not in header:
        raise UsageFault(
            "listing.label-column-unknown",
            f"--read label={column}: {path} has no such column, expected one of: "
            f"{', '.join(header)}.{did_you_mean(column, header)}",
        )
    return [
        (place, {"label" if key == column else key: text for key, text in row.items()})
        for place, row in rows
    ]


def _csv_rows(path: Path) -> _Lines:
    with reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataFault(
                "listing.manifest-too-large",
                f"{path}: larger than {MAX_JSON_BYTES} bytes, expected a manifest",
            )
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        begin = text.partition("\n")[0]
        marks = [mark for mark in ",\t;" if mark in begin]
        between = marks[0] if marks else ","
        lines = io.StringIO(text)
        table = list(csv.reader(lines, delimiter=between, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFault(
            "listing.manifest-not-csv", f"{path}: not readable as CSV: {error}; save it as UTF-8"
        ) from error
    header = [name.strip() for name in table[0]] if table else []
    header = [name.lower() if name.lower() in _COLUMNS else name for name in header]
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataFault(
            "listing.column-twice",
            f"{path}: column {twice[0]!r} occurs twice, expected once; rename one",
        )
    return [
        (f"line {number}", dict(zip(header, map(_cell, row), strict=False)))
        for number, row in enumerate(table[1:], start=2)
        if any(row)
    ]


def _cell(text: str) -> str:
    return read_cell(text.strip()).replace("\\", "/")  # Windows writes paths with backslashes


def _json_rows(path: Path) -> _Lines:
    doc = read_json(path, expected=object, hint="see: gansynth help nifti")
    rows = doc
    if isinstance(doc, dict):
        rows = _datalist_rows(doc) if "training" in doc else doc.get("cases")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataFault(
            "listing.manifest-not-list",
            f"{path}: expected a list of objects, or one under 'cases', each with 'label' and a "
            "key per channel; see: gansynth help nifti",
        )
    for number, row in enumerate(rows):
        for key, value in row.items():
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise DataFault(
                    "listing.manifest-entry-invalid",
                    f"{path}: entry {number}: {key} is {value!r:.80}, expected a text or a whole "
                    "number",
                )
    return [
        (f"entry {number}", {str(k): "" if v is None else str(v) for k, v in row.items()})
        for number, row in enumerate(rows)
    ]


def _datalist_rows(doc: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a datalist of MONAI: its labelled cases, by part, a column per channel."""
    rows: list[Any] = []
    for part, listed in (("train", "training"), ("val", "validation")):
        for row in doc.get(listed) or ():
            if not isinstance(row, dict):
                return [row]
            images = row.get("image")
            columns = {key: value for key, value in row.items() if key != "image"}
            if isinstance(images, list):
                columns |= {f"channel {number}": image for number, image in enumerate(images)}
            else:
                columns["image"] = images
            rows.append(columns | ({"split": part} if doc.get("validation") else {}))
    return rows


def _columns(path: Path, rows: _Lines, options: FileOptions) -> tuple[str, ...]:
    """The columns of images to read."""
    header, images = _header(rows), list[str]()
    for name in header:
        if name not in _COLUMNS and any(
            volume_stem(Path(row.get(name, "")).name) or is_series(path.parent / row.get(name, ""))
            for _, row in rows
        ):
            images.append(name)
    unknown = [name for name in options.channels or () if name not in images]
    if unknown:
        raise UsageFault(
            "listing.image-column-unknown",
            f"--read channels={','.join(options.channels or ())}: {path} has no column "
            f"{unknown[0]!r} of images, expected among: {', '.join(images) or 'none'}."
            f"{did_you_mean(unknown[0], images)}",
        )
    if rows and not images:
        raise DataFault(
            "listing.no-image-columns",
            f"{path}: columns are {header}, expected one for each channel that names volumes "
            "(.nii.gz, .nrrd, ...); see: gansynth help nifti",
        )
    meant = None
    if options.channels is None and "label" not in header:
        first = {name: path.parent / rows[0][1].get(name, "") for name in images}
        meant = like_labels(images) or holds_labels(first)
    if meant is not None:
        raise DataFault(
            "listing.label-column-unclear",
            f"{path}: columns are {header}, expected to know which has the label maps; say so: "
            f"--read label={meant}, or if it is a channel, name them all: "
            f"--read channels={','.join(images)}",
        )
    return options.channels or tuple(images) or ("image",)


def _with_cases(rows: _Lines, column: str) -> _Lines:
    """Name cases by their files; by their folders, where the files of all are called alike."""
    paths = [Path(row.get(column, "")) for _, row in rows]
    alike = len(rows) > 1 and len({path.name for path in paths}) == 1
    named = []
    for (place, row), path in zip(rows, paths, strict=True):
        case = row.get("case") or (path.parent.name if alike else volume_stem(path.name)) or ""
        named.append((place, dict(row, case=case)))
    return named


def _add_row(
    collector: Collector, where: str, row: dict[str, str], channels: tuple[str, ...], labelled: bool
) -> None:
    """Add a row's case, or a fault if it is incomplete or leads out of the folder."""
    path, label, case = collector.where, row.get("label", ""), row["case"]
    empty = [key for key in (("label",) if labelled else ()) + channels if not row.get(key)]
    if empty or not case:
        text = f"{where}: {empty[0] if empty else 'case'} is empty, expected a value; complete the "
        collector.fault(case or None, path, f"{text}row, or remove it")
        return
    test = row.get("split") == "test" or not row.get("fold")
    key, part = ("split", row.get("split") or "") if test else ("fold", row["fold"])
    if part and not part.isdecimal() and part not in ("train", "val", "test"):
        expected = "train, val or test" if key == "split" else "a whole number"
        text = f"{where}: {key} is {part!r}, expected {expected}; correct it"
        collector.fault(case, path, text)
        return
    files = [collector.file(row[c], f"{where}: {c}", case) for c in channels]
    drawn = collector.file(label, f"{where}: label", case) if labelled else None
    subjects = [row[column] for column in _SUBJECT if row.get(column)]
    subject = subjects[0] if subjects else None
    collector.add(CaseFiles(case, tuple(filter(None, files)), drawn, subject, part))


# -- the Decathlon -------------------------------------------------------------------------------


def list_msd(folder: Path, options: VolumeOptions) -> VolumeSet:
    """List what ``dataset.json`` names; DataFault: unusable, UsageFault: unknown channels."""
    path = folder / FILE
    doc = read_json(path, hint="give the folder of one MSD task, for example Task04_Hippocampus")
    modality, labels = doc.get("modality", doc.get("channel_names")), doc.get("labels")
    names = tuple(map(str, _numbered(modality)))
    if not names:
        raise _odd(path, "modality", modality, 'names numbered from 0, as {"0": "MRI"}')
    if not isinstance(labels, dict) or not all(k.isdecimal() and len(k) < 9 for k in labels):
        expected = 'names by number, as {"0": "background", "1": "tumour"}'
        raise _odd(path, "labels", labels, expected)
    named = {str(name): int(number) for number, name in labels.items()}
    if len(named) != len(labels):
        raise DataFault(
            "listing.label-name-twice",
            f"{path}: labels {labels!r:.200}: a name occurs twice, expected each once",
        )
    training = doc.get("training")
    if not isinstance(training, list):
        raise DataFault(
            "listing.training-not-list",
            f"{path}: training is {training!r:.80}, expected a list of cases",
        )
    unknown = [name for name in options.channels or () if name not in names]
    if unknown:
        raise UsageFault(
            "listing.modality-unknown",
            f"--read channels={','.join(options.channels or ())}: {path} has no modality "
            f"{unknown[0]!r}, expected among: {', '.join(names)}.{did_you_mean(unknown[0], names)}",
        )
    collector = Collector(path, options.allow_absolute)
    for number, entry in enumerate(training):
        where = f"{path}: training: {number}"
        match entry:
            case {"image": str(image), "label": str(label)} if volume_stem(Path(image).name):
                case = volume_stem(Path(image).name) or ""
                files = [collector.file(image, f"{where}: image", case)]
                drawn = collector.file(label, f"{where}: label", case)
                collector.add(CaseFiles(case, tuple(filter(None, files)), drawn))
            case _:
                text = f"{where} is {entry!r:.200}, expected image (.nii.gz) and label; correct it"
                collector.fault(None, path, text)
    return collector.volumes(
        f"msd:{folder.resolve().name}",
        "image and label of each case under training",
        channels=options.channels or names,
        stacked=True,
        total=len(names),
        picked=tuple([names.index(name) for name in options.channels or names]),
        labels=complete_labels(named),
    )


# -- files that are not read ---------------------------------------------------------------------

OWN = frozenset(
    {
        FILE,
        SPLITS,
        SUBJECTS,
        "manifest.json",
        "provenance.json",
        "dataset_description.json",
        "participants.json",
        "participants.tsv",
        "gansynth.json",
        "lineage.json",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Names, in lower case, of files that describe a data set, or are of no use to anybody."""
_TALK = re.compile(r"(readme|licen[cs]e|changes|citation|.*\.(md|pdf|rst|html?|log|py|sh)$)", re.I)
_TO_BOXES = "convert boxes to a text file for each image (gansynth help boxes has the form)"
_TO_VOLUMES = "convert volumes to NIfTI (.nii.gz), masks of pictures to PNG"
_CURES = {
    ".json": "of labelme, perhaps: convert them to COCO's JSON, which coco:FOLDER reads",
    ".geojson": "of QuPath, perhaps: export masks from it, as PNG",
    ".zip": "regions of ImageJ, perhaps: make masks of them there, as PNG; else unpack them",
    ".nii.zip": "unpack them: find FOLDER -name '*.nii.zip' -execdir unzip {} ';'",
    ".xml": f"of Pascal VOC, perhaps: {_TO_BOXES}",
    ".csv": f"a table: name it if it lists files, as nifti:FILE.csv; {_TO_BOXES}",
    ".txt": _TO_BOXES,
    ".h5": f"gansynth's own caches alone are read (h5:FILE); {_TO_VOLUMES}",
    ".hdf5": f"gansynth's own caches alone are read (h5:FILE); {_TO_VOLUMES}",
    ".dcm": "convert each series with dcm2niix -z y",
}
_CURES |= dict.fromkeys((".xls", ".xlsx", ".ods"), f"a table: save it as CSV; {_TO_BOXES}")
_CURES |= dict.fromkeys((".gif", ".bmp", ".webp"), "convert masks to PNG")


def read_by() -> dict[str, tuple[str, ...]]:
    """Return kind of source -> endings of the images and label maps that it reads, no others."""
    return {"nifti": endings(), "msd": endings(), "pictures": tuple(SUFFIXES)}


def files_not_read(folder: Path, read: Collection[str]) -> Iterator[str]:
    """Yield a line for each ending of a folder's files that is none of those that are ``read``.

    They may be label maps. What merely describes a data set, belongs to a volume beside it or to a
    series is left out.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    with suppress(OSError):
        below = [path for _, path in files_below(folder)]
        known = {path for path in below if path.name.lower().endswith(tuple(read))}
        known |= {path.with_name(name) for path in known for name in names_beside(path)}
        series = {home for home in {path.parent for path in below} if is_series(home)}
        for path in below:
            name, read_whole = path.name.lower(), not series.isdisjoint((path, path.parent))
            if not (path in known or read_whole or name in OWN or _TALK.match(name)):
                packed = ".nii.zip" if name.endswith(".nii.zip") else path.suffix.lower()
                found[packed].append(path)
    for ending, files in sorted(found.items(), key=lambda item: -len(item[1])):
        cure = _CURES.get(ending, _TO_VOLUMES).replace("FOLDER", shlex.quote(str(folder)))
        yield (
            f"{folder}: {len(files)} {ending or 'nameless'} file(s) are not read, such as "
            f"{files[0]}: {cure}"
        )
