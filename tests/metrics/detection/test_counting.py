import contextlib
import importlib
import io
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.detection.free_response import Froc, false_positives, froc, sensitivity
from gansynth.metrics.detection.matching import MISS, match, pool_detections
from gansynth.metrics.detection.precision import (
    ALL_POINTS,
    COCO,
    COCO_IOUS,
    COCO_MOST,
    Precision,
    average_precision,
    coco_map,
    surest,
)
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
    pool = pool_detections(document(*images, names=("a", "b")), **options)
    assert match(pool, (iou,))[0].tolist() == expected


def test_where_the_patient_is_unknown_the_volume_is_one_or_else_the_image():
    images = (
        *(seen("p"), seen("a", subject="p"), seen("b", subject="p", place=("p", 0))),
        *(seen("c", place=("p", 1)), seen("d", place=("p", 2))),
    )
    assert pool_detections(document(*images)).subject.tolist() == [0, 1, 1, 2, 2]


HAND = document(
    seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7]),
    seen("y", found=[A, B], scores=[0.75, 0.1]),
    seen("z"),
    seen("w"),
)
"""Falling: hit, false, false, hit, false; 2 lesions in 4 slices."""
ONE = np.ones((1, 4))


@pytest.mark.parametrize(
    ("confidence", "found", "fps"),
    [(0, 1, 3), (0.1, 1, 3), (0.11, 1, 2), (0.75, 0.5, 2), (0.9, 0.5, 0), (0.91, 0, 0)],
)
def test_the_working_point_by_hand_counts_slices_without_lesions(confidence, found, fps):
    pool, hits = measured(HAND)
    assert sensitivity(pool, hits, confidence=confidence, weights=ONE)[0] == found
    assert false_positives(pool, hits, confidence=confidence, weights=ONE)[0] == fps / 4


def test_the_curve_by_hand():
    curve = froc(*measured(HAND))
    expected = {0: 0.5, 0.2: 0.5, 0.499: 0.5, 0.5: 1, 0.6: 1, 0.75: 1, 9: 1}
    np.testing.assert_allclose(curve.at(list(expected))[0], list(expected.values()))
    assert curve.end == [0.75]
    assert curve.score()[0] == pytest.approx((0.5 * 2 + 1 * 5) / 7)


def test_equal_scores_are_one_step_in_whatever_order():
    for order in ([A, ELSEWHERE, B], [ELSEWHERE, B, A]):
        curve = froc(*measured(document(seen("x", [A, B], order, [0.5] * 3), seen("y"))))
        np.testing.assert_allclose(curve.at([0, 0.25, 0.5])[0], [0, 0.5, 1])


@pytest.mark.parametrize("ties", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_rising_curve_goes_through_every_confidences_working_point(seed, ties):
    pool, hits = measured(drawn(seed, 30, ties=ties), 0.3)
    every = np.ones((1, len(pool.subjects)))
    curve = froc(pool, hits)
    points: dict[float, float] = {}
    falling = []
    for confidence in np.unique(pool.scores):
        fps = false_positives(pool, hits, confidence=confidence, weights=every)[0]
        found = sensitivity(pool, hits, confidence=confidence, weights=every)[0]
        points[fps] = max(points.get(fps, 0), found)
        falling.append((fps, found))
    assert len(points) > 3
    assert (np.diff(falling, axis=0) <= 0).all()
    np.testing.assert_allclose(curve.at(list(points))[0], list(points.values()))
    assert curve.end[0] == max(points)
    assert (np.diff(curve.fps) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()


def test_classes_add_up():
    pool, hits = measured(drawn(0, 40, classes=3))
    parts = [sensitivity(pool, hits, label=k)[0] for k in range(3)]
    shares = np.bincount(pool.true_labels, minlength=3) / len(pool.true_labels)
    assert sensitivity(pool, hits)[0] == pytest.approx(np.dot(parts, shares))
    fps = [false_positives(pool, hits, label=k)[0] for k in range(3)]
    assert false_positives(pool, hits)[0] == pytest.approx(sum(fps))


@pytest.mark.parametrize("image", [seen("x"), seen("x", found=[A], scores=[0.5])])
def test_without_lesions_there_are_false_positives_but_no_sensitivity_and_no_precision(image):
    pool, hits = measured(document(image))
    assert np.isnan(sensitivity(pool, hits)).all()
    assert false_positives(pool, hits).tolist() == [len(image.found.scores)]
    assert np.isnan(froc(pool, hits).score()).all()
    assert np.isnan(coco_map(pool).mean(np.ones((1, 1)))).all()


def test_without_detections_nothing_is_found():
    curve = froc(*measured(document(seen("x", [A]))))
    assert (curve.at([0, 1])[0].tolist(), curve.end.tolist()) == ([0, 0], [0])


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_as_many_copies_of_the_patient(seed):
    found = drawn(seed, 18)
    pool, hits = measured(found, 0.4)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(pool.subjects))).astype(float)
    copies = [s for s, who in zip(found.images, pool.subject, strict=True)
              for _ in range(int(weights[0, who]))]  # fmt: skip
    other, theirs = measured(Detections("toy", found.names, tuple(copies), 0.5), 0.4)
    every = np.ones((1, len(other.subjects)))
    at = [0, 0.3, 1, 2.5]
    assert (hits != MISS).any()
    np.testing.assert_allclose(Froc(pool, hits)(weights).at(at), froc(other, theirs).at(at))
    for measure in (sensitivity, false_positives):
        np.testing.assert_allclose(
            measure(pool, hits, confidence=0.3, weights=weights),
            measure(other, theirs, confidence=0.3, weights=every),
        )
    for rule in (ALL_POINTS, COCO):
        np.testing.assert_allclose(
            Precision(pool, hits[None], rule=rule)(weights),
            Precision(other, theirs[None], rule=rule)(every),
        )


