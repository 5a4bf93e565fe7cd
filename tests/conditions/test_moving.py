"""Moving some classes past others, thin structures, and the context that goes along."""

import math

import numpy as np
import pytest
from scipy import ndimage

from gansynth.conditions.edits.affine import rotation
from gansynth.core.edit import EditContext
from gansynth.core.geometry import affine_coordinates, pull_labels
from gansynth.core.schema import OUTSIDE, FloatArray


@pytest.fixture
def shift(make):
    """Shift some classes of a 2D map by whole voxels; its context instead, if there is one."""

    def run(labels, names, vector, classes, context=None):
        edit, shift_mm = make("shift"), [float(v) for v in vector]
        params = {"strength": 1.0, "tries": 1, "classes": classes, "shift_mm": shift_mm}
        if context is not None:
            return edit.apply(EditContext(labels, names, channels=context), params).channels
        return edit.apply(EditContext(labels, names), params).labels

    return run


@pytest.fixture
def nested():
    """A square of class 2 in one of class 1, 3 voxels from its edge."""
    labels = np.zeros((15, 15), np.int16)
    labels[2:13, 2:13] = 1
    labels[5:9, 5:9] = 2
    return labels


# -- some classes only --------------------------------------------------------------------------


def test_a_nested_class_leaves_the_class_around_it_behind(shift, nested, schema):
    expected = nested.copy()
    expected[5:9, 5:9] = 1
    expected[5:9, 8:12] = 2
    assert np.array_equal(shift(nested, schema(2), (0, 3), (2,)), expected)


def test_a_class_beside_another_leaves_background_behind(shift, schema):
    labels = np.zeros((12, 20), np.int16)
    labels[2:8, 2:8] = 1
    labels[2:8, 8:12] = 2
    expected = labels.copy()
    expected[2:8, 8:12] = 0
    expected[2:8, 14:18] = 2
    assert np.array_equal(shift(labels, schema(2), (0, 6), (2,)), expected)


def test_an_open_side_of_a_nested_class_becomes_background(shift, schema):
    labels = np.zeros((14, 14), np.int16)
    labels[2:12, 2:10] = 1
    labels[5:9, 4:10] = 2  # open to the right
    after = shift(labels, schema(2), (0, -2), (2,))
    assert (after[5:9, 2:8] == 2).all()
    assert (after[6:8, 9] == 0).all()
    assert (after[[5, 8], 8] == 1).all()


def test_a_moved_class_overwrites_others_but_never_outside(shift, schema):
    labels = np.zeros((8, 16), np.int16)
    labels[2:6, 1:4] = 2
    labels[2:6, 6:9] = 1
    labels[:, 9:] = OUTSIDE
    expected = labels.copy()
    expected[2:6, 1:4] = 0
    expected[2:6, 7:9] = 2
    assert np.array_equal(shift(labels, schema(2), (0, 6), (2,)), expected)


def test_a_growing_shell_leaves_its_core_alone_and_opens_no_gap(make, toy, schema):
    labels, edit = toy().clip(0), make("scale", low=1.3, high=1.3, classes=(1,))
    context = EditContext(labels, schema())
    after = edit.apply(context, edit.draw(context, np.random.default_rng(0))).labels
    assert np.array_equal(after == 2, labels == 2)
    assert (after == 1).sum() > 1.5 * (labels == 1).sum()
    assert (after[ndimage.binary_fill_holes(after == 1)] > 0).all()


def test_a_cavity_moves_along(shift, schema):
    labels = np.zeros((16, 16), np.int16)
    labels[3:10, 3:10] = 1
    labels[5:8, 5:8] = 0
    labels[13:15, 13:15] = 2
    after = shift(labels, schema(2), (2, 2), (1,))
    assert np.array_equal(after == 1, np.roll(labels == 1, (2, 2), (0, 1)))


def test_other_classes_stay_where_nothing_lands(make, toy, schema):
    labels, edit = toy(), make("elastic", classes=(2,))
    context = EditContext(labels, schema())
    after = edit.apply(context, edit.draw(context, np.random.default_rng(0))).labels
    others = (labels != 2) & (after != 2)
    assert np.array_equal(after[others], labels[others])
    assert not np.array_equal(after, labels)


# -- thin structures ----------------------------------------------------------------------------


def turn(shape) -> FloatArray:
    axis = [1 / math.sqrt(14), 2 / math.sqrt(14), 3 / math.sqrt(14)]
    middle = [(n - 1) / 2 for n in shape]
    return affine_coordinates(shape, rotation(math.radians(37), axis), middle)


