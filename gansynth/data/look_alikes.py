"""One subject for cases that look nearly identical.

Folds that train on one of them and hold the other out are refused. Where names of cases say too
little of whom they show, one would have to find all such pairs by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gansynth.core.fingerprint import Prints, look_alikes, prints_of
from gansynth.core.source import CaseSource
from gansynth.data.folds import table_text
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_bytes_atomic


def write_merged_subjects(
    path: str | os.PathLike[str], source: CaseSource, progress: Callable[[int, int], None]
) -> str:
    """Write the subject of each case of a source as a CSV, one for cases that look alike.

    Returns:
        In words what was merged.
    """
    path = Path(path)
    cases = sorted({*source.train_ids, *source.held_out_ids})
    prints, subjects = list[Prints](), dict[str, str]()
    for done, case_id in enumerate(cases):
        progress(done, len(cases))
        decoded = source.decode(case_id)
        prints.append(prints_of(decoded.image, decoded.spacing))
        subjects[case_id] = source.header(case_id).subject
    progress(len(cases), len(cases))
    merged = merged_subjects(subjects, prints, source.schema.ndim)
    rows = [(case_id, merged[case_id]) for case_id in cases]
    table = table_text(("case", "subject"), rows).encode()
    if path.exists() and path.read_bytes() != table:
        raise UsageFault(
            "look-alikes.table-exists",
            f"--write-subjects {path}: exists and says otherwise; name another file, or remove it",
        )
    write_bytes_atomic(path, table)
    before, after = len(set(subjects.values())), len(set(merged.values()))
    return f"{path}: {len(cases)} cases, {before} subjects, {after} without those that look alike"


def merged_subjects(
    subjects: Mapping[str, str], prints: Sequence[Prints], ndim: int
) -> dict[str, str]:
    """Map cases to subjects, of which those with nearly identical cases are one, their first.

    ``prints``: of the cases, in the order of ``subjects``.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    names = sorted(set(subjects.values()))
    number_of = {name: number for number, name in enumerate(names)}
    owners = np.array([number_of[subject] for subject in subjects.values()])
    pairs = np.array([*look_alikes(prints, ndim)], np.intp).reshape(-1, 2)
    ends = owners[pairs[:, 0]], owners[pairs[:, 1]]
    links = csr_matrix((np.ones(len(pairs)), ends), (len(names), len(names)))
    _, groups = connected_components(links, directed=False)
    first_of: dict[int, str] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        first_of.setdefault(group, name)
    return {case: first_of[groups[number_of[subject]]] for case, subject in subjects.items()}
