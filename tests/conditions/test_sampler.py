"""ConditionSampler: the same condition for a seed and an index, from training cases only."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema, replace_ignored
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement, Space

SCHEMA = Schema(
    ("T1",),
    {"background": 0, "shell": 1, "core": 2, "ignore": 3},
    (2.0, 1.0, 1.0),
    has_outside=True,
    ignore=3,
)


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

    def __init__(self, space: Space | None = None) -> None:
        self.request = SourceRequest("memory", "toy")
        self.opened: list[str] = []
        self._space = space or Space()

    @property
    def name(self) -> str:
        return "memory:toy"

    @property
    def schema(self) -> Schema:
        return SCHEMA

    @property
    def space(self) -> Space:
        return self._space

    @property
    def train_ids(self) -> tuple[str, ...]:
        return ("case0", "case1", "case2", "case4")

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ("case3", "case5")

    def load(self, case_id: str) -> Case:
        if case_id not in self.train_ids:
            raise PermissionError(f"{case_id} is held out")
        self.opened.append(case_id)
        labels = labels_of(case_id)
        return Case(case_id, case_id, labels[None].astype(np.float32), labels)


SPACES = {
    "native": Space(),
    "crop": Space("crop", (8, 12, 12)),
    "slice": Space("slice", (12, 12)),
}
CHAIN: dict[str, dict[str, Any]] = {
    "elastic": {"correlation_mm": 6.0},
    "rotate": {},
    "scale": {"classes": (2,)},
    "shift": {"max_mm": 3.0},
    "flip": {},
    "clip": {"margin_mm": 1.0},
}


@pytest.fixture(scope="session")
def sampler(make):
    def build(grid="native", seed=0, context=None) -> ConditionSampler:
        edits = [make(name, **options) for name, options in CHAIN.items()]
        return ConditionSampler(
            Memory(SPACES[grid]), SPACES[grid], edits, seed=seed, context=context
        )

    return build


def same(one, other) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and one.latent_seed == other.latent_seed
        and one.provenance == other.provenance
    )


every_grid = pytest.mark.parametrize("grid", sorted(SPACES))
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=4, deadline=None, database=None, derandomize=True)


@every_grid
@quick
@given(seed=seeds, order=st.permutations(range(4)))
def test_a_condition_depends_on_seed_and_index_alone(grid, seed, order, sampler):
    one, other = sampler(grid, seed), sampler(grid, seed)
    in_order = [one.draw(index) for index in range(4)]
    shuffled = {index: other.draw(index) for index in order}
    assert all(same(in_order[index], shuffled[index]) for index in range(4))


@every_grid
def test_other_indices_give_other_conditions(grid, sampler):
    drawn = [sampler(grid).draw(index) for index in range(12)]
    assert len({condition.latent_seed for condition in drawn}) == 12
    assert len({condition.labels.tobytes() for condition in drawn}) == 12


def test_another_seed_gives_other_conditions(sampler):
    assert not same(sampler(seed=0).draw(3), sampler(seed=1).draw(3))


@every_grid
@quick
@given(seed=seeds)
def test_a_recorded_provenance_replays_to_the_bit(grid, seed, sampler):
    condition = sampler(grid, seed).draw(5)
    recorded = json.loads(json.dumps(condition.provenance))
    assert np.array_equal(sampler(grid, seed=99).replay(recorded), condition.labels)


def test_provenance_names_everything_that_was_drawn(sampler):
    found = sampler("crop", seed=4).draw(7).provenance
    assert (found["dataset"], found["seed"], found["index"]) == ("memory:toy", 4, 7)
    assert found["case"] in Memory().train_ids
    assert len(found["placement"]["corner"]) == 3
    assert [step["edit"] for step in found["edits"]] == list(CHAIN)


@every_grid
def test_only_training_cases_are_opened_and_each_once(grid, sampler):
    drawing = sampler(grid)
    for index in range(25):
        drawing.draw(index)
    assert sorted(drawing.source.opened) == sorted(Memory().train_ids)


@every_grid
def test_ignored_voxels_are_never_asked_for(grid, sampler):
    drawing = sampler(grid)
    asked = {value for index in range(20) for value in np.unique(drawing.draw(index).labels)}
    assert asked <= {OUTSIDE, 0, 1, 2}
    assert {1, 2} <= asked


@every_grid
def test_labels_fill_the_generators_space(grid, sampler):
    size = SPACES[grid].size or (10, 14, 16)
    labels = sampler(grid).draw(0).labels
    assert (labels.shape, labels.dtype) == (size, np.int16)


def test_outside_stays_where_the_placed_case_had_it(sampler):
    condition = sampler().draw(2)
    source = labels_of(condition.provenance["case"])
    assert np.array_equal(condition.labels == OUTSIDE, source == OUTSIDE)


def test_context_goes_through_the_same_edits(sampler, make):
    drawing = sampler(context=lambda case: (case.image[0] * 10).astype(np.int16))
    condition = drawing.draw(1)
    assert condition.context is not None
    case = labels_of(condition.provenance["case"])
    there = EditContext(replace_ignored(case, SCHEMA), SCHEMA, channels=case * 10)
    for step in condition.provenance["edits"]:
        there = there.edited(make(step["edit"], **CHAIN[step["edit"]]), step["params"])
    assert there.channels is not None
    assert np.array_equal(condition.context, there.channels)
    assert not np.array_equal(condition.context, case * 10)


class Airy(Memory):
    """A ball in air, whose labels say nothing of where the body is."""

    def __init__(self) -> None:
        super().__init__()
        rows = np.indices((24, 24, 24)) - 11.5
        ball = (rows**2).sum(0) <= 81
        image = np.where(ball, 1.0, -3.0).astype(np.float32)[None]
        labels = np.zeros((24, 24, 24), np.int16)
        labels[12, 12, 12] = 1
        self.ball, self.only = ball, Case("ball", "ball", image, labels)


def test_a_crop_knows_the_body_of_its_whole_case():
    """Of its own image it cannot tell: it has no border of background."""
    source = Airy()
    sampler = ConditionSampler(source, Space("crop", (10, 10, 10)))
    for corner in ((0, 7, 7), (7, 7, 7), (0, 0, 0)):
        placement = Placement(corner)
        placed = sampler.space.to_generator(source.only, placement)
        body = sampler._scene(placed, placement, source.only, 0).body
        inside = tuple(slice(c, c + 10) for c in corner)
        assert body.sum() == pytest.approx(source.ball[inside].sum(), rel=0.1, abs=3)
        assert body.shape == (10, 10, 10)
