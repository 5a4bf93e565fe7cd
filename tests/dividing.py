"""What the tests of ``divided`` share: a folder's state, and equal cases."""

from pathlib import Path

import numpy as np

from gansynth.core.source import CaseSource


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
