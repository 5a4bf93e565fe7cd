"""Lesions of volumes, from boxes of slices."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest

from gansynth.metrics.detection.matching import match, pooled
from gansynth.metrics.detection.volumes import Lesions, linked, places
from tests.metrics.detection.simulated import boxes, document, seen

A, B = (0, 0, 10, 10), (30, 30, 40, 40)
HALF, LESS = (5, 0, 15, 10), (6, 0, 16, 10)
BIG = (0, 0, 40, 40)


def numbers(*lines, labels=None, volume=None, level=None):
    n = len(lines)
    found = linked(
        boxes(*lines),
        np.array(labels or [0] * n),
        np.array(volume or [0] * n),
        np.array(range(n) if level is None else level),
    )
    return found.tolist()


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        ([A, A, A], {}, [0, 0, 0]),
        ([A, HALF], {}, [0, 0]),
        ([A, LESS], {}, [0, 1]),
        ([A, BIG], {}, [0, 0]),
        ([A, B], {}, [0, 1]),
        ([A, A], {"level": [3, 5]}, [0, 1]),
        ([A, A], {"level": [5, 4]}, [0, 0]),
        ([A, A], {"level": [3, 3]}, [0, 1]),
        ([A, A], {"labels": [0, 1]}, [0, 1]),
        ([A, A], {"volume": [0, 1]}, [0, 1]),
        ([A, B, BIG], {"level": [0, 0, 1]}, [0, 0, 0]),
        ([A, A, A], {"level": [-1, 1, 0]}, [0, 0, 0]),
        ([(0, 0, 0, 0), (0, 0, 0, 0)], {}, [0, 1]),
        ([], {}, []),
    ],
)
def test_boxes_of_neighbouring_slices_are_one_if_they_share_half_of_the_smaller(
    lines, options, expected
):
    assert numbers(*lines, **options) == expected


def lesions(*images, confidence=0.5, least=1, iou=0.5):
    detections = document(*images)
    pool = pooled(detections)
    where = places(detections, pool)
    assert not isinstance(where, str)
    return Lesions(pool, where, match(pool, (iou,))[0], confidence, least)


TWO = (
    seen("0", [A, B], [A], [0.9], subject="p", place=("v", 0)),
    seen("1", [A], [A], [0.1], subject="p", place=("v", 1)),
    seen("2", [A], [A, B], [0.8, 0.7], subject="p", place=("v", 2)),
    seen("3", [], [B, A], [0.7, 0.6], subject="p", place=("v", 3)),
    seen("4", [], [], [], subject="q", place=("w", 0)),
)
"""A through three slices, hit in two of them; B in one, missed; at slices 2 and 3 a false B."""


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
    measured = lesions(*TWO, **options)
    assert measured.found.tolist() == found
    assert measured.sensitivity(np.ones((1, 2)))[0] == np.mean(found)


def test_linked_false_positives_count_once_and_all_volumes_count():
    measured = lesions(*TWO)
    # B of slices 2 and 3 is one, A of slice 3 another.
    assert measured.false_positives(np.ones((1, 2)))[0] == 2 / 2
    assert measured.false_positives(np.array([[2.0, 0.0]]))[0] == 4 / 2


def test_lesions_are_dealt_into_thirds_by_area():
    sizes = [(0, 0, s, s) for s in (1, 2, 3, 4, 5, 6)]
    images = [
        seen(f"{n}", [box], [box], [n / 6], subject=f"{n}", place=(f"v{n}", 0))
        for n, box in enumerate(sizes)
    ]
    measured = lesions(*images, confidence=0.4)
    assert measured.size.tolist() == [1, 4, 9, 16, 25, 36]
    assert measured.third.tolist() == [0, 0, 1, 1, 2, 2]
    doc = measured.measure(np.zeros((0, 6)))
    assert [doc["by_size"][k]["sensitivity"]["value"] for k in doc["by_size"]] == [0, 0.5, 1]
    assert doc["by_size"]["large"] | {"sensitivity": 0} == {
        "lesions": 2, "pixels": [25, 36], "sensitivity": 0,
    }  # fmt: skip


def test_without_lesions_nothing_is_found():
    doc = lesions(seen("0", subject="p", place=("v", 0))).measure(np.ones((3, 1)))
    assert (doc["lesions"], doc["by_size"], doc["sensitivity"]["value"]) == (0, {}, None)
    assert doc["fps_per_volume"]["value"] == 0


def test_images_that_do_not_say_where_they_lie_are_said_to():
    found = document(seen("0", place=("v", 0)), seen("1"))
    assert places(found, pooled(found)) == (
        "1 of 2 images do not say of which volume they are a slice"
    )
