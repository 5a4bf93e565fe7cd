import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gansynth.metrics.detection import (
    MISS,
    average_precision,
    coco_document,
    false_positives,
    froc,
    match,
    sensitivity,
)
from gansynth.metrics.detection.matching import COCO_IOUS
from gansynth.metrics.detection.measures import RATES
from tests.metrics.detection.simulated import ELSEWHERE, A, B, document, drawn, measured, seen

WRONG = seen("x", [A, B], [A, B], [0.9, 0.8], classes=([0, 1], [1, 1]))


OF_OTHER_IMAGES = [seen("x", [A], [B], [0.5]), seen("y", [B], [A], [0.5]), seen("z", [A], [A], [1])]


@pytest.mark.parametrize(
    ("images", "by_class", "expected"),
    [
        (OF_OTHER_IMAGES, True, [MISS, MISS, 2]),
        ([WRONG], True, [MISS, 1]),
        ([WRONG], False, [0, 1]),
    ],
    ids=["same image only", "wrong class", "any class"],
)
def test_which_lesion_is_hit(images, by_class, expected):
    found = match(document(*images, names=("a", "b")), (0.5,), by_class=by_class)
    assert found.hits[0.5].tolist() == expected


def test_where_the_patient_is_unknown_the_volume_is_one_or_else_the_image():
    places = {"b": ("p", 0), "c": ("p", 1), "d": ("p", 2)}
    images = [seen(n, subject="p" if n in "ab" else None, place=places.get(n)) for n in "pabcd"]
    assert match(document(*images)).subject.tolist() == [0, 1, 1, 2, 2]


HAND = document(
    seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7]),
    seen("y", found=[A, B], scores=[0.75, 0.1]),
    seen("z"),
    seen("w"),
)
"""Falling: hit, false, false, hit, false; 2 lesions in 4 slices."""


@pytest.mark.parametrize(
    ("confidence", "found", "fps"), [(0.1, 1, 3), (0.11, 1, 2), (0.75, 0.5, 2), (0.91, 0, 0)]
)
def test_the_working_point_by_hand_counts_slices_without_lesions(confidence, found, fps):
    boxes, once = measured(HAND)
    assert sensitivity(boxes, 0.5, once, confidence)[0] == found
    assert false_positives(boxes, 0.5, once, confidence)[0] == fps / 4


def test_the_curve_by_hand():
    found, once = measured(HAND)
    curve = froc(found, 0.5, once)
    expected = {0: 0.5, 0.2: 0.5, 0.499: 0.5, 0.5: 1, 0.6: 1, 0.75: 1, 9: 1}
    np.testing.assert_allclose(curve.at(list(expected))[0], list(expected.values()))
    assert curve.end == [0.75]
    assert curve.at(RATES)[0].mean() == pytest.approx((0.5 * 2 + 1 * 5) / 7)
    # Equal scores are one point: nobody knows which of them is first.
    tied, once = measured(document(seen("x", [A], [A, ELSEWHERE], [0.5, 0.5])))
    assert froc(tied, 0.5, once).at([0, 0.5, 1])[0].tolist() == [0, 0.5, 1]


def test_classes_are_counted_apart():
    found, once = measured(document(WRONG, names=("a", "b")))
    assert [sensitivity(found, 0.5, once, label=label)[0] for label in (0, 1)] == [0, 1]
    assert [false_positives(found, 0.5, once, label=label)[0] for label in (0, 1)] == [0, 1]


def theirs(detections):
    """COCO's precisions, (Q, K), nan for a class without truth."""
    truth = coco_document(detections)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(truth["detections"]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan)


DRAWN = {
    "plain": drawn(8, images=30, most=30, classes=3),
    "classes nobody has": drawn(2, classes=9),
    "ties of scores": drawn(3, ties=3),
    "all scores equal": drawn(6, ties=1, images=30),
    "more than counts": drawn(7, most=150, classes=1),
}


@pytest.mark.parametrize("name", DRAWN)
def test_coco_precisions_are_those_of_coco(name):
    found, once = measured(DRAWN[name])
    ours = [average_precision(found, iou, once, coco=True)[0] for iou in COCO_IOUS]
    np.testing.assert_allclose(ours, theirs(DRAWN[name]), rtol=0, atol=1e-12)


def test_precision_by_hand_where_it_is_not_cocos():
    image = seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7])
    other = seen("y", found=[A], scores=[0.1])
    found, once = measured(document(image, other, names=("lesion", "unseen")))
    areas = average_precision(found, 0.5, once, coco=False)[0]
    np.testing.assert_allclose(areas, [0.5 * 1 + 0.5 * 2 / 3, np.nan])
