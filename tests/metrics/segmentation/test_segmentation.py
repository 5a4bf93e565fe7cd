"""What is measured of one case: by hand, and what must hold whatever the case."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.segmentation import MEASURES, SEGMENTATION, measure_case, measure_of
from gansynth.metrics.segmentation.regions import dice
from gansynth.runtime.errors import DataFault, UsageFault
from tests.metrics.segmentation.shapes import ONE, blobs, line, measured

# -- by hand ---------------------------------------------------------------------------------------


def test_a_point_is_as_far_as_it_is_in_mm():
    truth, predicted = np.zeros((5, 6, 9), np.int16), np.zeros((5, 6, 9), np.int16)
    truth[1, 1, 1] = predicted[3, 1, 5] = 1
    found = measured(predicted, truth, (1.5, 9.0, 1.0))
    assert found == {
        "dice": 0.0,
        "hd95": pytest.approx(5.0),  # 3 and 4 mm
        "nsd": 0.0,
        "lesion_sensitivity": 0.0,
        "lesion_precision": 0.0,
    }


def test_few_outliers_of_the_prediction_count_by_the_percentile():
    truth, predicted = line(range(20)), line((*range(20), 30))
    predicted[3, 10] = 1
    found = measured(predicted, truth, (1.0, 1.0), tolerance_mm=1.0)
    # Twenty distances of 0, one of 2, one of 11: at rank 0.95 * 21 = 19.95 lies 0.95 * 2.
    assert found["hd95"] == pytest.approx(0.95 * 2)
    assert found["nsd"] == pytest.approx((20 + 20) / (22 + 20))
    assert measured(predicted, truth, (1.0, 1.0), tolerance_mm=2.0)["nsd"] == pytest.approx(41 / 42)


def test_the_larger_direction_counts():
    truth, half = line(range(20)), line(range(10))
    # From the truth: ten distances of 0, then 1 to 10 pixels; rank 0.95 * 19 = 18.05.
    assert measured(half, truth, (1.0, 0.5))["hd95"] == pytest.approx(9.05 * 0.5)
    assert measured(truth, half, (1.0, 0.5))["hd95"] == pytest.approx(9.05 * 0.5)


def test_the_inside_of_a_mask_is_no_surface():
    cube, shell = np.zeros((7, 7, 7), np.int16), np.zeros((7, 7, 7), np.int16)
    cube[1:6, 1:6, 1:6] = shell[1:6, 1:6, 1:6] = 1
    shell[2:5, 2:5, 2:5] = 0
    found = measured(shell, cube, (1, 1, 1))
    assert found["dice"] == pytest.approx(2 * 98 / (98 + 125))
    assert (found["hd95"], found["nsd"]) == (0, 1)


def test_lesions_touch_at_corners_and_one_voxel_finds_one():
    truth, predicted = np.zeros((4, 12), np.int16), np.zeros((4, 12), np.int16)
    truth[0, 0] = truth[1, 1] = 1  # one lesion
    truth[0:2, 5:7] = 1
    truth[3, 11] = 1
    predicted[1, 1] = predicted[0, 5] = 1
    predicted[3, 0] = predicted[3, 4] = predicted[3, 5] = 1  # two lesions of nothing
    found = measured(predicted, truth, (1, 1))
    assert found["lesion_sensitivity"] == pytest.approx(2 / 3)
    assert found["lesion_precision"] == pytest.approx(2 / 4)
    half = measured(predicted, truth, (1, 1), overlap=0.5)
    assert half["lesion_sensitivity"] == pytest.approx(1 / 3)  # a quarter of the second is covered
    assert half["lesion_precision"] == pytest.approx(2 / 4)


def test_a_lesion_is_one_of_the_region():
    """Its labels lie side by side: one whole tumour, two of its parts."""
    truth = np.array([[1, 2, 0, 0, 1]], np.int16)
    predicted = np.array([[2, 0, 0, 0, 0]], np.int16)
    found = measure_case(predicted, truth, (1, 1), (("WT", (1, 2)), ("1", (1,)), ("2", (2,))))
    assert found["lesion_sensitivity/WT"] == 0.5
    assert (found["lesion_sensitivity/1"], found["lesion_sensitivity/2"]) == (0, 0)
    assert (found["lesion_precision/WT"], found["lesion_precision/1"]) == (1, None)


# -- nothing there ---------------------------------------------------------------------------------


def test_what_was_not_predicted_is_as_far_as_the_case_is_wide():
    truth = np.zeros((4, 5, 6), np.int16)
    truth[2, 2, 2] = 1
    assert measured(np.zeros_like(truth), truth, (3.0, 2.0, 1.0)) == {
        "dice": 0,
        "hd95": pytest.approx(np.sqrt(12**2 + 10**2 + 6**2)),
        "nsd": 0,
        "lesion_sensitivity": 0,
        "lesion_precision": None,
    }


def test_what_is_not_there_is_not_measured_but_for_lesions_of_nothing():
    predicted = np.zeros((4, 5), np.int16)
    nothing = measured(predicted, predicted, (1, 1))
    assert set(nothing.values()) == {None}
    predicted[1, 1] = 1
    assert measured(predicted, np.zeros_like(predicted), (1, 1)) == {
        **nothing,
        "lesion_precision": 0,
    }


def test_ignored_voxels_do_not_count():
    truth, predicted = line(range(10)), line(range(12))
    truth[1, 10:] = 9
    assert measured(predicted, truth, (1, 1))["dice"] < 1  # type: ignore[operator]
    found = measured(predicted, truth, (1, 1), ignore=9)
    assert found == {"dice": 1, "hd95": 0, "nsd": 1, "lesion_sensitivity": 1, "lesion_precision": 1}


# -- whatever the case -----------------------------------------------------------------------------

CASES = [((14, 12, 10), (2.5, 0.7, 1.1)), ((30, 26), (0.8, 1.3)), ((9, 9, 9), (1.0, 1.0, 1.0))]


@pytest.fixture(params=range(9))
def case(request) -> Any:
    """Prediction, truth and spacing."""
    shape, spacing = CASES[request.param % 3]
    rng = np.random.default_rng(request.param)
    return blobs(rng, shape), blobs(rng, shape), spacing


def test_a_perfect_prediction_is_perfect(case):
    _, truth, spacing = case
    assert measured(truth, truth, spacing) == {
        "dice": 1, "hd95": 0, "nsd": 1, "lesion_sensitivity": 1, "lesion_precision": 1
    }  # fmt: skip


def test_prediction_and_truth_change_places(case):
    predicted, truth, spacing = case
    one, other = measured(predicted, truth, spacing), measured(truth, predicted, spacing)
    for name in ("dice", "hd95", "nsd"):
        assert one[name] == pytest.approx(other[name])
    assert one["lesion_sensitivity"] == other["lesion_precision"]
    assert one["lesion_precision"] == other["lesion_sensitivity"]


def test_mm_are_scaled_with_the_spacing(case):
    predicted, truth, spacing = case
    one = measured(predicted, truth, spacing, tolerance_mm=1.5)
    wide = [3 * mm for mm in spacing]
    other = measured(predicted, truth, wide, tolerance_mm=4.5)
    assert one.pop("hd95") == pytest.approx(other.pop("hd95") / 3)  # type: ignore[operator]
    assert one == pytest.approx(other)


def test_neither_the_order_nor_the_direction_of_axes_matters(case):
    predicted, truth, spacing = case
    turned = measured(predicted.T[::-1], truth.T[::-1], spacing[::-1])
    assert turned == pytest.approx(measured(predicted, truth, spacing))


def test_background_around_does_not_matter(case):
    predicted, truth, spacing = case
    one = measured(predicted, truth, spacing)
    assert measured(np.pad(predicted, 3), np.pad(truth, 3), spacing) == pytest.approx(one)


def test_surfaces_agree_the_more_the_more_is_tolerated(case):
    predicted, truth, spacing = case
    found = [measured(predicted, truth, spacing, tolerance_mm=mm)["nsd"] or 0 for mm in (0, 2, 99)]
    assert found == sorted(found)
    assert found[0] < found[-1] == 1


def test_a_volume_of_one_slice_is_measured_as_the_slice(case):
    predicted, truth, spacing = case
    one = measured(predicted, truth, spacing)
    assert measured(predicted[None], truth[None], (7.0, *spacing)) == one


def test_dice_is_that_of_the_hosts(case):
    predicted, truth, spacing = case
    assert measured(predicted, truth, spacing)["dice"] == dice(predicted, truth, ONE)["x"]["dice"]


def test_inputs_stay_as_they_are(case):
    predicted, truth, spacing = case
    before = predicted.copy(), truth.copy()
    measured(predicted, truth, spacing, ignore=1)
    np.testing.assert_array_equal(predicted, before[0])
    np.testing.assert_array_equal(truth, before[1])


def test_a_spacing_rounded_to_float32_is_within_the_tolerance():
    truth, predicted = line(range(5)), line(range(5), row=2)
    spacing = np.linalg.norm(np.array([[0.1, 0], [0, 0.1]], np.float32), axis=0).astype(float)
    assert spacing[0] > 0.1
    assert measured(predicted, truth, spacing.tolist(), tolerance_mm=0.1)["nsd"] == 1
    assert measured(predicted, truth, spacing.tolist(), tolerance_mm=0.0999)["nsd"] == 0


# -- what is asked ---------------------------------------------------------------------------------


def test_only_what_is_asked_is_measured():
    truth = line(range(5))
    assert list(measured(truth, truth, (1, 1), asked=("nsd", "dice"))) == ["nsd", "dice"]


@pytest.mark.parametrize(
    ("changes", "fault", "says"),
    [
        ({"asked": ("dcie",)}, UsageFault, "measure 'dcie': .* Did you mean 'dice'"),
        ({"spacing": (1.0,)}, UsageFault, "spacing .*expected 2 positive numbers"),
        ({"spacing": (1.0, 0.0)}, UsageFault, "spacing"),
        ({"tolerance_mm": -1.0}, UsageFault, "tolerance_mm -1.0"),
        ({"overlap": 2.0}, UsageFault, "overlap 2.0"),
        ({"predicted": np.zeros((4, 4), np.int16)}, DataFault, r"shape \(4, 4\).*expected equal"),
    ],
)
def test_what_cannot_be_is_refused(changes, fault, says):
    usual: dict[str, Any] = {"predicted": line(range(3)), "truth": line(range(3))}
    with pytest.raises(fault, match=says):
        measure_case(**{**usual, "spacing": (1.0, 1.0), "regions": ONE, **changes})


def test_every_measure_is_in_the_table():
    truth = line(range(5))
    found = measure_case(truth, truth, (1, 1), ONE)
    assert [key.removesuffix("/x") for key in found] == list(SEGMENTATION)
    assert [measure_of(key) for key in found] == list(SEGMENTATION.values())
    assert measure_of("sensitivity@FP=0.5") is MEASURES["sensitivity"]
    assert {name for name, one in MEASURES.items() if one.better == "lower"} == {
        "hd95",
        "fp_per_image",
    }
    with pytest.raises(UsageFault, match=r"^hd59/WT: no measure.*Did you mean 'hd95'"):
        measure_of("hd59/WT")


def test_the_page_has_the_table_of_the_code():
    page = (Path(__file__).parents[3] / "docs" / "measures.md").read_text(encoding="utf-8")
    for name, one in MEASURES.items():
        margin = "" if one.margin is None else f"{one.margin} "
        assert f"| `{name}` | {one.unit} | {one.better} | {one.says} | {margin}|" in page
