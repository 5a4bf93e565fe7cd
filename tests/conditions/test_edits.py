"""What every edit keeps, whatever it does."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gansynth.conditions import BUILT_IN
from gansynth.conditions.edit_chain import apply_edits
from gansynth.conditions.edits.morphology import Growing
from gansynth.conditions.edits.moving import Move
from gansynth.conditions.edits.shared import keeps_classes
from gansynth.core.edit import Edit, EditContext
from gansynth.core.registry import installed
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, LabelArray
from gansynth.runtime.errors import UsageFault

quick = settings(max_examples=3, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)

# Strong enough that labels leave the array, meet OUTSIDE and cover each other.
STRONG: dict[str, dict[str, Any]] = {
    "identity": {},
    "elastic": {"amplitude_mm": 20.0, "correlation_mm": 6.0},
    "flip": {"axes": (0, -1), "probability": 1.0},
    "rotate": {"max_deg": 180.0},
    "scale": {"low": 0.4, "high": 2.5},
    "shift": {"max_mm": 30.0},
    "enlarge": {"low": 1.5, "high": 8.0},
    "shrink": {"low": 0.1, "high": 0.6},
    "components": {"edit": "rotate", "inner": {"max_deg": 180.0}},
    "drop": {"chance": 1.0},
    "clip": {"margin_mm": 6.0, "border": True},
    "transplant": {"where": "anywhere"},
    "interpolate": {"low": 0.0, "high": 1.0},
    "merge": {},
    "place": {"each": True, "where": "anywhere"},
    "size": {"like": "small"},
}
ADDS = {"merge", "transplant"}
"""Edits that bring foreground where there is none, hence other classes."""
ONE_WAY = {"identity", "clip", "drop", "merge"}
"""Edits with nothing to choose from there: no lesion can be spared, one other person has some."""
CHOOSES = sorted(n for n in STRONG if "classes" in installed().edit(n).Options.model_fields)
MOVES = sorted(n for n in CHOOSES if issubclass(installed().edit(n), Move | Growing))
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.8, 1.1), (1.0, 1.5)]

every_edit = pytest.mark.parametrize("name", sorted(STRONG))
every_move = pytest.mark.parametrize("name", MOVES)
every_choice = pytest.mark.parametrize("name", CHOOSES)
every_way = pytest.mark.parametrize(
    ("name", "chosen"),
    [(name, {}) for name in STRONG]
    + [(name, {"classes": classes}) for name in CHOOSES for classes in ((2,), (1,), (2, 4))],
)
both_ways = pytest.mark.parametrize(
    ("name", "chosen"),
    [(name, {}) for name in STRONG] + [(name, {"classes": (2, 4)}) for name in CHOOSES],
)


@pytest.fixture(scope="session")
def strong(make):
    return lambda name, **options: make(name, **STRONG[name], **options)


@pytest.fixture(scope="session")
def setting(scene, toy, schema) -> Callable[[tuple[float, ...]], Scene]:
    """The toy map among cases to borrow from, one scene for each spacing."""
    return cache(lambda spacing: scene(toy(len(spacing), spacing), schema(len(spacing), spacing)))


def edited(edit: Edit, there: Scene, seed: int) -> tuple[dict[str, Any], LabelArray]:
    """Draw and apply an edit of a scene's own labels."""
    context = EditContext(there.labels, there.room.schema, there)
    params = edit.draw(context, np.random.default_rng(seed))
    return params, edit.apply(context, params).labels


def least_share(name: str, params: Mapping[str, Any], ndim: int) -> float:
    """Share of its voxels that an edit leaves every class."""
    if name == "drop":  # one part of a class is enough
        return 0.0
    factors = params.get("factors") or [params.get("factor", 1.0)]
    power = 1 if name in ("enlarge", "shrink") else ndim
    return float(min(0.3, 0.6 * min(factors) ** power))


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
def test_an_edit_keeps_the_contract(name, chosen, spacing, seed, strong, setting):
    there = setting(spacing)
    labels, names = there.labels, there.room.schema
    before, image = labels.copy(), there.case.image.copy()
    params, after = edited(strong(name, **chosen), there, seed)

    assert np.array_equal(labels, before), "the input was written to"
    assert np.array_equal(there.case.image, image), "the scene was written to"
    assert not np.shares_memory(after, labels)
    assert after.dtype == np.int16
    assert after.shape == labels.shape
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    if name != "transplant":
        least = least_share(name, params, names.ndim)
        for value in names.foreground:
            assert (after == value).sum() >= max(1, least * (labels == value).sum())


@both_ways
@pytest.mark.parametrize("spacing", SPACINGS)
@quick
@given(seed=seeds)
def test_parameters_read_back_from_json_replay_to_the_bit(
    name, chosen, spacing, seed, strong, setting, scene
):
    there, edit = setting(spacing), strong(name, **chosen)
    params, after = edited(edit, there, seed)
    assert edited(edit, there, seed)[0] == params, "the generator alone decides what is drawn"
    # By an edit with other options, and cases that nothing was learnt from.
    labels, names = there.labels, there.room.schema
    document = json.loads(json.dumps(params))
    fresh = EditContext(labels, names, scene(labels, names))
    assert np.array_equal(installed().edit(name)().apply(fresh, document).labels, after)


