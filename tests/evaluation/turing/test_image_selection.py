from collections import Counter
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Schema
from gansynth.core.source import CaseHeader, CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth_evaluate.turing.image_selection import TuringOptions, choose
from tests.expected import raises_fault

SEQUENCES = ("T1", "T1c", "T2", "FLAIR")


class People(CaseSource):
    """Slices of people, ``{who: how many}``; nobody loads any."""

    name = "people:here"
    train_ids: tuple[str, ...] = ()
    held_out_ids: tuple[str, ...] = ()

    def __init__(self, train, held_out, concat=False):
        self.request = SourceRequest("people", "here")
        self.train_ids, self.held_out_ids = (
            tuple(
                f"{who}/axi{number:03d}{name}"
                for who, count in side.items()
                for number in range(count)
                for name in ([f"/{s}" for s in SEQUENCES] if concat else [""])
            )
            for side in (train, held_out)
        )
        self.concat = concat

    @property
    def schema(self):
        channels = ("+".join(SEQUENCES),) if self.concat else ("T1",)
        return Schema(channels, {"background": 0}, (1.0, 1.0), "HW", classes=("even", "odd"))

    @property
    def space(self):
        host = {"slices": {"concat": self.concat}}
        return Space("crop", (8, 8), host=host)

    def header(self, case_id):
        number = int(case_id.split("axi")[1][:3]) % 2
        return CaseHeader(case_id.split("/")[0], (8, 8), self.schema.spacing, number)

    def load(self, case_id):
        raise AssertionError("nobody looks at images to choose among them")


def chosen(source: People, seed: int = 0, used: tuple[str, ...] = (), **options: Any) -> Any:
    return choose(source, TuringOptions(**options), np.random.default_rng(seed), used=used)


def cases(source: People, **options: Any) -> list[str]:
    return [one.case for one in chosen(source, **options)[0]]


X = {"x": 9}
MANY = People(X, {"a": 70, "b": 70, "c": 70})


@pytest.mark.parametrize(
    ("held_out", "n", "counts"),
    [({"a": 70, "b": 70, "c": 70}, 50, [16, 17, 17]), ({"a": 2, "b": 70, "c": 70}, 20, [2, 9, 9])],
    ids=["as often", "who has few is made up for"],
)
def test_people_are_shown_as_often_as_can_be(held_out, n, counts):
    found, _ = chosen(People(X, held_out), n=n)
    assert sorted(Counter(one.subject for one in found).values()) == counts


def test_slices_are_spread_over_the_body_none_is_shown_twice_and_the_choice_is_left_to_chance():
    numbers = sorted(int(case[-3:]) for case in cases(People(X, {"a": 70}), n=7))
    assert [number // 10 for number in numbers] == list(range(7))
    assert len(set(cases(MANY, n=200))) == 200
    assert cases(MANY, seed=1, n=50) != cases(MANY, seed=2, n=50)


def test_sequences_come_in_equal_proportion_and_no_slice_in_two():
    """As in Han et al. 2018: 50 real images of T1, T1c, T2 and FLAIR."""
    found, _ = chosen(People(X, {"a": 70, "b": 70}, concat=True), n=50)
    assert sorted(Counter(one.sequence for one in found).values()) == [12, 12, 13, 13]
    assert all(one.case.endswith(f"/{one.sequence}") for one in found)
    found, _ = chosen(People(X, {"a": 30, "b": 30}, concat=True), n=60)
    assert len({one.case.rpartition("/")[0] for one in found}) == 60


@pytest.mark.parametrize(
    ("held_out", "options", "people", "told"),
    [
        (10, {}, {"a"}, "held-out"),
        (9, {}, {"a", "x"}, "all"),
        (30, {"origin": "training"}, {"x"}, "training"),
        (30, {"origin": "all"}, {"a", "x"}, "all"),
        (30, {"real": {"kind": "people", "where": "there"}}, {"a", "x"}, "all"),
    ],
    ids=["enough", "not enough", "training", "all", "another source"],
)
def test_held_out_cases_are_taken_if_there_are_enough_or_what_is_asked(
    held_out, options, people, told
):
    found, origin = chosen(People({"x": 30}, {"a": held_out}), n=10, **options)
    assert ({one.subject for one in found}, origin) == (people, told)


def test_cases_that_samples_were_drawn_of_are_left_out_if_others_are_enough():
    source = People({"x": 20}, {})
    used = source.train_ids[:10]
    assert set(cases(source, used=used, n=10)) == set(source.train_ids[10:])
    assert len(cases(source, used=used, n=11)) == 11


def test_one_class_is_shown_alone():
    assert {int(case[-3:]) % 2 for case in cases(MANY, n=8, classes=("odd",))} == {1}


def test_where_too_few_are_held_out_others_may_be_taken():
    with raises_fault("turing-test.too-few-images", names="--from all"):
        chosen(People(X, {"a": 5}), n=50, origin="held-out")
