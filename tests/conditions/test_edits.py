import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gansynth.conditions.edit_chain import apply_edits, build_edit
from gansynth.conditions.edits.morphology import VolumeEdit
from gansynth.conditions.edits.warps import WarpEdit
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import Edit, EditContext
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, LabelArray
from tests.conditions.rooms import ball, case_context, make, schema, toy
from tests.expected import raises_fault

quick = settings(max_examples=3, deadline=None, database=None, derandomize=True)
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
    "clip": {"margin_mm": 6.0, "border": True},
    "transplant": {"where": "anywhere"},
    "interpolate": {"low": 0.0, "high": 1.0},
    "size": {"like": "small"},
}
EVERY = sorted(installed().names("edits"))
ADDS = {"transplant"}
"""Edits that bring foreground where there is none, hence other classes."""
ONE_WAY = {"identity", "clip"}
"""Edits with nothing to choose from there: no lesion can be spared, one other person has some."""
CHOOSES = [n for n in EVERY if "classes" in installed().edit(n).Options.model_fields]
MOVES = [n for n in CHOOSES if issubclass(installed().edit(n), WarpEdit | VolumeEdit)]
DEEP, FLAT = (3.0, 0.8, 1.1), (1.0, 1.5)
WAYS: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    *((name, {}, spacing) for name in EVERY for spacing in (DEEP, FLAT)),
    *((name, {"classes": (2, 4)}, DEEP) for name in CHOOSES),
    *((name, {"classes": (1,)}, FLAT) for name in CHOOSES),
]


def strong(name: str, **options: Any) -> Edit:
    return make(name, **STRONG.get(name, {}), **options)


@cache
def setting(spacing: tuple[float, ...]) -> CaseContext:
    """The toy map among cases to borrow from, one scene for each spacing."""
    return case_context(toy(len(spacing), spacing), schema(len(spacing), spacing))


def edited(edit: Edit, there: CaseContext, seed: int) -> tuple[dict[str, Any], LabelArray]:
    context = EditContext(there.labels, there.case_pool.schema, there)
    params = edit.draw(context, np.random.default_rng(seed))
    return params, edit.apply(context, params).labels


def least_share(name: str, params: Mapping[str, Any], ndim: int) -> float:
    """Share of its voxels that an edit leaves every class."""
    if name == "transplant":  # one part of a class is enough
        return 0.0
    factors = params.get("factors") or [params.get("factor", 1.0)]
    power = 1 if name in ("enlarge", "shrink") else ndim
    return float(min(0.3, 0.6 * min(factors) ** power))


@pytest.mark.parametrize(("name", "chosen", "spacing"), WAYS)
def test_an_edit_keeps_the_contract(name, chosen, spacing):
    there, edit, rng = setting(spacing), strong(name, **chosen), np.random.default_rng(0)
    labels, names = there.labels, there.case_pool.schema
    context = rng.integers(0, 6, labels.shape).astype(np.int16)
    image = there.case.image
    inputs: list[Any] = [labels, image, context]
    before = [array.copy() for array in inputs]
    given = EditContext(labels, names, there, context, image)
    params = edit.draw(given, rng)
    done: Any = given.edited(edit, params)
    after, channels, shown = done.labels, done.channels, done.image

    for one, other in zip(inputs, before, strict=True):
        assert np.array_equal(one, other), "the input was written to"
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
    drawn, once = edited(edit, there, 1)
    assert edited(edit, there, 1)[0] == drawn, "the generator alone decides what is drawn"
    fresh = EditContext(labels, names, case_context(labels, names))
    document = json.loads(json.dumps(drawn))
    assert np.array_equal(make(name).apply(fresh, document).labels, once)


@pytest.mark.parametrize("name", EVERY)
def test_an_edit_has_its_registered_name_describes_its_options_and_draws_anew(name):
    edit = installed().edit(name)
    assert edit.name == name
    assert all(field.description for field in edit.Options.model_fields.values())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        edit.Options.model_validate({"no_such_option": 1})
    there = setting(FLAT)
    context = EditContext(there.labels, there.case_pool.schema, there)
    drawn = [strong(name).draw(context, np.random.default_rng(seed)) for seed in range(8)]
    assert (len(set(map(json.dumps, drawn))) > 1) is (name not in ONE_WAY)


