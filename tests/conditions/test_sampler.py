from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.edits.warps import CaseWarp
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, LabelArray, replace_ignored
from gansynth.core.space import Placement, Space
from tests.conditions.rooms import Maps, ball, schema, toy

LABELS = {"background": 0, "shell": 1, "core": 2, "ignore": 3}
SCHEMA = replace(schema(3, (2.0, 1.0, 1.0)), labels=LABELS, ignore=3)
CHAIN = ("elastic:correlation_mm=6", "rotate", "shift:max_mm=3", "shift:classes=2", "flip", "clip")


def labels_of(seat: int) -> LabelArray:
    """A core in a shell, seated differently in each case; some of it to be ignored."""
    labels = np.zeros((10, 14, 16), np.int16)
    labels[2:8, 3 : 9 + seat % 3, 3:12] = 1
    labels[4:6, 5:8, 5 : 8 + seat % 4] = 2
    labels[6:8, 3:5, 3:7] = 3
    labels[:, :, 14:] = OUTSIDE
    return labels


CASES = {f"case{seat}": labels_of(seat) for seat in (0, 1, 2, 4)}


def sampler(space: Space, seed: int = 0, context: Any = None) -> Any:
    source, edits = Maps(CASES, SCHEMA), build_edits(CHAIN)
    return ConditionSampler(source, space, edits, seed=seed, context=context)


def same(one: Any, other: Any) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and one.latent_seed == other.latent_seed
        and one.provenance == other.provenance
    )


@pytest.mark.parametrize(
    "space", [Space(), Space("crop", (8, 12, 12)), Space("slice", (12, 12))], ids=lambda s: s.grid
)
def test_conditions_are_of_training_cases_fill_the_space_and_depend_on_seed_and_index(space):
    one, other = sampler(space, 2**31 + 7), sampler(space, 2**31 + 7)
    drawn = [one.draw(index) for index in range(12)]
    assert all(same(other.draw(index), drawn[index]) for index in (3, 0, 2))
    assert not same(drawn[3], sampler(space).draw(3))
    assert one.cases.seen == set(one.cases.ids)
    assert len({condition.latent_seed for condition in drawn}) == 12
    assert len({condition.labels.tobytes() for condition in drawn}) == 12
    size = space.size or (10, 14, 16)
    assert {(c.labels.shape, c.labels.dtype.name) for c in drawn} == {(size, "int16")}
    asked = {value for condition in drawn for value in np.unique(condition.labels)}
    assert {1, 2} <= asked <= {OUTSIDE, 0, 1, 2}, "what is to be ignored is never asked for"
    told = drawn[7].provenance
    assert (told["dataset"], told["seed"], told["index"]) == ("memory:toy", 2**31 + 7, 7)
    assert [step["edit"] for step in told["edits"]] == [text.partition(":")[0] for text in CHAIN]


def test_outside_stays_and_context_goes_through_the_same_edits():
    condition = sampler(Space(), context=lambda case: case.labels * 10).draw(1)
    case = CASES[condition.provenance["case"]]
    assert np.array_equal(condition.labels == OUTSIDE, case == OUTSIDE)
    there: Any = EditContext(replace_ignored(case, SCHEMA), SCHEMA, channels=case * 10)
    for edit, step in zip(build_edits(CHAIN), condition.provenance["edits"], strict=True):
        there = there.edited(edit, step["params"])
    assert np.array_equal(condition.labels, there.labels)
    assert np.array_equal(condition.context, there.channels)
    assert not np.array_equal(condition.context, case * 10)


MM = (2.0, 1.0, 1.0)
SHOWN = Maps({f"case{i}": toy(3, MM, width=22 + i).clip(0) for i in range(4)}, schema(3, MM))
"""Background is 100 in their images, and what is labelled at least 140."""
SPACES = {
    "slice": Space("slice", (16, 18)),
    "squashed": Space("crop", (10, 16, 16), window=((60.0, 280.0),)),
}


def middle(shown: Any) -> Any:
    return np.argwhere(shown).mean(axis=0)


@pytest.mark.parametrize("how", [{"typical": (25, 41, 40)}, {"frame": (22, 34, 34)}], ids=str)
@pytest.mark.parametrize("moving", [False, True], ids=["labels", "image"])
def test_labels_and_image_move_by_the_millimetres_that_are_told(how, moving):
    balls = Maps({f"case{i}": np.pad(ball(8.0, MM), i) for i in (0, 4, 8)}, schema(3, MM))
    space, edits = Space("resample", (16, 16, 16), **how), build_edits(["shift"])
    sampler = ConditionSampler(balls, space, edits, moving=moving)
    for index in range(8):
        condition: Any = sampler.draw(index)
        case = balls.load(condition.provenance["case"])
        before: Any = space.to_generator(case)
        mm = np.array(MM) * (space.frame or case.image.shape[1:]) / np.array(space.size)
        (step,) = condition.provenance["edits"]
        pairs = [(condition.labels > 0, before.labels > 0)]
        if moving:
            pairs.append((condition.moved[0] > 120, before.image[0] > 120))
        for after, still in pairs:
            moved = (middle(after) - middle(still)) * mm
            assert (np.abs(moved - step["params"]["shift_mm"]) <= 0.5 * mm + 0.1).all()


@pytest.mark.parametrize("grid", ["slice", "squashed"])
def test_a_moved_crop_shows_what_lies_beyond_its_border(grid):
    space, case = SPACES[grid], SHOWN.load("case1")
    by, corner, index = ((3, -4), (4, 5), 6) if grid == "slice" else ((-2, 3, -4), (1, 4, 5), None)
    mm = [n * size for n, size in zip(by, MM[-len(by) :], strict=True)]
    steps = [{"edit": "shift", "params": {"strength": 1, "classes": None, "shift_mm": mm}}]
    mover = CaseWarp(space, space.generator_schema(SHOWN.schema))
    found: Any = mover(case, Placement(corner, index), {"shift": build_edits(["shift"])[0]}, steps)
    there = tuple(c - n for c, n in zip(corner, by, strict=True))
    wanted: Any = space.to_generator(case, Placement(there, index))
    assert np.array_equal(found.labels, wanted.labels)
    assert np.allclose(found.image, wanted.image, atol=1e-3)
