"""Folds of a data set of volumes: training and held-out cases."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.core.lineage import guard_split
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.data.listing import VolumeSet
from gansynth.data.read_options import VolumeOptions
from gansynth.data.subjects import grouped_splits, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json

_REPAIR = "correct the file, or remove it to have folds made"


def subjects_of(listing: VolumeSet, request: str | None) -> dict[str, str]:
    """Map cases to subjects: by request, by the layout or a CSV beside it; else to themselves."""
    ids = [entry.case for entry in listing.entries]
    if request is not None:
        return read_subjects(request, ids)
    if any(entry.subject for entry in listing.entries):
        return {entry.case: entry.subject or entry.case for entry in listing.entries}
    if listing.subjects.is_file():
        return read_subjects(str(listing.subjects), ids)
    return {case: case for case in ids}


def folds_of(
    listing: VolumeSet, subject_of: Mapping[str, str], options: VolumeOptions
) -> dict[str, FoldSplit]:
    """Return every fold by its number, as text.

    Splits come from the first of these: a requested JSON, the layout's columns, the JSON beside it,
    new folds. Test cases are held out unless a JSON says otherwise. Raises DataFault: an unusable
    split, or too few subjects.
    """
    cases = {entry.case for entry in listing.entries}
    if options.splits is not None:
        return read_folds(Path(options.splits), cases, listing.where)
    test = [entry.case for entry in listing.entries if entry.part == "test"]
    part_of = {entry.case: entry.part for entry in listing.entries if entry.part != "test"}
    parts = set(part_of.values()) - {""}
    if parts & {"train", "val"}:
        folds = {"0": _named(listing, part_of)}
    elif parts:
        folds = {
            number: FoldSplit(
                train=[c for c, part in part_of.items() if part != number],
                val=[c for c, part in part_of.items() if part == number],
            )
            for number in sorted(parts, key=int)
        }
    elif listing.splits.is_file():
        return read_folds(listing.splits, cases, listing.where)
    else:
        folds = _dealt(listing, subject_of, options, list(part_of), bool(test))
    for split in folds.values():
        split["val"] += test
    return folds


def _named(listing: VolumeSet, part_of: Mapping[str, str]) -> FoldSplit:
    odd = [case for case, part in part_of.items() if part not in ("train", "val")]
    if odd:
        raise DataFault(
            f"{listing.where}: case {odd[0]!r} has split {part_of[odd[0]]!r}, expected train, val "
            "or test for every case; complete the column"
        )
    return FoldSplit(
        train=[case for case, part in part_of.items() if part == "train"],
        val=[case for case, part in part_of.items() if part == "val"],
    )


def _dealt(
    listing: VolumeSet,
    subject_of: Mapping[str, str],
    options: VolumeOptions,
    ids: list[str],
    tested: bool,
) -> dict[str, FoldSplit]:
    count = len({subject_of[case] for case in ids})
    if count < options.folds:
        if tested and count:  # there are test cases to hold out, and no folds are needed
            return {"0": FoldSplit(train=ids, val=[])}
        hint = f"say --read folds={count}, or" if count > 1 else "add cases, or"
        raise DataFault(
            f"{listing.where}: {count} subject(s) for {options.folds} folds, expected at least "
            f"one for each; {hint} hold nothing out: --fold all"
        )
    splits = grouped_splits(ids, subject_of, options.folds, options.seed)
    return {str(number): split for number, split in enumerate(splits)}


def read_folds(path: Path, cases: Collection[str], where: Path) -> dict[str, FoldSplit]:
    """Every fold of a JSON of splits, as ``read_splits``; DataFault for unknown cases."""
    folds = read_splits(path)
    for number, split in folds.items():
        unknown = sorted({*split["train"], *split["val"]} - set(cases))
        if unknown:
            raise DataFault(
                f"{path}: fold {number} names {len(unknown)} case(s) that {where} does not have, "
                f"{unknown[0]!r} first; {_REPAIR}"
            )
    return folds


def absolute(request: SourceRequest, where: str | Path = "") -> SourceRequest:
    """Return the request with absolute paths (``where``, subjects, splits), for a run's record."""
    subjects, read = request.subjects, dict(request.read)
    if subjects is not None and os.path.isfile(subjects):
        subjects = str(Path(subjects).absolute())
    if "splits" in read:
        read["splits"] = str(Path(read["splits"]).expanduser().absolute())
    path = str(where) or str(Path(request.where).expanduser().absolute())
    return replace(request, where=path, subjects=subjects, read=read)


