"""Parts edited one by one, or left out."""

import json
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edit
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.core.edit import Edit, EditContext
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.data.connected_components import Parts
from gansynth.data.lesion_parts import parts
from gansynth.runtime.errors import UsageFault


@pytest.fixture
def crowd():
    """Nine squares of two classes, 4 voxels apart, every second one with a heart; some outside."""
    labels = np.zeros((32, 33), np.int16)
    for row in range(3):
        for column in range(3):
            top, left = 2 + 10 * row, 2 + 10 * column
            labels[top : top + 6, left : left + 6] = 1 + 3 * (row % 2)
            if (row + column) % 2:
                labels[top + 2 : top + 4, left + 2 : left + 4] = 2
    labels[:, 32] = OUTSIDE
    return labels


def pieces(labels: LabelArray) -> int:
    return len(Parts.of(labels > 0).sizes)


def drawn(
    edit: Edit, labels: LabelArray, names: Schema, seed: int = 0
) -> tuple[dict[str, Any], LabelArray]:
    params = edit.draw(EditContext(labels, names), np.random.default_rng(seed))
    return params, edit.apply(EditContext(labels, names), json.loads(json.dumps(params))).labels


# -- components -----------------------------------------------------------------------------------

INNER = {
    "shift": "inner.max_mm=6",
    "rotate": "inner.max_deg=90",
    "scale": "inner.low=0.8,inner.high=1.6",
    "elastic": "inner.amplitude_mm=3,inner.correlation_mm=4",
    "enlarge": "inner.high=3",
    "shrink": "inner.low=0.4",
    "flip": "inner.about=centroid,inner.axes=0+1",
}


@pytest.mark.parametrize("inner", sorted(INNER))
def test_parts_change_by_themselves_and_stay_apart(inner, crowd, schema):
    edit = build_edit(f"components:edit={inner},{INNER[inner]}")
    params, after = drawn(edit, crowd, schema(2))
    assert pieces(after) == pieces(crowd) == 9
    assert len(params["parts"]) >= 5
    assert len({json.dumps(step["params"]) for step in params["parts"]}) > 1
    assert set(np.unique(after)) == set(np.unique(crowd))
    if inner != "flip":  # squares are their own mirror images
        assert not np.array_equal(after, crowd)


def test_each_part_moves_as_its_own_draw_says(crowd, schema):
    edit = build_edit("components:edit=shift,inner.max_mm=3")
    params, after = drawn(edit, crowd, schema(2))
    before = parts(crowd, schema(2))
    shifts = {step["part"]: step["params"]["shift_mm"] for step in params["parts"]}
    there = [part.centroid for part in parts(after, schema(2))]
    for number, shift in shifts.items():
        target = np.add(before[number].centroid, shift)
        assert np.linalg.norm(np.subtract(there, target), axis=1).min() < 0.8


def test_a_part_takes_what_is_nested_in_it_along(crowd, schema):
    edit = build_edit("components:edit=shift,inner.max_mm=3,classes=1+4")
    after = drawn(edit, crowd, schema(2))[1]
    hearts = sum(2 in part.labels for part in parts(after, schema(2)))
    assert hearts == 4
    assert not np.array_equal(after == 2, crowd == 2)


def test_nested_parts_stay_within_what_wraps_them(crowd, schema):
    edit = build_edit("components:edit=shift,inner.max_mm=4,classes=2")
    params, after = drawn(edit, crowd, schema(2))
    assert params["parts"]
    assert np.array_equal(after > 0, crowd > 0)
    assert not np.array_equal(after, crowd)


def test_what_of_a_nested_part_comes_out_is_cut(make, toy, schema):
    labels, move = (
        toy(),
        {"strength": 1.0, "tries": 1, "classes": None, "shift_mm": [0.0, 0.0, 3.0]},
    )
    params = {"edit": "shift", "classes": [2], "parts": [{"part": 0, "params": move}]}
    after = make("components").apply(EditContext(labels, schema()), params).labels
    assert keeps_nesting(labels, after)
    assert 0 < (after == 2).sum() < (labels == 2).sum()


