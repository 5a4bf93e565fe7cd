"""Check a data set of volumes in one pass, in processes that hold one file each at a time."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.case_store import CaseStore
from gansynth.core.fingerprint import Prints, look_alikes, prints_of
from gansynth.core.lineage import some_names
from gansynth.core.source import CheckReport, Finding, FoldSplit, SourceRequest
from gansynth.core.synthetic import is_marked, synthetic_warning
from gansynth.core.volumes import read_volume, read_volume_header
from gansynth.data.folds import folds_of, guard, split_file, subjects_of
from gansynth.data.grid import (
    LABELS,
    canonical_spacing,
    mismatches,
    oriented,
    other_qform,
    rounded_mm,
    same_spacing,
    values_of,
)
from gansynth.data.label_files import read_label_map
from gansynth.data.label_judge import Held, judge, likely_labels, odd_labels
from gansynth.data.listing import CaseFiles, VolumeSet, missing, objects_named_in
from gansynth.data.plausibility import Chosen, Place
from gansynth.data.read_options import VolumeOptions
from gansynth.data.rows import rows_mixed_up
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.volumes import Volume
from gansynth.runtime.workers import in_processes, processes_for

COPIES = 4
"""How many times the voxels of its largest file a process takes of memory at most."""

AIR, FAT = -900, -50
"""HU that the lowest hundredth of a CT's voxels is below: with air around the body, and without."""
THINNED = 3  # every third voxel along an axis tells it


def check_volumes(
    listing: VolumeSet,
    request: SourceRequest,
    options: VolumeOptions,
    progress: Callable[[int, int], None],
) -> CheckReport:
    """Read every file to its last byte and list all faults, errors first."""
    check = _VolumeCheck(listing, options, request)
    for fault in listing.faults:
        finding = Finding.of(fault.case, fault.file, fault.error)
        mended = {"read": {**request.read, **fault.read}, "subjects": fault.subjects}
        cure = {name: value for name, value in mended.items() if fault.read and value}
        check.findings.append(replace(finding, cure=cure))
    check.findings += few_cases(listing.where, len(listing.entries))
    check.findings += rows_mixed_up(listing)
    if listing.entries and not listing.labelled:
        text = "has no label maps; only generators that draw from noise, without masks, learn"
        check.say("warning", None, listing.where, f"{text} from it")
    # Whether a case's place is still wanted is asked when a process is free to read it.
    tasks = ((entry, check.chosen.wants(entry.case)) for entry in listing.entries)
    count = _processes(listing.entries)
    with closing(in_processes(CaseReader(listing, options), tasks, count)) as pass_over:
        for number, (entry, found) in enumerate(zip(listing.entries, pass_over, strict=True), 1):
            check.add(entry, found)
            progress(number, len(listing.entries))
    check.whole()
    looked = None if options.between is not None else check.chosen.looked()
    report = CheckReport(listing.name, len(listing.entries), (), looked=looked)
    return report.with_findings(check.findings)


def _processes(entries: Sequence[CaseFiles]) -> int:
    """Return in how many processes the files of cases are read."""
    sizes = {}
    for entry in entries:
        for file in entry.everything:
            with suppress(OSError):
                sizes[file] = file.stat().st_size
    if not sizes:
        return 1
    largest = max(sizes, key=sizes.__getitem__)
    need = sizes[largest]
    with suppress(GansynthError):
        need = read_volume_header(largest).nbytes
    return processes_for(len(sizes), sum(sizes.values()), COPIES * need)


def few_cases(where: Path, count: int) -> Iterator[Finding]:
    """Report a data set with no case to validate on."""
    if count == 1:
        text = f"{where}: 1 case, expected at least 2 (one to train on, one to validate); add cases"
        yield Finding("error", None, where, text)


def missing_files(entry: CaseFiles) -> Iterator[Finding]:
    """Report the missing files of a case."""
    for file in entry.everything:
        if not os.path.exists(file):  # false for a name that is too long, too
            yield Finding.of(entry.case, file, missing(file, entry.case))


