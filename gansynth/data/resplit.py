"""Split a data set into other folds: the shared parts of ``CaseSource.divided``.

Nothing is copied. A folder gets the split, a CSV of subjects, and what else a framework reads.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.core.lineage import guard_split
from gansynth.core.source import CaseSource, FoldSplit, SourceRequest
from gansynth.data.read_options import OF_SPLITS
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors, read_json, replace_text, write_json_atomic

FILE = "divided.json"  # record of the data set and the split that a folder holds
SPLITS = "splits.json"
SUBJECTS = "subjects.csv"


@dataclass(frozen=True)
class FoldFiles:
    """An absolute folder that holds a split; cases of each fold are sorted."""

    folder: Path
    splits: tuple[FoldSplit, ...]

    @property
    def file(self) -> Path:
        """The split as JSON, a list of ``{"train": [...], "val": [...]}``."""
        return self.folder / SPLITS

    @property
    def subjects(self) -> Path:
        """CSV with the columns ``case`` and ``subject``."""
        return self.folder / SUBJECTS

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases that any fold names, sorted."""
        return tuple(sorted({case for s in self.splits for case in (*s["train"], *s["val"])}))

    def request(self, request: SourceRequest) -> SourceRequest:
        """Request fold 0 of this split, for kinds of source that have ``--read splits=``."""
        options = {key: text for key, text in request.read.items() if key not in OF_SPLITS}
        read = {**options, "splits": str(self.file)}
        return replace(request, fold="0", read=read, subjects=str(self.subjects))


def write_resplit(
    source: CaseSource, ids: Collection[str], splits: Sequence[FoldSplit], folder: Path
) -> FoldFiles:
    """Check a split, and write it with all subjects to a folder, which is made if missing.

    Raises UsageFault: no fold, unknown cases, an empty side, or a folder that holds another split;
    IntegrityFault: a subject is on both sides; EnvironmentFault: the disk refuses.
    """
    folder, cases = folder.absolute(), set(ids)
    made = tuple(_checked(source, cases, number, split) for number, split in enumerate(splits))
    if not made:
        raise UsageFault(f"{source.name}: split into no fold, expected at least one; add one")
    division = FoldFiles(folder, made)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(source, division)
    write_small(division.file, json_text(made))
    rows = sorted((case, source.header(case).subject) for case in ids)
    write_small(division.subjects, table_text(("case", "subject"), rows))
    return division


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The text of a CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue()


def write_small(file: Path, text: str) -> None:
    """Write a reproducible file: whole or not at all, without flushing it to the disk."""
    with disk_errors(file):
        replace_text(file, text)


def json_text(doc: Any) -> str:
    """Format a JSON document for files."""
    return json.dumps(doc, indent=2, ensure_ascii=False) + "\n"


def _checked(source: CaseSource, ids: Collection[str], number: int, split: FoldSplit) -> FoldSplit:
    train, held_out = sorted(set(split["train"])), sorted(set(split["val"]))
    for side, cases in (("train", train), ("val", held_out)):
        unknown = [case for case in cases if case not in ids]
        if unknown:
            raise UsageFault(
                f"{source.name}: fold {number}: {side} names {len(unknown)} case(s) that it does "
                f"not have, {unknown[0]!r} first; expected among {len(ids)}, for example "
                f"{min(ids)!r}; correct the split"
            )
        if not cases:
            raise UsageFault(
                f"{source.name}: fold {number}: no case under {side}, expected at least one on "
                "either side; correct the split"
            )
    guard_split(
        [(case, source.header(case).subject) for case in train],
        [(case, source.header(case).subject) for case in held_out],
        fold=str(number),
        repair=f"split the cases of {source.name} with all of a subject on one side",
    )
    return FoldSplit(train=train, val=held_out)


def _claim(source: CaseSource, division: FoldFiles) -> None:
    """Record a folder's data set and split before anything else is written there."""
    path = division.folder / FILE
    claim: dict[str, Any] = {
        "name": source.name,
        "request": {k: v for k, v in source.request.to_json().items() if k != "fold"},
        "splits": list(division.splits),
    }
    if path.is_file():
        try:
            written = read_json(path)
        except DataFault as fault:
            raise UsageFault(f"{fault}, or choose another folder") from fault
        differing = next((key for key in claim if written.get(key) != claim[key]), None)
        if differing is not None:
            raise UsageFault(
                f"{path}: {differing} is another than asked for, expected the same split of the "
                "same data set; choose another folder, or remove this one"
            )
    write_json_atomic(path, claim)
