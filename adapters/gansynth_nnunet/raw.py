"""``nnunet-raw:ID``: the raw volumes of an nnU-Net data set, and the check of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.data.check import (
    CheckState,
    check_case,
    check_folds,
    few_cases,
    header_notes,
    in_order,
    missing_files,
    same_content,
    unused_labels,
)
from gansynth.data.folds import absolute, read_splits
from gansynth.data.listing import CaseFiles, VolumeSet, channel_places
from gansynth.data.nifti import VolumeSource
from gansynth.data.nifti_writer import NiftiWriter
from gansynth.data.pairs import beyond_gap
from gansynth.data.read_options import ReadOptions, VolumeOptions, parse_read, register_read_options
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth_nnunet.cases import PreprocessedArrays, hashes_of
from gansynth_nnunet.dataset import NIFTI, RawSet, raw_cases
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.splits import SPLITS, SUBJECTS, known_subjects


@register_read_options(VolumeOptions)
def open_raw(request: SourceRequest) -> VolumeSource:
    """Open the cases of ``imagesTr`` and ``labelsTr`` with the folds of ``splits_final.json``.

    Raises:
        UsageFault: unknown data set or fold, options that do not fit, or files other than NIfTI.
        DataFault: an unusable ``dataset.json``, case or split.
        IntegrityFault: a subject is in training and in validation.
    """
    options = parse_read(VolumeOptions, request)
    root = NnunetRoot.find(request.root)
    dataset = root.dataset(request.where)
    raw = raw_cases(root.raw / dataset)
    if raw.ending not in NIFTI:
        raise UsageFault(
            f"nnunet-raw:{request.where}: files end in {raw.ending}, expected .nii.gz or .nii; "
            f"preprocess them and use nnunet:{request.where}"
        )
    listing = volume_set(raw, root.preprocessed / dataset)
    listing = _with_channels(listing, options.channels)
    return VolumeSource(absolute(request, request.where), listing, options)


open_raw.by_name = True  # type: ignore[attr-defined]


def _with_channels(listing: VolumeSet, channels: Sequence[str] | None) -> VolumeSet:
    """Select and order the channels of a data set as requested."""
    if channels is None:
        return listing
    places = channel_places(channels, listing.channels or (), listing.where)
    entries = tuple(
        replace(entry, images=tuple(entry.images[place] for place in places))
        for entry in listing.entries
    )
    return replace(listing, entries=entries, channels=tuple(channels))


# -- the check -----------------------------------------------------------------------------------


def check_nnunet(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """List all faults of the raw data set of ``nnunet:ID`` or ``nnunet-raw:ID``."""
    parse_read(VolumeOptions if request.kind == "nnunet-raw" else ReadOptions, request)
    root = NnunetRoot.find(request.root)
    name = root.dataset(request.where)
    findings = check_raw(root, name, subjects=request.subjects, progress=progress)
    findings = in_order([*findings, *_check_arrays(root.preprocessed / name)])
    return CheckReport(name, len(raw_cases(root.raw / name).images), findings)


def _check_arrays(preprocessed: Path) -> Iterator[Finding]:
    """Compare preprocessed arrays with their hashes; decode those that have none, and say so."""
    for folder in sorted({file.parent for file in preprocessed.glob("*/*.b2nd")}):
        again = f"preprocess again: gansynth prepare nnunet:{preprocessed.name[7:10]} --force"
        arrays = PreprocessedArrays(folder, again, keep=False)
        if unnoted := len(arrays.unnoted()):
            yield Finding(
                "warning",
                None,
                folder,
                f"{folder}: {unnoted} arrays are not verified, for {hashes_of(folder).name} has no "
                "hash of them: they can be decoded, but a flipped bit may go unnoticed; to be "
                f"sure, {again}",
            )
        for file in sorted(folder.glob("*.b2nd")):
            try:
                arrays.checked(file.name)
            except GansynthError as fault:
                yield Finding("error", file.stem.removesuffix("_seg"), file, str(fault))


def check_raw(
    root: NnunetRoot,
    dataset: str,
    *,
    subjects: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every file of a raw data set to its last byte and list its faults, errors first.

    Raises:
        DataFault: ``dataset.json`` is unusable, so that nothing can be checked.
        EnvironmentFault: files may not be read.
    """
    raw = raw_cases(root.raw / dataset)
    listing = volume_set(raw, root.preprocessed / dataset)
    tally = CheckState(raw.table.allowed, listing.where.name, raw.table.ignore)
    findings: list[Finding] = []
    for number, entry in enumerate(listing.entries, start=1):
        if raw.ending in NIFTI:
            findings += check_case(entry, tally, listing)
        else:
            findings += missing_files(entry)
        if progress is not None:
            progress(number, len(raw.images))
    if raw.ending in NIFTI:
        findings += [*header_notes(tally), *unused_labels(listing.where, tally)]
    findings += _check_set(raw, tally)
    findings += _check_sides(raw, root.preprocessed / dataset, subjects, tally)
    return in_order(findings)


