from dataclasses import replace
from multiprocessing.pool import ThreadPool
from threading import Event
from typing import Any

import numpy as np
import torch

from gansynth.core.generator import Stage
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.testing import ToySource
from tests.expected import raises_fault


class Counting(ToySource):
    """Knows what was read, and how many read at once."""

    def __init__(self) -> None:
        super().__init__(2)
        self.reads: list[str] = []
        self.reading, self.most = 0, 0

    def load(self, case_id: str) -> Case:
        self.reads.append(case_id)
        self.reading += 1
        self.most = max(self.most, self.reading)
        Event().wait(0.001)
        self.reading -= 1
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


def test_a_batch_has_context_of_the_cut_case_and_no_ignored_label():
    batch = batches(context=lambda c: (c.image[0] > 0).astype(np.int16))(0, Stage(), range(2))
    assert torch.equal(batch.context, (batch.image[:, 0] > 0).long())
    assert set(batches(Boxed(3))(0, Stage(), range(8)).labels.unique().tolist()) <= {-1, 0, 1}


def test_boxes_of_a_batch_are_padded_to_its_longest_list():
    source = Boxed(3)
    whole = batches(source, source.space)(0, Stage(), range(12))
    counts = (whole.box_labels >= 0).sum(1)
    assert whole.boxes.shape == (12, max(counts), 6)
    assert len(set(counts.tolist())) > 3
    for coords, numbers, count in zip(whole.boxes, whole.box_labels, counts, strict=True):
        assert numbers.tolist() == [*range(count), *[-1] * (len(numbers) - count)]
        assert (coords[:count, 5] > 0).all()
        assert not coords[count:].any()


def test_a_case_that_is_not_accepted_is_drawn_again():
    source = Boxed(3)
    chosen = batches(source, source.space, accepts=lambda case: len(case.boxes.labels) > 0)
    for step in range(8):
        assert (chosen(step, Stage(), range(2)).box_labels[:, 0] >= 0).all()
    with raises_fault("batches.every-case-refused"):
        batches(accepts=lambda case: False)(0, Stage(), range(1))


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


def test_two_threads_do_not_read_at_once():
    source = Counting()
    with ThreadPool(4) as threads:
        threads.map(CaseCache(source, max_bytes=1), [f"toy_{i:02d}" for i in range(8)], 1)
    assert (len(source.reads), source.most) == (8, 1)
