import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.conditions.edit_chain import build_edit
from gansynth.conditions.edits.morphology import change_volume
from gansynth.conditions.edits.shared import keeps_nesting
from gansynth.conditions.edits.warps import rotation
from gansynth.core.edit import Edit, EditContext
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from tests.conditions.rooms import ball, case_context, make, schema, toy
from tests.expected import raises_fault


def drawn(
    edit: Edit | str, labels: LabelArray, names: Schema | None = None, seed: int = 0
) -> tuple[Any, LabelArray]:
    """Parameters and labels of an edit, which may be text."""
    made = build_edit(edit) if isinstance(edit, str) else edit
    context = EditContext(labels, names or schema(labels.ndim))
    params = made.draw(context, np.random.default_rng(seed))
    return params, made.apply(context, json.loads(json.dumps(params))).labels


def as_drawn(name: str, labels: LabelArray, names: Schema | None = None, **params: Any) -> Any:
    """Labels of an edit for which this was drawn."""
    told = {"strength": 1.0, "tries": 1, "classes": None, **params}
    return make(name).apply(EditContext(labels, names or schema(labels.ndim)), told).labels


def boxed(shape: tuple[int, ...], *boxes: tuple[Any, ...]) -> LabelArray:
    """Zeros but for boxes: rows, columns, value."""
    labels = np.zeros(shape, np.int16)
    for rows, columns, value in boxes:
        labels[slice(*rows), slice(*columns)] = value
    return labels


def test_shift_is_in_mm_exact_by_whole_voxels_and_keeps_the_volume_by_half_of_one():
    labels, names = np.pad(toy().clip(0), 4), schema(3, (2.0, 0.5, 1.0))
    after = as_drawn("shift", labels, names, shift_mm=[4.0, -1.5, 4.0])
    assert np.array_equal(after, np.roll(labels, (2, -3, 4), (0, 1, 2)))
    after = as_drawn("shift", ball(), shift_mm=[0.5, 0.5, 0.0])
    assert after.sum() == pytest.approx(ball().sum(), rel=0.01)
    voxel = boxed((9, 9), ((4, 5), (4, 5), 1))
    assert np.argwhere(as_drawn("shift", voxel, shift_mm=[0.3, 0.7])).tolist() == [[4, 5]]


def test_rotate_turns_a_rod_by_the_angle_despite_anisotropic_voxels():
    spacing, shape = (2.0, 1.0, 0.8), (20, 40, 50)
    middle = [(n - 1) / 2 for n in shape]
    d, h, w = ((g - c) * mm for g, c, mm in zip(np.indices(shape), middle, spacing, strict=True))
    labels = ((np.abs(w) < 14) & (np.hypot(d, h) < 4)).astype(np.int16)
    turn: dict[str, Any] = {"angle_deg": 40.0, "axis": [0.0, 1.0, 0.0], "centre": middle}
    points = np.argwhere(as_drawn("rotate", labels, schema(3, spacing), **turn)) * spacing
    main = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    expected = rotation(math.radians(40), [0.0, 1.0, 0.0]) @ [0.0, 0.0, 1.0]
    assert abs(main @ expected) == pytest.approx(1, abs=2e-3)


def test_flip_is_an_exact_mirror_image_as_often_as_asked():
    labels = toy().clip(0)
    _, after = drawn(make("flip", axes=(1,), probability=1.0), labels)
    assert np.array_equal(after, labels[:, ::-1])
    edit, rng, context = make("flip", probability=0.25), np.random.default_rng(0), toy()
    flipped = [edit.draw(EditContext(context, schema()), rng)["strength"] for _ in range(200)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.08)
    with raises_fault("conditions.flip-axes-out-of-range"):
        drawn(make("flip", axes=(0, 2)), toy(2))


@settings(max_examples=8, deadline=None, database=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.floats(4, 40),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (4.0, 0.9, 0.9), (1.0, 2.0)]),
)
def test_elastic_never_folds(seed, width, spacing):
    n, shape = len(spacing), tuple(math.ceil(30 / mm) for mm in spacing)
    edit: Any = make("elastic", amplitude_mm=100.0, correlation_mm=width)
    names, everywhere = schema(n, spacing), np.ones(shape, bool)
    params = edit.draw_move(everywhere, names, np.random.default_rng(seed), 1.0)
    pull = edit.coordinates(shape, names, params).astype(np.float64)
    inner = tuple(slice(length - 1) for length in shape)
    rows = [[np.diff(pull[i], axis=j)[inner] for j in range(n)] for i in range(n)]
    assert np.linalg.det(np.moveaxis(np.array(rows), (0, 1), (-2, -1))).min() > 0


def test_clip_keeps_the_largest_body_only():
    labels = np.full((6, 20), OUTSIDE, np.int16)
    labels[1:5, 1:12] = labels[1:5, 14:19] = 0
    labels[2:4, 8:12] = labels[2:4, 14:17] = 1
    _, after = drawn("clip", labels)
    assert np.array_equal(after[:, :13], labels[:, :13])
    assert not (after[:, 13:] > 0).any()
    whole = np.ones((5, 6), np.int16)  # there is nothing outside
    assert np.array_equal(drawn("clip:margin_mm=5", whole)[1], whole)


