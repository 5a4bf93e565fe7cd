from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.source import case_records, lineage_of
from gansynth.data.batches import CaseCache
from gansynth.sampling.evaluation_data import KnownSubjects, check_alike, own_names
from gansynth.testing import ToySource
from tests.evaluation.gatherings import as_samples, compared, gathered, strangers
from tests.expected import raises_fault

SOURCE = ToySource(2)


class Siblings(ToySource):
    """Two neighbours are one person; every third case is of the second class."""

    @property
    def schema(self):
        return replace(super().schema, classes=("cyst", "other"))

    def load(self, case_id):
        number = int(case_id[-2:])
        person, label_class = f"person_{number // 2}", int(number % 3 == 0)
        return replace(super().load(case_id), subject=person, label_class=label_class)


def known_of(source, seen=None):
    return KnownSubjects.of(source, seen or lineage_of(source), CaseCache(source))


def test_members_are_those_of_the_lineage_also_under_another_name_and_relatives_are_neither():
    known, lineage = known_of(SOURCE), lineage_of(SOURCE)
    assert (known.members, known.others) == (SOURCE.train_ids, SOURCE.held_out_ids)
    cases = tuple(replace(c, id=f"x{c.id}") for c in lineage.cases)
    seen = replace(lineage, dataset="elsewhere", cases=cases)
    assert known_of(SOURCE, seen).members == SOURCE.train_ids
    source = Siblings(2)
    known = known_of(source, Lineage(source.name, "0", case_records(source, source.train_ids[:3])))
    assert known.members == ("toy_00", "toy_01", "toy_02")
    assert known.others[0] == "toy_04"


def test_crops_are_dealt_out_person_after_person():
    found = gathered(strangers(), Siblings(2))
    real = found.real(found.known.members, 9, np.random.default_rng(0))
    people = [found.known.people[case.id] for case in real]
    assert sorted(people[:6]) == [f"person_{n}" for n in range(6)]
    assert len(real) == len({case.id for case in real}) == 9


def test_a_sample_is_of_whom_it_was_drawn_of():
    drawn = strangers()
    drawn[1] = replace(drawn[1], provenance={"case": "toy_05"})
    seen = Lineage("toy:2", "0", (CaseRecord("toy_05", "Jane", "0"),))
    assert own_names(drawn, seen)[:3] == ["sample 0", "Jane", "sample 2"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: image[:1], "metrics.image-channels-differ"),
        (lambda image: image[:, :8], "metrics.image-size-differs"),
        (lambda image: image * np.float32("nan"), "metrics.image-not-finite"),
        (lambda image: image * 0 + 7, "metrics.image-constant"),
    ],
    ids=["channels", "size", "nan", "constant"],
)
def test_samples_that_cannot_be_compared_are_named(change, expected):
    drawn = strangers()
    drawn[3] = replace(drawn[3], image=change(drawn[3].image))
    with raises_fault(expected):
        compared(gathered(drawn))
    with raises_fault("sampling.too-few-samples-to-evaluate"):
        compared(gathered(drawn[:3]))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"channels": ("first", "third")}, "sampling.real-source-differs"),
        ({"spacing": (1.0, 2.0)}, "sampling.real-spacing-differs"),
        ({"labels": {"background": 0, "one": 2}}, "sampling.real-label-differs"),
    ],
    ids=["channels", "spacing", "labels"],
)
def test_real_cases_of_another_kind_are_refused(schema, expected):
    with raises_fault(expected):
        check_alike(SOURCE, replace(SOURCE.schema, **schema), "X")


class Dark(ToySource):
    """The left half of every case is empty, and so are most small crops."""

    def load(self, case_id):
        case = super().load(case_id)
        image = case.image.copy()
        image[:, :, :28] = 0
        return replace(case, image=image, labels=None)


def test_empty_places_of_real_cases_are_passed_over():
    source = Dark(2)
    found = gathered(as_samples(map(source.load, source.train_ids)), source)
    found.space = replace(found.space, size=(8, 8))
    real = found.real(found.known.members, 12, np.random.default_rng(0))
    assert found.empty > 0
    assert all(case.image.std() > 0 for case in real)


def test_samples_of_a_class_are_held_against_cases_of_that_class_and_others_against_all():
    source = Siblings(2)
    known = known_of(source)
    others = [replace(s, provenance={"class": "other"}) for s in strangers()]
    found = known.like(others, source)
    assert found.members == ("toy_00", "toy_03", "toy_06", "toy_09")
    assert found.others == ("toy_12", "toy_15")
    assert known.like([strangers()[0], *others[1:]], source) is known
    with raises_fault("sampling.no-real-case-of-classes"):
        known.like([replace(s, provenance={"class": "rare"}) for s in others], source)
