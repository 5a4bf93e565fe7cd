from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema, replace_ignored
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space

LABELS = {"background": 0, "shell": 1, "core": 2, "ignore": 3}
SCHEMA = Schema(("T1",), LABELS, (2.0, 1.0, 1.0), has_outside=True, ignore=3)
SPACES = {
    "native": Space(),
    "crop": Space("crop", (8, 12, 12)),
    "slice": Space("slice", (12, 12)),
}
CHAIN = ("elastic:correlation_mm=6", "rotate", "shift:max_mm=3", "shift:classes=2", "flip", "clip")


def labels_of(case_id: str) -> LabelArray:
    """A core in a shell, seated differently in each case; some of it to be ignored."""
    seat = int(case_id[-1])
    labels = np.zeros((10, 14, 16), np.int16)
    labels[2:8, 3 : 9 + seat % 3, 3:12] = 1
    labels[4:6, 5:8, 5 : 8 + seat % 4] = 2
    labels[6:8, 3:5, 3:7] = 3
    labels[:, :, 14:] = OUTSIDE
    return labels


class Memory(CaseSource):
    """Cases in memory; opening a held-out one fails."""

    def __init__(self, space: Space) -> None:
        self.request = SourceRequest("memory", "toy")
        self.opened: list[str] = []
        self._space = space

    name = property(lambda self: "memory:toy")
    schema = property(lambda self: SCHEMA)
    space = property(lambda self: self._space)
    train_ids = property(lambda self: ("case0", "case1", "case2", "case4"))
    held_out_ids = property(lambda self: ("case3", "case5"))

    def load(self, case_id: str) -> Case:
        if case_id not in self.train_ids:
            raise PermissionError(f"{case_id} is held out")
        self.opened.append(case_id)
        labels = labels_of(case_id)
        return Case(case_id, case_id, labels[None].astype(np.float32), labels)


def sampler(grid: str = "native", seed: int = 0, context: Any = None) -> Any:
    space = SPACES[grid]
    return ConditionSampler(Memory(space), space, build_edits(CHAIN), seed=seed, context=context)


def same(one: Any, other: Any) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and one.latent_seed == other.latent_seed
        and one.provenance == other.provenance
    )


@pytest.mark.parametrize("grid", sorted(SPACES))
def test_a_condition_depends_on_seed_and_index_alone(grid):
    for seed, order in ((0, (2, 0, 3, 1)), (2**31 + 7, (3, 2, 1, 0))):
        one, other = sampler(grid, seed), sampler(grid, seed)
        in_order = [one.draw(index) for index in range(4)]
        for index in order:
            drawn = other.draw(index)
            assert same(in_order[index], drawn)
    assert not same(in_order[3], sampler(grid).draw(3))


@pytest.mark.parametrize("grid", sorted(SPACES))
def test_conditions_are_of_training_cases_and_fill_the_space(grid):
    drawing = sampler(grid)
    drawn = [drawing.draw(index) for index in range(25)]
    assert drawing.cases.seen == set(drawing.cases.ids)
    assert len({condition.latent_seed for condition in drawn}) == 25
    assert len({condition.labels.tobytes() for condition in drawn[:12]}) == 12
    size = SPACES[grid].size or (10, 14, 16)
    assert {(c.labels.shape, c.labels.dtype.name) for c in drawn} == {(size, "int16")}
    asked = {value for condition in drawn for value in np.unique(condition.labels)}
    assert {1, 2} <= asked <= {OUTSIDE, 0, 1, 2}, "what is to be ignored is never asked for"


def test_provenance_names_everything_that_was_drawn():
    found = sampler("crop", seed=4).draw(7).provenance
    assert (found["dataset"], found["seed"], found["index"]) == ("memory:toy", 4, 7)
    assert found["case"] in Memory(Space()).train_ids
    assert len(found["placement"]["corner"]) == 3
    assert [step["edit"] for step in found["edits"]] == [text.partition(":")[0] for text in CHAIN]


def test_outside_stays_and_context_goes_through_the_same_edits():
    condition = sampler(context=lambda case: (case.image[0] * 10).astype(np.int16)).draw(1)
    assert same(condition, sampler().draw(1))
    case = labels_of(condition.provenance["case"])
    assert np.array_equal(condition.labels == OUTSIDE, case == OUTSIDE)
    there = EditContext(replace_ignored(case, SCHEMA), SCHEMA, channels=case * 10)
    for edit, step in zip(build_edits(CHAIN), condition.provenance["edits"], strict=True):
        there = there.edited(edit, step["params"])
    assert np.array_equal(condition.context, there.channels)  # type: ignore[arg-type]
    assert not np.array_equal(condition.context, case * 10)