@dataclass
class CaseFound:
    """What one pass over a case's files has found.

    ``notes``: what many files may share, such as what headers leave open, and the file. ``values``:
    label value -> the file that has it. ``content``: hash of its images; empty if they are constant
    or not all can be read. ``prints``: of its first image. ``shapes``: of its images, if all can be
    read. ``marked``: files that gansynth made. ``place``: where its label map lies, if asked for.
    ``held``: what its label map holds. ``modality``: what ``--read modality`` should say of CT.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[tuple[str, Path]] = field(default_factory=list)
    values: dict[int, Path] = field(default_factory=dict)
    spacing: tuple[float, ...] | None = None
    content: str = ""
    prints: Prints | None = None
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    marked: list[Path] = field(default_factory=list)
    place: Place | None = None
    held: Held | None = None
    modality: str = ""

    def say(
        self, level: Literal["error", "warning"], case: str | None, file: Path, text: str
    ) -> None:
        """Add a finding that begins with the file."""
        self.findings.append(Finding(level, case, file, f"{file}: {text}"))


@dataclass(frozen=True)
class CaseReader:
    """Reads a case's files one after another; compares each with its labels, or its first image."""

    listing: VolumeSet
    options: VolumeOptions

    def __call__(self, task: tuple[CaseFiles, bool]) -> CaseFound:
        """Return what is found of a case; the second of a task asks for its label map's place."""
        entry, placed = task
        case, listing, found = entry.case, self.listing, CaseFound()
        reference: tuple[Path, Volume] | None = None
        digest = hashlib.sha256()
        found.findings += missing_files(entry)
        flat, whole, shapes, of_ct = True, not found.findings, [], list[bool]()
        for file in entry.files:
            drawn = file == entry.labels
            needed = [each.file for each in entry.drawn] if drawn else [file]
            if not all(map(os.path.exists, needed)):
                continue
            try:
                ndim = (3, 4) if listing.stacked else (3,)
                if drawn:
                    volume = read_label_map(entry.drawn, layered=listing.layered)
                else:
                    volume = read_volume(file, ndim=ndim)
            except GansynthError as error:
                whole = False
                found.findings.append(Finding.of(case, file, error))
                continue
            found.notes += [(note, file) for note in volume.notes]
            if file == entry.reference:
                found.spacing = canonical_spacing(volume.affine)
            fits = reference is None or self._pair(found, case, file, volume, *reference)
            if reference is None:  # of which only shape and place are needed from here on
                corner = volume.array[:1, :1, :1].copy()
                reference = file, volume._replace(array=np.broadcast_to(corner, volume.array.shape))
            if drawn:
                rounded = listing.by_voxel and volume.array.dtype.kind == "f"
                array = np.rint(volume.array) if rounded else volume.array
                labelled = self._label_map(found, case, file, array)
                if labelled and placed:
                    found.place = self._place(case, volume._replace(array=array))
            else:
                array = volume.array
                flat &= _add_to_hash(digest, array)
                of_ct += self._image(found, case, file, array)
                shapes.append(array.shape)
                found.marked += [file] * is_marked(file)
                if file == entry.images[0]:
                    found.prints = self._prints(case, file, volume)
                if found.place is not None and fits:
                    self._shown(found.place, volume, reference[1].affine)
            del volume, array  # before the next one is read
        if whole:
            found.modality = self._modality(of_ct)
            found.shapes = shapes
            found.content = "" if flat else digest.hexdigest()
        return found

    def _pair(
        self,
        found: CaseFound,
        case: str,
        file: Path,
        volume: Volume,
        other: Path,
        reference: Volume,
    ) -> bool:
        """Report how a file differs from the one of reference; return whether it fits."""
        if self.listing.by_voxel:
            volume = volume._replace(affine=reference.affine, qform=reference.qform)
        problems = mismatches(file, volume, other, reference)
        found.findings += [Finding("error", case, file, problem) for problem in problems]
        odd = None if problems else other_qform(file, volume, other, reference)
        if odd is not None and (odd[1], odd[0]) not in found.notes:
            found.notes.append((odd[1], odd[0]))
        return not problems

    def _image(
        self, found: CaseFound, case: str, file: Path, array: npt.NDArray[Any]
    ) -> list[bool]:
        """Report empty channels; return of each that is read whether it seems to be CT."""
        channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
        for number, channel in enumerate(channels):
            if channel.min() == channel.max():
                of = f" of channel {number}" if array.ndim == 4 else ""
                text = f"every voxel{of} is {channel.flat[0]}; an empty channel?"
                found.say("warning", case, file, text)
        picked = self.listing.picked if self.listing.stacked else None
        read = channels if picked is None else [channels[n] for n in picked if n < len(channels)]
        return [seems_ct(file, channel) for channel in read]

    def _modality(self, of_ct: Sequence[bool]) -> str:
        """Return what ``--read modality`` should say; empty if it is said, or nothing seems CT."""
        names = {name.casefold() for name in self.listing.channels or ()}
        told = self.listing.normalised or self.options.modality is not None
        if told or not any(of_ct) or names & {"ct", "nonorm"}:
            return ""
        return "ct" if all(of_ct) else ",".join(["ct" if ct else "mr" for ct in of_ct])

    def _label_map(self, found: CaseFound, case: str, file: Path, array: npt.NDArray[Any]) -> bool:
        """Report odd label values; return whether a foreground is drawn."""
        values, allowed = values_of(array), self.allowed
        if len(values) > LABELS:
            text = (
                f"{len(values)} different values from {values[0]} to {values[-1]}, expected a "
                "label map; was an image put in its place?"
            )
            found.say("error", case, file, text)
            return False
        unknown = [
            v.item() if v % 1 else int(v)
            for v in values
            if v != round(v) or (not 0 <= v < 2**15 if allowed is None else int(v) not in allowed)
        ]
        if unknown:
            listing = self.listing
            named = "--read labels" if self.options.labels else (listing.named_in or listing.where)
            named = named if isinstance(named, str) else named.name
            text = (
                f"label value(s) {unknown[:8]} are no labels, expected whole numbers from 0; "
                "correct the file"
                if allowed is None
                else f"label value(s) {unknown[:8]} are not in {named}, expected among "
                f"{sorted(allowed)}; correct the file or {named}"
            )
            found.say("error", case, file, text)
        found.values = dict.fromkeys([int(v) for v in values.tolist() if v not in unknown], file)
        if not unknown:
            found.held = Held.of(array, values)
        foreground = bool(set(values.tolist()) - {0, self.ignore})
        if not foreground:
            found.notes.append(("no foreground, only background", file))
        return foreground and not unknown

    def _prints(self, case: str, file: Path, volume: Volume) -> Prints:
        """Return prints of the first channel, which are kept for the next time."""
        store = CaseStore.of(case, [file], self.listing.root, beside=False)
        kept = store.arrays("first", lambda: {"prints": np.array(_prints(volume), np.str_)})
        return tuple(kept["prints"].tolist())

    def _place(self, case: str, volume: Volume) -> Place:
        labels = oriented(volume.array, volume.affine)
        return Place(case, labels, self.ignore)

    def _shown(self, place: Place, volume: Volume, affine: npt.NDArray[np.float64]) -> None:
        channels = oriented(volume.array, affine)
        picked = self.listing.picked
        channels = channels if channels.ndim == 4 else channels[None]
        for number in range(len(channels)) if picked is None else picked:
            if number < len(channels):
                place.add(channels[number])

    @cached_property
    def allowed(self) -> frozenset[int] | None:
        """Label values the data set names; None if it names none."""
        labels = self.options.labels or self.listing.labels
        return None if labels is None else frozenset(labels.values())

    @property
    def ignore(self) -> int | None:
        """The value of voxels without an annotation, if it is named."""
        labels = self.options.labels or self.listing.labels
        return None if labels is None else labels.get("ignore")


