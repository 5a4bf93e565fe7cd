# mypy: disallow-untyped-calls=False

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.generator import Stage
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.runtime.errors import DataFault
from gansynth.testing import ToySource


class Counting(ToySource):
    def __init__(self) -> None:
        super().__init__(2)
        self.reads: list[str] = []

    def load(self, case_id: str) -> Case:
        self.reads.append(case_id)
        return super().load(case_id)


class Boxed(ToySource):
    """Cases of 0, 1, 2, ... boxes, by their order; label 2 is to be ignored."""

    @property
    def schema(self) -> Schema:
        return replace(super().schema, ignore=2)

    def load(self, case_id):
        count = self.train_ids.index(case_id)
        coords = np.array([[1, 1, 1, 4, 4, 5 + i] for i in range(count)], np.float32)
        numbers = np.arange(count, dtype=np.int16)
        return replace(super().load(case_id), boxes=Boxes(coords.reshape(-1, 6), numbers))


def batches(source=None, space=None, **options) -> Any:
    source = source or ToySource(3)
    return CaseBatches(CaseCache(source), space or Space("crop", (8, 8, 8)), **options)


def test_held_out_cases_are_never_read():
    source = Counting()
    some = batches(source, source.space)
    for step in range(40):
        some(step, Stage(), range(2))
    assert set(source.reads) == set(source.train_ids)


def test_an_ignored_label_becomes_background():
    batch = batches(Boxed(3))(0, Stage(), range(8))
    assert set(batch.labels.unique().tolist()) <= {-1, 0, 1}


def test_memory_is_bounded_and_the_least_recently_used_case_goes_first():
    source = Counting()
    size = source.load("toy_00").image.nbytes + 2 * 32 * 32
    for room, asked, reads in (
        (3, (0, 1, 2, 0, 3, 0, 1), [0, 1, 2, 3, 1]),
        (2, (0, 1, 0, 2, 0, 1), [0, 1, 2, 1]),
        (0, (0, 1, 0), [0, 1, 0]),  # larger than the cache, served all the same
    ):
        cache = CaseCache(source, max_bytes=room * size + 1)
        source.reads.clear()
        assert [cache(f"toy_{i:02d}").id for i in asked] == [f"toy_{i:02d}" for i in asked]
        assert source.reads == [f"toy_{i:02d}" for i in reads]


def test_cases_that_are_read_again_and_again_are_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr("gansynth.data.batches.READ_AGAIN", 3)
    source = Counting()
    for cache, warnings in ((CaseCache(source), 0), (CaseCache(source, max_bytes=1), 1)):
        for case in ("toy_00", "toy_01") * 9:
            cache(case)
        assert len(caplog.records) == warnings
    assert "gansynth cache toy:2 -o FILE.h5" in caplog.text


def test_a_case_that_is_not_accepted_is_drawn_again():
    source = Boxed(3)
    chosen = batches(source, source.space, accepts=lambda case: len(case.boxes.labels) > 0)
    for step in range(8):
        assert (chosen(step, Stage(), range(2)).box_labels[:, 0] >= 0).all()
    with pytest.raises(DataFault, match="none of them"):
        batches(accepts=lambda case: False)(0, Stage(), range(1))