@both_ways
@pytest.mark.parametrize("spacing", SPACINGS)
@quick
@given(seed=seeds)
def test_context_and_image_keep_their_contract(name, chosen, spacing, seed, strong, setting):
    there, edit, rng = setting(spacing), strong(name, **chosen), np.random.default_rng(seed)
    labels, names = there.labels, there.room.schema
    context = rng.integers(0, 6, labels.shape).astype(np.int16)
    before, image = context.copy(), there.case.image.copy()
    given = EditContext(labels, names, there, context, there.case.image)
    params = edit.draw(given, rng)
    done = given.edited(edit, params)
    after, shown = done.channels, done.image
    assert after is not None
    assert shown is not None
    bare = edit.apply(given.with_labels(labels), params)
    assert np.array_equal(bare.labels, done.labels), "what goes along decides nothing"
    assert bare.channels is None
    assert bare.image is None

    assert np.array_equal(context, before), "the input was written to"
    assert after.dtype == np.int16
    assert after.shape == context.shape
    assert set(np.unique(after)) <= {0, *np.unique(context)}
    assert np.array_equal(after[labels == OUTSIDE], context[labels == OUTSIDE])
    assert np.array_equal(there.case.image, image), "the image was written to"
    assert shown.dtype == np.float32
    assert shown.shape == image.shape
    assert np.isfinite(shown).all()


@every_edit
@quick
@given(seed=seeds, shape=st.lists(st.integers(1, 7), min_size=2, max_size=3), some=st.booleans())
def test_an_edit_survives_labels_without_any_anatomy(
    name, seed, shape, some, strong, scene, schema
):
    rng, names = np.random.default_rng(seed), schema(len(shape))
    labels = rng.choice(np.array([OUTSIDE, 0, 0, 1, 2, 4], np.int16), shape)
    edit = strong(name, **({"classes": (1, 4)} if some and name in CHOOSES else {}))
    after = edited(edit, scene(labels, names), seed)[1]
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    if name not in ADDS:
        assert set(after[after > 0]) == set(labels[labels > 0])


@pytest.mark.parametrize("name", sorted(set(STRONG) - ADDS))
@pytest.mark.parametrize("fill", [0, OUTSIDE])
def test_a_map_without_foreground_stays_as_it_is(name, fill, strong, scene, schema):
    labels = np.full((6, 5, 4), fill, np.int16)
    assert np.array_equal(edited(strong(name), scene(labels, schema()), 0)[1], labels)


@pytest.mark.parametrize("name", sorted(set(STRONG) - ONE_WAY))
def test_draws_differ(name, strong, setting):
    drawn = [json.dumps(edited(strong(name), setting(SPACINGS[0]), seed)[0]) for seed in range(8)]
    assert len(set(drawn)) > 1


@every_choice
def test_a_class_that_the_schema_lacks_is_refused(name, strong, setting):
    with pytest.raises(UsageFault, match=rf"edit '{name}': classes holds \[3\], expected.*1, 2, 4"):
        edited(strong(name, classes=(3, 4)), setting(SPACINGS[0]), 0)


@pytest.mark.parametrize("name", sorted(set(CHOOSES) - ADDS))
def test_a_class_that_a_case_lacks_changes_nothing(name, strong, ball, scene, schema):
    there = scene(ball(), schema())
    params, after = edited(strong(name, classes=(2,)), there, 0)
    assert np.array_equal(after, there.labels)
    if name in MOVES:
        assert params == {"strength": 0.0, "tries": 0}


# -- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(quick, max_examples=8)
@given(seed=seeds, chain=st.lists(st.sampled_from(sorted(STRONG)), min_size=2, max_size=5))
def test_edits_compose_and_replay_in_order(spacing, seed, chain, strong, setting):
    there, rng = setting(spacing), np.random.default_rng(seed)
    labels, names = there.labels, there.room.schema
    edits = [strong(name, share=0.7) for name in chain]
    context = np.maximum(labels, 0)
    done, steps = apply_edits(EditContext(labels, names, there, context), edits, rng)
    after = done.labels
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    assert done.channels is not None
    assert done.channels.shape == labels.shape

    replayed = EditContext(labels, names, there)
    for step in json.loads(json.dumps(steps)):
        replayed = replayed.edited(strong(step["edit"]), step["params"])
    assert np.array_equal(replayed.labels, after)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_an_edit_is_applied_to_its_share_of_conditions(share, make, setting):
    there = setting(SPACINGS[2])
    edit, rng = make("shift", share=share), np.random.default_rng(0)
    context = EditContext(there.labels, there.room.schema, there)
    counts = [len(apply_edits(context, [edit], rng)[1]) for _ in range(200)]
    assert np.mean(counts) == pytest.approx(share, abs=0.08)


# -- falling back -------------------------------------------------------------------------------


def test_a_shift_out_of_the_array_is_halved_until_the_class_stays(make, ball, schema):
    edit, rng = make("shift", max_mm=200.0), np.random.default_rng(0)
    drawn = [edit.draw(EditContext(ball(), schema()), rng) for _ in range(8)]
    assert all(params["strength"] == 0.5 ** (params["tries"] - 1) for params in drawn)
    assert max(params["tries"] for params in drawn) > 2


def test_a_move_that_would_cost_a_class_each_time_is_not_made(make, schema):
    labels = np.array([[OUTSIDE, 2, 1]], np.int16)  # mirrored, class 1 would lie outside
    edit = make("flip", axes=(1,), probability=1.0, classes=(1,))
    params = edit.draw(EditContext(labels, schema(2)), np.random.default_rng(0))
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
    params = edit.draw(EditContext(ball(), schema()), np.random.default_rng(0))
    assert params["factor"] == pytest.approx(0.5)
