from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import CaseHeader, SlicePosition
from gansynth.hosts.contract.host import Framework
from gansynth.metrics.detection.by_subject import measure_detections
from gansynth.metrics.segmentation import LabelMaps, Prediction, measure_predictions
from gansynth.metrics.segmentation.evaluation import (
    headline,
    lines_of,
    said_of,
)
from gansynth.metrics.segmentation.measures import LESIONS, OF_SIZES, SIZES
from gansynth.runtime.files import read_json
from tests.conftest import save_nifti
from tests.expected import raises_fault
from tests.metrics.detection.simulated import document, seen
from tests.metrics.segmentation.shapes import ONE, blobs, marked, measured

AFFINE = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, -3], [0, 3.0, 0, 7], [0, 0, 0, 1]])
"""Axes of 1, 3 and 2 mm, turned in a circle."""
HOST: Any = SimpleNamespace(
    header=lambda case: CaseHeader(f"of {case}", (), ()), schema=SimpleNamespace(ignore=None)
)
ARRAYS: Any = [blobs(np.random.default_rng(seed), (12, 14, 10)) for seed in range(2)]


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    files = tmp_path / "predicted.nii.gz", tmp_path / "true.nii.gz"
    for file, array in zip(files, ARRAYS, strict=True):
        save_nifti(file, array, AFFINE)
    return files


def of_files(pair, **options):
    found = Prediction.of_volumes(HOST, {"a": pair}, "train it")
    return measure_predictions(found, ONE, **options).per_case["a"]


def test_mm_are_those_along_the_files_own_axes(pair):
    asked: dict[str, Any] = {"measures": ("hd95", "nsd"), "tolerance_mm": 2.0}
    own = measured(*ARRAYS, (1, 3, 2), **asked)
    assert of_files(pair, **asked) == pytest.approx({f"{k}/x": v for k, v in own.items()})
    assert own != measured(*ARRAYS, (2, 1, 3), **asked)


def test_the_code_of_the_page_measures_what_a_target_has_predicted(pair, example):
    source: Any = SimpleNamespace(
        header=lambda case: CaseHeader("subject 1", (), ()),
        schema=SimpleNamespace(ignore=None, foreground=(1, 2, 4)),
    )
    trials = SimpleNamespace(
        predictions=lambda *_: Prediction.of_volumes(source, {"case 1": pair}, "train it")
    )
    outcome = SimpleNamespace(folder=pair[0].parent)
    found = example("measures", source=source, trials=trials, outcome=outcome)["found"]
    own = measured(*ARRAYS, (1, 3, 2))
    assert found.per_case["case 1"]["hd95/WT"] == pytest.approx(own["hd95"])
    assert found.per_subject["subject 1"]["dice/WT"] == pytest.approx(own["dice"])


EMPTY = np.zeros((12, 14, 10), np.int16)
OTHER_GRID = "metrics.prediction-grid-differs"


@pytest.mark.parametrize(
    ("array", "affine", "expected"),
    [
        (EMPTY[:, :, 1:], AFFINE, OTHER_GRID),
        (EMPTY, np.diag([1.0, 3.0, 2.0, 1.0]), OTHER_GRID),
        (EMPTY + np.float32(0.5), AFFINE, "grid.labels-not-whole-numbers"),
        (None, AFFINE, "metrics.label-map-missing"),
    ],
    ids=["shape", "affine", "no label", "missing"],
)
def test_another_grid_and_what_is_no_label_map_are_refused(pair, array, affine, expected):
    pair[0].unlink() if array is None else save_nifti(pair[0], array, affine)
    with raises_fault(expected):
        of_files(pair)


def predicted(found, truth, position=None, subject="p", unit="mm"):
    maps = LabelMaps(found, truth, (1.0,) * found.ndim)
    return Prediction(subject, None, lambda: maps, unit, position)


FULL, PLACED = (12, 12), slice(2, 6)
HIT, NONE = marked(FULL, (PLACED, PLACED)), marked(FULL)
SMALL = marked(FULL, (slice(8, 10), slice(8, 10)))


def test_a_subject_has_the_mean_of_its_volumes_and_the_mean_is_over_subjects():
    whole, half = HIT[None], marked((1, *FULL), (0, slice(2, 4), PLACED))
    cases = {
        "a1": predicted(whole, whole, subject="a"),
        "a2": predicted(half, whole, subject="a"),
        "b": predicted(whole, whole, subject="b"),
    }
    found = measure_predictions(cases, ONE)
    assert found.per_case["a2"]["dice/x"] == pytest.approx(2 / 3)
    assert found.per_subject["a"]["dice/x"] == pytest.approx((1 + 2 / 3) / 2)
    assert found.means()["dice/x"] == pytest.approx((1 + 5 / 6) / 2)


def slices(position):
    """A subject of three slices: a hit, a miss, and a false alarm."""
    pairs = ((HIT, HIT), (NONE, SMALL), (SMALL, NONE))
    return {f"s{n}": predicted(a, b, position(n)) for n, (a, b) in enumerate(pairs)}


ALARMS = {"false_alarms": 1.0, "false_positive_volume": 4 / 3}
"""Of them: one has no lesion, and is a false alarm of four pixels; the volume is over three."""


