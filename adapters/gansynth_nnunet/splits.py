"""Which person a case belongs to, and nnU-Net's ``splits_final.json`` grouped by person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gansynth.core.source import SourceRequest, Split
from gansynth.data.divided import table_text
from gansynth.data.subjects import grouped_splits, read_subjects
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import (
    disk_errors,
    read_json,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.raw_files import raw_cases

__all__ = [
    "SPLITS",
    "SUBJECTS",
    "Split",
    "grouped_splits",
    "known_subjects",
    "make_splits",
    "read_subjects",
    "write_splits",
    "write_subjects",
]

SPLITS = "splits_final.json"
SUBJECTS = "gansynth_subjects.csv"


def known_subjects(preprocessed: Path, ids: Iterable[str], asked: str | None) -> dict[str, str]:
    """Subjects as asked for, else as an import left them, else every case for itself.

    Args:
        preprocessed: the data set's folder in ``nnUNet_preprocessed``.
        asked: the value of ``--subjects``, or None.
    """
    ids = list(ids)
    if asked is not None:
        return read_subjects(asked, ids)
    kept = preprocessed / SUBJECTS
    return read_subjects(str(kept), ids) if kept.is_file() else {case: case for case in ids}


# -- splits --------------------------------------------------------------------------------------


def write_splits(
    folder: Path,
    ids: Iterable[str],
    subject_of: Mapping[str, str],
    folds: int = 5,
    seed: int = 0,
    *,
    overwrite: bool = False,
) -> list[Split]:
    """Write ``splits_final.json`` grouped by subject, and who is who beside it.

    Args:
        folder: the data set's folder in ``nnUNet_preprocessed``; made if it is not there.
        subject_of: case -> subject.
        overwrite: replace a different split; the old one is kept as ``splits_final.<hash>.json``.

    Raises:
        UsageFault: a different split is there, and ``overwrite`` is not set.
    """
    ids = sorted(ids)
    splits = grouped_splits(ids, subject_of, folds, seed)
    path = folder / SPLITS
    if path.is_file() and read_json(path, expected=list) != splits:
        if not overwrite:
            raise UsageFault(
                f"{path}: holds another split, expected none or this one; models trained with it "
                "would no longer fit. Overwrite it with: gansynth splits ... --overwrite"
            )
        with disk_errors(path):
            path.rename(folder / f"splits_final.{sha256_file(path)[:8]}.json")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_subjects(folder, {case: subject_of[case] for case in ids})
    write_json_atomic(path, splits)
    return splits


def write_subjects(folder: Path, subject_of: Mapping[str, str]) -> None:
    """Write ``gansynth_subjects.csv``, which every later command reads unless told otherwise."""
    text = table_text(("case", "subject"), sorted(subject_of.items()))
    write_bytes_atomic(folder / SUBJECTS, text.encode())


def make_splits(
    request: SourceRequest, *, folds: int = 5, seed: int = 0, overwrite: bool = False
) -> list[Split]:
    """What ``gansynth splits nnunet:ID`` does: group the data set's cases by subject.

    Raises:
        DataFault: the data set has no cases, or some have no subject.
        UsageFault: the data set is unknown, or has a different split already.
    """
    root = NnunetRoot.find(request.root)
    dataset = root.dataset(request.where)
    folder = root.preprocessed / dataset
    if (root.raw / dataset).is_dir() or not folder.is_dir():
        ids = list(raw_cases(root.raw / dataset).labels)
    else:  # preprocessed elsewhere, and only that was brought along
        ids = sorted({path.stem for path in folder.glob("*/*.pkl")})
    subject_of = known_subjects(folder, ids, request.subjects)
    return write_splits(folder, ids, subject_of, folds, seed, overwrite=overwrite)
