"""Which real images are shown: people as often, sequences in equal proportion, held out first."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.evaluation.turing.choosing import choose, sequences_of
from gansynth.evaluation.turing.options import TuringOptions
from gansynth.runtime.errors import UsageFault

SEQUENCES = ("T1", "T1c", "T2", "FLAIR")


class People(CaseSource):
    """Slices of people; nobody loads any."""

    def __init__(
        self, train: dict[str, int], held_out: dict[str, int], concat: bool = False
    ) -> None:
        self.request = SourceRequest("people", "here")
        names = SEQUENCES if concat else ("",)
        self._sides = [
            tuple(
                f"{who}/axi{number:03d}" + (f"/{name}" if name else "")
                for who, count in side.items()
                for number in range(count)
                for name in names
            )
            for side in (train, held_out)
        ]
        self.concat = concat
        self.grid: Any = "crop"

    @property
    def name(self) -> str:
        return "people:here"

    @property
    def schema(self) -> Schema:
        channels = ("+".join(SEQUENCES),) if self.concat else ("T1",)
        return Schema(channels, {"background": 0}, (1.0, 1.0), "HW", classes=("even", "odd"))

    @property
    def space(self) -> Space:
        host = {"slices": {"concat": self.concat}}
        return replace(Space("crop", (8, 8), host=host), grid=self.grid)

    @property
    def train_ids(self):
        return self._sides[0]

    @property
    def held_out_ids(self):
        return self._sides[1]

    def subject(self, case_id):
        return case_id.split("/")[0]

    def label_class(self, case_id):
        return int(case_id.split("axi")[1][:3]) % 2

    def load(self, case_id):
        raise AssertionError("nobody looks at images to choose among them")


def chosen(source: CaseSource, seed: int = 0, used: tuple[str, ...] = (), **options: Any) -> Any:
    rng = np.random.default_rng(seed)
    return choose(source, TuringOptions(**options), rng, used=used)


def cases(found: Any) -> list[str]:
    return [one.case for one in found[0]]


MANY = {"a": 70, "b": 70, "c": 70}


def test_everybody_is_shown_as_often():
    found, _ = chosen(People({"x": 9}, MANY), n=50)
    assert sorted(Counter(one.subject for one in found).values()) == [16, 17, 17]


def test_who_has_few_slices_is_made_up_for_by_the_others():
    found, _ = chosen(People({"x": 9}, {"a": 2, "b": 70, "c": 70}), n=20)
    assert sorted(Counter(one.subject for one in found).values()) == [2, 9, 9]


def test_slices_of_a_person_are_spread_over_the_body():
    found = cases(chosen(People({"x": 9}, {"a": 70}), n=7))
    numbers = sorted(int(case[-3:]) for case in found)
    assert [number // 10 for number in numbers] == list(range(7))


def test_no_case_is_shown_twice():
    found = cases(chosen(People({"x": 9}, MANY), n=200))
    assert len(set(found)) == 200


def test_the_choice_is_left_to_chance():
    source = People({"x": 9}, MANY)
    assert cases(chosen(source, seed=1, n=50)) != cases(chosen(source, seed=2, n=50))


# -- sequences -------------------------------------------------------------------------------------


def test_sequences_come_in_equal_proportion():
    """As in Han et al. 2018: 50 real images of T1, T1c, T2 and FLAIR."""
    found, _ = chosen(People({"x": 9}, MANY, concat=True), n=50)
    assert sorted(Counter(one.sequence for one in found).values()) == [12, 12, 13, 13]
    assert all(one.case.endswith(f"/{one.sequence}") for one in found)


def test_no_slice_is_shown_in_two_sequences():
    found, _ = chosen(People({"x": 9}, {"a": 30, "b": 30}, concat=True), n=60)
    assert len({one.case.rpartition("/")[0] for one in found}) == 60
    assert Counter(one.sequence for one in found) == dict.fromkeys(SEQUENCES, 15)


def test_channels_of_one_case_are_no_sequences():
    assert sequences_of(People(MANY, {})) == ()
    assert {one.sequence for one in chosen(People({"x": 9}, MANY), n=5)[0]} == {None}


# -- which side of the fold ------------------------------------------------------------------------


@pytest.mark.parametrize(("held_out", "origin"), [(10, "held-out"), (9, "all")])
def test_held_out_cases_are_taken_if_there_are_enough(held_out, origin):
    assert chosen(People({"x": 30}, {"a": held_out}), n=10)[1] == origin


@pytest.mark.parametrize(
    ("origin", "people"), [("training", {"x"}), ("held-out", {"a"}), ("all", {"a", "x"})]
)
def test_a_side_can_be_asked_for(origin, people):
    found, told = chosen(People({"x": 30}, {"a": 30}), n=10, origin=origin)
    assert ({one.subject for one in found}, told) == (people, origin)


def test_of_another_source_all_cases_count():
    source = People({"x": 30}, {"a": 30})
    assert chosen(source, n=10, real={"kind": "people", "where": "there"})[1] == "all"


def test_cases_that_samples_were_drawn_of_are_left_out_if_others_are_enough():
    source = People({"x": 20}, {})
    used = source.train_ids[:10]
    assert set(cases(chosen(source, used=used, n=10))) == set(source.train_ids[10:])
    assert len(cases(chosen(source, used=used, n=11))) == 11


# -- classes ---------------------------------------------------------------------------------------


def test_each_class_has_as_many_images():
    found, _ = chosen(People({"x": 9}, MANY), n=8, per_class=True)
    assert Counter(one.label_class for one in found) == {"even": 8, "odd": 8}
    assert all(int(one.case[-3:]) % 2 == (one.label_class == "odd") for one in found)


def test_one_class_alone():
    found = cases(chosen(People({"x": 9}, MANY), n=8, classes=("odd",)))
    assert {int(case[-3:]) % 2 for case in found} == {1}


def test_an_unknown_class_is_refused():
    with pytest.raises(UsageFault, match=r"--class: class 'od' is unknown.*Did you mean 'odd'"):
        chosen(People({"x": 9}, MANY), classes=("od",))


# -- too few ---------------------------------------------------------------------------------------


def test_fewer_cases_than_images_are_refused_with_ways_out():
    with pytest.raises(UsageFault) as caught:
        chosen(People({"x": 9}, {"a": 5}), n=50)
    text = str(caught.value)
    assert "-n 50: people:here has 14 image(s) to show, expected at least 50" in text
    assert "say -n 14, or cut several images from a case with --per-case 4" in text


def test_one_side_that_has_too_few_names_the_other():
    with pytest.raises(UsageFault, match=r"has 5 held-out image.*--from all"):
        chosen(People({"x": 90}, {"a": 5}), n=50, origin="held-out")


def test_several_images_of_a_case_are_taken_evenly():
    found = cases(chosen(People({"x": 9}, {"a": 5}), n=12, per_case=3, origin="held-out"))
    assert sorted(Counter(found).values()) == [2, 2, 2, 3, 3]


def test_a_case_that_is_shown_whole_is_shown_once():
    source = People({"x": 9}, {"a": 5})
    source.grid = "native"
    with pytest.raises(UsageFault, match=r"say -n 14$"):
        chosen(source, n=15, per_case=3)