def faces(labels) -> int:
    return sum(int(np.count_nonzero(np.diff(labels, axis=axis))) for axis in range(3))


def test_turned_borders_are_smoother_than_with_the_nearest_voxel(ball):
    labels, pull = ball(10.0), turn(ball().shape)
    nearest = ndimage.map_coordinates(labels, pull, order=0)
    assert faces(pull_labels(labels, pull)) < 0.95 * faces(nearest)


def test_a_line_one_voxel_wide_keeps_its_length():
    labels = np.zeros((32, 30, 34), np.int16)
    labels[16, 15, 5:29] = 1
    assert pull_labels(labels, turn(labels.shape)).sum() >= 0.85 * labels.sum()


def test_a_single_voxel_goes_to_the_nearest_place(make, schema):
    labels = np.zeros((9, 9), np.int16)
    labels[4, 4] = 1
    params = {"strength": 1.0, "tries": 1, "classes": None, "shift_mm": [0.3, 0.7]}
    after = make("shift").apply(EditContext(labels, schema(2)), params).labels
    assert np.argwhere(after).tolist() == [[4, 5]]


def test_labels_are_interpolated_as_linear_masks_are(ball):
    labels, pull = ball(10.0) + ball(6.0), turn(ball().shape)  # nothing is one voxel thin
    masks = [
        ndimage.map_coordinates((labels == value).astype(float), pull, order=1)
        for value in range(3)
    ]
    masks[0] = 1 - masks[1] - masks[2]  # background beyond the array, too
    first, second = np.sort(masks, axis=0)[:0:-1]
    clear = first - second > 1e-3
    assert np.array_equal(pull_labels(labels, pull)[clear], np.argmax(masks, axis=0)[clear])


def test_pulling_by_nothing_returns_the_labels_exactly():
    labels = np.random.default_rng(0).integers(0, 5, (7, 8, 9)).astype(np.int16)
    pull = affine_coordinates(labels.shape, np.eye(3), (0.0, 0.0, 0.0))
    assert np.array_equal(pull_labels(labels, pull), labels)


# -- context ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("elastic", {}),
        ("flip", {"probability": 1.0}),
        ("rotate", {"max_deg": 90.0}),
        ("scale", {"low": 1.2}),
        ("shift", {}),
    ],
)
def test_the_context_of_the_whole_map_moves_as_the_labels_do(name, options, make, toy, schema):
    labels, edit = np.pad(toy().clip(0), 8), make(name, **options)
    given = EditContext(labels, schema(), channels=labels)  # clusters = labels
    after, context, _ = edit.apply(given, edit.draw(given, np.random.default_rng(0)))
    anything = (after > 0) | (context > 0)
    # Borders differ a little: labels are weighed, context takes the nearest voxel.
    assert np.mean(after[anything] == context[anything]) > 0.9
    assert np.mean(labels[anything] == context[anything]) < 0.9


def test_context_without_a_source_stays_as_it_was(shift, schema):
    labels = np.zeros((6, 10), np.int16)
    labels[2:4, 2:4] = 1
    labels[:, 0] = OUTSIDE
    context = np.tile(np.arange(10, dtype=np.int16), (6, 1))
    after = shift(labels, schema(2), (0, 3), None, context)
    assert after[0].tolist() == [0, 1, 2, 3, 1, 2, 3, 4, 5, 6]


def test_chosen_classes_take_their_context_along(shift, nested, schema):
    context = np.where(nested == 2, np.int16(9), np.int16(5))
    after = shift(nested, schema(2), (0, 3), (2,), context)
    assert np.array_equal(after == 9, np.roll(nested == 2, 3, axis=1))


def test_vacated_voxels_take_the_nearest_context_of_their_new_label(shift, nested, schema):
    context = np.where(nested == 2, np.int16(9), np.int16(5))
    context[:, 5:] += 1
    context[nested == 0] = 3
    after = shift(nested, schema(2), (0, 3), (2,), context)
    assert (after[5:9, 5:8] != 9).all()
    assert set(after[6:8, 5]) == {5}  # what lies to the left of it


def test_context_elsewhere_stays_when_chosen_classes_move(shift, nested, schema):
    context = np.random.default_rng(0).integers(0, 6, nested.shape).astype(np.int16)
    after = shift(nested, schema(2), (0, 3), (2,), context)
    elsewhere = (nested != 2) & (np.roll(nested, 3, axis=1) != 2)
    assert np.array_equal(after[elsewhere], context[elsewhere])