@pytest.mark.parametrize(
    "position",
    [
        lambda n: SlicePosition("p"),
        lambda n: SlicePosition("v", 2 * n, 3.0),
        lambda n: SlicePosition("v", n, None),
    ],
    ids=["no volume", "gaps", "no thickness"],
)
def test_slices_are_counted_over_all_and_distances_are_within_each(position):
    found = measure_predictions(slices(position), ONE)
    assert found.distances == "slices"
    assert found.per_subject["p"]["dice/x"] == pytest.approx(2 * 16 / (20 + 20))
    assert [found.per_case[f"s{n}"]["dice/x"] for n in range(3)] == [1, 0, None]
    assert found.per_subject["p"]["hd95/x"] == pytest.approx((0 + np.hypot(12, 12)) / 2)
    assert {k: found.per_subject["p"][f"{k}/x"] for k in ALARMS} == ALARMS
    assert found.document()["undefined"]["x"] == {"no_truth": 1, "not_predicted": 1}


def test_slices_without_a_gap_are_a_volume():
    found = measure_predictions(slices(lambda n: SlicePosition("v", 7 + n, 3.0)), ONE)
    assert found.distances == "volumes"
    truth, guess = np.stack([HIT, SMALL, NONE]), np.stack([HIT, NONE, SMALL])
    own = measured(guess, truth, (3, 1, 1), measures=("dice", "hd95", *LESIONS)) | ALARMS
    assert found.per_subject["p"] == {f"{name}/x": value for name, value in own.items()}


def test_pixels_are_called_pixels_and_rows_that_are_alike_are_one():
    one = {"s": predicted(HIT, HIT, SlicePosition("p"), unit="px")}
    told = headline(measure_predictions(one, (("foreground", (1,)), ("1", (1,)))).document())
    assert told["unit"] == "px"
    assert "HD95 within slices, in px" in said_of(told)
    head, *rows = lines_of(told, {"1": "foreground"})
    assert head[:3] == ("region", "Dice", "HD95")
    assert [row[0] for row in rows] == ["foreground"]
    assert [row[0] for row in lines_of(told, {"1": "x"})] == ["region", "foreground", "x"]


def test_a_host_leaves_dice_hd95_and_false_alarms_of_every_case_and_subject(pair, tmp_path):
    counts: list[tuple[str, int, int]] = []
    host: Any = SimpleNamespace(source=HOST, regions=ONE, own_metrics=Framework.own_metrics)
    told, why = Framework.account_of(
        host,
        lambda *_: Prediction.of_volumes(HOST, {"a": pair}, ""),
        tmp_path,
        lambda *of: counts.append(of),
    )
    assert counts[-1] == ("measure held-out case", 1, 1)
    kept = read_json(tmp_path / Framework.own_metrics)
    assert (why, told) == ("", headline(kept))
    assert kept["per_case"]["a"] == kept["per_subject"]["of a"]
    assert kept["per_case"]["a"].keys() == {"dice", "hd95", *LESIONS}
    assert kept["per_case"]["a"]["hd95"]["x"] == of_files(pair)["hd95/x"]


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
    own, pooled = found["per_subject"], found["pooled"]
    assert own["sensitivity@FP=0.25"] == {"ann": 0.5, "bob": 0.0, "cyd": None}
    assert own["sensitivity@FP=0.75"] == {"ann": 1.0, "bob": 1.0, "cyd": None}
    assert own["fp_per_image"] == {"ann": 1.0, "bob": 0.0, "cyd": 0.5}
    assert pooled["sensitivity@FP=0.25"] == pytest.approx(1 / 3)
    assert (pooled["sensitivity@FP=2"], pooled["fp_per_image"]) == (1, 2 / 4)
    assert pooled["map50"] == pytest.approx((1 + 3 / 6 + 3 / 6) / 3)
    reached = {"sensitivity@FP=0.25": True, "sensitivity@FP=0.75": True, "sensitivity@FP=2": False}
    assert found["reached"] == reached
    few = measure_detections(THREE, false_positives=(0.25, 0.75))["per_subject"]["froc"]
    assert few == {"ann": 0.75, "bob": 0.5, "cyd": None}


def test_a_persons_boxes_are_judged_by_their_size_at_one_false_positive_an_image():
    tiny = (50, 50, 55, 55)
    found = measure_detections(
        document(  # two images, so that the third false positive, and what is less sure, is out
            seen("1", [A, tiny], [NOWHERE, A, B, tiny], [0.9, 0.8, 0.7, 0.2], subject="ann"),
            seen("2", [], [B], [0.5], subject="bob"),
        )
    )["per_subject"]
    sensitivity = [found[f"lesion_sensitivity@{size}/foreground"]["ann"] for size in SIZES]
    precision = [found[f"lesion_precision@{size}/foreground"]["ann"] for size in SIZES]
    assert sensitivity == [0, 1, None]
    assert precision == [None, pytest.approx(1 / 3), None]
    assert {found[key]["bob"] for key in OF_SIZES} == {None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iou": 0.0}, "metrics.iou-out-of-range"),
        ({"false_positives": ()}, "metrics.false-positives-out-of-range"),
        ({"false_positives": (0,)}, "metrics.false-positives-out-of-range"),
        ({"confidence": 2}, "metrics.confidence-out-of-range"),
    ],
)
def test_measure_detections_refuses_numbers_out_of_range(changes, expected):
    with raises_fault(expected):
        measure_detections(THREE, **changes)