def test_a_part_does_not_bury_another_class(schema):
    labels = np.zeros((24, 24), np.int16)
    labels[9:15, 9:15] = 1
    labels[12, 17] = 2
    edit = build_edit("components:edit=shift,inner.max_mm=9,classes=1")
    for seed in range(40):
        assert (drawn(edit, labels, schema(2), seed)[1] == 2).any()


def test_a_part_without_room_stays_as_it_is(schema):
    labels = np.zeros((12, 12), np.int16)
    labels[:, :5] = labels[:, 7:] = 1
    edit = build_edit("components:edit=enlarge,inner.low=1.5")
    params, after = drawn(edit, labels, schema(2))
    assert params["parts"] == []
    assert np.array_equal(after, labels)


def test_chance_and_least_say_which_parts_are_edited(crowd, schema):
    edit = build_edit("components:edit=shift,chance=0.3")
    counts = [len(drawn(edit, crowd, schema(2), seed)[0]["parts"]) for seed in range(12)]
    assert 0.15 < np.mean(counts) / 9 < 0.45
    large = build_edit("components:edit=shift,least=37")
    assert drawn(large, crowd, schema(2))[0]["parts"] == []


def test_context_and_image_go_with_their_part(crowd, schema):
    edit, names = build_edit("components:edit=shift,inner.max_mm=4"), schema(2)
    params, after = drawn(edit, crowd, names)
    context = np.maximum(crowd, 0)
    shown = context[None].astype(np.float32)
    _, moved, image = edit.apply(EditContext(crowd, names, None, context, shown), params)
    assert image is not None
    # Borders differ: labels are weighed, context takes the nearest voxel, images are linear.
    assert np.mean(moved == np.maximum(after, 0)) > 0.98
    assert np.mean(np.rint(image[0]) == np.maximum(after, 0)) > 0.95
    assert np.mean(context == np.maximum(after, 0)) < 0.9


@pytest.mark.parametrize("edit", ["components", "place", "transplant"])
def test_edits_of_whole_cases_cannot_be_told_of_a_part(edit):
    with pytest.raises(UsageFault, match=f"edit: {edit} cannot be told of a part alone"):
        build_edit(f"components:edit={edit}")


# -- drop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chance", "least"), [(0.5, 1), (1.0, 1), (1.0, 4)])
def test_some_parts_are_left_out_whole(chance, least, make, crowd, schema):
    edit, left = make("drop", chance=chance, least=least), []
    for seed in range(8):
        params, after = drawn(edit, crowd, schema(2), seed)
        changed = after != crowd
        assert (after[changed] == 0).all()
        assert pieces(after) == 9 - len(params["dropped"])
        assert set(np.unique(after)) == set(np.unique(crowd))
        left.append(pieces(after))
    assert min(left) == max(least, 2) if chance == 1 else 2 < np.mean(left) < 7


def test_the_last_part_stays(make, ball, schema):
    params, after = drawn(make("drop", chance=1.0), ball(), schema())
    assert params["dropped"] == []
    assert np.array_equal(after, ball())


def test_what_a_nested_part_leaves_becomes_the_class_around_it(make, crowd, schema):
    params, after = drawn(make("drop", chance=1.0, classes=(2,)), crowd, schema(2))
    assert len(params["dropped"]) == 3
    assert np.array_equal(after > 0, crowd > 0)
    assert (after == 2).sum() == 4


def test_context_and_image_show_nothing_of_what_is_gone(make, crowd, schema):
    edit, names = make("drop", chance=1.0), schema(2)
    params, after = drawn(edit, crowd, names)
    context = np.maximum(crowd, 0)
    expected = np.maximum(after, 0)
    image = context[None].astype(np.float32)
    done = edit.apply(EditContext(crowd, names, None, context, image), params)
    assert np.array_equal(done.channels, expected)
    assert done.image is not None
    assert np.array_equal(done.image[0], expected)
