from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.detection import (
    DetectionMeasures,
    at_equal_fps,
    estimate,
    froc,
    match,
    measure_arms,
    places,
    resamples,
    sensitivity,
)
from gansynth.metrics.detection.measures import verdict
from gansynth.metrics.detection.record import DetectedBoxes
from gansynth.metrics.detection.volumes import LesionVolumes, linked
from gansynth_evaluate.detections import number
from tests.metrics.detection.simulated import (
    ELSEWHERE,
    A,
    B,
    boxes,
    document,
    drawn,
    measured,
    seen,
)

FOUND = drawn(1, 60, per_subject=4)


def compare(held, compared, times=200, confidence=0.5):
    matched = match(held), match(compared)
    weights = resamples(len(matched[0].subjects), times, np.random.default_rng(0))
    return at_equal_fps(*matched, ("real", "both"), 0.5, weights, confidence)


def changed(detections, change):
    """The same with other ``DetectedBoxes`` in each image."""
    images = tuple(replace(s, found=change(s.found)) for s in detections.images)
    return replace(detections, images=images)


def test_arms_at_equal_false_positives_by_hand():
    images = seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.6, 0.1]), seen("y")
    others = seen("x", [A, B], [A, B, ELSEWHERE], [0.4, 0.3, 0.2]), seen("y")
    held, asked = document(*images), document(*others)
    keys = ("fps", "held_sensitivity", "asked_sensitivity")
    found = compare(held, asked)
    assert [found[key] for key in keys] == [0.5, 0.5, 1]
    assert (found["difference"]["value"], found["reached"]) == (0.5, True)
    assert [compare(asked, held)[key] for key in keys] == [0, 0, 0.5]


def test_a_curve_that_ends_before_is_said_to():
    short = changed(FOUND, lambda f: DetectedBoxes(*(v[f.scores > 0.8] for v in vars(f).values())))
    compared = compare(FOUND, short)
    assert (compared["reached"], compared["ended"]) == (False, 1)
    found, once = measured(short)
    assert compared["asked_sensitivity"] == froc(found, 0.5, once).sensitivity[0, -1]
    assert "(both does not make so many: this is the most it finds)" in compared["verdict"]
    assert "no verdict" in compared["verdict"]
    itself = compare(short, short)
    assert (itself["reached"], itself["ended"]) == (True, 0)


