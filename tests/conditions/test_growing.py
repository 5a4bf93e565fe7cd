"""Enlarging and shrinking: the volume asked for, room, and what lies within what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gansynth.conditions.edits.morphology import change_volume
from gansynth.conditions.edits.nesting import keeps_nesting, wrapped_classes
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE
from gansynth.data.connected_components import Parts

quick = settings(max_examples=8, deadline=None, database=None, derandomize=True)
spacings = st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.8, 1.1), (1.0, 1.5)])


def counts(labels, *values) -> list[int]:
    return [int((labels == value).sum()) for value in values]


@pytest.fixture
def rings():
    """A leaky ring (2) around a heart (1), in a wide coat (4); the ring opens to background."""
    labels = np.zeros((30, 30), np.int16)
    labels[3:27, 3:27] = 4
    labels[9:21, 9:21] = 2
    labels[12:18, 12:18] = 1
    labels[14:16, 18:30] = 0
    return labels


# -- volumes --------------------------------------------------------------------------------------


@quick
@given(factor=st.floats(0.1, 3.5), spacing=spacings)
def test_the_volume_comes_out_to_the_voxel(factor, spacing, ball):
    labels = ball(9.0, spacing)
    after = change_volume(labels, labels > 0, factor, spacing)
    assert abs((after > 0).sum() - factor * (labels > 0).sum()) <= 0.5


@pytest.mark.parametrize(("name", "low", "high"), [("enlarge", 1.4, 3.0), ("shrink", 0.3, 0.7)])
@quick
@given(seed=st.integers(0, 2**32 - 1), spacing=spacings)
def test_the_drawn_factor_is_the_factor_on_the_volume(
    name, low, high, seed, spacing, make, ball, scene, schema
):
    labels, names = ball(7.0, spacing), schema(len(spacing), spacing)
    labels.ravel()[0] = OUTSIDE  # so that the rest is the body
    there, edit = scene(labels, names), make(name, low=low, high=high)
    params = edit.draw(EditContext(labels, names, there), np.random.default_rng(seed))
    after = edit.apply(EditContext(labels, names, there), params).labels
    assert params["strength"] == 1
    assert low <= params["factor"] <= high
    assert abs((after > 0).sum() - params["factor"] * (labels > 0).sum()) <= 0.5


@pytest.mark.parametrize("factor", [0.35, 2.5])
def test_a_ball_stays_one_in_mm_despite_anisotropic_voxels(factor, ball):
    spacing = (3.0, 0.8, 1.1)
    labels = ball(9.0, spacing)
    after = change_volume(labels, labels > 0, factor, spacing)
    radius = 9.0 * factor ** (1 / 3)
    middle = (np.array(labels.shape) - 1) / 2
    at = np.linalg.norm((np.indices(labels.shape).T - middle) * spacing, axis=-1).T
    assert (after[at < radius - 2.0] == 1).all()
    assert (after[at > radius + 2.0] == 0).all()


def test_rounding_to_no_voxel_changes_nothing(ball):
    labels = ball()
    assert np.array_equal(change_volume(labels, labels > 0, 1 + 1e-6, (1.0,) * 3), labels)


@pytest.mark.parametrize("name", ["enlarge", "shrink"])
def test_an_empty_range_is_refused(name, make):
    with pytest.raises(ValidationError, match=r"low 0\.9 is above high|low 3\.0 is above high"):
        make(name, low=0.9 if name == "shrink" else 3.0)


# -- room -----------------------------------------------------------------------------------------


def test_growth_ends_where_the_body_does(make, toy, scene, schema):
    labels = np.maximum(toy(), 0)  # the image alone shows where the body is
    there, edit = scene(labels, schema()), make("enlarge", low=16, high=16)
    there.__dict__["body"] = toy() != OUTSIDE
    params = edit.draw(EditContext(labels, schema(), there), np.random.default_rng(0))
    after = edit.apply(EditContext(labels, schema(), there), params).labels
    assert (after > 0).sum() > 3 * (labels > 0).sum()
    assert not (after > 0)[~there.body].any()
    assert (edit.apply(EditContext(labels, schema()), params).labels > 0)[~there.body].any()


def test_growth_takes_all_there_is_and_no_more():
    labels = np.full((9, 9), OUTSIDE, np.int16)
    labels[2:7, 2:7] = 0
    labels[4, 4] = 1
    after = change_volume(labels, labels == 1, 100, (1.0, 1.0))
    assert np.array_equal(after == 1, labels >= 0)


def test_growth_does_not_jump_over_a_gap():
    labels = np.zeros((7, 21), np.int16)
    labels[3, 6] = 1
    labels[:, 8] = OUTSIDE
    after = change_volume(labels, labels == 1, 31, (1.0, 1.0))
    assert not (after == 1)[:, 8:].any()
    assert (after == 1).sum() == 31


def test_a_dent_is_filled_first(ball):
    labels = ball(8.0, (1.0, 1.0))
    dent = (int(np.argwhere(labels)[0][0]), labels.shape[1] // 2)
    labels[dent] = 0
    whole = change_volume(labels, labels == 1, 1 + 1 / labels.sum(), (1.0, 1.0))
    assert whole[dent] == 1


def test_bodies_neither_grow_together_nor_vanish():
    labels = np.zeros((40, 40), np.int16)
    for at, size in ((4, 8), (14, 6), (22, 2), (30, 1)):
        labels[at : at + size, at : at + size] = 1
    for factor in (0.2, 4.0):
        after = change_volume(labels, labels == 1, factor, (1.0, 1.0))
        assert len(Parts.of(after == 1).sizes) == 4
    assert (after == 1).sum() == 4 * (labels == 1).sum()


def test_thin_ends_do_not_stay_behind_as_crumbs():
    labels = np.zeros((20, 44), np.int16)
    labels[2:18, 2:18] = 1
    labels[9:12, 18:34] = 1
    labels[8:13, 34:39] = 1  # a knob at the end of a handle
    after = change_volume(labels, labels == 1, 0.6, (1.0, 1.0))
    assert len(Parts.of(after == 1).sizes) == 1
    assert (after == 1).sum() == round(0.6 * (labels == 1).sum())


# -- nesting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5)])
@pytest.mark.parametrize("factor", [0.3, 0.7, 1.5, 3.0])
@pytest.mark.parametrize("classes", [(1, 2, 4), (1,), (2,), (2, 4)])
def test_a_wrapped_class_stays_wrapped(spacing, factor, classes, toy):
    labels = toy(len(spacing), spacing)
    assert wrapped_classes(labels) == (2,)
    after = change_volume(labels, np.isin(labels, classes), factor, spacing)
    assert keeps_nesting(labels, after)
    assert not np.array_equal(after, labels)


def test_a_nested_class_takes_from_and_leaves_to_the_one_around_it(toy):
    labels = toy()
    core, shell, background = counts(labels, 2, 1, 0)
    for factor in (0.5, 1.5):
        after = change_volume(labels, labels == 2, factor, (1.0,) * 3)
        change = round((factor - 1) * core)
        assert counts(after, 2, 1, 0) == [core + change, shell - change, background]


def test_a_shell_grows_outwards_and_shrinks_from_outside(toy):
    labels = toy()
    for factor in (0.6, 1.5):
        after = change_volume(labels, labels == 1, factor, (1.0,) * 3)
        assert np.array_equal(after == 2, labels == 2)
        assert counts(after, 1) == [round(factor * (labels == 1).sum())]


def test_the_whole_foreground_grows_by_its_own_surface_and_its_skin_moves_in(toy):
    labels = toy()
    grown = change_volume(labels, labels > 0, 1.6, (1.0,) * 3)
    assert np.array_equal(grown == 2, labels == 2)
    assert np.array_equal(grown[labels > 0], labels[labels > 0])
    shrunk = change_volume(labels, labels > 0, 0.2, (1.0,) * 3)
    assert 0 < (shrunk == 2).sum() < (labels == 2).sum()
    assert (shrunk == 1).any()


def test_a_leaky_ring_does_not_grow_inwards(rings):
    after = change_volume(rings, rings == 2, 1.5, (1.0, 1.0))
    assert counts(after, 1) == counts(rings, 1)
    assert counts(after, 4)[0] < counts(rings, 4)[0]
    assert counts(after, 2)[0] == round(1.5 * counts(rings, 2)[0])


def test_neighbours_neither_eat_each_other_nor_part(ball):
    labels = ball(8.0)
    labels[..., labels.shape[-1] // 2 :] *= 2
    grown = change_volume(labels, labels == 1, 1.5, (1.0,) * 3)
    assert np.array_equal(grown == 2, labels == 2)
    shrunk = change_volume(labels, labels == 1, 0.4, (1.0,) * 3)
    middle = [n // 2 for n in labels.shape]
    assert shrunk[middle[0], middle[1], middle[2] - 1] == 1  # beside the other one, deep inside


def test_a_class_is_not_shrunk_to_death(make, toy, schema):
    labels = toy()
    labels[labels == 4] = 0
    labels[16, 17, 18] = 4
    edit = make("shrink", low=0.05, high=0.05, classes=(4,))
    params = edit.draw(EditContext(labels, schema()), np.random.default_rng(0))
    assert (edit.apply(EditContext(labels, schema()), params).labels == 4).any()


# -- what goes along ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["enlarge", "shrink"])
def test_context_and_image_show_the_new_labels(name, make, toy, schema):
    labels, edit = np.maximum(toy(), 0), make(name)
    context = EditContext(labels, schema(), None, labels, labels[None].astype(np.float32))
    after, channels, image = edit.apply(context, edit.draw(context, np.random.default_rng(0)))
    assert np.array_equal(channels, after)
    assert np.array_equal(image[0], after)


def test_the_image_keeps_its_grain(make, ball, schema):
    labels, edit = ball(8.0), make("enlarge", low=2, high=2)
    image = np.random.default_rng(0).standard_normal((2, *labels.shape)).astype(np.float32)
    context = EditContext(labels, schema(), image=image)
    after, _, shown = edit.apply(context, edit.draw(context, np.random.default_rng(0)))
    new = after > labels
    assert np.array_equal(shown[:, ~new], image[:, ~new])
    # Repeating the surface's voxels outwards would leave about one value for four voxels.
    assert len(np.unique(shown[0][new])) > 0.5 * new.sum()
