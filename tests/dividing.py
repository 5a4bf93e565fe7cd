"""What the tests of ``divided`` share: a folder's state, and equal cases."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.core.source import CaseSource, FoldSplit, SourceRequest, case_content, case_record
from gansynth.sampling.run_source import open_source
from tests.conftest import KEPT


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and date of all files below a folder, but of what is kept of cases; links have own."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kept = any(parent.name.startswith(KEPT) for parent in path.parents)
        if not kept and (path.is_file() or path.is_symlink()):
            status = path.lstat()
            found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def assert_same_cases(one: CaseSource, other: CaseSource, ids: tuple[str, ...]) -> None:
    """The cases are there in both, of the same person and with the same arrays."""
    assert ids
    for case_id in ids:
        first, second = one.load(case_id), other.load(case_id)
        assert first.subject == second.subject == other.header(case_id).subject
        for found, wanted in ((second.image, first.image), (second.labels, first.labels)):
            np.testing.assert_array_equal(found, wanted)
        if first.boxes is not None and second.boxes is not None:
            np.testing.assert_array_equal(first.boxes.coords, second.boxes.coords)
        assert case_record(one, case_id) == case_record(other, case_id)
        assert case_content(one, case_id) == case_record(one, case_id).sha256


def divided(
    source: CaseSource, splits: Sequence[FoldSplit], folder: Path, data: Path
) -> SourceRequest:
    """Deal a data set out: folds are as asked, cases, name and data set as before."""
    before = state(data)
    request = source.divided(splits, folder)
    for number, split in enumerate(splits):
        other = open_source(replace(request, fold=str(number)))
        assert other.train_ids == tuple(sorted(split["train"]))
        assert other.held_out_ids == tuple(sorted(split["val"]))
        assert_same_cases(source, other, (*other.train_ids, *other.held_out_ids))
        assert (other.name, other.schema) == (source.name, source.schema)
        assert other.space.host == source.space.host
    assert state(data) == before
    return request
