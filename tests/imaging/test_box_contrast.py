import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Boxes
from gansynth.imaging.box_contrast import LesionContrast, contrasts
from tests.spots import boxes_of, picture, spotted

ONE, TWO = (12, 12, 20, 22), (26, 24, 34, 36)
BARE = spotted(99, ONE).image  # with nothing in TWO


def values(image: Any, *rows: Any) -> list[float]:
    """How lesions stand out of their rims, in the channel where each does most."""
    found = contrasts(image, boxes_of(*rows))
    most = np.abs(np.nan_to_num(found)).argmax(axis=1)
    return [round(float(row[m]), 2) for row, m in zip(found, most, strict=True)]


def learnt(count: int) -> LesionContrast:
    cases = [spotted(i, ONE, TWO, labels=[0, 1]) for i in range(count)]
    return LesionContrast.fit(cases, ("core", "node"))


@pytest.fixture(scope="module")
def known() -> LesionContrast:
    return learnt(30)


def test_contrast_is_one_for_a_lesion_and_about_nothing_elsewhere():
    image = spotted(0, ONE).image
    found = values(image, ONE, TWO)
    assert found[0] > 0.95
    assert abs(found[1]) < 0.3
    assert values(-image, ONE)[0] < -0.95
    assert found == values(1000 * image - 7, ONE, TWO)  # no scale comes in
    assert np.isnan(values(image, (0, 0, 48, 48))).all()  # it leaves no rim
    assert values(image) == []


@pytest.mark.parametrize("axes", [2, 3])
def test_any_box_has_a_contrast_between_minus_one_and_one_and_is_shrunk_within_itself(axes):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = rng.integers(3, 15, axes)
        image = rng.normal(size=(2, *size)).astype(np.float32)
        ends = np.sort(rng.random((3, 2, axes)), axis=1) * size
        boxes = Boxes(ends.reshape(3, -1).astype(np.float32), np.arange(3, dtype=np.int16))
        found = contrasts(image, boxes)
        assert ((np.abs(found) <= 1) | np.isnan(found)).all()
        tight, shares = LesionContrast.tighten(image, boxes)  # Boxes itself refuses empty ones
        assert (tight.coords[:, :axes] >= boxes.coords[:, :axes]).all()
        assert (tight.coords[:, axes:] <= boxes.coords[:, axes:]).all()
        assert np.array_equal(tight.labels, boxes.labels)
        assert all(0 < share <= 1 for share in shares)


def test_a_sample_with_lesions_in_its_boxes_has_no_flaw_one_without_has(known):
    known = LesionContrast.from_json(json.loads(json.dumps(known.to_json(), allow_nan=False)))
    sample = spotted(99, ONE, TWO, labels=[0, 1])
    assert known.reject_reason(sample.image, sample.boxes) == ""
    said = known.reject_reason(BARE, sample.boxes)
    assert said.startswith("too little lesion contrast in a box of class node: ")
    assert " in box 2, expected at least " in said
    assert "brighter than its rim" in said


def test_a_class_that_may_be_either_is_judged_by_its_strength():
    cases = [spotted(i, ONE) for i in range(30)]
    cases = [replace(c, image=-c.image) if i % 2 else c for i, c in enumerate(cases)]
    known = LesionContrast.fit(cases, ("core",))
    for case in cases[:2]:
        assert known.reject_reason(case.image, case.boxes) == ""
    assert known.reject_reason(cases[0].image, boxes_of(TWO)) != ""


def test_few_training_boxes_judge_nobody_and_nobody_judges_what_has_no_box(known):
    assert learnt(19).reject_reason(BARE, boxes_of(TWO)) == ""
    assert LesionContrast.fit([], ("core",)).reject_reason(BARE, boxes_of(ONE)) == ""
    assert known.reject_reason(BARE, None) == known.reject_reason(BARE, boxes_of()) == ""


def test_a_class_that_cannot_be_told_from_other_places_judges_nobody():
    rng = np.random.default_rng(0)
    plain = [replace(spotted(i, ONE), image=picture(None, (48, 48), rng)) for i in range(40)]
    known = LesionContrast.fit(plain, ("core",))
    assert known.classes["core"] is not None
    assert known.reject_reason(BARE, boxes_of(TWO)) == ""


@pytest.mark.parametrize("sign", [1, -1], ids=["brighter", "darker"])
def test_a_loose_box_is_shrunk_to_its_lesion(sign):
    image = sign * spotted(0, ONE, TWO).image
    tight, shares = LesionContrast.tighten(image, boxes_of((9, 9, 23, 25), (24, 22, 36, 38)))
    assert np.abs(tight.coords - np.array([ONE, TWO])).max() <= 1
    assert max(shares) < 0.75


def test_a_box_that_fits_or_shows_nothing_stays():
    boxes = boxes_of(ONE, (30, 10, 38, 18), (0, 0, 48, 48))
    tight, shares = LesionContrast.tighten(spotted(0, ONE).image, boxes)
    assert np.abs(tight.coords[0] - ONE).max() <= 1
    assert np.array_equal(tight.coords[1:], boxes.coords[1:])
    assert shares[1:] == [1, 1]
