"""Which cases a report shows, and what is drawn of them."""
# mypy: disallow-untyped-calls=False

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from gansynth.benchmark.report.overlays import EDGE, PREDICTED, TRUTH, overlay_png, worst_cases
from gansynth.runtime.errors import DataFault
from tests.benchmark import documents


def scored(measure=documents.DICE, **scores):
    """Arms -> case -> score, one run of each."""
    place = {"n": 6, "draw": 0, "seed": 0, "status": "done"}
    return {
        "primary": "m",
        "control": "default",
        "measures": {"m": measure},
        "arms": {arm: {"title": arm} for arm in scores},
        "runs": [{"arm": arm, **place, "scores": {"m": own}} for arm, own in scores.items()],
    }


DISTANCES = {"default": {"a": 1.0, "b": 9.0}, "gan": {"a": 5.0, "b": 9.5}}


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        (  # the control's lowest case, then the greatest losses
            scored(
                default={"a": 0.9, "b": 0.5, "c": 0.8},
                small={"a": 0.89, "b": 0.5, "c": 0.8},
                large={"a": 0.9, "b": 0.6, "c": 0.4},
            ),
            [("default", "b"), ("large", "c"), ("small", "a")],
        ),
        (scored(default={"a": 0.5}, gan={"a": 0.6}), [("default", "a")]),  # it loses nowhere
        (scored(documents.HD95, **DISTANCES), [("default", "b"), ("gan", "a")]),
        (documents.minimal(), []),
        (documents.all_failed(), []),
    ],
)
def test_the_controls_worst_case_comes_first_then_the_greatest_losses(made, chosen):
    assert [(w.arm, w.case) for w in worst_cases(made)][: len(chosen) or None] == chosen


def test_a_case_stands_with_its_value_the_controls_and_their_places():
    worst = worst_cases(scored(default={"b": 0.5, "c": 0.8}, gan={"b": 0.6, "c": 0.4}))[1]
    assert (worst.value, worst.control) == (0.4, 0.8)
    assert worst.pointer == "/runs/1/scores/m/c"
    assert worst.reference == "/runs/0/scores/m/c"


def test_losses_are_against_the_same_draw_and_seed():
    made = scored(default={"a": 0.5}, gan={"a": 0.4})
    made["runs"][1]["seed"] = 1
    assert [w.arm for w in worst_cases(made)] == ["default"]


def test_no_more_than_asked_and_no_case_twice_for_an_arm():
    for most in (0, 1, 6):
        chosen = worst_cases(documents.full(), most)
        assert len({(w.arm, w.case) for w in chosen}) == len(chosen) == most


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) / 255


def near(picture, colour):
    """Where a picture has a colour."""
    return np.abs(picture - to_rgb(colour)).max(axis=2) < 0.12


def volume():
    """Image (1, D, H, W), truth and prediction: in plane 4 they differ most."""
    image = np.linspace(0, 0.2, 6, dtype=np.float32)[None, :, None, None] + np.zeros((30, 40))
    truth = np.zeros((6, 30, 40), np.int16)
    truth[1:5, 8:20, 5:15] = 1
    predicted = truth.copy()
    predicted[4] = np.roll(truth[4], 20, axis=1)
    return image.astype(np.float32), truth, predicted


def test_truth_and_prediction_are_outlined_in_their_colours_where_they_differ_most():
    picture = pixels(overlay_png(*volume()))
    assert picture.shape[:2] == (EDGE * 30 // 40, EDGE)
    scale = EDGE / 40
    for colour, left in ((TRUTH, 5), (PREDICTED, 25)):
        rows, columns = np.nonzero(near(picture, colour))
        assert (left - 1) * scale < columns.min() < columns.max() < (left + 11) * scale
        assert 7 * scale < rows.min() < rows.max() < 21 * scale


def test_the_predictions_outline_is_told_apart_without_colour():
    image, truth, _ = volume()
    whole = near(pixels(overlay_png(image, truth, np.zeros_like(truth))), TRUTH).sum()
    dashed = near(pixels(overlay_png(image, np.zeros_like(truth), truth)), PREDICTED).sum()
    assert 0.4 * whole < dashed < 0.85 * whole


def test_where_all_agree_the_fullest_slice_is_shown():
    image, truth, _ = volume()
    truth[2, 0:30, 0:20] = 1
    rows = np.nonzero(near(pixels(overlay_png(image, truth, truth)), PREDICTED))[0]
    assert np.ptp(rows) > 0.9 * EDGE * 30 / 40


def test_a_constant_picture_is_drawn_and_what_is_outside_counts_as_background():
    _, truth, predicted = volume()
    truth, predicted = truth[4], predicted[4]
    flat = np.ones((2, 30, 40), np.float32)
    outside = np.where(truth == 0, -1, truth)
    drawn = overlay_png(flat, outside, predicted, channel=1)
    assert drawn == overlay_png(flat, truth, predicted, channel=1)
    assert near(pixels(drawn), TRUTH).any()


def test_shapes_that_do_not_fit_are_refused():
    image, truth, predicted = volume()
    with pytest.raises(DataFault, match=r"expected \(C, D, H, W\)"):
        overlay_png(image, truth, predicted[1:])
    with pytest.raises(DataFault, match="channel 1, expected one below 1"):
        overlay_png(image, truth, predicted, channel=1)
