"""Average precision against COCO's own program and its faster twin, and by hand."""
# mypy: disallow-untyped-calls=False

import contextlib
import importlib
import io
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.detection.matching import match, pooled
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
from tests.metrics.detection.simulated import document, drawn, seen


def as_coco(detections):
    """Truth and detections as COCO's programs take them."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(detections.images, 1):
        for box, label in zip(image.truth.boxes, image.truth.labels, strict=True):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "area": float(np.prod(box[2:] - box[:2])),
                    "iscrowd": 0,
                }
            )
        for box, score, label in zip(*vars(image.found).values(), strict=True):
            found.append(
                {
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "score": float(score),
                }
            )
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


@pytest.mark.parametrize("library", ["pycocotools", "faster_coco_eval"])
@pytest.mark.parametrize("name", DRAWN)
def test_coco_precisions_are_those_of_coco(name, library):
    pool = pooled(DRAWN[name])
    ours = average_precision(pool, match(pool, COCO_IOUS), rule=COCO, most=COCO_MOST)
    np.testing.assert_allclose(ours, theirs(DRAWN[name], library), rtol=0, atol=1e-12)


A, B, ELSEWHERE = (0, 0, 10, 10), (20, 0, 30, 10), (40, 40, 50, 50)
HAND = document(
    seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7]),
    seen("y", found=[A], scores=[0.1]),
    names=("lesion", "unseen"),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(ALL_POINTS, 0.5 * 1 + 0.5 * 2 / 3), (COCO, (51 * 1 + 50 * 2 / 3) / 101)],
)
def test_precision_by_hand(rule, expected):
    pool = pooled(HAND)
    found = average_precision(pool, match(pool, (0.5,)), rule=rule)[0]
    np.testing.assert_allclose(found, [expected, np.nan])


def test_a_class_without_lesions_does_not_count_and_one_without_detections_is_0():
    image = seen("x", [A, B], [A, A], [0.9, 0.8], classes=([0, 1], [0, 2]))
    pool = pooled(document(image, names=("a", "b", "c")))
    precision = Precision(pool, match(pool, (0.5,)))
    np.testing.assert_array_equal(precision(np.ones((1, 1)))[0, 0], [1, 0, np.nan])
    np.testing.assert_array_equal(precision.mean(np.ones((1, 1))), [0.5])


@pytest.mark.parametrize("image", [seen("x"), seen("x", found=[A], scores=[0.5])])
def test_nothing_to_find_has_no_mean(image):
    pool = pooled(document(image))
    assert np.isnan(coco_map(pool).mean(np.ones((1, 1)))).all()


def test_only_the_surest_of_an_image_and_class_count():
    image = seen(
        "x", found=[A] * 5, scores=[0.1, 0.9, 0.5, 0.5, 0.7], classes=([], [0, 0, 0, 0, 1])
    )
    pool = pooled(document(image, names=("a", "b")))
    assert surest(pool, 2).tolist() == [False, True, True, False, True]
