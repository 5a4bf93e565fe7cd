"""One subject for cases that look nearly identical.

Folds that train on one of them and hold the other out are refused. Where names of cases say too
little of whom they show, one would have to find all such pairs by hand.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gansynth.core.fingerprint import Prints, look_alikes, prints_of, same_looks
from gansynth.core.source import CaseSource
from gansynth.data.folds import table_text
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_bytes_atomic

FOLDS = 10
Numbers = npt.NDArray[np.intp]


def write_merged_subjects(
    path: str | os.PathLike[str], source: CaseSource, progress: Callable[[str, int, int], None]
) -> str:
    """Write the subject of each case of a source as a CSV, one for cases that look alike.

    Args:
        progress: is told the step, what of it is done, and its total.

    Returns:
        In words what was merged.
    """
    path = Path(path)
    cases = sorted({*source.train_ids, *source.held_out_ids})
    prints, subjects = list[Prints](), dict[str, str]()
    for done, case_id in enumerate(cases):
        progress("read", done, len(cases))
        decoded = source.decode(case_id)
        prints.append(prints_of(decoded.image, decoded.spacing))
        subjects[case_id] = source.header(case_id).subject
    progress("read", len(cases), len(cases))
    merged = merged_subjects(subjects, prints, source.schema.ndim, progress)
    rows = [(case_id, merged[case_id]) for case_id in cases]
    table = table_text(("case", "subject"), rows).encode()
    if path.exists() and path.read_bytes() != table:
        raise UsageFault(
            "look-alikes.table-exists",
            f"--write-subjects {path}: exists and says otherwise; name another file, or remove it",
        )
    write_bytes_atomic(path, table)
    before, after = len(set(subjects.values())), len(set(merged.values()))
    return (
        f"{path}: {len(cases)} cases, {before} subjects; {after} once those that look alike are one"
    )


def merged_subjects(
    subjects: Mapping[str, str],
    prints: Sequence[Prints],
    ndim: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, str]:
    """Map cases to subjects, of which those with nearly identical cases are one, their first.

    Args:
        subjects: subject of each case.
        prints: of the cases, in the same order.
        ndim: spatial axes of an image.
        progress: is told the step, what of it is done, and its total.
    """
    names = sorted(set(subjects.values()))
    number_of = {name: number for number, name in enumerate(names)}
    owners = np.array([number_of[subject] for subject in subjects.values()])
    pairs = look_alikes(prints, ndim)
    groups = _joined(owners, pairs)
    # Each image was compared with few others, which may all be of one subject. So ask as the guard
    # of a fold does, which holds all of a subject out, until it finds nothing.
    for number in itertools.count(1):
        told = partial(progress, f"compare, round {number}")
        found = _across_folds(groups[owners], prints, ndim, told)
        if not found:
            break
        pairs |= found
        groups = _joined(owners, pairs)
    first_of: dict[int, str] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        first_of.setdefault(group, name)
    return {case: first_of[groups[number_of[subject]]] for case, subject in subjects.items()}


def _joined(owners: Numbers, pairs: Collection[tuple[int, int]]) -> Numbers:
    """Return a group of each owner; those of a pair of cases are in one."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    count = owners.max() + 1
    ends = owners[np.array([*pairs], np.intp).reshape(-1, 2)]
    links = csr_matrix((np.ones(len(ends)), ends.T), (count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.intp)


def _across_folds(
    groups: Numbers, prints: Sequence[Prints], ndim: int, progress: Callable[[int, int], None]
) -> set[tuple[int, int]]:
    """Return pairs of cases that look the same across folds of whole groups (N,)."""
    pairs = set[tuple[int, int]]()
    for fold in range(FOLDS):
        progress(fold, FOLDS)
        held_out = np.flatnonzero(groups % FOLDS == fold).tolist()
        others = np.flatnonzero(groups % FOLDS != fold).tolist()
        found = same_looks([prints[k] for k in others], [prints[k] for k in held_out], ndim)
        pairs |= {(others[row], held_out[index]) for index, row in found.items()}
    progress(FOLDS, FOLDS)
    return pairs