class _VolumeCheck:
    """What is found, and what is collected over all cases to compare them with each other.

    ``channels``: number of channels of a stacked file. ``prints``: case -> those of its first
    image. ``values``: label value -> the first file that has it. ``values_of``: case -> its label
    values. ``spacing``: case -> (z, y, x) in mm. ``content``: hash of a case's images -> the cases.
    ``notes``: what many files may share -> the cases and files. ``chosen``: cases whose label maps
    are compared with their images.
    """

    def __init__(self, listing: VolumeSet, options: VolumeOptions, request: SourceRequest) -> None:
        self.listing = listing
        self.options = options
        self.findings: list[Finding] = []
        labels = options.labels or listing.labels
        self.allowed = None if labels is None else frozenset(labels.values())
        self.channels = listing.total or len(options.channels or ()) or None
        self.values: dict[int, Path] = {}
        self.values_of: dict[str, frozenset[int]] = {}
        self.held: list[Held] = []
        self.spacing: dict[str, tuple[float, ...]] = {}
        self.content: dict[str, list[str]] = defaultdict(list)
        self.prints: dict[str, Prints] = {}
        self.marked: list[Path] = []
        self.notes: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        self.subject_of: Mapping[str, str] = {}
        self.folds: Mapping[str, FoldSplit] = {}
        self.fold_fault: GansynthError | None = None
        try:
            self.subject_of = subjects_of(listing, request.subjects)
            if len(listing.entries) > 1:
                self.folds = folds_of(listing, self.subject_of, options)
        except GansynthError as error:
            self.fold_fault = error
        ids = [entry.case for entry in listing.entries]
        self.fold, self.read = request.fold, request.read
        split = self.folds.get(request.fold)
        self.modalities: dict[str, list[str]] = defaultdict(list)
        self.chosen = Chosen(ids if split is None else [*split["train"], *split["val"]])

    def say(
        self, level: Literal["error", "warning"], case: str | None, file: Path, text: str
    ) -> None:
        self.findings.append(Finding(level, case, file, f"{file}: {text}"))

    def say_same(self, level: Literal["error", "warning"], case: str, text: str) -> None:
        """Add a finding on cases of one patient; a table of subjects that is made cures it."""
        where, cure = self.listing.where, dict[str, str]()
        if self.listing.one_subject == type(self.listing).one_subject:
            cure["write_subjects"] = "subjects.csv"
        self.findings.append(Finding(level, case, where, f"{where}: {text}", cure))

    def add(self, entry: CaseFiles, found: CaseFound) -> None:
        """Add what was found of a case."""
        case = entry.case
        self.findings += found.findings
        for note, file in found.notes:
            self.notes[note].append((case, file))
        self.values = found.values | self.values
        self.values_of[case] = frozenset(found.values)
        if found.spacing is not None:
            self.spacing[case] = found.spacing
        if found.prints is not None:
            self.prints[case] = found.prints
        self.marked += found.marked
        if found.shapes and self.listing.stacked:
            self._channels(case, entry.images[0], found.shapes)
        if found.content:
            self.content[found.content].append(case)
        if found.place is not None:
            self.chosen.add(found.place)
        if found.modality:
            self.modalities[found.modality].append(case)
        if found.held is not None:
            self.held.append(found.held)

    def _channels(self, case: str, file: Path, shapes: Sequence[tuple[int, ...]]) -> None:
        count = sum(shape[3] if len(shape) == 4 else 1 for shape in shapes)
        self.channels = self.channels or count
        if count != self.channels:
            said = "listed" if self.listing.total else "in other cases"
            text = (
                f"{count} channel(s) of shape {shapes[0]}, expected {self.channels} as {said} in "
                f"{self.listing.where.name}; correct the file, or leave the case out"
            )
            self.say("error", case, file, text)

    def whole(self) -> None:
        """Compare the cases with each other, and with the data set's folds."""
        where = self.listing.where
        for note, files in self.notes.items():
            case, file = files[0]
            more = f" ({len(files)} files are so)" if len(files) > 1 else ""
            self.say("warning", case, file, f"{note}{more}")
        if self.marked:
            self.findings.append(
                Finding("warning", None, self.marked[0], synthetic_warning(self.marked))
            )
        if self.listing.labelled:
            self._numbers()
        self._spacings()
        for modality, cases in self.modalities.items():
            text = (
                f"{where}: seems to be CT in HU ({len(cases)} case(s), {cases[0]!r} first); read "
                f"as MR: say --read modality={modality}, or modality=mr if it is none"
            )
            cure = {"read": {**self.read, "modality": modality}}
            self.findings.append(Finding("warning", cases[0], where, text, cure))
        if self.fold_fault is not None:
            self.findings.append(Finding.of(None, where, self.fold_fault))
            return
        if not self.listing.unvalidated:
            self._folds(self.subject_of, self.folds)
        self._same_content(self.folds)
        if all(finding.level != "error" for finding in self.findings):
            self._near(self.subject_of)

    def _held_out_labels(self) -> None:
        """Report labels of held-out cases alone: unnamed ones are those of the training cases."""
        split = self.folds.get(self.fold, FoldSplit(train=[], val=[]))
        trained = frozenset[int]().union(*[self.values_of[case] for case in split["train"]])
        for case in split["val"] if split["train"] else ():
            unseen = sorted(self.values_of[case] - trained - {0})
            if unseen:
                named = [f"label {value}:{value}" for value in sorted(self.values.keys() - {0})]
                text = (
                    f"fold {self.fold} holds out case {case!r} with label {unseen[0]}, which no "
                    "case that it trains on has, so it cannot be read; name all labels: --read "
                    f"labels='{','.join(named)}'"
                )
                self.say("error", case, self.listing.where, text)
                return

    def _numbers(self) -> None:
        """Report what the numbers of label maps cannot mean, or may not mean."""
        where, unused = self.listing.where, sorted((self.allowed or set()) - self.values.keys())
        if unused:
            text = f"label value(s) {unused} occur in no case; remove them, or add cases that have"
            self.say("warning", None, where, f"{text} them")
        judged = judge(self.held, pictures=False) if any(self.values) and self.held else None
        if self.allowed is None and not likely_labels(self.values, self.listing.likely):
            objects = objects_named_in(self.listing)
            problem = odd_labels(self.values, self.held, objects)
            if problem:
                self.say("error", None, where, problem)
            else:
                self._held_out_labels()
        if judged is not None and judged.kind == "inverted":
            self.say("warning", None, where, f"label value {judged.reason}, if it is background")

    def _spacings(self) -> None:
        if self.options.spacing is not None or not self.spacing:
            return
        median = rounded_mm(np.median(list(self.spacing.values()), axis=0))
        differing = [case for case, its in self.spacing.items() if not same_spacing(its, median)]
        if differing:
            text = (
                f"{len(differing)} case(s) are not of spacing {median} mm (z, y, x), "
                f"{differing[0]!r} first; they are resampled to the training cases' median unless "
                "another is named: --read spacing="
            )
            self.say("warning", differing[0], self.listing.where, text)

    def _folds(self, subject_of: Mapping[str, str], folds: Mapping[str, FoldSplit]) -> None:
        """Report folds without cases on a side, or with a subject on both sides."""
        where = split_file(self.listing, self.options)
        for number, split in folds.items():
            for side, cases in split.items():
                if not cases:
                    text = f"fold {number}: no case under {side}, expected at least one on either"
                    self.say("error", None, where, f"{text} side; correct the split")
            try:
                guard(where, subject_of, number, split)
            except GansynthError as error:
                self.findings.append(Finding.of(None, where, error))

    def _same_content(self, folds: Mapping[str, FoldSplit]) -> None:
        """Report cases with the same image: an error where they lie on both sides of a fold."""
        for same in self.content.values():
            cases = set(same)
            if len(same) < 2:
                continue
            leaking_folds = [
                n for n, s in folds.items() if cases & set(s["train"]) and cases & set(s["val"])
            ]
            text = f"cases {some_names(sorted(cases))} have the same image"
            if leaking_folds:
                text += (
                    f", and fold {leaking_folds[0]} trains on one and holds another out; remove "
                    f"one, or give them one subject: {self.listing.one_subject}"
                )
                self.say_same("error", min(cases), text)
            else:
                self.say("warning", min(cases), self.listing.where, f"{text}; remove one")

    def _near(self, subject_of: Mapping[str, str]) -> None:
        """Report nearly identical cases: folds that keep them apart are refused in training."""
        cases = list(self.prints)
        alike = sorted(look_alikes(list(self.prints.values()), 3))
        named = [(cases[first], cases[second]) for first, second in alike]
        pairs = [pair for pair in named if subject_of[pair[0]] != subject_of[pair[1]]]
        if pairs:
            file_of = {entry.case: entry.images[0] for entry in self.listing.entries}
            first, second = [file_of[case] for case in pairs[0]]
            text = (
                f"{len(pairs)} pair(s) of cases are nearly identical, {first} and {second} first. "
                "A fold that trains on one and holds the other out is refused later. If they show "
                f"one patient, give them one subject ({self.listing.one_subject}); gansynth check "
                "writes a table of such with --write-subjects subjects.csv"
            )
            self.say_same("warning", pairs[0][0], text)


def seems_ct(file: Path, array: npt.NDArray[Any]) -> bool:
    """Whether an image holds whole numbers like HU: air around a body, or fat where it says CT."""
    some = array[::THINNED, ::THINNED, ::THINNED]
    low, high = np.percentile(some, 1), some.max()
    called = re.search(r"(?<![a-z])ct(?![a-z])", file.name.lower()) is not None
    below = low <= AIR or (called and low <= FAT)
    return bool(below and high > 0 and (some == np.rint(some)).all())


def _prints(volume: Volume) -> Prints:
    """Return prints of the first channel."""
    channel = volume.array[..., 0] if volume.array.ndim == 4 else volume.array
    return prints_of(channel[None], volume.spacing)


def _add_to_hash(digest: Any, array: npt.NDArray[Any]) -> bool:
    """Add an image's values, as float32, to a hash; return whether it is constant."""
    digest.update(str(array.shape).encode())
    for plane in np.moveaxis(array, -1, 0):
        digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
    return bool(array.min() == array.max())
