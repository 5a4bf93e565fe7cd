"""Check a data set of volumes in one pass, with one case in memory at a time."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.lineage import some_names
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.data.folds import folds_of, guard, split_file, subjects_of
from gansynth.data.grid import canonical_spacing, same_spacing
from gansynth.data.listing import CaseFiles, VolumeSet, missing
from gansynth.data.pairs import LABELS, likely_labels, mismatches, odd_labels, other_qform
from gansynth.data.read_options import VolumeOptions
from gansynth.runtime.errors import EnvironmentFault, GansynthError
from gansynth.runtime.files import NiftiVolume, read_nifti


@dataclass
class CheckState:
    """What is collected over all cases; ``content``: hash of a case's images -> the cases.

    ``values``: label value -> the first file that has it.

    ``allowed``: label values the data set names; None if it names none. ``channels``: number of
    channels of a stacked file. ``spacing``: case -> (z, y, x) in mm. ``notes``: what headers leave
    open -> the cases and files.
    """

    allowed: frozenset[int] | None
    named: str
    ignore: int | None = None
    values: dict[int, Path] = field(default_factory=dict)
    channels: int | None = None
    spacing: dict[str, tuple[float, ...]] = field(default_factory=dict)
    content: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, list[tuple[str, Path]]] = field(default_factory=lambda: defaultdict(list))


def check_volumes(
    listing: VolumeSet,
    request: SourceRequest,
    options: VolumeOptions,
    progress: Callable[[int, int], None],
) -> CheckReport:
    """Read every file to its last byte and list all faults, errors first."""
    labels = options.labels or listing.labels
    named = "--read labels" if options.labels else (listing.named_in or listing.where).name
    content = CheckState(None if labels is None else frozenset(labels.values()), named)
    content.ignore = None if labels is None else labels.get("ignore")
    content.channels = listing.total or len(options.channels or ()) or None
    findings = [Finding("error", f.case, f.file, str(f.error)) for f in listing.faults]
    findings += few_cases(listing.where, len(listing.entries))
    findings += _check_labelled(listing)
    for number, entry in enumerate(listing.entries, start=1):
        findings += check_case(entry, content, listing)
        progress(number, len(listing.entries))
    findings += header_notes(content)
    findings += _check_labels(listing, content)
    findings += _check_spacing(listing, options, content)
    findings += _check_sides(listing, request, options, content)
    return CheckReport(listing.name, len(listing.entries), in_order(findings))


def in_order(findings: list[Finding]) -> list[Finding]:
    """Sort findings: errors first, then by case."""
    return sorted(findings, key=lambda f: (f.level, f.case or ""))


def few_cases(where: Path, count: int) -> Iterator[Finding]:
    """Report a data set with no case to validate on."""
    if count == 1:
        text = f"{where}: 1 case, expected at least 2 (one to train on, one to validate); add cases"
        yield Finding("error", None, where, text)


# -- one case ------------------------------------------------------------------------------------


def missing_files(entry: CaseFiles) -> Iterator[Finding]:
    """Report the missing files of a case."""
    for file in entry.files:
        if not os.path.isfile(file):  # false for a name that is too long, too
            yield Finding("error", entry.case, file, str(missing(file, entry.case)))


def check_case(entry: CaseFiles, content: CheckState, listing: VolumeSet) -> Iterator[Finding]:
    """Read a case's files and compare each with its labels, or with its first image."""
    case = entry.case
    reference: tuple[Path, NiftiVolume] | None = None
    digest = hashlib.sha256()
    absent = list(missing_files(entry))
    yield from absent
    flat, whole = True, not absent
    for file in entry.files:
        if not os.path.isfile(file):
            continue
        drawn = file == entry.labels
        try:
            stacked = listing.stacked and not drawn
            volume = read_nifti(file, ndim=(3, 4) if stacked else (3,), labels=drawn)
        except EnvironmentFault:
            raise
        except GansynthError as error:
            whole = False
            yield Finding("error", case, file, str(error))
            continue
        for note in volume.notes:
            content.notes[note].append((case, file))
        if drawn:
            rounded = listing.by_voxel and volume.array.dtype.kind == "f"
            array = np.rint(volume.array) if rounded else volume.array
            yield from check_values(content, case, file, array)
        else:
            flat &= hash_image(digest, volume.array)
            yield from _check_image(content, listing, case, file, volume.array)
        if file == entry.reference:
            content.spacing[case] = canonical_spacing(volume.affine)
        if reference is None:
            reference = file, volume
        else:
            if listing.by_voxel:
                volume = volume._replace(affine=reference[1].affine, qform=reference[1].qform)
            problems = list(mismatches(file, volume, *reference))
            yield from (Finding("error", case, file, problem) for problem in problems)
            odd = None if problems else other_qform(file, volume, *reference)
            if odd is not None and (case, odd[0]) not in content.notes[odd[1]]:
                content.notes[odd[1]].append((case, odd[0]))
    if whole and not flat:
        content.content[digest.hexdigest()].append(case)


