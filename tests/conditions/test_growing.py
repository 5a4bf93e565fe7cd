import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.conditions.edits.morphology import change_volume
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE
from gansynth.data.connected_components import LabelComponents

quick = settings(max_examples=8, deadline=None, database=None, derandomize=True)
spacings = st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.8, 1.1), (1.0, 1.5)])


def counts(labels, *values) -> list[int]:
    return [int((labels == value).sum()) for value in values]


def pieces(labels, value=1) -> int:
    return len(LabelComponents.of(labels == value).sizes)


@quick
@given(factor=st.floats(0.1, 3.5), spacing=spacings)
def test_the_volume_comes_out_to_the_voxel(factor, spacing, ball):
    labels = ball(9.0, spacing)
    after = change_volume(labels, labels > 0, factor, spacing)
    assert abs((after > 0).sum() - factor * (labels > 0).sum()) <= 0.5
    assert np.array_equal(change_volume(labels, labels > 0, 1 + 1e-6, spacing), labels)


def test_growth_ends_where_the_body_does(make, toy, case_context, schema):
    labels = np.maximum(toy(), 0)  # the image alone shows where the body is
    there, edit = case_context(labels, schema()), make("enlarge", low=16, high=16)
    there.__dict__["body"] = toy() != OUTSIDE
    params = edit.draw(EditContext(labels, schema(), there), np.random.default_rng(0))
    after = edit.apply(EditContext(labels, schema(), there), params).labels
    assert (after > 0).sum() > 3 * (labels > 0).sum()
    assert not (after > 0)[~there.body].any()
    assert (edit.apply(EditContext(labels, schema()), params).labels > 0)[~there.body].any()


def test_growth_takes_all_there_is_and_does_not_jump_over_a_gap():
    labels = np.full((9, 9), OUTSIDE, np.int16)
    labels[2:7, 2:7] = 0
    labels[4, 4] = 1
    after = change_volume(labels, labels == 1, 100, (1.0, 1.0))
    assert np.array_equal(after == 1, labels >= 0)
    labels = np.zeros((7, 21), np.int16)
    labels[3, 6] = 1
    labels[:, 8] = OUTSIDE
    after = change_volume(labels, labels == 1, 31, (1.0, 1.0))
    assert not (after == 1)[:, 8:].any()
    assert (after == 1).sum() == 31


def test_bodies_neither_grow_together_nor_vanish():
    labels = np.zeros((40, 40), np.int16)
    for at, size in ((4, 8), (14, 6), (22, 2), (30, 1)):
        labels[at : at + size, at : at + size] = 1
    for factor in (0.2, 4.0):
        after = change_volume(labels, labels == 1, factor, (1.0, 1.0))
        assert pieces(after) == 4
    assert (after == 1).sum() == 4 * (labels == 1).sum()


def test_a_nested_class_takes_from_the_one_around_it_which_grows_and_shrinks_outside(toy):
    labels = toy()
    core, shell, background = counts(labels, 2, 1, 0)
    for factor in (0.5, 1.5):
        after = change_volume(labels, labels == 2, factor, (1.0,) * 3)
        change = round((factor - 1) * core)
        assert counts(after, 2, 1, 0) == [core + change, shell - change, background]
        after = change_volume(labels, labels == 1, factor, (1.0,) * 3)
        assert np.array_equal(after == 2, labels == 2)
        assert counts(after, 1) == [round(factor * shell)]


def test_neighbours_neither_eat_each_other_nor_part(ball):
    labels = ball(8.0)
    labels[..., labels.shape[-1] // 2 :] *= 2
    grown = change_volume(labels, labels == 1, 1.5, (1.0,) * 3)
    assert np.array_equal(grown == 2, labels == 2)
    shrunk = change_volume(labels, labels == 1, 0.4, (1.0,) * 3)
    middle = [n // 2 for n in labels.shape]
    assert shrunk[middle[0], middle[1], middle[2] - 1] == 1  # beside the other one, deep inside


def test_thin_ends_do_not_stay_behind_as_crumbs():
    labels = np.zeros((20, 44), np.int16)
    labels[2:18, 2:18] = 1
    labels[9:12, 18:34] = 1
    labels[8:13, 34:39] = 1  # a knob at the end of a handle
    after = change_volume(labels, labels == 1, 0.6, (1.0, 1.0))
    assert pieces(after) == 1
    assert (after == 1).sum() == round(0.6 * (labels == 1).sum())
