from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import CaseHeader, SlicePosition
from gansynth.metrics.detection import (
    everyone,
    false_positives,
    froc,
    match,
    mean_precision,
)
from gansynth.metrics.detection.by_subject import measure_detections
from gansynth.metrics.detection.measures import RATES
from gansynth.metrics.segmentation import LabelMaps, Prediction, evaluate
from gansynth.metrics.segmentation.evaluation import (
    FILE,
    account_of,
    headline,
    lines_of,
    of_volumes,
    said_of,
)
from gansynth.metrics.segmentation.measures import LESIONS
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from tests.conftest import save_nifti
from tests.metrics.detection.simulated import document, drawn, seen
from tests.metrics.segmentation.shapes import ONE, blobs, measured

AFFINE = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, -3], [0, 3.0, 0, 7], [0, 0, 0, 1]])
"""Axes of 1, 3 and 2 mm, turned in a circle."""
HOST: Any = SimpleNamespace(
    header=lambda case: CaseHeader(f"of {case}", (), ()), schema=SimpleNamespace(ignore=None)
)


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    for name in ("predicted", "true"):
        save_nifti(tmp_path / f"{name}.nii.gz", blobs(rng, (12, 14, 10)), AFFINE)
    return tmp_path / "predicted.nii.gz", tmp_path / "true.nii.gz"


def of_files(pair, **options):
    return evaluate(of_volumes(HOST, {"a": pair}, "train it"), ONE, **options).per_case["a"]


def test_mm_are_those_along_the_files_own_axes(pair):
    rng = np.random.default_rng(0)
    arrays = blobs(rng, (12, 14, 10)), blobs(rng, (12, 14, 10))
    asked: dict[str, Any] = {"measures": ("hd95", "nsd"), "tolerance_mm": 2.0}
    own = measured(*arrays, (1, 3, 2), **asked)
    assert of_files(pair, **asked) == pytest.approx({f"{k}/x": v for k, v in own.items()})
    assert own != measured(*arrays, (2, 1, 3), **asked)


@pytest.mark.parametrize(
    ("array", "affine", "says"),
    [
        (np.zeros((12, 14, 11), np.int16), AFFINE, r"shape is \(12, 14, 11\)"),
        (np.zeros((12, 14, 10), np.int16), np.diag([1.0, 3.0, 2.0, 1.0]), "affine differs"),
        (np.full((12, 14, 10), 0.5, np.float32), AFFINE, "holds label 0.5"),
    ],
)
def test_another_grid_and_what_is_no_label_map_are_refused(pair, array, affine, says):
    save_nifti(pair[0], array, affine)
    with pytest.raises(DataFault, match=rf"predicted.nii.gz: {says}"):
        of_files(pair)


def test_a_missing_file_is_named_before_any_is_read(tmp_path):
    pair = tmp_path / "p.nii.gz", tmp_path / "t.nii.gz"
    with pytest.raises(DataFault, match=r"p.nii.gz: missing, .* of case 'a'; train it again"):
        of_volumes(HOST, {"a": pair}, "train it again")


def predicted(found, truth, position=None, subject="p", unit="mm"):
    maps = LabelMaps(np.asarray(found, np.int16), np.asarray(truth, np.int16), (1.0,) * found.ndim)
    return Prediction(subject, None, lambda: maps, unit, position)


def square(rows, columns=slice(2, 6), shape=(12, 12)):
    labels = np.zeros(shape, np.int16)
    labels[rows, columns] = 1
    return labels


HIT, NONE, SMALL = square(slice(2, 6)), square(slice(0)), square(slice(8, 10), slice(8, 10))


def test_a_subject_has_the_mean_of_its_volumes_and_the_mean_is_over_subjects():
    whole, half = HIT[None], square(slice(2, 4))[None]
    cases = {
        "a1": predicted(whole, whole, subject="a"),
        "a2": predicted(half, whole, subject="a"),
        "b": predicted(whole, whole, subject="b"),
    }
    found = evaluate(cases, ONE)
    assert found.per_case["a2"]["dice/x"] == pytest.approx(2 / 3)
    assert found.per_subject["a"]["dice/x"] == pytest.approx((1 + 2 / 3) / 2)
    assert found.means()["dice/x"] == pytest.approx((1 + 5 / 6) / 2)


def slices(position, pairs=((HIT, HIT), (NONE, SMALL), (SMALL, NONE))):
    """A subject of three slices: a hit, a miss, and a false alarm."""
    return {f"s{n}": predicted(a, b, position(n)) for n, (a, b) in enumerate(pairs)}


ALARMS = {"false_alarms": 1.0, "false_positive_volume": 4 / 3}
"""Of them: one has no lesion, and is a false alarm of four pixels; the volume is over three."""


def alone(number):
    return SlicePosition("p")


def test_slices_are_counted_over_all_and_distances_are_within_each():
    found = evaluate(slices(alone), ONE)
    assert found.distances == "slices"
    assert found.per_subject["p"]["dice/x"] == pytest.approx(2 * 16 / (20 + 20))
    assert [found.per_case[f"s{n}"]["dice/x"] for n in range(3)] == [1, 0, None]
    assert found.per_subject["p"]["hd95/x"] == pytest.approx((0 + np.hypot(12, 12)) / 2)
    assert {k: found.per_subject["p"][f"{k}/x"] for k in ALARMS} == ALARMS
    assert found.document()["undefined"]["x"] == {"no_truth": 1, "not_predicted": 1}


