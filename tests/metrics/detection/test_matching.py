"""Which detection hits which lesion."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection.matching import MISS, match, overlaps, pooled
from tests.metrics.detection.simulated import boxes, document, drawn, seen

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
TIES = {"plain": {"images": 40}, "grid": {"images": 40, "grid": 4, "ties": 4}}


def hits(*images, iou=0.5, **options):
    found = document(*images, names=("a", "b"))
    return match(pooled(found, **options), (iou,))[0].tolist()


def test_overlap_is_intersection_over_union():
    found = overlaps(boxes(A, (5, 0, 15, 10), (0, 0, 0, 0)), boxes(A, (0, 0, 20, 10), (3, 3, 3, 3)))
    expected = np.array([[1, 1 / 2, 0], [1 / 3, 1 / 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(found, expected)


def test_a_second_hit_is_a_false_positive():
    assert hits(seen("x", [A], [A, A], [0.3, 0.9])) == [MISS, 0]


def test_the_lesion_that_overlaps_most_is_hit_whatever_its_place():
    near = (0, 0, 10, 8)
    for truth, expected in (([A, near], 1), ([near, A], 0)):
        assert hits(seen("x", truth, [near], [0.5])) == [expected]


def test_a_lesion_that_is_taken_leaves_the_next_best():
    near = (0, 0, 10, 8)
    assert hits(seen("x", [A, near], [near, near], [0.9, 0.8])) == [1, 0]


@pytest.mark.parametrize(("iou", "hit"), [(0.5, 0), (0.500001, MISS)])
def test_an_overlap_of_exactly_the_least_is_a_hit(iou, hit):
    assert hits(seen("x", [A], [(0, 0, 10, 5)], [0.5]), iou=iou) == [hit]


def test_only_lesions_of_the_same_image_are_hit():
    images = seen("x", [A], [B], [0.5]), seen("y", [B], [A], [0.5]), seen("z", [A], [A], [0.1])
    assert hits(*images) == [MISS, MISS, 2]


def test_a_wrong_class_is_a_miss_unless_classes_do_not_matter():
    image = seen("x", [A, B], [A, B], [0.9, 0.8], classes=([0, 1], [1, 1]))
    assert hits(image) == [MISS, 1]
    assert hits(image, by_class=False) == [0, 1]


@pytest.mark.parametrize("name", TIES)
def test_a_lower_overlap_hits_all_lesions_that_a_higher_one_hits(name):
    for seed in range(10):
        pool = pooled(drawn(seed, **TIES[name]))
        rows = match(pool, (0.75, 0.5, 0.25, 0.1))
        sets = [set(row[row != MISS].tolist()) for row in rows]
        assert sets[0] <= sets[1] <= sets[2] <= sets[3]
        assert len(sets[0]) < len(sets[3])


@pytest.mark.parametrize("name", TIES)
def test_no_lesion_is_hit_twice_and_every_hit_overlaps_and_is_of_the_class(name):
    for seed in range(10):
        pool = pooled(drawn(seed, **TIES[name]))
        for iou, row in zip((0.5, 0.25), match(pool, (0.5, 0.25)), strict=True):
            hit = np.flatnonzero(row != MISS)
            assert len(set(row[hit].tolist())) == len(hit) > 0
            at = row[hit]
            assert (np.diag(overlaps(pool.boxes[hit], pool.true_boxes[at])) >= iou).all()
            assert (pool.image[hit] == pool.true_image[at]).all()
            assert (pool.labels[hit] == pool.true_labels[at]).all()


def test_hits_do_not_depend_on_detections_of_lower_score():
    found = drawn(3, images=30)
    pool = pooled(found)
    least = 0.4
    kept = [
        replace(
            s,
            found=replace(
                s.found, **{k: v[s.found.scores >= least] for k, v in vars(s.found).items()}
            ),
        )
        for s in found.images
    ]
    alone = match(pooled(replace(found, images=tuple(kept))), (0.5,))[0]
    np.testing.assert_array_equal(alone, match(pool, (0.5,))[0][pool.scores >= least])


def test_where_the_patient_is_unknown_the_volume_is_one_or_else_the_image():
    images = (
        seen("p"),
        seen("a", subject="p"),
        seen("b", subject="p", place=("p", 0)),
        seen("c", place=("p", 1)),
        seen("d", place=("p", 2)),
    )
    assert pooled(document(*images)).subject.tolist() == [0, 1, 1, 2, 2]
