"""Distances to people by hand: own ones left out, margins, shares and intervals."""

import csv

import numpy as np
import pytest

from gansynth.evaluation.memory import measure_memory, write_copies
from gansynth.metrics.memorisation import People, least_margin, nearer, quantiles, ratio_of_medians
from gansynth.metrics.nearest_search import Query, Search, _margin
from gansynth.testing import ToySource
from tests.evaluation.gatherings import compared, copies, gathered, strangers

SCHEMA = ToySource(2).schema
TABLE = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
OWNERS = ("ann", "ann", "bob", "cid")


def test_a_person_is_as_near_as_the_nearest_case():
    people = People.of(TABLE, OWNERS, [None, None])
    assert list(people.names) == ["ann", "bob", "cid"]
    assert people.distances.tolist() == [[1, 3, 4], [3, 2, 1]]


def test_whom_an_image_is_of_does_not_count():
    people = People.of(TABLE, OWNERS, ["ann", "nobody"])
    assert people.nearest().tolist() == [3, 1]
    assert people.nearest(np.array([0])).tolist() == [np.inf, 3]


def test_a_margin_is_the_nearest_over_the_next_person():
    assert _margin({"ann": [1.0, 2.0], "bob": [4.0, 3.0]}) == pytest.approx(1 / 3)
    assert _margin({"ann": [1.0, 2.0]}) == 0.5
    assert _margin({}) == 1


def test_a_copy_must_be_nearer_than_real_images_are():
    assert least_margin(np.array([0.5, 0.6, 0.7, 0.8])) == pytest.approx(0.515)
    assert least_margin(np.full(20, 0.99)) == 0.9


def near(shift: float, people: int = 8, samples: int = 60):
    """Distances to training people are smaller by ``shift``."""
    rng = np.random.default_rng(0)
    train, others = rng.normal(10, 1, (2, samples, people))
    names = [f"p{n}" for n in range(people)]
    return nearer(People(train - shift, names), People(others, names), rng)


def test_without_memory_half_of_the_samples_are_nearer():
    found = near(0)
    assert found.value == pytest.approx(0.5, abs=0.1)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high
    assert found.p > 0.05
    assert found.people == 8


def test_with_memory_more_are():
    found = near(1.0)
    assert found.value > 0.7
    assert found.p < 0.01


def test_of_three_people_there_is_no_interval():
    found = near(0, people=3)
    assert (found.low, found.high) == (None, None)


def test_of_two_people_p_cannot_be_small():
    """Six ways to deal out four people: the truth is one of them."""
    assert near(2.0, people=2).p >= 0.1


class Alone(ToySource):
    """One person is held out."""

    @property
    def held_out_ids(self):
        return super().held_out_ids[:1]


def test_of_one_held_out_person_nothing_is_said():
    found = gathered(strangers(), Alone(2))
    document, _ = measure_memory(found, compared(found))
    assert document["nearer"] is None
    assert document["membership"] == []


def test_one_near_person_alone_is_no_memory():
    """All samples are alike and lie near one training person: that happens by chance."""
    rng = np.random.default_rng(0)
    distances = np.tile(rng.normal(10, 1, 12), (40, 1))
    distances[:, 0] = 1
    names = [f"p{n}" for n in range(12)]
    found = nearer(People(distances[:, :8], names[:8]), People(distances[:, 8:], names[8:]), rng)
    assert found.p > 0.05


def test_quantiles_leave_out_what_is_not_there():
    assert quantiles(np.array([1.0, 2.0, 3.0, np.inf])) == [1.1, 1.5, 2.0, 2.5, 2.9]
    assert quantiles(np.array([np.inf])) == [None] * 5


def test_a_ratio_of_medians_has_an_interval():
    rng = np.random.default_rng(0)
    owners = [str(n) for n in range(40)]
    found = ratio_of_medians(rng.normal(5, 1, 40), rng.normal(10, 1, 40), owners, owners, rng)
    assert found["value"] == pytest.approx(0.5, abs=0.06)
    low, value, high = (found[key] or 0 for key in ("low", "value", "high"))
    assert 0 < low < value < high < 0.6


def test_a_table_of_distances_is_that_of_a_search():
    source = ToySource(2)
    search = Search(source, source.space, (32, 32), source.load)
    rng = np.random.default_rng(0)
    queries = search.draw(4, rng)
    search.learn_scale([query.image for query in queries])
    scaled = [Query(query.image / search.scale) for query in queries]
    table = search.table(scaled, lambda: None)
    assert table.shape == (4, 12)
    whole = [source.train_ids[row.argmin()] for row in table]
    assert [case for _, case, _ in search.run(scaled, lambda: None)] == whole
    assert table.min(axis=1) == pytest.approx(0, abs=0.05)


def test_near_copies_are_a_file_of_their_own(tmp_path):
    pair = {"sample": 3, "case": 'case, of "Jane"', "ratio": 0.1, "own": False}
    files = write_copies(tmp_path, {"copies": {"pairs": [pair]}}, (), SCHEMA)
    assert list(files) == ["near_copies.csv"]
    with files["near_copies.csv"].open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in pair.items()}]


def test_near_copies_are_shown_beside_their_cases(tmp_path):
    found = gathered(copies())
    document, pairs = measure_memory(found, compared(found))
    assert [caption for caption, _ in pairs][:2] == ["sample 0 | toy_00", "sample 1 | toy_01"]
    sample, real = pairs[0][1]
    assert np.abs(sample.image - real.image).max() < 0.2
    files = write_copies(tmp_path, document, pairs, SCHEMA)
    assert files["near_copies.png"].read_bytes().startswith(b"\x89PNG")


def test_a_list_of_an_earlier_evaluation_does_not_stay(tmp_path):
    for name in ("near_copies.csv", "near_copies.png"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    assert write_copies(tmp_path, {"copies": {"pairs": []}}, (), SCHEMA) == {}
    assert not list(tmp_path.iterdir())
