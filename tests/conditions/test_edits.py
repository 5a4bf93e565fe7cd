import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gansynth.conditions.edit_chain import apply_edits
from gansynth.conditions.edits.morphology import VolumeEdit
from gansynth.conditions.edits.warps import WarpEdit
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import Edit, EditContext
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, LabelArray
from gansynth.runtime.errors import UsageFault

quick = settings(max_examples=1, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)

# Strong enough that labels leave the array, meet OUTSIDE and cover each other.
STRONG: dict[str, dict[str, Any]] = {
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
    "place": {"each": True, "where": "anywhere"},
    "size": {"like": "small"},
}
EVERY = sorted(installed().names("edits"))
ADDS = {"merge", "transplant"}
"""Edits that bring foreground where there is none, hence other classes."""
ONE_WAY = {"identity", "clip", "drop", "merge"}
"""Edits with nothing to choose from there: no lesion can be spared, one other person has some."""
CHOOSES = [n for n in EVERY if "classes" in installed().edit(n).Options.model_fields]
MOVES = [n for n in CHOOSES if issubclass(installed().edit(n), WarpEdit | VolumeEdit)]
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.8, 1.1), (1.0, 1.5)]
WAYS: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    *((name, {}, spacing) for name in EVERY for spacing in SPACINGS),
    *((name, {"classes": c}, SPACINGS[1]) for name in CHOOSES for c in ((2,), (2, 4))),
    *((name, {"classes": (1,)}, SPACINGS[2]) for name in CHOOSES),
]


@pytest.fixture(scope="session")
def strong(make):
    return lambda name, **options: make(name, **STRONG.get(name, {}), **options)


@pytest.fixture(scope="session")
def setting(case_context, toy, schema) -> Callable[[tuple[float, ...]], CaseContext]:
    """The toy map among cases to borrow from, one scene for each spacing."""
    return cache(
        lambda spacing: case_context(toy(len(spacing), spacing), schema(len(spacing), spacing))
    )


def edited(edit: Edit, there: CaseContext, seed: int) -> tuple[dict[str, Any], LabelArray]:
    context = EditContext(there.labels, there.case_pool.schema, there)
    params = edit.draw(context, np.random.default_rng(seed))
    return params, edit.apply(context, params).labels


def least_share(name: str, params: Mapping[str, Any], ndim: int) -> float:
    """Share of its voxels that an edit leaves every class."""
    if name in ("drop", "transplant"):  # one part of a class is enough
        return 0.0
    factors = params.get("factors") or [params.get("factor", 1.0)]
    power = 1 if name in ("enlarge", "shrink") else ndim
    return float(min(0.3, 0.6 * min(factors) ** power))


@pytest.mark.parametrize("name", EVERY)
def test_an_edit_goes_by_its_registered_name_and_describes_its_options(name):
    edit = installed().edit(name)
    assert edit.name == name
    assert all(field.description for field in edit.Options.model_fields.values())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        edit.Options.model_validate({"no_such_option": 1})


@pytest.mark.parametrize(("name", "chosen", "spacing"), WAYS)
@quick
@given(seed=seeds)
def test_an_edit_keeps_the_contract(name, chosen, spacing, seed, strong, setting, case_context):
    there, edit, rng = setting(spacing), strong(name, **chosen), np.random.default_rng(seed)
    labels, names = there.labels, there.case_pool.schema
    context = rng.integers(0, 6, labels.shape).astype(np.int16)
    image = there.case.image
    inputs = [array.copy() for array in (labels, image, context)]
    given = EditContext(labels, names, there, context, image)
    params = edit.draw(given, rng)
    done: Any = given.edited(edit, params)
    after, channels, shown = done.labels, done.channels, done.image

    for array, before in zip((labels, image, context), inputs, strict=True):
        assert np.array_equal(array, before), "the input was written to"
    assert not np.shares_memory(after, labels)
    assert (after.dtype, after.shape) == (np.int16, labels.shape)
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    if name != "transplant":
        least = least_share(name, params, names.ndim)
        for value in names.foreground:
            assert (after == value).sum() >= max(1, least * (labels == value).sum())

    assert (channels.dtype, channels.shape) == (np.int16, context.shape)
    assert set(np.unique(channels)) <= {0, *np.unique(context)}
    assert np.array_equal(channels[labels == OUTSIDE], context[labels == OUTSIDE])
    assert (shown.dtype, shown.shape) == (np.float32, image.shape)
    assert np.isfinite(shown).all()
    bare = edit.apply(given.with_labels(labels), params)
    assert np.array_equal(bare.labels, after), "what goes along decides nothing"
    assert (bare.channels, bare.image) == (None, None)

    # Read back from JSON, by an edit with other options, and cases that nothing was learnt from.
    drawn, once = edited(edit, there, seed)
    assert edited(edit, there, seed)[0] == drawn, "the generator alone decides what is drawn"
    fresh = EditContext(labels, names, case_context(labels, names))
    document = json.loads(json.dumps(drawn))
    assert np.array_equal(installed().edit(name)().apply(fresh, document).labels, once)


