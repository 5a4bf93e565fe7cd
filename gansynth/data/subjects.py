"""Subjects of cases, and folds with no subject on both sides."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import re2

from gansynth.core.source import FoldSplit
from gansynth.runtime.errors import DataFault, UsageFault


def is_table(text: str) -> bool:
    """Return whether ``--subjects`` is a table; an expression may be longer than a name."""
    return text.lower().endswith(".csv") or os.path.isfile(text)


def read_subjects(text: str, ids: Iterable[str]) -> dict[str, str]:
    """Map cases to subjects, by a CSV or by a regular expression's first group.

    Raises UsageFault: no such expression, or one without a group. Raises DataFault: a case has no
    subject or two, or the CSV lacks a column.
    """
    ids = sorted(ids)
    path = Path(text)
    if is_table(text):
        subjects = read_column(path, "subject", "subject_group")
        where, hint = f"{path}", "add a line for each case"
    else:
        subjects = _from_pattern(text, ids)
        where, hint = f"--subjects {text!r}", "correct the expression, or give a CSV"
    missing = [case for case in ids if not subjects.get(case)]
    if missing:
        raise DataFault(
            f"{where}: {len(missing)} case(s) have no subject, {missing[0]!r} first; expected one "
            f"for each of {len(ids)}; {hint}"
        )
    return {case: subjects[case] for case in ids}


def compile_pattern(text: str) -> Any:
    """Compile a user's or a file's regular expression; RE2 searches in linear time.

    Raises ValueError: it is none, or has what RE2 lacks: lookaround and backreferences.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from error


def _from_pattern(text: str, ids: Sequence[str]) -> dict[str, str]:
    try:
        pattern = compile_pattern(text)
    except ValueError as error:
        raise UsageFault(
            f"--subjects {text!r}: neither a file nor a regular expression ({error}); expected a "
            "CSV with the columns case and subject, or an expression with one group"
        ) from error
    if pattern.groups < 1:
        raise UsageFault(
            f"--subjects {text!r}: the expression has no group, expected the subject in the first, "
            r"for example '(patient\d+)_'. If it is meant to be a file, there is none"
        )
    matches = {case: pattern.search(case) for case in ids}
    return {case: match.group(1) or "" for case, match in matches.items() if match}


def read_column(path: Path, *names: str) -> dict[str, str]:
    """Map cases of a CSV to the first column among ``names``; DataFault: unfit, or twice."""
    first, *others = names
    expected = f"case and {first}" + (f" (or {', '.join(others)})" if others else "")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFault(
            f"{path}: cannot be read: {error}; expected a CSV with the columns {expected}"
        ) from error
    rows = csv.DictReader(io.StringIO(text))
    header = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    column = next((name for name in names if name in header), None)
    if column is None or "case" not in header:
        raise DataFault(f"{path}: header is {header}, expected the columns {expected}")
    values: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        case, value = (row["case"] or "").strip(), (row[column] or "").strip()
        if values.setdefault(case, value) != value:
            raise DataFault(
                f"{path}: line {number}: case {case!r} has {first} {values[case]!r} and {value!r}, "
                "expected one; remove a line"
            )
    return values


def grouped_splits(
    ids: Iterable[str], subject_of: Mapping[str, str], folds: int, seed: int
) -> list[FoldSplit]:
    """K folds of about equal numbers of cases in which no subject is on both sides.

    Subjects are shuffled by the seed, then assigned, those with most cases first, each to the
    smallest fold. Raises UsageFault: fewer than two folds; DataFault: fewer subjects than folds.
    """
    ids = sorted(ids)
    if folds < 2:
        raise UsageFault(f"folds is {folds}, expected at least 2")
    counts = Counter(subject_of[case] for case in ids)
    if len(counts) < folds:
        raise DataFault(
            f"splits: {len(counts)} subject(s) for {folds} folds, expected at least one for each; "
            f"ask for at most {max(2, len(counts))} folds, or add subjects"
        )
    subjects = sorted(counts)
    order = np.random.default_rng(seed).permutation(len(subjects))
    shuffled = sorted((subjects[i] for i in order), key=lambda s: -counts[s])
    loads, fold_of = [0] * folds, {}
    for subject in shuffled:
        fold_of[subject] = loads.index(min(loads))
        loads[fold_of[subject]] += counts[subject]
    return [
        FoldSplit(
            train=[c for c in ids if fold_of[subject_of[c]] != fold],
            val=[c for c in ids if fold_of[subject_of[c]] == fold],
        )
        for fold in range(folds)
    ]
