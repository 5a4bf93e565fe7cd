"""Sensitivity against false positives per slice, by hand and against counting."""
# mypy: disallow-untyped-calls=False

import numpy as np
import pytest

from gansynth.metrics.detection.free_response import RATES, Froc, false_positives, froc, sensitivity
from gansynth.metrics.detection.matching import MISS, match, pooled
from gansynth.metrics.detection.precision import ALL_POINTS, COCO, Precision
from gansynth.metrics.detection.record import Detections
from tests.metrics.detection.simulated import document, drawn, seen

A, B, ELSEWHERE = (0, 0, 10, 10), (20, 0, 30, 10), (40, 40, 50, 50)
HAND = document(
    seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.8, 0.7]),
    seen("y", found=[A, B], scores=[0.75, 0.1]),
    seen("z"),
    seen("w"),
)
"""Falling: hit, false, false, hit, false; 2 lesions in 4 slices."""
ONE = np.ones((1, 4))


def measured(detections, iou=0.5):
    pool = pooled(detections)
    return pool, match(pool, (iou,))[0]


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
    assert RATES == (0.125, 0.25, 0.5, 1, 2, 4, 8)


def test_equal_scores_are_one_step_in_whatever_order():
    for order in ([A, ELSEWHERE, B], [ELSEWHERE, B, A]):
        curve = froc(*measured(document(seen("x", [A, B], order, [0.5] * 3), seen("y"))))
        np.testing.assert_allclose(curve.at([0, 0.25, 0.5])[0], [0, 0.5, 1])


@pytest.mark.parametrize("ties", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_goes_through_every_confidences_working_point(seed, ties):
    pool, hits = measured(drawn(seed, 30, ties=ties), 0.3)
    every = np.ones((1, len(pool.subjects)))
    curve = froc(pool, hits)
    points: dict[float, float] = {}
    for confidence in np.unique(pool.scores):
        fps = false_positives(pool, hits, confidence=confidence, weights=every)[0]
        found = sensitivity(pool, hits, confidence=confidence, weights=every)[0]
        points[fps] = max(points.get(fps, 0), found)
    assert len(points) > 3
    np.testing.assert_allclose(curve.at(list(points))[0], list(points.values()))
    assert curve.end[0] == max(points)


@pytest.mark.parametrize("seed", range(5))
def test_both_fall_with_confidence_and_sensitivity_rises_on_the_curve(seed):
    pool, hits = measured(drawn(seed, 30, ties=20))
    every = np.ones((1, len(pool.subjects)))
    for measure in (sensitivity, false_positives):
        values = [
            measure(pool, hits, confidence=c, weights=every)[0] for c in np.linspace(0, 1, 21)
        ]
        assert (np.diff(values) <= 0).all()
        assert values[0] > values[-1]
    curve = froc(pool, hits)
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
def test_without_lesions_there_are_false_positives_but_no_sensitivity(image):
    pool, hits = measured(document(image))
    assert np.isnan(sensitivity(pool, hits)).all()
    assert false_positives(pool, hits).tolist() == [len(image.found.scores)]
    assert np.isnan(froc(pool, hits).score()).all()


def test_without_detections_nothing_is_found():
    curve = froc(*measured(document(seen("x", [A]))))
    assert (curve.at([0, 1])[0].tolist(), curve.end.tolist()) == ([0, 0], [0])


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_as_many_copies_of_the_patient(seed):
    """A resample under weights measures what a file with copies of its patients would."""
    found = drawn(seed, 18)
    pool, hits = measured(found, 0.4)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(pool.subjects))).astype(float)
    copies = [s for s, who in zip(found.images, pool.subject, strict=True)
              for _ in range(int(weights[0, who]))]  # fmt: skip
    resampled = Detections("toy", found.names, tuple(copies), 0.5)
    other, theirs = measured(resampled, 0.4)
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
