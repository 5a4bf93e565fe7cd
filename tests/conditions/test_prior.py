from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gansynth.conditions.location_prior import (
    PlacementPrior,
    depth_of,
    frame_of,
    learning_cases,
)
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache


def lesion_at(
    corner: Sequence[int], shape: tuple[int, ...] = (20, 24, 28), size: int = 3, value: int = 1
) -> LabelArray:
    """A lesion in a body that leaves two voxels outside it at each border."""
    labels = np.full(shape, OUTSIDE, np.int16)
    labels[tuple(slice(2, -2) for _ in shape)] = 0
    labels[tuple(slice(c, c + size) for c in corner)] = value
    return labels


@pytest.fixture
def case_pool(maps: Callable[..., CaseSource], schema: Callable[..., Schema]) -> CasePool:
    """Six cases with their lesions in the first quarter of the body along every axis."""
    cases = {f"p{i}": lesion_at((4 + i % 2, 5, 6 + i // 3)) for i in range(6)}
    return CasePool(TrainingCases(CaseCache(maps(cases, schema()))), Space())


def test_prior_is_learnt_once_from_training_cases_alone(case_pool):
    first = PlacementPrior.learn(case_pool, (1, 2))
    assert case_pool.cases.seen == set(case_pool.ids)
    assert PlacementPrior.learn(case_pool, (2, 1)) is first


def test_a_slice_takes_the_lesions_of_its_depth(maps, schema):
    deep, shallow = lesion_at((4, 5, 20)), lesion_at((14, 5, 5))
    source, space = maps({"p0": deep, "p1": shallow}, schema()), Space("slice", (24, 28))
    case_pool = CasePool(TrainingCases(CaseCache(source)), space)
    placement = Placement((0, 0), 5)
    case_context = CaseContext(case_pool.cut("p0", placement), placement, deep.shape, 0, case_pool)
    prior = PlacementPrior.learn(case_pool)
    frame, depth = frame_of(case_context), depth_of(case_context)
    assert depth == pytest.approx((5.5 - 2) / 16)
    rng = np.random.default_rng(0)
    drawn = [prior.draw(case_context.body, rng, frame=frame, depth=depth) for _ in range(100)]
    assert np.mean([place[1] > 14 for place in drawn]) > 0.85
    either = [prior.draw(case_context.body, rng, frame=frame) for _ in range(100)]
    assert 0.3 < np.mean([place[1] > 14 for place in either]) < 0.7


def test_prior_is_learnt_from_the_same_64_of_many_cases(maps, schema):
    source = maps({f"p{i:03}": lesion_at((4, 5, 6)) for i in range(100)}, schema())
    chosen = learning_cases(CasePool(TrainingCases(CaseCache(source)), Space()))
    assert len(set(chosen)) == 64
    assert (
        chosen
        == learning_cases(CasePool(TrainingCases(CaseCache(source)), Space()))
        == tuple(sorted(chosen))
    )
    assert chosen[-1] > "p090"
