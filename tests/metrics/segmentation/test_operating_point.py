import numpy as np
import pytest

from gansynth.metrics.segmentation.evaluation import (
    OWN,
    THRESHOLDS,
    LabelMaps,
    Prediction,
    alarms_of,
    at_thresholds,
    equal_alarms,
    gain_at_equal_alarms,
)
from tests.expected import raises_fault
from tests.metrics.segmentation.shapes import line

LOGITS = np.random.default_rng(0).normal(0, 4, (3, 20, 20)).astype(np.float32)


def test_above_a_half_is_the_foreground_of_the_label_map():
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(0)
    levels = Prediction.levels_of(shares, (1, 2))
    np.testing.assert_array_equal(levels > OWN, shares.argmax(0) > 0)
    two = shares[1:].max(0) / (shares[1:].max(0) + shares[0])
    np.testing.assert_array_equal(levels > THRESHOLDS.index(0.9), two > 0.9)
    regions = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)
    levels = Prediction.levels_of(regions, range(3))
    np.testing.assert_array_equal(levels > OWN, (regions > 0.5).any(0))


def prediction(levels: np.ndarray, predicted: np.ndarray) -> Prediction:
    maps = LabelMaps(predicted, line(range(10)), (1.0, 1.0))
    return Prediction("p", None, lambda: maps, levels=lambda: levels)


def test_a_case_is_measured_at_every_threshold():
    """A lesion of ten pixels is sure, two others less and less."""
    levels = 18 * line(range(10)) + (OWN + 2) * line(range(20, 25)) + 3 * line((39,))
    found = at_thresholds({"c": prediction(levels, (levels > OWN) * 1)}, (1,), "case")
    volume = [6] * 3 + [5] * (OWN - 1) + [0] * (len(THRESHOLDS) - OWN - 2)
    assert alarms_of(found) == volume  # in voxels, where every case has a lesion
    dice = found["dice@alarms/foreground"]["c"]
    assert dice[OWN] == pytest.approx(2 * 10 / 25)
    assert dice[-2:] == [1, 0]


def test_alarms_are_of_cases_without_a_lesion_where_some_are_judged():
    maps = LabelMaps(np.zeros_like(line(())), np.zeros_like(line(())), (1.0, 1.0))
    levels = 4 * line(range(10))
    free = Prediction("q", None, lambda: maps, levels=lambda: levels)
    both = {"c": prediction(18 * line(range(10)), line(range(10))), "free": free}
    alarms = alarms_of(at_thresholds(both, (1,), "case"))
    assert alarms == [1] * 4 + [0] * (len(THRESHOLDS) - 4)


def test_probabilities_of_another_grid_are_refused():
    turned = 18 * line(range(10), row=2)
    with raises_fault("metrics.probabilities-foreground-differs"):
        at_thresholds({"c": prediction(turned, line(range(10)))}, (1,), "case")
    bare = Prediction("p", None, lambda: None)  # type: ignore[arg-type, return-value]
    with raises_fault("metrics.probabilities-not-kept"):
        at_thresholds({"c": bare}, (1,), "case")


DOWN = np.arange(len(THRESHOLDS), 0, -1.0)
"""False alarms of a control, one fewer at each threshold."""


@pytest.mark.parametrize(
    ("alarms", "control", "threshold"),
    [
        (DOWN, DOWN, 0.5),
        (DOWN + 1, DOWN, 0.6),
        (DOWN - 1, DOWN, 0.4),
        (DOWN + 0.4, DOWN, 0.5),
        (DOWN + 100, DOWN, 0.9999),
        ([2.0] * 19, [2.0] * 19, 0.5),  # of several the nearest to the host's own
        ([0.0] * 3 + [3.0] * 15 + [0.0], [0.0] * 19, 0.9999),  # a whole picture is one lesion
    ],
)
def test_the_threshold_is_that_of_as_many_false_alarms(alarms, control, threshold):
    assert THRESHOLDS[equal_alarms(alarms, control).level] == threshold


def test_alarms_too_far_apart_at_every_threshold_are_not_called_equal():
    control = [1287.0] * len(THRESHOLDS)
    coarse = [17338.0] + [160.0] * (len(THRESHOLDS) - 1)
    unequal = equal_alarms(coarse, control).unequal
    assert unequal == "false alarms could not be made equal (160 against 1287)"
    assert "(1287 against 160)" in equal_alarms(control, [160.0] * len(THRESHOLDS)).unequal
    assert not equal_alarms([1.4 * 1287] * len(THRESHOLDS), control).unequal
    without, with_alarm = 18 * line(range(12)), 18 * line(range(10)) + 17 * line(range(20, 25))
    arm, other = [{"c": prediction(each, (each > OWN) * 1)} for each in (without, with_alarm)]
    gain = gain_at_equal_alarms(arm, other, (1,))
    assert gain == (None, "false alarms could not be made equal (0 against 5)")