def volume_set(raw: RawSet, preprocessed: Path) -> VolumeSet:
    """Return a raw data set as a set of volumes.

    Args:
        preprocessed: its folder in ``nnUNet_preprocessed``, which holds splits and subjects.
    """
    cases = sorted(raw.images)
    return VolumeSet(
        f"nnunet-raw:{raw.folder.name}",
        raw.folder,
        raw.folder / "dataset.json",
        tuple(CaseFiles(case, raw.images[case], raw.labels[case]) for case in cases),
        channels=raw.channels,
        splits=preprocessed / SPLITS,
        subjects=preprocessed / SUBJECTS,
        labels=dict(raw.table.values),
    )


def _check_sides(
    raw: RawSet, preprocessed: Path, subjects: str | None, tally: CheckState
) -> Iterator[Finding]:
    """Check subjects, and an existing split, for leakage."""
    path = preprocessed / SPLITS
    folds: dict[str, FoldSplit] = {}
    try:
        subject_of = known_subjects(preprocessed, raw.labels, subjects)
        for number, split in (read_splits(path) if path.is_file() else {}).items():
            train, val = ([c for c in split[k] if c in raw.labels] for k in ("train", "val"))
            if train and val:  # else the split is of other cases; opening the source reports it
                folds[number] = FoldSplit(train=train, val=val)
    except GansynthError as error:
        yield Finding("error", None, raw.folder, str(error))
        return
    yield from check_folds(path, subject_of, folds)
    yield from same_content(raw.folder, tally.content, folds)


def raise_on_errors(findings: Sequence[Finding]) -> None:
    """Stop if a check found errors."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        note = f" ({len(errors)} errors in all; see: gansynth check)" if len(errors) > 1 else ""
        raise DataFault(f"{errors[0].message}{note}")


def _check_set(raw: RawSet, tally: CheckState) -> Iterator[Finding]:
    path = raw.folder / "dataset.json"

    def found(level: Literal["error", "warning"], text: str) -> Finding:
        return Finding(level, None, path, f"{path}: {text}")

    if not raw.table.consecutive:
        odd = beyond_gap(raw.table.allowed)
        where = f" ({odd} is in {tally.values[odd]})" if odd in tally.values else ""
        yield found(
            "error",
            f"label values are {sorted(raw.table.allowed)}, expected 0, 1, 2, ... without a gap "
            f"and the ignore label last{where}; renumber them here and in labelsTr",
        )
    if raw.doc.get("numTraining") != len(raw.images):
        yield found(
            "warning",
            f"numTraining is {raw.doc.get('numTraining')!r}, expected the {len(raw.images)} cases "
            "there are; correct it",
        )
    known = {file for files in raw.images.values() for file in files}
    images = raw.folder / "imagesTr"
    there = images.iterdir() if images.is_dir() and "dataset" not in raw.doc else ()
    for file in sorted(f for f in there if f.name.endswith(raw.ending) and f not in known):
        text = (
            f"{file}: of no channel, {path.name} names {len(raw.channels)}; name it, or remove it"
        )
        yield Finding("error", None, file, text)
    yield from few_cases(raw.folder, len(raw.images))
    same: dict[str, list[str]] = defaultdict(list)
    for case in raw.images:
        same[case.casefold()].append(case)
    for cases in same.values():
        if len(cases) > 1:
            text = (
                f"{raw.folder}: cases {cases} differ in upper and lower case only, expected names "
                "that stay apart on every file system; rename them"
            )
            yield Finding("error", cases[0], raw.folder, text)
    if raw.ending not in NIFTI:
        yield found(
            "warning",
            f"files end in {raw.ending}; only {' and '.join(NIFTI)} are read and checked, for "
            "others only that they are there",
        )


class SampleWriter(NiftiWriter):
    """Samples in the folders of a raw nnU-Net data set."""

    name = "nnunet-raw"
    reader = ""
    images, labels = "imagesTr", "labelsTr"