def test_slices_without_a_gap_are_a_volume():
    found = evaluate(slices(lambda n: SlicePosition("v", 7 + n, 3.0)), ONE)
    assert found.distances == "volumes"
    truth, guess = np.stack([HIT, SMALL, NONE]), np.stack([HIT, NONE, SMALL])
    own = measured(guess, truth, (3, 1, 1), measures=("dice", "hd95", *LESIONS))
    own |= ALARMS
    assert found.per_subject["p"] == {f"{name}/x": value for name, value in own.items()}


@pytest.mark.parametrize(
    "position", [lambda n: SlicePosition("v", 2 * n, 3.0), lambda n: SlicePosition("v", n, None)]
)
def test_slices_with_gaps_or_unknown_distances_are_none(position):
    assert evaluate(slices(position), ONE).distances == "slices"


def test_pixels_are_called_pixels():
    told = evaluate({"s": predicted(HIT, HIT, alone(0), unit="px")}, ONE).document()
    assert told["unit"] == "px"
    assert next(iter(lines_of(headline(told))))[:3] == ("region", "Dice", "HD95")
    assert "HD95 within slices, in px" in said_of(headline(told))


def test_a_label_that_is_all_foreground_and_called_so_has_one_row():
    regions = (("foreground", (1,)), ("1", (1,)))
    told = headline(evaluate({"s": predicted(HIT, HIT, alone(0))}, regions).document())
    assert [row[0] for row in lines_of(told, {"1": "foreground"})] == ["region", "foreground"]
    assert [row[0] for row in lines_of(told, {"1": "x"})] == ["region", "foreground", "x"]


def test_a_host_leaves_dice_hd95_and_false_alarms_of_every_case_and_subject(pair, tmp_path):
    told, why = account_of(lambda folder: of_volumes(HOST, {"a": pair}, ""), HOST, tmp_path, ONE)
    kept = read_json(tmp_path / FILE)
    assert (why, told) == ("", headline(kept))
    assert kept["per_case"]["a"] == kept["per_subject"]["of a"]
    assert kept["per_case"]["a"].keys() == {"dice", "hd95", *LESIONS}
    assert kept["per_case"]["a"]["hd95"]["x"] == of_files(pair)["hd95/x"]


def test_a_host_without_label_maps_says_why_there_are_no_measures(tmp_path):
    def judged(folder):
        raise DataFault(f"{folder}: has nothing")

    told, why = account_of(judged, HOST, tmp_path, ONE)
    assert told == {}
    assert why.endswith("has nothing")
    assert not (tmp_path / FILE).exists()


A, B, NOWHERE = (0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 60, 60)
THREE = document(
    seen("1", [A, B], [A, NOWHERE, B], [0.9, 0.8, 0.3], subject="ann"),
    seen("2", [A], [NOWHERE, A], [0.5, 0.4], subject="bob"),
    seen("3", [], [NOWHERE], [0.7], subject="cyd"),
    seen("4", subject="cyd"),
)
"""Four images; by falling score: hit of ann, three false positives, hit of bob, hit of ann."""


def test_a_person_is_judged_where_all_images_have_so_many_false_positives():
    found = measure_detections(THREE, false_positives=(0.25, 0.75, 2), confidence=0.6)
    own, pooled_ = found["per_subject"], found["pooled"]
    assert own["sensitivity@FP=0.25"] == {"ann": 0.5, "bob": 0.0, "cyd": None}
    assert own["sensitivity@FP=0.75"] == {"ann": 1.0, "bob": 1.0, "cyd": None}
    assert own["fp_per_image"] == {"ann": 1.0, "bob": 0.0, "cyd": 0.5}
    assert pooled_["sensitivity@FP=0.25"] == pytest.approx(1 / 3)
    assert (pooled_["sensitivity@FP=2"], pooled_["fp_per_image"]) == (1, 2 / 4)
    reached = {"sensitivity@FP=0.25": True, "sensitivity@FP=0.75": True, "sensitivity@FP=2": False}
    assert found["reached"] == reached
    few = measure_detections(THREE, false_positives=(0.25, 0.75))["per_subject"]["froc"]
    assert few == {"ann": 0.75, "bob": 0.5, "cyd": None}


@pytest.mark.parametrize("seed", range(4))
def test_all_together_have_the_numbers_of_gansynth_detections(seed):
    detections = drawn(seed, 40)
    found = measure_detections(detections, iou=0.25)["pooled"]
    boxes = match(detections, (0.25,))
    once = everyone(len(boxes.subjects))
    curve = froc(boxes, 0.25, once)
    assert found["froc"] == pytest.approx(float(curve.at(RATES)[0].mean()))
    assert found["sensitivity@FP=1"] == pytest.approx(float(curve.at(1.0)[0, 0]))
    assert found["fp_per_image"] == false_positives(boxes, 0.25, once)[0]
    assert found["map50"] == pytest.approx(float(mean_precision(boxes, once)[0]))


@pytest.mark.parametrize(
    "changes", [{"iou": 0.0}, {"false_positives": ()}, {"false_positives": (0,)}, {"confidence": 2}]
)
def test_measure_detections_refuses_numbers_out_of_range(changes):
    with pytest.raises(UsageFault, match=f"^{next(iter(changes))} "):
        measure_detections(THREE, **changes)
