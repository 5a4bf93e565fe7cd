"""Subjects of cases, and nnU-Net's ``splits_final.json`` grouped by subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gansynth.core.requests.hosts import SplitsRequest
from gansynth.core.source import FoldSplit
from gansynth.data.folds import grouped_splits, read_subjects, table_text
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import (
    disk_errors,
    read_json,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth_nnunet.dataset import NnunetRoot, raw_cases

SPLITS = "splits_final.json"
SUBJECTS = "gansynth_subjects.csv"


def known_subjects(preprocessed: Path, ids: Iterable[str], subjects: str | None) -> dict[str, str]:
    """Return subjects as requested, else as imported, else every case is its own subject."""
    table = preprocessed / SUBJECTS
    if subjects is None and not table.is_file():
        return {case: case for case in ids}
    return read_subjects(subjects or str(table), ids)


def write_splits(
    folder: Path,
    splits: list[FoldSplit],
    subject_of: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Write ``splits_final.json``, and the cases' subjects beside it.

    Args:
        folder: the data set's folder in ``nnUNet_preprocessed``; made if needed.
        overwrite: replace a different split; the old one is kept as ``splits_final.<hash>.json``.
    """
    path = folder / SPLITS
    if path.is_file() and read_json(path, expected=list) != splits:
        if not overwrite:
            raise UsageFault(
                f"{path}: holds another split, expected none or this one; models trained with it "
                "would no longer fit. Overwrite it with: gansynth splits ... --force"
            )
        with disk_errors(path):
            path.rename(folder / f"splits_final.{sha256_file(path)[:8]}.json")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = table_text(("case", "subject"), sorted(subject_of.items()))
    write_bytes_atomic(folder / SUBJECTS, text.encode())
    write_json_atomic(path, splits)


def make_splits(request: SplitsRequest) -> list[FoldSplit]:
    """Implement ``gansynth splits nnunet:ID``: group the data set's cases by subject.

    Raises:
        DataFault: the data set has no cases, or some have no subject.
        UsageFault: the data set is unknown, or has a different split already.
    """
    asked = request.request
    root = NnunetRoot.find(asked.root)
    dataset = root.dataset(asked.where)
    folder = root.preprocessed / dataset
    if (root.raw / dataset).is_dir() or not folder.is_dir():
        ids = list(raw_cases(root.raw / dataset).labels)
    else:  # preprocessed elsewhere; only the preprocessed folder was copied here
        ids = sorted({path.stem for path in folder.glob("*/*.pkl")})
    subject_of = known_subjects(folder, ids, asked.subjects)
    splits = grouped_splits(ids, subject_of, request.folds, request.seed)
    write_splits(folder, splits, subject_of, overwrite=request.force)
    return splits