@pytest.mark.parametrize(
    ("difference", "units", "reached", "says"),
    [
        ((0.1, 0.01, 0.2), 36, True, "B finds more than A in patients like these 36"),
        ((-0.1, -0.2, -0.01), 36, True, "A finds more than B in patients like these 36"),
        ((0.1, -0.01, 0.2), 36, True, "no difference shown"),
        ((0.1, 0.0, 0.2), 36, True, "no difference shown"),
        ((0.1, 0.05, 0.2), 9, True, "9 patients are too few for a verdict"),
        ((0.1, None, None), 36, True, "without resamples"),
        ((None, None, None), 36, True, "nothing to compare"),
        ((-0.1, -0.2, -0.01), 36, False, "not at equal numbers, so no verdict"),
        ((0.1, 0.01, 0.2), 36, False, "B finds more than A"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(difference, units, reached, says):
    compared = {
        **{"held": "A", "asked": "B", "unit": "patients", "units": units, "reached": reached},
        **{"fps": 1, "held_sensitivity": 0.5, "asked_sensitivity": 0.6},
        "difference": dict(zip(("value", "low", "high"), difference, strict=True)),
    }
    assert says in verdict(compared)


def test_differences_are_of_the_same_patients():
    """Paired: an arm that always finds one lesion more has a difference that hardly varies."""
    rng = np.random.default_rng(0)
    comparison: list[Any] = [[], []]
    for n in range(40):
        hit = [A, B] if rng.random() >= 0.5 else [B]  # nobody finds A in half of them
        for side, score in zip(comparison, (0.1, 0.9), strict=True):
            scores = [0.9, score][-len(hit) :]
            side.append(seen(f"{n}", [A, B], hit, scores, subject=f"{n}"))
    held, asked = (document(*side) for side in comparison)
    assert compare(held, asked)["difference"] == pytest.approx(
        {"value": 0.5, "low": 0.5, "high": 0.5}
    )
    weights = resamples(40, 200, np.random.default_rng(0))
    boxes = match(held)
    alone = np.quantile(sensitivity(boxes, 0.5, weights, 0.5), (0.025, 0.975))
    assert np.ptp(alone) > 0.1


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    weights = resamples(50, 20_000, np.random.default_rng(1))
    found = estimate(lambda w: w @ values / 50, weights)
    middle, half = values.mean(), 1.96 * values.std() / np.sqrt(50)
    assert found["value"] == pytest.approx(middle)
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half), abs=0.01)


def test_slices_of_one_patient_do_not_narrow_the_interval():
    def spread(slices, of):
        images = []
        for p in range(20):
            boxes_, scores = ([A], [0.9]) if p % 2 else ([], [])
            images += [
                seen(f"{p}.{z}", [A], boxes_, scores, subject=of.format(p=p, z=z))
                for z in range(slices)
            ]
        boxes, _ = measured(document(*images))
        weights = resamples(len(boxes.subjects), 1000, np.random.default_rng(0))
        found = estimate(lambda w: sensitivity(boxes, 0.5, w), weights)
        assert found["low"] is not None
        assert found["high"] is not None
        return found["high"] - found["low"]

    ten = spread(10, "{p}")
    assert ten == spread(1, "{p}")
    assert spread(10, "{p}.{z}") < 0.5 * ten


C, HALF, LESS, BIG = (30, 30, 40, 40), (5, 0, 15, 10), (6, 0, 16, 10), (0, 0, 40, 40)


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        ([A, A, A], {}, [0, 0, 0]),
        ([A, HALF], {}, [0, 0]),
        ([A, LESS], {}, [0, 1]),
        ([A, BIG], {}, [0, 0]),
        ([A, C], {}, [0, 1]),
        ([A, A], {"level": [3, 5]}, [0, 1]),
        ([A, A], {"level": [5, 4]}, [0, 0]),
        ([A, A], {"level": [3, 3]}, [0, 1]),
        ([A, A], {"labels": [0, 1]}, [0, 1]),
        ([A, A], {"volume": [0, 1]}, [0, 1]),
        ([A, C, BIG], {"level": [0, 0, 1]}, [0, 0, 0]),
        ([A, A, A], {"level": [-1, 1, 0]}, [0, 0, 0]),
        ([(0, 0, 0, 0), (0, 0, 0, 0)], {}, [0, 1]),
        ([], {}, []),
    ],
)
def test_boxes_of_neighbouring_slices_are_one_if_they_share_half_of_the_smaller(
    lines, options, expected
):
    n = len(lines)
    usual = {"labels": [0] * n, "volume": [0] * n, "level": range(n), **options}
    told = [np.array(usual[key], int) for key in ("labels", "volume", "level")]
    assert linked(boxes(*lines), *told).tolist() == expected


def lesions(*images, confidence=0.5, least=1, iou=0.5):
    found, _ = measured(document(*images), iou)
    where = places(document(*images), found)
    assert not isinstance(where, str)
    return LesionVolumes(found, where, found.hits[iou], confidence, least)


