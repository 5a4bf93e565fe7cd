"""What is wrong with a raw nnU-Net data set, file by file, before anything long starts."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.integrity import Volume, read_json, read_nifti
from gansynth_nnunet.labels import LabelTable, read_channels, read_labels
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.splits import known_subjects

AFFINE_TOLERANCE = 1e-3
"""Largest difference of affine entries (mm) between the files of a case."""
NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: ``error`` stops ``prepare``; ``warning`` does not.
        case: the case's id, or None for the data set.
        file: the file.
        message: one line with what was found, what was expected and the way out.
    """

    level: Literal["error", "warning"]
    case: str | None
    file: Path
    message: str


@dataclass(frozen=True)
class RawSet:
    """The files of a raw data set, found but not read.

    Attributes:
        folder: the data set's folder in ``nnUNet_raw``.
        doc: its ``dataset.json``.
        channels: channel names.
        table: its labels.
        ending: of its files, e.g. ``.nii.gz``.
        images: case -> one file per channel, as they ought to be.
        labels: case -> label file, as it ought to be.
    """

    folder: Path
    doc: Mapping[str, Any]
    channels: tuple[str, ...]
    table: LabelTable
    ending: str
    images: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, Path]


def raw_cases(folder: Path) -> RawSet:
    """List the training cases of a raw data set.

    Raises:
        DataFault: ``dataset.json`` is missing or lacks something, or there is no case.
    """
    path = folder / "dataset.json"
    doc = read_json(path, way_out="see nnU-Net's dataset format")
    ending = doc.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataFault(f"{path}: file_ending is {ending!r}, expected for example '.nii.gz'")
    channels, table = read_channels(doc, str(path)), read_labels(doc, str(path))
    images: dict[str, tuple[Path, ...]]
    if isinstance(doc.get("dataset"), dict):  # the files lie elsewhere and are listed
        listed = {str(k): _listed(v, f"{path}: dataset: {k}") for k, v in doc["dataset"].items()}
        images = {k: tuple(folder / os.path.expandvars(i) for i in v[0]) for k, v in listed.items()}
        labels = {k: folder / os.path.expandvars(v[1]) for k, v in listed.items()}
    else:
        cases = sorted(_names(folder / "imagesTr", ending, 5) | _names(folder / "labelsTr", ending))
        images = {
            case: tuple(
                folder / "imagesTr" / f"{case}_{c:04d}{ending}" for c in range(len(channels))
            )
            for case in cases
        }
        labels = {case: folder / "labelsTr" / f"{case}{ending}" for case in cases}
    if not images:
        raise DataFault(
            f"{folder}: no training cases, expected imagesTr/CASE_0000{ending} and "
            f"labelsTr/CASE{ending}"
        )
    return RawSet(folder, doc, channels, table, ending, images, labels)


def _names(folder: Path, ending: str, suffix: int = 0) -> set[str]:
    cut = len(ending) + suffix
    found = folder.iterdir() if folder.is_dir() else ()
    return {p.name[:-cut] for p in found if p.name.endswith(ending) and len(p.name) > cut}


def _listed(entry: Any, where: str) -> tuple[list[str], str]:
    match entry:
        case {"images": [*images], "label": str(label)} if all(isinstance(i, str) for i in images):
            return images, label
    raise DataFault(f"{where} is {entry!r:.200}, expected 'images': [files] and 'label': file")


# -- the check -----------------------------------------------------------------------------------


