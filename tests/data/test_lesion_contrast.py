"""Lesions in boxes: contrast against the rim, what is too little of it, boxes shrunk to them."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.body_mask import organ_mask
from gansynth.core.schema import Boxes, Case
from gansynth.data.lesion_contrast import LesionContrast, moved_elsewhere, told_apart
from gansynth.data.rims import contrasts, tighten
from gansynth.sampling.admission import reason_of
from tests.conftest import DATA
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


def test_where_nothing_stands_out_all_is_body():
    noise = np.random.default_rng(0).normal(0, 1, (2, 20, 20)).astype(np.float32)
    assert organ_mask(noise).all()
    assert organ_mask(np.zeros((1, 8, 8), np.float32)).all()


def test_contrast_is_one_for_a_lesion_and_about_nothing_elsewhere():
    image = of(0, ONE).image
    found = values(image, ONE, TWO)
    assert found[0] > 0.95
    assert abs(found[1]) < 0.3
    assert values(-image, ONE)[0] < -0.95
    assert found == values(1000 * image - 7, ONE, TWO)  # no scale comes in


def test_each_channel_counts_by_itself_and_the_clearest_one_for_all():
    image = np.concatenate([of(0, TWO).image, of(1, ONE).image])
    found = contrasts(image, boxes_of(ONE))
    assert abs(found[0, 0]) < 0.3
    assert found[0, 1] > 0.95
    assert values(image, ONE)[0] == pytest.approx(found[0, 1], abs=0.01)


def test_a_difference_that_nobody_would_notice_is_none():
    image = np.where(of(0).image != 0, np.float32(0.5), np.float32(0))
    image[:, :, 24:] *= 2  # what else there is in the body
    found = []
    for step in (0.01, 0.2):
        spot = image.copy()
        spot[:, 20:28, 10:18] += step
        found += values(spot, (20, 10, 28, 18))
    assert found == [0, 1]


def test_another_box_in_the_rim_is_no_rim():
    touching = (12, 22, 20, 32)
    alone, both = (
        float(contrast(of(0, ONE, touching).image, boxes_of(*rows))[0])
        for rows in ((ONE,), (ONE, touching))
    )
    assert alone < 0.9 < both


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
    assert known.flaw(sample.image, sample.boxes) == ""
    bare = of(99, ONE).image
    said = known.flaw(bare, sample.boxes)
    assert said.startswith("lesion contrast ")
    assert " in box 2 of class node, expected at least " in said
    assert "brighter than its rim" in said


def test_flaws_that_differ_in_numbers_only_are_one_reason():
    known, boxes = learnt(), boxes_of(ONE, TWO, labels=[0, 0])
    said = [known.flaw(of(50 + i, rows).image, boxes) for i, rows in enumerate((ONE, TWO))]
    assert said[0] != said[1]
    assert {reason_of(s) for s in said} == {"lesion contrast # in box # of class core"}


def test_a_class_that_is_always_brighter_is_flawed_when_darker():
    sample = of(99, ONE)
    dark = np.where(sample.image > 0.75, np.float32(0.1), sample.image)
    assert contrast(dark, boxes_of(ONE))[0] < -0.9
    assert learnt().flaw(dark, boxes_of(ONE)) != ""


def test_a_class_that_may_be_either_is_judged_by_its_strength():
    cases = [of(i, ONE) for i in range(30)]
    cases = [replace(c, image=-c.image) if i % 2 else c for i, c in enumerate(cases)]
    known = LesionContrast.fit(cases, ("core",))
    for case in cases[:2]:
        assert known.flaw(case.image, case.boxes) == ""
    assert known.flaw(cases[0].image, boxes_of(TWO)) != ""


def test_about_one_training_box_in_twenty_lies_below_the_least():
    rng = np.random.default_rng(0)
    cases = []
    for index in range(100):
        faint = picture(boxes_of(ONE), (48, 48), np.random.default_rng(index))
        strength = rng.uniform(0.05, 0.4)  # of a spot of 1 in a body of 0.5
        faint = np.where(faint > 0.75, 0.5 + strength * (faint - 0.5), faint).astype(np.float32)
        noise = rng.normal(0, 0.05, faint.shape) * (faint != 0)
        cases.append(replace(of(index, ONE), image=(faint + noise).astype(np.float32)))
    known = LesionContrast.fit(cases, ("core",))
    assert sum(known.flaw(c.image, c.boxes) != "" for c in cases) == 5


def test_few_training_boxes_judge_nobody_and_nobody_judges_what_has_no_box():
    image = of(99, ONE).image
    assert learnt(19).flaw(image, boxes_of(TWO)) == ""
    assert LesionContrast.fit([], ("core",)).flaw(image, boxes_of(ONE)) == ""
    assert learnt().flaw(image, None) == learnt().flaw(image, boxes_of()) == ""


def test_a_class_that_cannot_be_told_from_other_places_judges_nobody():
    rng = np.random.default_rng(0)
    plain = [replace(of(i, ONE), image=picture(None, (48, 48), rng)) for i in range(40)]
    known = LesionContrast.fit(plain, ("core",))
    found = known.classes["core"]
    assert found is not None
    assert not found.judged
    assert known.flaw(of(99, ONE).image, boxes_of(TWO)) == ""


def test_what_was_learnt_is_numbers_and_is_read_back():
    known = learnt()
    document = json.dumps(known.to_json(), allow_nan=False)
    assert LesionContrast.from_json(json.loads(document)) == known
    assert len(document) < 400


def test_boxes_elsewhere_lie_in_the_body_and_in_none_of_the_boxes():
    case, rng = of(0), np.random.default_rng(0)
    body, boxes = organ_mask(case.image), boxes_of(ONE, TWO)
    for _ in range(10):
        apart = moved_elsewhere(boxes, body, rng)
        assert np.abs(contrast(case.image, apart, body=body)).max() < 0.8
    assert moved_elsewhere(boxes_of((4, 4, 44, 44)), body, rng).coords.shape == (0, 4)


def test_told_apart_counts_pairs():
    assert told_apart(np.array([1.0, 3.0]), np.array([0.0, 2.0])) == 0.75
    assert told_apart(np.array([1.0]), np.array([1.0])) == 0.5


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


def test_a_ring_with_a_dark_middle_is_one_lesion():
    image = of(0, ONE).image
    image[:, 14:18, 15:19] = 0.3
    tight, _ = tighten(image, boxes_of(grown(ONE, 3)))
    assert np.abs(tight.coords - np.array(ONE)).max() <= 1


def test_boxes_of_volumes_are_shrunk_too():
    ball = boxes_of((6, 6, 6, 14, 14, 14))
    image = picture(ball, (20, 20, 20), np.random.default_rng(0))
    loose = boxes_of((4, 4, 4, 16, 16, 16))
    tight, shares = tighten(image, loose)
    assert np.abs(tight.coords - ball.coords).max() <= 1
    assert shares[0] == pytest.approx(
        np.prod(tight.coords[0, 3:] - tight.coords[0, :3]) / 12**3, 1e-3
    )


def tumours(folder: Path, step: int) -> list[Case]:
    from PIL import Image

    cases = []
    for path in sorted((folder / "images").iterdir())[::step]:
        with Image.open(path) as file:
            image = np.asarray(file.convert("L").resize((64, 64), Image.Resampling.BOX))
        scaled = (image[None] / 255).astype(np.float32)
        kind, *rest = (folder / "labels" / f"{path.stem}.txt").read_text().split()
        x, y, w, h = (64 * float(v) for v in rest)
        row = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        boxes = boxes_of(row, labels=[int(kind)])
        cases.append(Case(path.stem, path.stem, scaled, None, boxes))
    return cases


@pytest.mark.data
def test_real_tumours_are_told_from_other_places():
    cases = tumours(DATA / "figshare_brain_tumor_axial_yolo", 3)
    known = LesionContrast.fit(cases, ("pituitary", "meningioma", "glioma"))
    apart = {name: found.told_apart or 0 for name, found in known.classes.items() if found}
    assert apart["pituitary"] > 0.93
    assert apart["meningioma"] > 0.93
    assert apart["glioma"] > 0.75  # dark or bright, and as diffuse as their rims