@pytest.mark.parametrize("name", EVERY)
@quick
@given(seed=seeds, shape=st.lists(st.integers(1, 7), min_size=2, max_size=3), some=st.booleans())
def test_an_edit_survives_labels_without_any_anatomy(name, seed, shape, some):
    rng, names = np.random.default_rng(seed), schema(len(shape))
    labels = rng.choice(np.array([OUTSIDE, 0, 0, 1, 2, 4], np.int16), shape)
    edit = strong(name, **({"classes": (1, 4)} if some and name in CHOOSES else {}))
    after = edited(edit, case_context(labels, names), seed)[1]
    assert np.array_equal(after == OUTSIDE, labels == OUTSIDE)
    assert set(np.unique(after)) <= set(names.label_values)
    if name not in ADDS:
        assert set(after[after > 0]) == set(labels[labels > 0])


@pytest.mark.parametrize("name", sorted(set(EVERY) - ADDS))
def test_a_map_without_foreground_or_the_chosen_class_stays_as_it_is(name):
    for fill in (0, OUTSIDE):
        labels = np.full((6, 5, 4), fill, np.int16)
        assert np.array_equal(edited(strong(name), case_context(labels, schema()), 0)[1], labels)
    if name in CHOOSES:
        params, after = edited(strong(name, classes=(2,)), case_context(ball(), schema()), 0)
        assert np.array_equal(after, ball())
        assert name not in MOVES or params == {"strength": 0.0, "tries": 0}


@pytest.mark.parametrize("name", CHOOSES)
def test_a_class_that_the_schema_lacks_is_refused(name):
    with raises_fault("conditions.edit-classes-unknown", names=name):
        edited(strong(name, classes=(3, 4)), setting(FLAT), 0)


def test_an_edit_is_applied_to_its_share_of_conditions():
    edit, rng = make("shift", share=0.25), np.random.default_rng(0)
    context = EditContext(np.eye(8, dtype=np.int16), schema(2))
    counts = [len(apply_edits(context, [edit], rng)[1]) for _ in range(200)]
    assert np.mean(counts) == pytest.approx(0.25, abs=0.08)


GOOD: dict[str, dict[str, Any]] = {
    "shift": {"max_mm": 8.0, "classes": None, "share": 1.0},
    "shift: max_mm = 12 , classes = 1 + 2 ": {"max_mm": 12.0, "classes": (1, 2)},
    "shift:classes=none,nested=no": {"classes": None, "nested": False},
    "flip:axes=0+-1,probability=1,about=centroid": {"axes": (0, -1), "about": "centroid"},
    "scale:low=5e-1,high=.9,share=0.25": {"low": 0.5, "high": 0.9, "share": 0.25},
}
WORD, VALUE = "options.word-unknown-or-repeated", "options.value-invalid"
BAD = {
    "shif": ("registry.name-unknown", "'shift'"),
    "": ("registry.name-unknown", "''"),
    "shift:": (WORD, "share, classes, nested, max_mm"),
    "shift:max_m=1": (WORD, "'max_mm'"),
    "shift:max_mm=1,max_mm=2": (WORD, "'max_mm=2'"),
    "shift:max_mm=far": (VALUE, ": max_mm: "),
    "shift:max_mm=-1": (VALUE, " 0 "),
    "shift:max_mm=.nan": (VALUE, ": max_mm: "),
    "shift:max_mm=[": ("options.value-invalid", "expected a number"),
    "shift:classes=1+": (VALUE, "classes=1+2+3"),
    "shift:max_mm.x=1": (WORD, "'max_mm.x=1'"),
    "flip:about=me": (VALUE, "'array' or 'centroid'"),
    "scale:low=3": (VALUE, "1.25"),
    "interpolate:low=0.7,high=0.2": (VALUE, "0.7"),
}


@pytest.mark.parametrize("text", GOOD)
def test_edit_text_is_read_into_options(text):
    edit = build_edit(text)
    assert edit.name == text.partition(":")[0]
    found = edit.options.model_dump()
    assert {key: found[key] for key in GOOD[text]} == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_edit_text_that_does_not_fit_is_refused_in_one_line(text):
    expected, names = BAD[text]
    with raises_fault(expected, names=names) as fault:
        build_edit(text)
    message = str(fault.value)
    assert "\n" not in message
    assert "Value error" not in message
    if ":" in text:  # key and value, as they were typed
        assert message.startswith(f"--edit {text}: ")
