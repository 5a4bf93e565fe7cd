from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.detection import (
    DetectionMeasures,
    at_equal_fps,
    froc,
    match,
    measure_arms,
    places,
    resamples,
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
    compared = compare(FOUND, short, times=20)
    assert (compared["reached"], compared["ended"]) == (False, 1)
    found, once = measured(short)
    assert compared["asked_sensitivity"] == froc(found, 0.5, once).sensitivity[0, -1]
    assert "(both does not make so many: this is the most it finds)" in compared["verdict"]
    assert "no verdict" in compared["verdict"]
    itself = compare(short, short, times=20)
    assert (itself["reached"], itself["ended"]) == (True, 0)


@pytest.mark.parametrize(
    ("difference", "units", "reached", "says"),
    [
        ((0.1, 0.01, 0.2), 36, True, "B finds more than A in patients like these 36"),
        ((-0.1, -0.2, -0.01), 36, True, "A finds more than B in patients like these 36"),
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


C, HALF, LESS, BIG = (30, 30, 40, 40), (5, 0, 15, 10), (6, 0, 16, 10), (0, 0, 40, 40)


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        ([A, HALF], {}, [0, 0]),
        ([A, LESS], {}, [0, 1]),
        ([A, BIG], {}, [0, 0]),
        ([A, A], {"level": [3, 5]}, [0, 1]),
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


def lesions(*images, confidence=0.5, least=1):
    found, _ = measured(document(*images))
    where: Any = places(document(*images), found)
    return LesionVolumes(found, where, found.hits[0.5], confidence, least)


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
        ({"least": 2}, [True, False]),
        ({"least": 3}, [False, False]),
        ({"least": 3, "confidence": 0.1}, [True, False]),
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
    """Intervals are of patients, who have four slices each; differences are of the same ones."""
    other = changed(FOUND, lambda f: replace(f, scores=1 - f.scores))
    options = DetectionMeasures(resamples=200, confidence=0.3)
    told = measure_arms({"a": FOUND, "b": other}, options)
    (arm, _), at = told["arms"], told["arms"][0]["at"]["0.5"]
    found = {
        **{"mAP": arm["map"], ".5:.95": arm["map_coco"], "AUC": arm["has_lesion"]["auc"]},
        **{"sensitivity": at["sensitivity"], "FPs per slice": at["fps_per_slice"]},
        **{"FROC score": at["froc_score"], "difference": told["equal_fps"][0]["difference"]},
        "lesions in 3D": arm["volumes"]["0.5"]["sensitivity"],
    }
    for name, expected in KEPT.items():
        assert tuple(found[name].values()) == pytest.approx(expected, rel=0, abs=1e-9), name


@pytest.mark.parametrize(("confidence", "warned"), [(0.3, True), (0.4, False)])
def test_curves_that_end_at_the_working_point_are_said_to(confidence, warned):
    short = replace(FOUND, images=FOUND.images[:8], confidence=0.3)
    asked = DetectionMeasures(confidence=confidence, resamples=0)
    said = measure_arms({"a": short, "b": short}, asked)["warnings"]
    assert any("no arm can be asked" in text for text in said) == bool(said) == warned


def test_numbers_are_shown_with_their_intervals():
    parts = [(None, None, None), (0.5, None, None), (0.5, 0.4, 0.61)]
    shown = [number(dict(zip(("value", "low", "high"), part, strict=True))) for part in parts]
    assert shown == ["–", "0.500", "0.500 [0.400, 0.610]"]
    assert (number(None), number(0.51)) == ("–", "0.510")
