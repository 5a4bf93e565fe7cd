"""What a detector found of each person, at the false positives of all images together."""

from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection import average_precision, false_positives, froc, match, pooled
from gansynth.metrics.segmentation.detection import measure_detections
from gansynth.runtime.errors import DataFault, UsageFault
from tests.metrics.detection.simulated import document, drawn, seen

A, B, NOWHERE = (0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 60, 60)
THREE = document(
    seen("1", [A, B], [A, NOWHERE, B], [0.9, 0.8, 0.3], subject="ann"),
    seen("2", [A], [NOWHERE, A], [0.5, 0.4], subject="bob"),
    seen("3", [], [NOWHERE], [0.7], subject="cyd"),
    seen("4", subject="cyd"),
)
"""Four images; by falling score: hit of ann, three false positives, hit of bob, hit of ann."""


def test_a_person_is_judged_where_all_images_have_so_many_false_positives():
    found = measure_detections(THREE, false_positives=(0.25, 0.75), confidence=0.6)
    own = found["per_subject"]
    assert own["sensitivity@FP=0.25"] == {"ann": 0.5, "bob": 0.0, "cyd": None}
    assert own["sensitivity@FP=0.75"] == {"ann": 1.0, "bob": 1.0, "cyd": None}
    assert own["froc"] == {"ann": 0.75, "bob": 0.5, "cyd": None}
    assert own["fp_per_image"] == {"ann": 1.0, "bob": 0.0, "cyd": 0.5}
    assert found["pooled"]["sensitivity@FP=0.25"] == pytest.approx(1 / 3)
    assert found["pooled"]["fp_per_image"] == pytest.approx(2 / 4)
    assert found["reached"] == {"sensitivity@FP=0.25": True, "sensitivity@FP=0.75": True}


def test_beyond_its_end_a_training_is_said_to_end():
    found = measure_detections(THREE, false_positives=(0.25, 2.0))
    assert found["reached"] == {"sensitivity@FP=0.25": True, "sensitivity@FP=2": False}
    assert found["pooled"]["sensitivity@FP=2"] == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_all_together_have_the_numbers_of_gansynth_detections(seed):
    detections = drawn(seed, 40)
    found = measure_detections(detections, iou=0.25)
    pool = pooled(detections)
    hits = match(pool, (0.25, 0.5))
    curve = froc(pool, hits[0])
    assert found["pooled"]["froc"] == pytest.approx(float(curve.score()[0]))
    assert found["pooled"]["sensitivity@FP=1"] == pytest.approx(float(curve.at(1.0)[0, 0]))
    assert found["pooled"]["fp_per_image"] == false_positives(pool, hits[0])[0]
    precision = average_precision(pool, hits[1:])
    assert found["pooled"]["map50"] == pytest.approx(float(np.nanmean(precision)))


@pytest.mark.parametrize("seed", range(4))
def test_weighed_by_their_lesions_persons_have_the_pooled_sensitivity_for_a_mean(seed):
    detections = drawn(seed, 40)
    found = measure_detections(detections)
    pool = pooled(detections)
    lesions = dict(zip(pool.subjects, pool.per_subject(pool.true_owner), strict=True))
    assert any(lesions.values())
    for key, own in found["per_subject"].items():
        if key.startswith(("sensitivity", "froc")):
            assert {p for p, value in own.items() if value is None} == {
                p for p, count in lesions.items() if not count
            }
            total = sum(lesions[p] * value for p, value in own.items() if value is not None)
            assert total / sum(lesions.values()) == pytest.approx(found["pooled"][key])


def test_one_persons_false_positives_cost_another_ones_lesion():
    """There is one threshold for all."""
    worse = seen("3", [], [NOWHERE, A, B], [0.95, 0.95, 0.95], subject="cyd")
    moved = replace(THREE, images=(*THREE.images[:2], worse, THREE.images[3]))
    before, after = (
        measure_detections(one, false_positives=(0.75,))["per_subject"]["sensitivity@FP=0.75"]
        for one in (THREE, moved)
    )
    assert (before["ann"], before["bob"]) == (1.0, 1.0)
    assert (after["ann"], after["bob"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    "changes", [{"iou": 0.0}, {"false_positives": ()}, {"false_positives": (0,)}, {"confidence": 2}]
)
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(UsageFault, match=f"^{next(iter(changes))} "):
        measure_detections(THREE, **changes)


def test_persons_need_names_of_their_own():
    nameless = replace(THREE.images[0], id="bob", subject=None)
    with pytest.raises(DataFault, match="share a name"):
        measure_detections(replace(THREE, images=(nameless, *THREE.images[1:])))
