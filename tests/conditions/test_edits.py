"""What every edit keeps, whatever it does."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gansynth.conditions import BUILT_IN
from gansynth.conditions.moving import keeps_classes
from gansynth.errors import UsageFault
from gansynth.registry import installed
from gansynth.schema import OUTSIDE

quick = settings(max_examples=5, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)

# Strong enough that labels leave the array, meet OUTSIDE and cover each other.
STRONG: dict[str, dict[str, Any]] = {
    "identity": {},
    "elastic": {"amplitude_mm": 20.0, "correlation_mm": 6.0},
    "flip": {"axes": (0, -1), "probability": 1.0},
    "rotate": {"max_deg": 180.0},
    "scale": {"low": 0.4, "high": 2.5},
    "shift": {"max_mm": 30.0},
    "clip": {"margin_mm": 6.0, "border": True},
}
MOVES = sorted(set(STRONG) - {"identity", "clip"})
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.8, 1.1), (1.0, 1.5)]

every_edit = pytest.mark.parametrize("name", sorted(STRONG))
every_move = pytest.mark.parametrize("name", MOVES)
every_way = pytest.mark.parametrize(
    ("name", "chosen"),
    [(name, {}) for name in STRONG]
    + [(name, {"classes": classes}) for name in MOVES for classes in ((2,), (1,), (2, 4))],
)


@pytest.fixture(scope="session")
def strong(make):
    return lambda name, **options: make(name, **STRONG[name], **options)


def test_the_options_above_name_every_built_in_edit():
    assert set(STRONG) == set(BUILT_IN)


@every_edit
def test_an_edit_goes_by_its_registered_name(name):
    assert installed().edit(name).name == name


@every_edit
def test_every_option_is_described(name):
    fields = installed().edit(name).Options.model_fields.values()
    assert all(field.description for field in fields)


@every_edit
def test_an_unknown_option_is_refused(name):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        installed().edit(name).Options.model_validate({"no_such_option": 1})


@every_way
@pytest.mark.parametrize("spacing", SPACINGS)
@quick
@given(seed=seeds)
def test_an_edit_keeps_the_contract(name, chosen, spacing, seed, strong, toy, schema):
    ndim = len(spacing)
    labels, names = toy(ndim, spacing), schema(ndim, spacing)
    before, edit = labels.copy(), strong(name, **chosen)
    params = edit.draw(labels, names, np.random.default_rng(seed))
    after = edit.apply(labels, names, params)

    assert np.array_equal(labels, before), "the input was written to"
    assert not np.shares_memory(after, labels)
    assert (after.dtype, after.shape) == (np.int16, labels.shape)
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    # A class asked to shrink may fall below 30 % of its voxels, none else.
    least = min(0.3, 0.6 * params.get("factor", 1.0) ** ndim)
    for value in names.foreground:
        assert (after == value).sum() >= max(1, least * (labels == value).sum())


@every_way
@pytest.mark.parametrize("spacing", SPACINGS)
@quick
@given(seed=seeds)
def test_parameters_read_back_from_json_replay_to_the_bit(
    name, chosen, spacing, seed, strong, toy, schema
):
    ndim = len(spacing)
    labels, names, edit = toy(ndim, spacing), schema(ndim, spacing), strong(name, **chosen)
    params = edit.draw(labels, names, np.random.default_rng(seed))
    # By an edit with other options: the parameters alone decide.
    again = installed().edit(name)().apply(labels, names, json.loads(json.dumps(params)))
    assert np.array_equal(again, edit.apply(labels, names, params))


@every_way
@pytest.mark.parametrize("spacing", SPACINGS)
@quick
@given(seed=seeds)
def test_context_keeps_its_contract(name, chosen, spacing, seed, strong, toy, schema):
    ndim, rng = len(spacing), np.random.default_rng(seed)
    labels, names, edit = toy(ndim, spacing), schema(ndim, spacing), strong(name, **chosen)
    context = rng.integers(0, 6, labels.shape).astype(np.int16)
    before, params = context.copy(), edit.draw(labels, names, rng)
    after = edit.apply_context(context, labels, names, params)

    assert np.array_equal(context, before), "the input was written to"
    assert (after.dtype, after.shape) == (np.int16, context.shape)
    assert set(np.unique(after)) <= set(np.unique(context))
    assert np.array_equal(after[labels == OUTSIDE], context[labels == OUTSIDE])


@every_edit
@quick
@given(seed=seeds, shape=st.lists(st.integers(1, 7), min_size=2, max_size=3), some=st.booleans())
def test_an_edit_survives_labels_without_any_anatomy(name, seed, shape, some, strong, schema):
    rng, names = np.random.default_rng(seed), schema(len(shape))
    labels = rng.choice(np.array([OUTSIDE, 0, 0, 1, 2, 4], np.int16), shape)
    edit = strong(name, **({"classes": (1, 4)} if some and name in MOVES else {}))
    after = edit.apply(labels, names, edit.draw(labels, names, rng))
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(after[after > 0]) == set(labels[labels > 0])


@every_edit
@pytest.mark.parametrize("fill", [0, OUTSIDE])
def test_a_map_without_foreground_stays_as_it_is(name, fill, strong, schema):
    labels, edit = np.full((6, 5, 4), fill, np.int16), strong(name)
    params = edit.draw(labels, schema(), np.random.default_rng(0))
    assert np.array_equal(edit.apply(labels, schema(), params), labels)


@every_edit
def test_the_generator_alone_decides_what_is_drawn(name, strong, toy, schema):
    first, second = (strong(name).draw(toy(), schema(), np.random.default_rng(7)) for _ in range(2))
    assert first == second


@every_move
def test_draws_differ(name, strong, toy, schema):
    edit, rng = strong(name), np.random.default_rng(0)
    drawn = [json.dumps(edit.draw(toy(), schema(), rng)) for _ in range(8)]
    assert len(set(drawn)) > 1


@every_move
def test_a_class_that_the_schema_lacks_is_refused(name, strong, toy, schema):
    with pytest.raises(UsageFault, match=rf"edit '{name}': classes holds \[3\], expected.*1, 2, 4"):
        strong(name, classes=(3, 4)).draw(toy(), schema(), np.random.default_rng(0))


@every_move
def test_a_class_that_a_case_lacks_changes_nothing(name, strong, ball, schema):
    params = strong(name, classes=(2,)).draw(ball(), schema(), np.random.default_rng(0))
    assert params == {"strength": 0.0, "tries": 0}


# -- falling back -------------------------------------------------------------------------------


def test_a_shift_out_of_the_array_is_halved_until_the_class_stays(make, ball, schema):
    edit, rng = make("shift", max_mm=200.0), np.random.default_rng(0)
    drawn = [edit.draw(ball(), schema(), rng) for _ in range(8)]
    assert all(params["strength"] == 0.5 ** (params["tries"] - 1) for params in drawn)
    assert max(params["tries"] for params in drawn) > 2


def test_a_move_that_would_cost_a_class_each_time_is_not_made(make, schema):
    labels = np.array([[OUTSIDE, 2, 1]], np.int16)  # mirrored, class 1 would lie outside
    edit = make("flip", axes=(1,), probability=1.0, classes=(1,))
    params = edit.draw(labels, schema(2), np.random.default_rng(0))
    assert params == {"strength": 0.0, "tries": 8}


def test_every_class_is_counted_by_itself():
    before = np.array([[1] * 100, [2] * 10 + [0] * 90], np.int16)
    after = before.copy()
    after[1, 3:10] = 0
    assert keeps_classes(before, after)
    after[1, 2] = 0
    assert not keeps_classes(before, after)


def test_a_class_asked_to_shrink_may_fall_below_the_usual_share(make, ball, schema):
    edit = make("scale", low=0.5, high=0.5)
    assert edit.draw(ball(), schema(), np.random.default_rng(0))["factor"] == pytest.approx(0.5)