def header_notes(content: CheckState) -> Iterator[Finding]:
    """Report what headers leave open, once for all files that leave it open alike."""
    for note, files in content.notes.items():
        case, file = files[0]
        more = f" ({len(files)} files are so)" if len(files) > 1 else ""
        yield Finding("warning", case, file, f"{file}: {note}{more}")


def hash_image(digest: Any, array: npt.NDArray[Any]) -> bool:
    """Add an image's values, as float32, to a hash; return whether it is constant."""
    digest.update(str(array.shape).encode())
    for plane in np.moveaxis(array, -1, 0):
        digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
    return bool(array.min() == array.max())


def _check_image(
    content: CheckState, listing: VolumeSet, case: str, file: Path, array: npt.NDArray[Any]
) -> Iterator[Finding]:
    count = array.shape[3] if array.ndim == 4 else 1
    if listing.stacked:
        content.channels = content.channels or count
        if count != content.channels:
            text = (
                f"{file}: {count} channel(s) of shape {array.shape}, expected {content.channels} "
                f"as {'listed' if listing.total else 'in other cases'} in {listing.where.name}; "
                "correct the file, or leave the case out"
            )
            yield Finding("error", case, file, text)
    yield from even_channels(case, file, array)


def even_channels(case: str, file: Path, array: npt.NDArray[Any]) -> Iterator[Finding]:
    """Report channels of an image (x, y, z) or (x, y, z, channel) that are constant."""
    for number, channel in enumerate(np.moveaxis(array, -1, 0) if array.ndim == 4 else [array]):
        if channel.min() == channel.max():
            of = f" of channel {number}" if array.ndim == 4 else ""
            text = f"{file}: every voxel{of} is {channel.flat[0]}; an empty channel?"
            yield Finding("warning", case, file, text)


def check_values(
    content: CheckState, case: str, file: Path, array: npt.NDArray[Any]
) -> Iterator[Finding]:
    """Report unknown labels in a label map, or a label map without foreground."""
    values = np.unique(array)
    if len(values) > LABELS:
        text = (
            f"{file}: {len(values)} different values from {values[0]} to {values[-1]}, expected a "
            "label map; was an image put in its place?"
        )
        yield Finding("error", case, file, text)
        return
    allowed = content.allowed
    unknown = [
        v.item()
        for v in values
        if v != round(v) or (not 0 <= v < 2**15 if allowed is None else int(v) not in allowed)
    ]
    if unknown:
        text = (
            f"{file}: label value(s) {unknown[:8]} are "
            + ("no labels" if allowed is None else f"not in {content.named}")
            + ", expected "
            + ("whole numbers from 0" if allowed is None else f"among {sorted(allowed)}")
            + f"; correct the file{'' if allowed is None else ' or ' + content.named}"
        )
        yield Finding("error", case, file, text)
    known = {int(v) for v in values.tolist() if v not in unknown}
    content.values = {**dict.fromkeys(known, file), **content.values}
    if not set(values.tolist()) - {0, content.ignore}:
        yield Finding("warning", case, file, f"{file}: no foreground, only background")