@pytest.mark.parametrize("name", EVERY)
@settings(quick, max_examples=3)
@given(seed=seeds, shape=st.lists(st.integers(1, 7), min_size=2, max_size=3), some=st.booleans())
def test_an_edit_survives_labels_without_any_anatomy(
    name, seed, shape, some, strong, case_context, schema
):
    rng, names = np.random.default_rng(seed), schema(len(shape))
    labels = rng.choice(np.array([OUTSIDE, 0, 0, 1, 2, 4], np.int16), shape)
    edit = strong(name, **({"classes": (1, 4)} if some and name in CHOOSES else {}))
    after = edited(edit, case_context(labels, names), seed)[1]
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    if name not in ADDS:
        assert set(after[after > 0]) == set(labels[labels > 0])


@pytest.mark.parametrize("name", sorted(set(EVERY) - ADDS))
def test_a_map_without_foreground_or_the_chosen_class_stays_as_it_is(
    name, strong, ball, case_context, schema
):
    for fill in (0, OUTSIDE):
        labels = np.full((6, 5, 4), fill, np.int16)
        assert np.array_equal(edited(strong(name), case_context(labels, schema()), 0)[1], labels)
    if name in CHOOSES:
        params, after = edited(strong(name, classes=(2,)), case_context(ball(), schema()), 0)
        assert np.array_equal(after, ball())
        assert name not in MOVES or params == {"strength": 0.0, "tries": 0}


@pytest.mark.parametrize("name", sorted(set(EVERY) - ONE_WAY))
def test_draws_differ(name, strong, setting):
    drawn = [json.dumps(edited(strong(name), setting(SPACINGS[0]), seed)[0]) for seed in range(8)]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("name", CHOOSES)
def test_a_class_that_the_schema_lacks_is_refused(name, strong, setting):
    with pytest.raises(UsageFault, match=rf"edit '{name}': classes holds \[3\], expected.*1, 2, 4"):
        edited(strong(name, classes=(3, 4)), setting(SPACINGS[0]), 0)


@pytest.mark.parametrize("spacing", SPACINGS, ids=len)
@settings(quick, max_examples=8)
@given(seed=seeds, chain=st.lists(st.sampled_from(EVERY), min_size=2, max_size=5))
def test_edits_compose_and_replay_in_order(spacing, seed, chain, strong, setting):
    there, rng = setting(spacing), np.random.default_rng(seed)
    labels, names = there.labels, there.case_pool.schema
    edits = [strong(name, share=0.7) for name in chain]
    given = EditContext(labels, names, there, np.maximum(labels, 0))
    done, steps = apply_edits(given, edits, rng)
    assert np.array_equal(done.labels == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(done.labels)) <= set(names.label_values)
    assert done.channels is not None
    assert done.channels.shape == labels.shape
    replayed = EditContext(labels, names, there)
    for step in json.loads(json.dumps(steps)):
        replayed = replayed.edited(strong(step["edit"]), step["params"])
    assert np.array_equal(replayed.labels, done.labels)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_an_edit_is_applied_to_its_share_of_conditions(share, make, setting):
    there = setting(SPACINGS[2])
    edit, rng = make("shift", share=share), np.random.default_rng(0)
    context = EditContext(there.labels, there.case_pool.schema, there)
    counts = [len(apply_edits(context, [edit], rng)[1]) for _ in range(200)]
    assert np.mean(counts) == pytest.approx(share, abs=0.08)


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
