from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edits.nesting import keeps_nesting, wrapped_classes
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE
from gansynth.data.lesions import parts


@pytest.fixture
def two():
    """A shell with a core and a cavity, and a bar that touches a dot by a corner; one dot apart."""
    labels = np.zeros((12, 20), np.int16)
    labels[1:9, 1:9] = 1
    labels[3:6, 3:6] = 2
    labels[6, 6] = 0
    labels[2:4, 12:16] = 4
    labels[4, 16] = 1
    labels[9, 18] = 4
    labels[:, 19] = OUTSIDE
    return labels


def test_the_largest_part_comes_first_and_corners_join(two, schema):
    found = parts(two, schema(2))
    assert [part.voxels for part in found] == [63, 9, 1]
    assert np.array_equal(sum(part.whole() for part in found), np.maximum(two, 0))


def test_a_part_holds_what_is_nested_in_it_but_no_cavity(two, schema):
    shell = parts(two, schema(2), (1,))[0]
    assert set(np.unique(shell.labels)) == {0, 1, 2}
    assert shell.labels[5, 5] == 0  # the cavity
    assert parts(two, schema(2), (1,))[1].voxels == 1  # the dot, without the bar beside it


def test_a_part_knows_its_volume_in_mm_and_whether_it_may_go_on(schema):
    labels = np.zeros((4, 5, 6), np.int16)
    labels[0, 1:3, 1:3] = 1
    (part,) = parts(labels, schema(3, (2.0, 0.5, 1.5)))
    assert part.volume == pytest.approx(4 * 1.5)
    assert part.cut_off
    assert not parts(np.roll(labels, 1, axis=0), schema())[0].cut_off


def test_wrapped_is_what_touches_other_foreground_and_no_background(two, toy):
    assert wrapped_classes(toy()) == (2,)
    assert wrapped_classes(two) == (2,)
    two[5:8, 5] = 0
    assert wrapped_classes(two) == ()
    # Neither the array's end nor what is outside is background.
    labels = np.array([[2, 2, 1, 0], [2, 1, 1, 0], [OUTSIDE, 1, 0, 0]], np.int16)
    assert wrapped_classes(labels) == (2,)
    assert wrapped_classes(np.full((3, 3), 2, np.int16)) == ()


def test_nesting_is_lost_where_a_wrapped_class_comes_to_touch_background(toy):
    labels = toy()
    bare = labels.copy()
    bare[tuple(np.argwhere(labels == 0)[0])] = 2
    assert keeps_nesting(labels, labels)
    assert not keeps_nesting(labels, bare)
    assert keeps_nesting(bare, labels)


MOVES: dict[str, dict[str, Any]] = {
    "shift": {"max_mm": 8.0},
    "rotate": {"max_deg": 180.0},
    "scale": {"low": 0.5, "high": 3.0},
    "elastic": {"amplitude_mm": 8.0, "correlation_mm": 5.0},
    "flip": {"about": "centroid", "probability": 1.0, "axes": (0, 1)},
}


@pytest.mark.parametrize("classes", [(2,), (1,), (2, 4), (1, 2)])
@pytest.mark.parametrize("name", sorted(MOVES))
def test_chosen_classes_stay_nested_when_they_move(name, classes, make, toy, schema):
    labels = toy(2, (0.7, 0.7))
    context = EditContext(labels, schema(2, (0.7, 0.7)))
    edit = make(name, **MOVES[name], classes=classes)
    for seed in range(6):
        after = edit.apply(context, edit.draw(context, np.random.default_rng(seed))).labels
        assert keeps_nesting(labels, after)
        if name != "scale" and 2 in classes:
            assert (after == 2).sum() >= 0.7 * (labels == 2).sum()


def test_a_move_may_be_told_to_lay_a_nested_class_bare(make, toy, schema):
    edit = make("shift", max_mm=8.0, classes=(2,), nested=False)
    context = EditContext(toy(), schema())
    drawn = [edit.draw(context, np.random.default_rng(seed)) for seed in range(12)]
    assert all(params["strength"] == 1 for params in drawn)
    assert not all(keeps_nesting(toy(), edit.apply(context, params).labels) for params in drawn)
    whole = make("shift").draw(context, np.random.default_rng(0))
    assert "nested" not in whole  # moves of the whole foreground know no nesting