def check_raw(
    root: NnunetRoot,
    dataset: str,
    *,
    subjects: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every file of a raw data set to its last byte and list what is wrong, errors first.

    Args:
        root: nnU-Net's folders.
        dataset: the data set's full name.
        subjects: the value of ``--subjects``; checked against the cases.
        progress: called as ``progress(done, cases)``.

    Raises:
        DataFault: ``dataset.json`` cannot be used, so that nothing can be checked.
        EnvironmentFault: files may not be read.
    """
    raw = raw_cases(root.raw / dataset)
    findings = list(_check_set(raw))
    try:
        known_subjects(root.preprocessed / dataset, raw.labels, subjects)
    except GansynthError as error:
        findings.append(Finding("error", None, raw.folder, str(error)))
    seen: set[int] = set()
    for number, case in enumerate(raw.images, start=1):
        findings += _check_case(raw, case, seen)
        if progress is not None:
            progress(number, len(raw.images))
    unused = sorted(raw.table.allowed - seen)
    if unused and raw.ending in NIFTI:
        text = f"label value(s) {unused} occur in no case; remove them, or add cases that have them"
        findings.append(Finding("warning", None, raw.folder / "dataset.json", text))
    return sorted(findings, key=lambda f: (f.level, f.case or ""))


def raise_on_errors(findings: Sequence[Finding]) -> None:
    """Stop if a check found errors.

    Raises:
        DataFault: with the first error and how many there are.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = f" ({len(errors)} errors in all; see: gansynth check)" if len(errors) > 1 else ""
        raise DataFault(f"{errors[0].message}{more}")


def _check_set(raw: RawSet) -> Iterator[Finding]:
    path = raw.folder / "dataset.json"
    if not raw.table.consecutive:
        yield Finding(
            "error",
            None,
            path,
            f"{path}: label values are {sorted(raw.table.allowed)}, expected 0, 1, 2, ... without "
            "a gap and the ignore label last; renumber them here and in labelsTr",
        )
    if raw.doc.get("numTraining") != len(raw.images):
        yield Finding(
            "warning",
            None,
            path,
            f"{path}: numTraining is {raw.doc.get('numTraining')!r}, expected the "
            f"{len(raw.images)} cases there are; correct it",
        )
    if len(raw.images) < 2:
        yield Finding(
            "error",
            None,
            raw.folder,
            f"{raw.folder}: {len(raw.images)} case, expected at least 2 (one to train on, one to "
            "validate); add cases",
        )
    same: dict[str, list[str]] = defaultdict(list)
    for case in raw.images:
        same[case.casefold()].append(case)
    for cases in same.values():
        if len(cases) > 1:
            yield Finding(
                "error",
                cases[0],
                raw.folder,
                f"{raw.folder}: cases {cases} differ in upper and lower case only, expected names "
                "that stay apart on every file system; rename them",
            )
    if raw.ending not in NIFTI:
        yield Finding(
            "warning",
            None,
            path,
            f"{path}: files end in {raw.ending}; only {' and '.join(NIFTI)} are read and checked, "
            "for others only that they are there",
        )


def _check_case(raw: RawSet, case: str, seen: set[int]) -> Iterator[Finding]:
    files = (*raw.images[case], raw.labels[case])
    missing = [file for file in files if not file.is_file()]
    for file in missing:
        text = f"{file}: missing, expected for case {case!r}; add it, or remove its other files"
        yield Finding("error", case, file, text)
    if raw.ending not in NIFTI:
        return
    reference: tuple[Path, Volume] | None = None
    for file in reversed(files):  # the labels first: everything is compared with them
        if file in missing:
            continue
        try:
            volume = read_nifti(file)
        except EnvironmentFault:
            raise
        except GansynthError as error:
            yield Finding("error", case, file, str(error))
            continue
        if file == raw.labels[case]:
            yield from _check_labels(raw.table, case, file, volume.array, seen)
        elif volume.array.min() == volume.array.max():
            value = volume.array.flat[0]
            yield Finding(
                "warning", case, file, f"{file}: every voxel is {value}; an empty channel?"
            )
        if reference is None:
            reference = file, volume
        else:
            yield from _check_grid(case, file, volume, *reference)


def _check_labels(
    table: LabelTable, case: str, file: Path, array: npt.NDArray[Any], seen: set[int]
) -> Iterator[Finding]:
    values = np.unique(array)
    unknown = [v.item() for v in values if v != round(v) or int(v) not in table.allowed]
    if unknown:
        yield Finding(
            "error",
            case,
            file,
            f"{file}: label value(s) {unknown[:8]} are not in dataset.json, expected among "
            f"{sorted(table.allowed)}; correct the file or dataset.json",
        )
    seen.update(int(v) for v in values)
    if not set(values.tolist()) - {0, table.ignore}:
        yield Finding("warning", case, file, f"{file}: no foreground, only background")


def _check_grid(
    case: str, file: Path, volume: Volume, other: Path, reference: Volume
) -> Iterator[Finding]:
    if volume.array.shape != reference.array.shape:
        yield Finding(
            "error",
            case,
            file,
            f"{file}: shape is {volume.array.shape}, but {reference.array.shape} in {other.name}; "
            "expected equal; resample one to the other",
        )
    difference = float(np.abs(volume.affine - reference.affine).max())
    if difference > AFFINE_TOLERANCE:
        yield Finding(
            "error",
            case,
            file,
            f"{file}: affine differs from that of {other.name} by up to {difference:.3g} mm, "
            f"expected at most {AFFINE_TOLERANCE}; resample, or copy the header if only that is "
            "off",
        )