def as_coco(detections):
    """Truth and detections as COCO's programs take them."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(detections.images, 1):
        for side, told in ((image.truth, truth), (image.found, found)):
            for index, box in enumerate(side.boxes):
                size = box[2:] - box[:2]
                one: dict[str, Any] = {"image_id": number}
                one["category_id"] = int(side.labels[index])
                one |= {"bbox": [*box[:2], *size], "area": float(np.prod(size))}
                if side is image.found:
                    one["score"] = float(image.found.scores[index])
                told.append({**one, "id": len(told) + 1, "iscrowd": 0})
    images = [{"id": i, "height": 64, "width": 64} for i in range(1, len(detections.images) + 1)]
    categories = [{"id": k, "name": name} for k, name in enumerate(detections.names)]
    return {"images": images, "annotations": truth, "categories": categories, "info": {}}, found


def theirs(detections, library):
    """COCO's precisions, (Q, K), nan for a class without truth."""
    module, where, name = {
        "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
        "faster_coco_eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    }[library]
    Truths = importlib.import_module(module).COCO
    Evaluation = getattr(importlib.import_module(where), name)
    truth, found = as_coco(detections)
    with contextlib.redirect_stdout(io.StringIO()):
        known = Truths()
        known.dataset = truth
        known.createIndex()
        evaluation = Evaluation(known, known.loadRes(found), "bbox")
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
        pytest.param("pycocotools", marks=pytest.mark.extra("yolo")),
        pytest.param("faster_coco_eval", marks=pytest.mark.extra("dev-all")),
    ],
)
@pytest.mark.parametrize("name", DRAWN)
def test_coco_precisions_are_those_of_coco(name, library):
    pool = pool_detections(DRAWN[name])
    ours = average_precision(pool, match(pool, COCO_IOUS), rule=COCO, most=COCO_MOST)
    np.testing.assert_allclose(ours, theirs(DRAWN[name], library), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "expected"), [(ALL_POINTS, 0.5 * 1 + 0.5 * 2 / 3), (COCO, (51 * 1 + 50 * 2 / 3) / 101)]
)
def test_precision_by_hand(rule, expected):
    image = seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7])
    other = seen("y", found=[A], scores=[0.1])
    pool = pool_detections(document(image, other, names=("lesion", "unseen")))
    found = average_precision(pool, match(pool, (0.5,)), rule=rule)[0]
    np.testing.assert_allclose(found, [expected, np.nan])


def test_only_the_surest_of_an_image_and_class_count():
    scores, labels = [0.1, 0.9, 0.5, 0.5, 0.7], [0, 0, 0, 0, 1]
    pool = pool_detections(document(seen("x", found=[A] * 5, scores=scores, classes=([], labels))))
    assert surest(pool, 2).tolist() == [False, True, True, False, True]