# -- the data set --------------------------------------------------------------------------------


def _check_labelled(listing: VolumeSet) -> Iterator[Finding]:
    if listing.entries and not listing.labelled:
        text = (
            f"{listing.where}: has no label maps; only generators that draw from noise, without "
            "masks, learn from it"
        )
        yield Finding("warning", None, listing.where, text)


def _check_labels(listing: VolumeSet, content: CheckState) -> Iterator[Finding]:
    if not listing.labelled:
        return
    if content.allowed is None:
        named = likely_labels(content.values, listing.likely)
        problem = None if named else odd_labels(content.values)
        if problem:
            yield Finding("error", None, listing.where, f"{listing.where}: {problem}")
        return
    yield from unused_labels(listing.where, content)


def unused_labels(where: Path, content: CheckState) -> Iterator[Finding]:
    """Report labels that are named but occur in no case."""
    unused = sorted((content.allowed or frozenset()) - content.values.keys())
    if unused:
        text = (
            f"{where}: label value(s) {unused} occur in no case; remove them, or add cases that "
            "have them"
        )
        yield Finding("warning", None, where, text)


def _check_spacing(
    listing: VolumeSet, options: VolumeOptions, content: CheckState
) -> Iterator[Finding]:
    each = list(content.spacing.values())
    if options.spacing is not None or not each:
        return
    median = tuple(round(float(v), 6) for v in np.median(each, axis=0))
    differing = [
        case for case, spacing in content.spacing.items() if not same_spacing(spacing, median)
    ]
    if differing:
        text = (
            f"{listing.where}: {len(differing)} case(s) are not of spacing {median} mm (z, y, x), "
            f"{differing[0]!r} first; they are resampled to the training cases' median unless "
            "another is named: --read spacing="
        )
        yield Finding("warning", differing[0], listing.where, text)


def _check_sides(
    listing: VolumeSet, request: SourceRequest, options: VolumeOptions, content: CheckState
) -> Iterator[Finding]:
    try:
        subject_of = subjects_of(listing, request.subjects)
        folds = folds_of(listing, subject_of, options) if len(listing.entries) > 1 else {}
    except GansynthError as error:
        yield Finding("error", None, listing.where, str(error))
        return
    if not listing.unvalidated:
        yield from check_folds(split_file(listing, options), subject_of, folds)
    yield from same_content(listing.where, content.content, folds)


def check_folds(
    where: Path, subject_of: Mapping[str, str], folds: Mapping[str, FoldSplit]
) -> Iterator[Finding]:
    """Report folds without cases on a side, or with a subject on both sides."""
    for number, split in folds.items():
        lacking = [side for side, cases in split.items() if not cases]
        if lacking:
            text = (
                f"{where}: fold {number}: no case under {lacking[0]}, expected at least one on "
                "either side; correct the split"
            )
            yield Finding("error", None, where, text)
        try:
            guard(where, subject_of, number, split)
        except GansynthError as error:
            yield Finding("error", None, where, str(error))


def same_content(
    where: Path, content: Mapping[str, list[str]], folds: Mapping[str, FoldSplit]
) -> Iterator[Finding]:
    """Report cases with the same image: an error where they lie on both sides of a fold."""
    for cases in content.values():
        if len(cases) < 2:
            continue
        apart = [
            number
            for number, split in folds.items()
            if set(cases) & set(split["train"]) and set(cases) & set(split["val"])
        ]
        if apart:
            text = (
                f"{where}: cases {some_names(cases)} have the same image, and fold {apart[0]} "
                "trains on one and holds another out; remove one, or give them one subject: "
                "--subjects CSV"
            )
            yield Finding("error", cases[0], where, text)
        else:
            text = f"{where}: cases {some_names(cases)} have the same image; remove one"
            yield Finding("warning", cases[0], where, text)
