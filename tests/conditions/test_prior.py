from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.conditions.location_prior import (
    FLOOR,
    BodyBox,
    PlacementPrior,
    depth_of,
    frame_of,
    learning_cases,
)
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.geometry import Mask, Matrix
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache


def lesion_at(
    corner: Sequence[int], shape: tuple[int, ...] = (20, 24, 28), size: int = 3, value: int = 1
) -> LabelArray:
    """A lesion in a body that leaves two voxels outside it at each border."""
    labels = np.full(shape, OUTSIDE, np.int16)
    labels[tuple(slice(2, -2) for _ in shape)] = 0
    labels[tuple(slice(c, c + size) for c in corner)] = value
    return labels


def density_of(
    prior: PlacementPrior, body: Mask, frame: BodyBox | None = None, depth: float | None = None
) -> Matrix:
    """How likely a lesion's centre is at each voxel of a body: what draws have to follow."""
    points, weights = prior._at(body.ndim, depth)
    counts = np.zeros(body.shape)
    frame = frame or BodyBox.of(body)
    voxels = np.rint(frame.voxels(points)).astype(int)
    inside = ((voxels >= 0) & (voxels < body.shape)).all(axis=1)
    np.add.at(counts, tuple(voxels[inside].T), weights[inside])
    smooth = gaussian_filter(counts, prior.kernel(body.ndim) * frame.size, mode="constant")
    learnt = np.where(body, smooth, 0.0)
    even = body / max(int(body.sum()), 1)
    total = learnt.sum()
    return np.asarray(even if not total else FLOOR * even + (1 - FLOOR) / total * learnt)


@pytest.fixture
def case_pool(maps: Callable[..., CaseSource], schema: Callable[..., Schema]) -> CasePool:
    """Six cases with their lesions in the first quarter of the body along every axis."""
    cases = {f"p{i}": lesion_at((4 + i % 2, 5, 6 + i // 3)) for i in range(6)}
    return CasePool(TrainingCases(CaseCache(maps(cases, schema()))), Space())


def test_draws_follow_the_density(case_pool):
    body = lesion_at((4, 5, 6)) != OUTSIDE
    prior, rng = PlacementPrior.learn(case_pool), np.random.default_rng(0)
    drawn = np.array([prior.draw(body, rng) for _ in range(1500)])
    assert body[tuple(drawn.T)].all()
    density = density_of(prior, body)
    for axis in range(3):
        rest = tuple(a for a in range(3) if a != axis)
        found = np.bincount(drawn[:, axis], minlength=body.shape[axis]) / len(drawn)
        # Kolmogorov-Smirnov at p = 0.001 for 1500 draws.
        assert np.abs(np.cumsum(found - density.sum(axis=rest))).max() < 1.95 / np.sqrt(1500)
    far = (drawn > np.array(body.shape) / 2).all(axis=1)
    assert 0 < far.mean() < FLOOR


def test_it_is_learnt_once_from_training_cases_alone(case_pool):
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
    density = density_of(prior, case_context.body, frame=frame, depth=depth)
    assert density[:, 15:].sum() > 0.9
    rng = np.random.default_rng(0)
    drawn = [prior.draw(case_context.body, rng, frame=frame, depth=depth) for _ in range(100)]
    assert np.mean([place[1] > 14 for place in drawn]) > 0.85
    either = density_of(prior, case_context.body, frame=frame)
    assert 0.4 < either[:, 15:].sum() < 0.6


def test_the_frame_of_a_crop_is_that_of_its_whole_case(maps, schema):
    labels = lesion_at((4, 5, 6))
    case_pool = CasePool(
        TrainingCases(CaseCache(maps({"p0": labels}, schema()))), Space("crop", (8, 8, 8))
    )
    placement = Placement((10, 3, -2))
    case_context = CaseContext(
        case_pool.cut("p0", placement), placement, labels.shape, 0, case_pool
    )
    assert frame_of(case_context) == BodyBox((-8.0, -1.0, 4.0), (8.0, 19.0, 28.0))
    stranger = CaseContext(case_context.case, placement, (20, 24, 30), 0, case_pool)
    assert frame_of(stranger) == BodyBox((-10.0, -3.0, 2.0), (10.0, 21.0, 32.0))


def test_a_few_of_many_cases_are_looked_at_always_the_same(maps, schema):
    source = maps({f"p{i:03}": lesion_at((4, 5, 6)) for i in range(100)}, schema())
    chosen = learning_cases(CasePool(TrainingCases(CaseCache(source)), Space()))
    assert len(set(chosen)) == 64
    assert (
        chosen
        == learning_cases(CasePool(TrainingCases(CaseCache(source)), Space()))
        == tuple(sorted(chosen))
    )
    assert chosen[-1] > "p090"
