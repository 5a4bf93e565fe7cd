"""Cases at hand: one reading for hash and training, the same places, bounded memory."""
# mypy: disallow-untyped-calls=False

import pickle

import numpy as np
import pytest

from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Case
from gansynth.core.space import Space
from gansynth.data.cache import CaseCache
from gansynth.testing import ToySource
from tests.data.counting import Counting


def test_the_lineage_is_the_source_s():
    source = Counting()
    assert CaseCache(source).lineage() == source.lineage()


def test_what_was_read_for_the_lineage_is_not_read_again():
    source = Counting()
    cache = CaseCache(source)
    cache.lineage()
    for case in source.train_ids:
        cache(case)
    assert sorted(source.reads) == sorted(source.train_ids)


def test_records_a_source_keeps_itself_are_believed():
    class Noted(Counting):
        def record(self, case_id, load=None):
            return CaseRecord(case_id, case_id, "noted")

    source = Noted()
    assert {record.sha256 for record in CaseCache(source).lineage().cases} == {"noted"}
    assert source.reads == []


@pytest.mark.parametrize("space", [Space("crop", (8, 8)), Space("native"), Space("crop", (40, 8))])
def test_places_are_those_that_the_space_draws(space):
    source = ToySource(2)
    cache = CaseCache(source)
    for seed in range(20):
        drawn = cache.place("toy_03", space, np.random.default_rng(seed))
        expected = space.place(source.load("toy_03"), np.random.default_rng(seed))
        assert drawn.placement == drawn.origin == expected
        assert drawn.shape == (32, 32)


def test_a_place_in_a_case_without_foreground_falls_anywhere():
    class Empty(ToySource):
        def load(self, case_id: str) -> Case:
            case = super().load(case_id)
            return Case(case.id, case.subject, case.image, np.zeros((32, 32), np.int16))

    source, space = Empty(2), Space("crop", (8, 8))
    drawn = CaseCache(source).place("toy_00", space, np.random.default_rng(1))
    assert drawn.origin == space.place(source.load("toy_00"), np.random.default_rng(1))


def test_memory_is_bounded():
    source = Counting()
    size = source.load("toy_00").image.nbytes + 2 * 32 * 32
    cache = CaseCache(source, max_bytes=3 * size)
    source.reads.clear()
    for case in ("toy_00", "toy_01", "toy_02", "toy_00", "toy_03", "toy_00", "toy_01"):
        cache(case)
    assert source.reads == ["toy_00", "toy_01", "toy_02", "toy_03", "toy_01"]


def test_cases_that_are_read_again_and_again_are_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr("gansynth.data.cache.READ_AGAIN", 3)
    source = Counting()
    roomy, cramped = CaseCache(source), CaseCache(source, max_bytes=1)
    for cache, warnings in ((roomy, 0), (cramped, 1)):
        for _ in range(9):
            for case in ("toy_00", "toy_01"):
                cache(case)
        assert len(caplog.records) == warnings
    assert "gansynth cache toy:2 -o FILE.h5" in caplog.text


def test_a_cache_that_is_sent_elsewhere_leaves_its_cases():
    cache = CaseCache(Counting())
    cache("toy_00")
    sent = pickle.loads(pickle.dumps(cache))
    assert sent.source.reads == ["toy_00"]
    sent("toy_00")
    assert sent.source.reads == ["toy_00", "toy_00"]
