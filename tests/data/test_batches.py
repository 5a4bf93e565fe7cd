"""Real cases for the loop: keyed by seed and step, cut in the generator's space, cached."""
# mypy: disallow-untyped-calls=False

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Stage
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.runtime.errors import DataFault
from gansynth.testing import ToySource
from tests.data.counting import Counting


def batches(source=None, space=None, **options) -> Any:
    source = source or ToySource(3)
    return CaseBatches(CaseCache(source), space or Space("crop", (8, 8, 8)), **options)


def test_a_batch_is_the_same_for_the_same_step():
    one, two = batches()(5, Stage(), range(3)), batches()(5, Stage(), range(3))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.labels, two.labels)


def test_steps_and_seeds_give_other_batches():
    first = batches()(5, Stage(), range(3)).image
    assert not torch.equal(first, batches()(6, Stage(), range(3)).image)
    assert not torch.equal(first, batches(seed=1)(5, Stage(), range(3)).image)


def test_shapes_and_types():
    batch = batches()(0, Stage(), range(3))
    assert (batch.image.dtype, tuple(batch.image.shape)) == (torch.float32, (3, 2, 8, 8, 8))
    assert (batch.labels.dtype, tuple(batch.labels.shape)) == (torch.int64, (3, 8, 8, 8))
    assert batch.context is None


def test_held_out_cases_are_never_read():
    source = Counting()
    some = batches(source, source.space)
    for step in range(40):
        some(step, Stage(), range(2))
    assert set(source.reads) == set(source.train_ids)


def test_context_is_made_of_the_cut_case():
    def bright(case):
        return (case.image[0] > 0).astype(np.int16)

    batch = batches(context=bright)(0, Stage(), range(2))
    assert torch.equal(batch.context, (batch.image[:, 0] > 0).long())


def test_an_ignored_label_becomes_background():
    class Ignoring(ToySource):
        @property
        def schema(self) -> Schema:
            return replace(super().schema, ignore=2)

    batch = batches(Ignoring(3))(0, Stage(), range(8))
    assert set(batch.labels.unique().tolist()) <= {-1, 0, 1}


# -- the cache -------------------------------------------------------------------------------------


def size(source: ToySource) -> int:
    case = source.load(source.train_ids[0])
    assert case.labels is not None
    return case.image.nbytes + case.labels.nbytes


def test_a_case_is_read_once():
    source = Counting()
    cache = CaseCache(source)
    assert cache("toy_00") is cache("toy_00")
    assert source.reads == ["toy_00"]


def test_the_least_recently_used_case_goes_first():
    source = Counting()
    cache = CaseCache(source, max_bytes=2 * size(source))
    source.reads.clear()
    for name in ("toy_00", "toy_01", "toy_00", "toy_02", "toy_00", "toy_01"):
        cache(name)
    assert source.reads == ["toy_00", "toy_01", "toy_02", "toy_01"]


def test_a_case_larger_than_the_cache_is_served_all_the_same():
    cache = CaseCache(Counting(), max_bytes=1)
    assert [cache(i).id for i in ("toy_00", "toy_01")] == ["toy_00", "toy_01"]


def test_two_threads_do_not_read_at_once():
    class Slow(Counting):
        inside = 0
        most = 0

        def load(self, case_id: str) -> Case:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.01)
            self.inside -= 1
            return super().load(case_id)

    source = Slow()
    cache = CaseCache(source, max_bytes=1)
    threads = [threading.Thread(target=cache, args=(f"toy_{i:02d}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.most == 1


class Boxed(ToySource):
    """Cases of 0, 1, 2, ... boxes, by their order."""

    def load(self, case_id):
        count = self.train_ids.index(case_id)
        coords = np.array([[1, 1, 1, 4, 4, 5 + i] for i in range(count)], np.float32)
        numbers = np.arange(count, dtype=np.int16)
        return replace(super().load(case_id), boxes=Boxes(coords.reshape(-1, 6), numbers))


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


def test_a_source_without_any_case_to_learn_from_is_refused():
    with pytest.raises(DataFault, match="none of them"):
        batches(accepts=lambda case: False)(0, Stage(), range(1))
