import contextlib
import importlib
import io

import numpy as np
import pytest

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
from gansynth.metrics.detection.record import Detections
from tests.metrics.detection.simulated import ELSEWHERE, A, B, document, drawn, measured, seen

NEAR = (0, 0, 10, 8)


WRONG = seen("x", [A, B], [A, B], [0.9, 0.8], classes=([0, 1], [1, 1]))


@pytest.mark.parametrize(
    ("images", "iou", "options", "expected"),
    [
        ([seen("x", [A], [A, A], [0.3, 0.9])], 0.5, {}, [MISS, 0]),
        ([seen("x", [A, NEAR], [NEAR], [0.5])], 0.5, {}, [1]),
        ([seen("x", [NEAR, A], [NEAR], [0.5])], 0.5, {}, [0]),
        ([seen("x", [A, NEAR], [NEAR, NEAR], [0.9, 0.8])], 0.5, {}, [1, 0]),
        ([seen("x", [A], [(0, 0, 10, 5)], [0.5])], 0.5, {}, [0]),
        ([seen("x", [A], [(0, 0, 10, 5)], [0.5])], 0.500001, {}, [MISS]),
        (
            [seen("x", [A], [B], [0.5]), seen("y", [B], [A], [0.5]), seen("z", [A], [A], [0.1])],
            *(0.5, {}, [MISS, MISS, 2]),
        ),
        ([WRONG], 0.5, {}, [MISS, 1]),
        ([WRONG], 0.5, {"by_class": False}, [0, 1]),
    ],
    ids=[
        *("second is false", "overlaps most", "whatever its place", "taken leaves the next"),
        *("exactly the least", "below the least", "same image only", "wrong class", "any class"),
    ],
)
def test_which_lesion_is_hit(images, iou, options, expected):
    found = match(document(*images, names=("a", "b")), (iou,), **options)
    assert found.hits[iou].tolist() == expected


def test_where_the_patient_is_unknown_the_volume_is_one_or_else_the_image():
    images = (
        *(seen("p"), seen("a", subject="p"), seen("b", subject="p", place=("p", 0))),
        *(seen("c", place=("p", 1)), seen("d", place=("p", 2))),
    )
    assert match(document(*images)).subject.tolist() == [0, 1, 1, 2, 2]


HAND = document(
    seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7]),
    seen("y", found=[A, B], scores=[0.75, 0.1]),
    seen("z"),
    seen("w"),
)
"""Falling: hit, false, false, hit, false; 2 lesions in 4 slices."""


@pytest.mark.parametrize(
    ("confidence", "found", "fps"),
    [(0, 1, 3), (0.1, 1, 3), (0.11, 1, 2), (0.75, 0.5, 2), (0.9, 0.5, 0), (0.91, 0, 0)],
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


@pytest.mark.parametrize("ties", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_rising_curve_goes_through_every_confidences_working_point(seed, ties):
    boxes, once = measured(drawn(seed, 30, ties=ties), 0.3)
    curve = froc(boxes, 0.3, once)
    points: dict[float, float] = {}
    falling = []
    for confidence in np.unique(boxes.scores):
        fps = false_positives(boxes, 0.3, once, confidence)[0]
        found = sensitivity(boxes, 0.3, once, confidence)[0]
        points[fps] = max(points.get(fps, 0), found)
        falling.append((fps, found))
    assert len(points) > 3
    assert (np.diff(falling, axis=0) <= 0).all()
    np.testing.assert_allclose(curve.at(list(points))[0], list(points.values()))
    assert curve.end[0] == max(points)
    assert (np.diff(curve.fps) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()


def test_classes_add_up():
    found, once = measured(drawn(0, 40, classes=3))
    parts = [sensitivity(found, 0.5, once, label=k)[0] for k in range(3)]
    shares = np.bincount(found.true_labels, minlength=3) / len(found.true_labels)
    assert sensitivity(found, 0.5, once)[0] == pytest.approx(np.dot(parts, shares))
    fps = [false_positives(found, 0.5, once, label=k)[0] for k in range(3)]
    assert false_positives(found, 0.5, once)[0] == pytest.approx(sum(fps))


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_as_many_copies_of_the_patient(seed):
    original = drawn(seed, 18)
    found, _ = measured(original, 0.4)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(found.subjects))).astype(float)
    copies = [image for image, patient in zip(original.images, found.subject, strict=True)
              for _ in range(int(weights[0, patient]))]  # fmt: skip
    repeated, once = measured(Detections("toy", original.names, tuple(copies), 0.5), 0.4)
    at = [0, 0.3, 1, 2.5]
    assert (found.hits[0.4] != MISS).any()
    np.testing.assert_allclose(froc(found, 0.4, weights).at(at), froc(repeated, 0.4, once).at(at))
    for measure in (sensitivity, false_positives):
        np.testing.assert_allclose(
            measure(found, 0.4, weights, 0.3), measure(repeated, 0.4, once, 0.3)
        )
    for coco in (False, True):
        np.testing.assert_allclose(
            average_precision(found, 0.4, weights, coco=coco),
            average_precision(repeated, 0.4, once, coco=coco),
        )


def theirs(detections, library):
    """COCO's precisions, (Q, K), nan for a class without truth."""
    module, where, name = {
        "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
        "faster_coco_eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    }[library]
    Truths = importlib.import_module(module).COCO
    Evaluation = getattr(importlib.import_module(where), name)
    truth = coco_document(detections)
    with contextlib.redirect_stdout(io.StringIO()):
        known = Truths()
        known.dataset = truth
        known.createIndex()
        evaluation = Evaluation(known, known.loadRes(truth["detections"]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan)


DRAWN = {
    "plain": drawn(0),
    "one class": drawn(1, classes=1),
    "classes nobody has": drawn(2, classes=9),
    "ties of scores": drawn(3, ties=3),
    "overlaps at thresholds": drawn(4, grid=4, classes=1),
    "everything ties": drawn(5, grid=8, ties=2, images=30),
    "all scores equal": drawn(6, grid=8, ties=1, images=30),
    "more than counts": drawn(7, most=150, classes=1),
    "much": drawn(8, images=60, most=40, classes=3),
}


@pytest.mark.parametrize(
    "library",
    [
        "pycocotools",
        pytest.param("faster_coco_eval", marks=pytest.mark.extra("dev-all")),
    ],
)
@pytest.mark.parametrize("name", DRAWN)
def test_coco_precisions_are_those_of_coco(name, library):
    found, once = measured(DRAWN[name])
    ours = [average_precision(found, iou, once, coco=True)[0] for iou in COCO_IOUS]
    np.testing.assert_allclose(ours, theirs(DRAWN[name], library), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("coco", "expected"), [(False, 0.5 * 1 + 0.5 * 2 / 3), (True, (51 * 1 + 50 * 2 / 3) / 101)]
)
def test_precision_by_hand(coco, expected):
    image = seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7])
    other = seen("y", found=[A], scores=[0.1])
    found, once = measured(document(image, other, names=("lesion", "unseen")))
    areas = average_precision(found, 0.5, once, coco=coco)[0]
    np.testing.assert_allclose(areas, [expected, np.nan])