def read_splits(path: Path) -> dict[str, FoldSplit]:
    """Every fold of a JSON list of ``{"train": [...], "val": [...]}``; DataFault if it is none."""
    folds: dict[str, FoldSplit] = {}
    for number, doc in enumerate(read_json(path, expected=list, hint=_REPAIR)):
        sides: list[Any] = [doc.get(k) for k in ("train", "val")] if isinstance(doc, dict) else []
        if not sides or not all(
            isinstance(side, list) and side and all(isinstance(case, str) for case in side)
            for side in sides
        ):
            raise DataFault(
                f"{path}: fold {number} is {doc!r:.80}, expected lists of cases under train and "
                f"val; {_REPAIR}"
            )
        folds[str(number)] = FoldSplit(train=sides[0], val=sides[1])
    if not folds:
        raise DataFault(f"{path}: holds no fold, expected at least one; {_REPAIR}")
    return folds


def choose_fold(
    listing: VolumeSet, subject_of: Mapping[str, str], options: VolumeOptions, fold: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return training and held-out cases of a fold, sorted; ``all`` holds out test cases only.

    Raises UsageFault: no such fold; DataFault: a split that cannot be used, or an empty side;
    IntegrityFault: a subject is on both sides.
    """
    if fold == "all":
        test = {entry.case for entry in listing.entries if entry.part == "test"}
        split = FoldSplit(
            train=[entry.case for entry in listing.entries if entry.case not in test],
            val=sorted(test),
        )
    else:
        folds = folds_of(listing, subject_of, options)
        if fold not in folds:
            raise UsageFault(
                f"--fold {fold!r}: {listing.where} has the folds {', '.join(folds)}; expected one "
                "of them, or 'all'"
            )
        split = folds[fold]
    train, held_out = tuple(sorted(split["train"])), tuple(sorted(split["val"]))
    if not train or not (held_out or fold == "all" or listing.unvalidated):
        raise DataFault(
            f"{listing.where}: fold {fold}: no {'held-out' if train else 'training'} case, "
            "expected at least one; correct the split"
        )
    guard(split_file(listing, options), subject_of, fold, split)
    return train, held_out


def one_fold(
    path: Path, fold: str, subject_of: Mapping[str, str], where: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and held-out cases of one fold of a JSON of splits, sorted.

    Raises UsageFault: no such fold; DataFault: as ``read_folds``; IntegrityFault: a subject on both
    sides.
    """
    folds = read_folds(path, subject_of.keys(), where)
    if fold not in folds:
        raise UsageFault(
            f"--fold {fold!r}: {path} has the folds {', '.join(folds)}; expected one of them, or "
            "'all'"
        )
    guard(path, subject_of, fold, folds[fold])
    return tuple(sorted(folds[fold]["train"])), tuple(sorted(folds[fold]["val"]))


def guard(where: Path, subject_of: Mapping[str, str], fold: str, split: FoldSplit) -> None:
    """Refuse a split with a subject, or a case, on both sides (IntegrityFault)."""
    guard_split(
        [(case, subject_of[case]) for case in split["train"]],
        [(case, subject_of[case]) for case in split["val"]],
        fold=fold,
        repair=f"put all cases of a subject on one side in {where}",
    )


def split_file(listing: VolumeSet, options: VolumeOptions) -> Path:
    """Return the file that defines the folds: a JSON, or the layout's manifest."""
    if options.splits is not None:
        return Path(options.splits)
    parts = {entry.part for entry in listing.entries} - {"", "test"}
    return listing.splits if not parts and listing.splits.is_file() else listing.where