TWO = (
    seen("0", [A, C], [A], [0.9], subject="p", place=("v", 0)),
    seen("1", [A], [A], [0.1], subject="p", place=("v", 1)),
    seen("2", [A], [A, C], [0.8, 0.7], subject="p", place=("v", 2)),
    seen("3", [], [C, A], [0.7, 0.6], subject="p", place=("v", 3)),
    seen("4", [], [], [], subject="q", place=("w", 0)),
)
"""A through three slices, hit in two of them; C in one, missed; at slices 2 and 3 a false C."""


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [True, False]),
        ({"least": 2}, [True, False]),
        ({"least": 3}, [False, False]),
        ({"least": 3, "confidence": 0.1}, [True, False]),
        ({"confidence": 0.85}, [True, False]),
        ({"confidence": 0.85, "least": 2}, [False, False]),
    ],
)
def test_a_lesion_is_found_if_enough_of_its_boxes_are_hit(options, found):
    own = lesions(*TWO, **options)
    assert own.found.tolist() == found
    assert own.sensitivity(np.ones((1, 2)))[0] == np.mean(found)


def test_lesions_are_dealt_into_thirds_by_area():
    images = [
        seen(f"{n}", [(0, 0, s, s)], [(0, 0, s, s)], [n / 6], subject=f"{n}", place=(f"v{n}", 0))
        for n, s in enumerate((1, 2, 3, 4, 5, 6))
    ]
    own = lesions(*images, confidence=0.4)
    assert own.size.tolist() == [1, 4, 9, 16, 25, 36]
    assert own.third.tolist() == [0, 0, 1, 1, 2, 2]
    by_size = own.measure(np.zeros((0, 6)))["by_size"]
    assert [by_size[k].pop("sensitivity")["value"] for k in by_size] == [0, 0.5, 1]
    assert by_size["large"] == {"lesions": 2, "pixels": [25, 36]}


def test_images_that_do_not_say_where_they_lie_are_said_to():
    found = document(seen("0", place=("v", 0)), seen("1"))
    says = "1 of 2 images do not say of which volume they are a slice"
    assert places(found, match(found)) == says


KEPT = {
    "mAP": (0.047750349289, 0.021659722386, 0.100034405661),
    ".5:.95": (0.013011385905, 0.005102007043, 0.030974457826),
    "AUC": (0.693714285714, 0.547305555556, 0.80080124591),
    "sensitivity": (0.294117647059, 0.162753188297, 0.400197368421),
    "FPs per slice": (4.0, 3.06625, 5.034583333333),
    "FROC score": (0.144957983193, 0.08955597743, 0.197964121132),
    "lesions in 3D": (0.3125, 0.166666666667, 0.430769230769),
    "difference": (-0.044117647059, -0.181870428422, 0.080669848585),
}
"""Value and interval of each, by the matching and accumulation that pycocotools replaced."""


def test_numbers_and_intervals_are_those_of_the_matching_before_pycocotools():
    other = changed(FOUND, lambda f: replace(f, scores=1 - f.scores))
    options = DetectionMeasures(resamples=200, confidence=0.3)
    told = measure_arms({"a": FOUND, "b": other}, options)
    (arm, _), at = told["arms"], told["arms"][0]["at"]["0.5"]
    found = [
        arm["map"],
        arm["map_coco"],
        arm["has_lesion"]["auc"],
        at["sensitivity"],
        at["fps_per_slice"],
        at["froc_score"],
        arm["volumes"]["0.5"]["sensitivity"],
        told["equal_fps"][0]["difference"],
    ]
    for numbers, expected in zip(found, KEPT.values(), strict=True):
        assert tuple(numbers.values()) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize(("confidence", "warned"), [(0.3, True), (0.4, False)])
def test_curves_that_end_at_the_working_point_are_said_to(confidence, warned):
    short = replace(FOUND, confidence=0.3)
    asked = DetectionMeasures(confidence=confidence, resamples=0)
    said = measure_arms({"a": short, "b": short}, asked)["warnings"]
    assert any("no arm can be asked" in text for text in said) == bool(said) == warned


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "–"),
        (0.51, "0.510"),
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": 0.5, "low": 0.4, "high": 0.61}, "0.500 [0.400, 0.610]"),
    ],
)
def test_numbers_are_shown_with_their_intervals(found, text):
    assert number(found) == text
