import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.conditions.edits.warps import rotation
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, LabelArray
from gansynth.runtime.errors import UsageFault

quick = settings(max_examples=8, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
spacings = st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.7, 1.3)])


def centre(labels) -> npt.NDArray[np.float64]:
    return np.asarray(np.argwhere(labels).mean(axis=0))


def moved(edit, labels, names, seed=0) -> LabelArray:
    context = EditContext(labels, names)
    return np.asarray(edit.apply(context, edit.draw(context, np.random.default_rng(seed))).labels)


def as_drawn(**params: Any) -> dict[str, Any]:
    return {"strength": 1.0, "tries": 1, "classes": None, **params}


def boxed(shape: tuple[int, ...], *boxes: tuple[Any, ...]) -> LabelArray:
    """Zeros but for boxes: rows, columns, value."""
    labels = np.zeros(shape, np.int16)
    for rows, columns, value in boxes:
        labels[slice(*rows), slice(*columns)] = value
    return labels


@pytest.fixture
def shift(make, schema):
    """Shift labels, or chosen classes, by mm; their context instead, if there is one."""

    def run(labels, mm, classes=None, context=None):
        params = as_drawn(shift_mm=[float(v) for v in mm], classes=classes)
        given = EditContext(labels, schema(labels.ndim), channels=context)
        done = make("shift").apply(given, params)
        return done.labels if context is None else done.channels

    return run


@pytest.fixture
def nested():
    """A square of class 2 in one of class 1, 3 voxels from its edge."""
    return boxed((15, 15), ((2, 13), (2, 13), 1), ((5, 9), (5, 9), 2))


@quick
@given(seed=seeds, spacing=spacings)
def test_shift_moves_the_centroid_by_what_was_drawn_in_mm(seed, spacing, make, ball, schema):
    labels, names, edit = ball(7.0, spacing), schema(3, spacing), make("shift", max_mm=8.0)
    params = edit.draw(EditContext(labels, names), np.random.default_rng(seed))
    after = edit.apply(EditContext(labels, names), params).labels
    shift = (centre(after) - centre(labels)) * spacing
    # Labels live on voxels: half a voxel either way.
    assert (np.abs(shift - params["shift_mm"]) < 0.55 * np.array(spacing)).all()


def test_shift_by_whole_voxels_is_exact_and_by_half_of_one_keeps_the_volume(shift, toy, ball):
    labels = np.pad(toy().clip(0), 4)
    after = shift(labels, (2, -3, 4))
    assert np.array_equal(after, np.roll(labels, (2, -3, 4), (0, 1, 2)))
    assert shift(ball(), (0.5, 0.5, 0)).sum() == pytest.approx(ball().sum(), rel=0.01)
    voxel = boxed((9, 9), ((4, 5), (4, 5), 1))
    assert np.argwhere(shift(voxel, (0.3, 0.7))).tolist() == [[4, 5]]


@quick
@given(factor=st.floats(0.6, 0.85) | st.floats(1.2, 1.4), spacing=spacings)
def test_scale_changes_a_balls_volume_by_the_cube_of_the_factor(
    factor, spacing, make, ball, schema
):
    labels = ball(11.0, spacing)  # a factor near 1 would not reach half a voxel
    after = moved(make("scale", low=factor, high=factor), labels, schema(3, spacing))
    assert after.sum() / labels.sum() == pytest.approx(factor**3, rel=0.08)


def test_rotate_turns_a_rod_by_the_angle_despite_anisotropic_voxels(make, schema):
    spacing, shape = (2.0, 1.0, 0.8), (20, 40, 50)
    middle = [(n - 1) / 2 for n in shape]
    d, h, w = ((g - c) * mm for g, c, mm in zip(np.indices(shape), middle, spacing, strict=True))
    labels = ((np.abs(w) < 14) & (np.hypot(d, h) < 4)).astype(np.int16)
    params = as_drawn(angle_deg=40.0, axis=[0.0, 1.0, 0.0], centre=middle)
    after = make("rotate").apply(EditContext(labels, schema(3, spacing)), params).labels
    points = np.argwhere(after) * spacing
    main = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    expected = rotation(math.radians(40), [0.0, 1.0, 0.0]) @ [0.0, 0.0, 1.0]
    assert abs(main @ expected) == pytest.approx(1, abs=2e-3)


def test_rotate_in_the_plane_turns_a_quarter_exactly(make, schema):
    labels = boxed((9, 9), ((4, 5), (5, 8), 1))  # along the second axis
    params = as_drawn(angle_deg=90.0, axis=[], centre=[4.0, 4.0])
    after = make("rotate").apply(EditContext(labels, schema(2)), params).labels
    # Against the first: from the second axis on, away from the first.
    assert np.array_equal(after, boxed((9, 9), ((1, 4), (4, 5), 1)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5)])
