# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.body_mask import organ_mask
from gansynth.core.schema import Boxes, Case
from gansynth.data.lesion_contrast import LesionContrast, contrasts, tighten
from gansynth.sampling.quality_gate import reject_reason_of
from tests.spots import boxes_of, picture, spotted

ONE, TWO = (12, 12, 20, 22), (26, 24, 34, 36)


def of(index: int, *rows: Any, **changes: Any) -> Case:
    return spotted(index, *(rows or (ONE, TWO)), **changes)


def contrast(image: Any, boxes: Boxes, body: Any = None) -> Any:
    """How lesions stand out of their rims, in the channel where each does most."""
    found = contrasts(image, boxes, body=body)
    most = np.abs(np.nan_to_num(found)).argmax(axis=1)
    return np.take_along_axis(found, most[:, None], axis=1)[:, 0]


def values(image: Any, *rows: Any) -> list[float]:
    return [round(float(v), 2) for v in contrast(image, boxes_of(*rows))]


@pytest.mark.parametrize("background", [0.0, -3.0, 5.0, None])
def test_a_body_is_found_on_any_even_background(background):
    image = of(0).image[0]
    body = image != 0
    shown = np.where(body, image, background or 0.0)
    if background is None:  # in the middle of intensities
        shown = np.where(body, np.random.default_rng(0).normal(0, 1, body.shape), 0.0)
    found = organ_mask(shown[None].astype(np.float32))
    assert (found & body).sum() / (found | body).sum() > (0.97 if background is not None else 0.9)


def test_contrast_is_one_for_a_lesion_and_about_nothing_elsewhere():
    image = of(0, ONE).image
    found = values(image, ONE, TWO)
    assert found[0] > 0.95
    assert abs(found[1]) < 0.3
    assert values(-image, ONE)[0] < -0.95
    assert found == values(1000 * image - 7, ONE, TWO)  # no scale comes in


def test_a_box_that_leaves_no_rim_has_no_contrast():
    image = of(0).image
    assert np.isnan(contrast(image, boxes_of((0, 0, 48, 48)))).all()
    assert contrast(image, boxes_of()).shape == (0,)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_box_has_a_contrast_between_minus_one_and_one_and_is_shrunk_within_itself(data):
    axes = data.draw(st.integers(2, 3))
    size = data.draw(st.tuples(*[st.integers(3, 14)] * axes))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.normal(size=(data.draw(st.integers(1, 2)), *size)).astype(np.float32)
    rows = []
    for _ in range(data.draw(st.integers(0, 3))):
        ends = [sorted(data.draw(st.tuples(*[st.floats(0, n, width=32)] * 2))) for n in size]
        if all(a < b for a, b in ends):
            rows.append([e[0] for e in ends] + [e[1] for e in ends])
    coords = np.array(rows, np.float32).reshape(-1, 2 * axes)
    boxes = Boxes(coords, np.arange(len(rows), dtype=np.int16))
    found = contrasts(image, boxes)
    assert ((np.abs(found) <= 1) | np.isnan(found)).all()
    tight, shares = tighten(image, boxes)  # Boxes itself refuses empty ones
    assert (tight.coords[:, :axes] >= coords[:, :axes]).all()
    assert (tight.coords[:, axes:] <= coords[:, axes:]).all()
    assert np.array_equal(tight.labels, boxes.labels)
    assert all(0 < share <= 1 for share in shares)


def learnt(count: int = 30, **changes: Any) -> LesionContrast:
    return LesionContrast.fit(
        [of(i, labels=[0, 1], **changes) for i in range(count)], ("core", "node")
    )


def test_a_sample_with_lesions_in_its_boxes_has_no_flaw_one_without_has():
    known, sample = learnt(), of(99, labels=[0, 1])
    assert known.reject_reason(sample.image, sample.boxes) == ""
    bare = of(99, ONE).image
    said = known.reject_reason(bare, sample.boxes)
    assert said.startswith("too little lesion contrast in a box of class node: ")
    assert " in box 2, expected at least " in said
    assert "brighter than its rim" in said


def test_flaws_that_differ_in_numbers_only_are_one_reason():
    known, boxes = learnt(), boxes_of(ONE, TWO, labels=[0, 0])
    said = [known.reject_reason(of(50 + i, rows).image, boxes) for i, rows in enumerate((ONE, TWO))]
    assert said[0] != said[1]
    assert {reject_reason_of(s) for s in said} == {
        "too little lesion contrast in a box of class core"
    }


def test_a_class_that_may_be_either_is_judged_by_its_strength():
    cases = [of(i, ONE) for i in range(30)]
    cases = [replace(c, image=-c.image) if i % 2 else c for i, c in enumerate(cases)]
    known = LesionContrast.fit(cases, ("core",))
    for case in cases[:2]:
        assert known.reject_reason(case.image, case.boxes) == ""
    assert known.reject_reason(cases[0].image, boxes_of(TWO)) != ""


def test_few_training_boxes_judge_nobody_and_nobody_judges_what_has_no_box():
    image = of(99, ONE).image
    assert learnt(19).reject_reason(image, boxes_of(TWO)) == ""
    assert LesionContrast.fit([], ("core",)).reject_reason(image, boxes_of(ONE)) == ""
    assert learnt().reject_reason(image, None) == learnt().reject_reason(image, boxes_of()) == ""


def test_a_class_that_cannot_be_told_from_other_places_judges_nobody():
    rng = np.random.default_rng(0)
    plain = [replace(of(i, ONE), image=picture(None, (48, 48), rng)) for i in range(40)]
    known = LesionContrast.fit(plain, ("core",))
    found = known.classes["core"]
    assert found is not None
    assert not found.judged
    assert known.reject_reason(of(99, ONE).image, boxes_of(TWO)) == ""


def test_lesion_contrast_is_read_back_from_json():
    known = learnt()
    document = json.dumps(known.to_json(), allow_nan=False)
    assert LesionContrast.from_json(json.loads(document)) == known
    assert len(document) < 400


def grown(row: Any, by: float) -> Any:
    return (row[0] - by, row[1] - by, row[2] + by, row[3] + by)


@pytest.mark.parametrize("sign", [1, -1], ids=["brighter", "darker"])
def test_a_loose_box_is_shrunk_to_its_lesion(sign):
    image = sign * of(0).image
    tight, shares = tighten(image, boxes_of(grown(ONE, 3), grown(TWO, 2)))
    assert np.abs(tight.coords - np.array([ONE, TWO])).max() <= 1
    assert max(shares) < 0.75


def test_a_box_that_fits_or_shows_nothing_stays():
    boxes = boxes_of(ONE, (30, 10, 38, 18), (0, 0, 48, 48))
    tight, shares = tighten(of(0, ONE).image, boxes)
    assert np.abs(tight.coords[0] - ONE).max() <= 1
    assert np.array_equal(tight.coords[1:], boxes.coords[1:])
    assert shares[1:] == [1, 1]
