"""Volumes in memory with one lesion each, and hosts that miss some of them."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.runtime.progress import NullReporter
from gansynth_evaluate.hard_cases.job import find_failures
from gansynth_evaluate.requests import FailureOptions
from tests.offered import offered

SIDE = 24
SPACING = (2.0, 1.0, 1.0)
SCHEMA = Schema(("T1",), {"background": 0, "one": 1, "two": 2}, SPACING, has_outside=True)
ALARM = range(2, 10)  # slices
Misses = Callable[[Case], bool]


class Blobs(CaseSource):
    """``blobs:NAME``: 40 volumes of 20 people, the last eight held out: opening those fails.

    Each has a body and in it one lesion: of 6 to 12 mm across, of class 1 or 2, anywhere.

    Attributes:
        misses: the host of ``predicted``: which cases' lesions it does not mark.
        fires: in which cases it marks something of the other class, in the slices ``ALARM``.
    """

    def __init__(self, request: SourceRequest | None = None, space: Space | None = None):
        self.request = request or SourceRequest("blobs", "a")
        self._space = space or Space("crop", (SIDE // 2, SIDE, SIDE), pad_label=0)
        self.misses: Misses = lambda case: False
        self.fires: Misses = lambda case: False
        self.opened: set[str] = set()

    name = property(lambda self: f"blobs:{self.request.where}")
    schema = property(lambda self: SCHEMA)
    space = property(lambda self: self._space)
    train_ids = property(lambda self: tuple(f"case_{i:02d}" for i in range(32)))
    held_out_ids = property(lambda self: tuple(f"case_{i:02d}" for i in range(32, 40)))

    def header(self, case_id):
        subject = f"person_{int(case_id[-2:]) // 2}"
        return CaseHeader(subject, (SIDE // 2, SIDE, SIDE), SPACING)

    def load(self, case_id):
        assert case_id in self.train_ids, f"{case_id} is held out"
        self.opened.add(case_id)
        number = int(case_id[-2:])
        rng = np.random.default_rng(number)
        at = np.moveaxis(np.indices((SIDE // 2, SIDE, SIDE)), 0, -1) * np.array(SPACING)
        middle = np.array([SIDE - 1.0, SIDE - 1.0, SIDE - 1.0]) / 2
        labels = np.where(((at - middle) ** 2).sum(-1) <= 11.5**2, 0, OUTSIDE).astype(np.int16)
        centre = middle + rng.uniform(-4.5, 4.5, 3)
        labels[((at - centre) ** 2).sum(-1) <= rng.uniform(3, 6) ** 2] = 1 + number % 2
        image = 3.0 * np.maximum(labels, 0) + rng.normal(0, 0.3, labels.shape)
        image[labels == OUTSIDE] = 0
        return Case(case_id, self.header(case_id).subject, image[None].astype(np.float32), labels)

    def files(self, case_id: str) -> StoredCase:
        return StoredCase(to_load=lambda file: self._predicted(case_id))

    def _predicted(self, case_id: str) -> LabelArray:
        case: Any = self.load(case_id)
        labels = np.zeros_like(case.labels) if self.misses(case) else case.labels
        if self.fires(case):
            place = labels[ALARM.start : ALARM.stop, 9:15, 9:15]
            place[place == 0] = 3 - labels.max()
        return np.asarray(labels, np.int16)


def volume_of(labels: LabelArray) -> float:
    """Foreground in mm^3."""
    return float((labels > 0).sum() * np.prod(SPACING))


def centre_of(labels: LabelArray) -> float:
    """Middle of the foreground along the first axis."""
    return float(np.nonzero(labels > 0)[0].mean())


def failures_of(misses: Misses, folder: Path, fires: Misses | None = None, **options) -> Path:
    """The file of failures of a host that misses some lesions, and fires in some cases."""
    source = Blobs()
    source.misses, source.fires = misses, fires or source.fires
    predictions = folder / "predictions"
    predictions.mkdir()
    for case in source.train_ids:
        (predictions / f"{case}.nii.gz").touch()
    find_failures(
        source,
        folder / "failures.json",
        FailureOptions(**options),
        predictions=[predictions],
        reporter=NullReporter(),
    )
    assert source.opened == set(source.train_ids)
    return folder / "failures.json"


def blobs() -> AbstractContextManager[None]:
    """Offers ``blobs:``."""
    return offered("blobs", sources={"blobs": Blobs})