@pytest.mark.parametrize("about", ["array", "centroid"])
def test_flip_twice_gives_the_original(spacing, about, make, ball, schema):
    labels, names = ball(6.0, spacing), schema(len(spacing), spacing)
    labels[..., labels.shape[-1] // 2 :] *= 2
    edit = make("flip", about=about, probability=1.0)
    params = edit.draw(EditContext(labels, names), np.random.default_rng(3))
    once = edit.apply(EditContext(labels, names), params).labels
    assert not np.array_equal(once, labels)
    assert np.array_equal(edit.apply(EditContext(once, names), params).labels, labels)


def test_flip_is_an_exact_mirror_image_as_often_as_asked(make, toy, schema):
    labels = toy().clip(0)
    after = moved(make("flip", axes=(1,), probability=1.0), labels, schema())
    assert np.array_equal(after, labels[:, ::-1])
    edit, rng, context = make("flip", probability=0.25), np.random.default_rng(0), toy()
    flipped = [edit.draw(EditContext(context, schema()), rng)["strength"] for _ in range(200)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.08)
    with pytest.raises(UsageFault, match=r"edit 'flip': axes holds \[2\], expected -2 to 1"):
        make("flip", axes=(0, 2)).draw(EditContext(toy(2), schema(2)), rng)


@quick
@given(
    seed=seeds,
    width=st.floats(4, 40),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (4.0, 0.9, 0.9), (1.0, 2.0)]),
)
def test_elastic_never_folds(seed, width, spacing, make, schema):
    n, shape = len(spacing), tuple(math.ceil(30 / mm) for mm in spacing)
    edit = make("elastic", amplitude_mm=100.0, correlation_mm=width)
    names, everywhere = schema(n, spacing), np.ones(shape, bool)
    params = edit.draw_move(everywhere, names, np.random.default_rng(seed), 1.0)
    pull = edit.coordinates(shape, names, params).astype(np.float64)
    inner = tuple(slice(length - 1) for length in shape)
    rows = [[np.diff(pull[i], axis=j)[inner] for j in range(n)] for i in range(n)]
    assert np.linalg.det(np.moveaxis(np.array(rows), (0, 1), (-2, -1))).min() > 0


def test_clip_keeps_the_largest_body_only(make, schema):
    labels = np.full((6, 20), OUTSIDE, np.int16)
    labels[1:5, 1:12] = labels[1:5, 14:19] = 0
    labels[2:4, 8:12] = labels[2:4, 14:17] = 1
    after = moved(make("clip"), labels, schema(2))
    assert np.array_equal(after[:, :13], labels[:, :13])
    assert not (after[:, 13:] > 0).any()
    whole = np.ones((5, 6), np.int16)  # there is nothing outside
    assert np.array_equal(moved(make("clip", margin_mm=5.0), whole, schema(2)), whole)


def test_clip_keeps_its_distance_in_mm_and_minds_the_border_if_told_to(make, schema):
    labels = np.ones((20, 30), np.int16)
    expected = boxed((20, 30), ((2, -2), (2, -2), 1))
    assert np.array_equal(
        moved(make("clip", margin_mm=2.0, border=True), labels, schema(2)), expected
    )
    labels[:, :4] = OUTSIDE
    after = moved(make("clip", margin_mm=5.0), labels, schema(2, (2.0, 1.25)))
    assert (after[:, 4:8] == 0).all()  # centres 1.25 to 5 mm from the last one outside
    assert (after[:, 8:] == 1).all()


def test_clip_halves_a_margin_that_would_cost_a_class_or_leaves_it(make, toy, schema):
    edit, rng = make("clip", margin_mm=64.0), np.random.default_rng(0)
    margin = edit.draw(EditContext(toy(), schema()), rng)["margin_mm"]
    assert margin in (8.0, 4.0, 2.0, 1.0)
    labels = np.array([[0, 0, 0, OUTSIDE, 1]], np.int16)  # it lies elsewhere altogether
    assert make("clip").draw(EditContext(labels, schema(2)), rng)["margin_mm"] is None
    assert np.array_equal(moved(make("clip"), labels, schema(2)), labels)


def test_a_nested_class_leaves_the_class_around_it_behind(shift, nested):
    expected = boxed((15, 15), ((2, 13), (2, 13), 1), ((5, 9), (8, 12), 2))
    assert np.array_equal(shift(nested, (0, 3), (2,)), expected)


def test_a_moved_class_overwrites_others_but_never_outside(shift):
    wall = ((0, 8), (9, 16), OUTSIDE)
    labels = boxed((8, 16), ((2, 6), (1, 4), 2), ((2, 6), (6, 9), 1), wall)
    expected = boxed((8, 16), ((2, 6), (6, 9), 1), ((2, 6), (7, 9), 2), wall)
    assert np.array_equal(shift(labels, (0, 6), (2,)), expected)