def test_clip_keeps_its_distance_in_mm_and_minds_the_border_if_told_to():
    labels = np.ones((20, 30), np.int16)
    expected = boxed((20, 30), ((2, -2), (2, -2), 1))
    assert np.array_equal(drawn("clip:margin_mm=2,border=yes", labels)[1], expected)
    labels[:, :4] = OUTSIDE
    _, after = drawn("clip:margin_mm=5", labels, schema(2, (2.0, 1.25)))
    assert (after[:, 4:8] == 0).all()  # centres 1.25 to 5 mm from the last one outside
    assert (after[:, 8:] == 1).all()


def test_clip_halves_a_margin_that_would_cost_a_class_or_leaves_it():
    assert drawn("clip:margin_mm=64", toy())[0]["margin_mm"] in (8.0, 4.0, 2.0, 1.0)
    labels = np.array([[0, 0, 0, OUTSIDE, 1]], np.int16)  # it lies elsewhere altogether
    assert np.array_equal(drawn("clip", labels)[1], labels)


def test_a_moved_class_leaves_the_class_around_it_behind_and_overwrites_others_never_outside():
    nested = boxed((15, 15), ((2, 13), (2, 13), 1), ((5, 9), (5, 9), 2))
    expected = boxed((15, 15), ((2, 13), (2, 13), 1), ((5, 9), (8, 12), 2))
    assert np.array_equal(as_drawn("shift", nested, shift_mm=[0.0, 3.0], classes=[2]), expected)
    wall = ((0, 8), (9, 16), OUTSIDE)
    labels = boxed((8, 16), ((2, 6), (1, 4), 2), ((2, 6), (6, 9), 1), wall)
    expected = boxed((8, 16), ((2, 6), (6, 9), 1), ((2, 6), (7, 9), 2), wall)
    assert np.array_equal(as_drawn("shift", labels, shift_mm=[0.0, 6.0], classes=[2]), expected)


@pytest.mark.parametrize("classes", ["2", "1"])
@pytest.mark.parametrize(
    "text",
    ["shift:max_mm=8", "rotate:max_deg=180", "scale:low=0.5,high=3",
     "elastic:amplitude_mm=8,correlation_mm=5", "flip:about=centroid,probability=1,axes=0+1",
     "enlarge:low=1.5,high=3", "shrink:low=0.3,high=0.7"],
)  # fmt: skip
def test_chosen_classes_stay_nested(text, classes):
    labels, names = toy(2, (0.7, 0.7)), schema(2, (0.7, 0.7))
    for seed in range(6):
        _, after = drawn(f"{text},classes={classes}", labels, names, seed)
        assert keeps_nesting(labels, after)
        if not text.startswith(("scale", "shrink")) and classes == "2":
            assert (after == 2).sum() >= 0.7 * (labels == 2).sum()


FLAT, CUBE = (1.0, 1.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize("factor", [0.13, 0.8, 3.4])
@pytest.mark.parametrize("spacing", [(3.0, 0.8, 1.1), (1.0, 1.5)], ids=len)
def test_the_volume_comes_out_to_the_voxel(factor, spacing):
    labels = ball(9.0, spacing)
    after = change_volume(labels, labels > 0, factor, spacing)
    assert abs((after > 0).sum() - factor * (labels > 0).sum()) <= 0.5
    assert np.array_equal(change_volume(labels, labels > 0, 1 + 1e-6, spacing), labels)


def test_growth_and_a_clip_end_where_the_body_does_that_the_image_shows():
    labels = np.maximum(toy(), 0)  # the image alone shows where the body is
    there, edit = case_context(labels, schema()), make("enlarge", low=16, high=16)
    there.__dict__["body"] = toy() != OUTSIDE
    params = edit.draw(EditContext(labels, schema(), there), np.random.default_rng(0))
    after = edit.apply(EditContext(labels, schema(), there), params).labels
    assert (after > 0).sum() > 3 * (labels > 0).sum()
    assert not (after > 0)[~there.body].any()
    beyond = edit.apply(EditContext(labels, schema()), params).labels
    assert (beyond > 0)[~there.body].any()
    clip, context = build_edit("clip:to=image"), EditContext(beyond, schema(), there)
    clipped = clip.apply(context, clip.draw(context, np.random.default_rng(0))).labels
    assert not (clipped > 0)[~there.body].any()
    assert np.array_equal(clipped[there.body], beyond[there.body])


def test_growth_takes_all_there_is_and_does_not_jump_over_a_gap():
    labels = np.full((9, 9), OUTSIDE, np.int16)
    labels[2:7, 2:7] = 0
    labels[4, 4] = 1
    after = change_volume(labels, labels == 1, 100, FLAT)
    assert np.array_equal(after == 1, labels >= 0)
    labels = np.zeros((7, 21), np.int16)
    labels[3, 6] = 1
    labels[:, 8] = OUTSIDE
    after = change_volume(labels, labels == 1, 31, FLAT)
    assert not (after == 1)[:, 8:].any()
    assert (after == 1).sum() == 31
