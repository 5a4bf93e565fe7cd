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


def scored(**scores):
    """Arms -> case -> score, one run of each."""
    return {
        "primary": "dice/foreground",
        "control": "default",
        "measures": {"dice/foreground": documents.DICE},
        "arms": {arm: {"title": arm} for arm in scores},
        "runs": [
            {
                "arm": arm,
                "n": 6,
                "draw": 0,
                "seed": 0,
                "status": "done",
                "scores": {"dice/foreground": own},
            }
            for arm, own in scores.items()
        ],
    }


def test_the_controls_lowest_case_comes_first_then_the_greatest_losses():
    made = scored(
        default={"a": 0.9, "b": 0.5, "c": 0.8},
        small={"a": 0.89, "b": 0.5, "c": 0.8},
        large={"a": 0.9, "b": 0.6, "c": 0.4},
    )
    chosen = worst_cases(made)
    assert [(w.arm, w.case) for w in chosen[:3]] == [
        ("default", "b"),
        ("large", "c"),
        ("small", "a"),
    ]
    assert (chosen[1].value, chosen[1].control) == (0.4, 0.8)
    assert chosen[1].pointer == "/runs/2/scores/dice~1foreground/c"
    assert chosen[1].reference == "/runs/0/scores/dice~1foreground/c"


def test_no_more_than_asked_and_no_case_twice_for_an_arm():
    for most in (0, 1, 6):
        chosen = worst_cases(documents.full(), most)
        assert len(chosen) == most
        assert len({(w.arm, w.case) for w in chosen}) == most


def test_an_arm_that_loses_nowhere_is_not_shown():
    made = scored(default={"a": 0.5}, gan={"a": 0.6})
    assert [w.arm for w in worst_cases(made)] == ["default"]


def test_losses_are_against_the_same_draw_and_seed():
    made = scored(default={"a": 0.5}, gan={"a": 0.4})
    made["runs"][1]["seed"] = 1
    assert [w.arm for w in worst_cases(made)] == ["default"]


def test_of_a_distance_the_largest_is_the_worst():
    made = scored(default={"a": 1.0, "b": 9.0}, gan={"a": 5.0, "b": 9.5})
    made["measures"] = {"dice/foreground": documents.HD95}
    chosen = worst_cases(made)
    assert [(w.arm, w.case) for w in chosen[:2]] == [("default", "b"), ("gan", "a")]


@pytest.mark.parametrize("name", ["minimal", "all_failed"])
def test_without_scores_there_is_nothing_to_show(name):
    assert worst_cases(documents.EVERY[name]()) == []


# -- pictures ------------------------------------------------------------------------------------


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) / 255


def near(picture, colour):
    """Where a picture has a colour."""
    return np.abs(picture - to_rgb(colour)).max(axis=2) < 0.12


def volume():
    """Image (1, D, H, W), truth and prediction: in plane 4 they differ most."""
    image = np.zeros((1, 6, 30, 40), np.float32)
    image[0] += np.linspace(0, 0.2, 6)[:, None, None]
    truth = np.zeros((6, 30, 40), np.int16)
    truth[1:5, 8:20, 5:15] = 1
    predicted = truth.copy()
    predicted[4] = 0
    predicted[4, 8:20, 25:35] = 1
    return image, truth, predicted


def test_truth_and_prediction_are_outlined_in_their_colours_where_they_differ_most():
    picture = pixels(overlay_png(*volume()))
    assert picture.shape[:2] == (EDGE * 30 // 40, EDGE)
    scale = EDGE / 40
    rows, columns = np.nonzero(near(picture, TRUTH))
    assert 4 * scale < columns.min() < columns.max() < 16 * scale
    assert 7 * scale < rows.min() < rows.max() < 21 * scale
    columns = np.nonzero(near(picture, PREDICTED))[1]
    assert 24 * scale < columns.min() < columns.max() < 36 * scale


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
