"""What the tests of ``divided`` share: a folder's state, and equal cases."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.core.source import CaseSource, FoldSplit, SourceRequest
from gansynth.sampling.run_source import open_source


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and date of everything below a folder; of links, their own."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def assert_same_cases(one: CaseSource, other: CaseSource, ids: tuple[str, ...]) -> None:
    """The cases are there in both, of the same person and with the same arrays."""
    assert ids
    for case_id in ids:
        first, second = one.load(case_id), other.load(case_id)
        assert first.subject == second.subject == other.subject(case_id)
        np.testing.assert_array_equal(first.image, second.image)
        assert (first.labels is None) == (second.labels is None)
        if first.labels is not None and second.labels is not None:
            np.testing.assert_array_equal(first.labels, second.labels)
        if first.boxes is not None and second.boxes is not None:
            np.testing.assert_array_equal(first.boxes.coords, second.boxes.coords)
        assert one.record(case_id) == other.record(case_id)
        assert one.content(case_id) == one.record(case_id).sha256


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
        assert (other.name, other.host, other.schema) == (source.name, source.host, source.schema)
    assert state(data) == before
    return request
