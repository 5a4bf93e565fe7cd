import numpy as np
import pytest

from gansynth.conditions.boxes import PlacedBoxes, box_drawer, place_boxes
from gansynth.conditions.location_prior import KERNEL, BodyBox, PlacementPrior
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.body_mask import organ_mask
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.schema import Boxes, Condition
from gansynth.core.space import Placement
from gansynth.data.batches import CaseCache
from tests.boxed_heads import Heads, on_skull

DRAWS = 24


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads()


@pytest.fixture(scope="module")
def case_pool(heads) -> CasePool:
    return CasePool(TrainingCases(CaseCache(heads)), heads.space)


@pytest.fixture(scope="module")
def drawn(heads) -> list[Condition]:
    sampler = ConditionSampler(
        heads, heads.space, labelled=False, boxes=box_drawer("jitter"), backgrounds=True
    )
    return [sampler.draw(index) for index in range(DRAWS)]


def boxes(*rows: tuple[float, ...], label: int = 1) -> Boxes:
    coords = np.array(rows, np.float32).reshape(-1, 4)
    return Boxes(coords, np.full(len(rows), label, np.int16))


def put(case_pool: CasePool, asked: Boxes) -> PlacedBoxes:
    found = case_pool.cases("h01")
    case_context = CaseContext(found, Placement(), found.image.shape[1:], 0, case_pool)
    return place_boxes(asked, case_context, np.random.default_rng(0), as_asked=False)


def test_placed_boxes_lie_within_the_skull(drawn):
    count = 0
    for condition in drawn:
        skull = on_skull(condition.background)
        for row in condition.boxes.coords:
            low, high = np.floor(row[:2]).astype(int), np.ceil(row[2:]).astype(int)
            assert not skull[low[0] : high[0], low[1] : high[1]].any()
            count += 1
    assert count > DRAWS / 2


def test_placed_boxes_follow_the_places_of_their_class(drawn, heads, case_pool):
    away: dict[int, list[float]] = {0: [], 1: []}
    seat = PlacementPrior.learn_boxes(case_pool, 0).centres.mean(axis=0)
    for condition in drawn:
        frame = BodyBox.of(organ_mask(condition.background))
        middles = (condition.boxes.coords[:, :2] + condition.boxes.coords[:, 2:]) / 2 - 0.5
        for middle, label in zip(frame.relative(middles), condition.boxes.labels, strict=True):
            away[int(label)].append(float(np.abs(middle - seat).max()))
    assert len(away[0]) > 5
    assert max(away[0]) < KERNEL
    assert np.median(away[1]) > 2 * KERNEL


def test_placed_boxes_keep_their_distance(case_pool):
    asked = boxes(*[(0, 0, 8, 8)] * 6)
    found = put(case_pool, asked)
    rows = [*found.present.coords, *found.boxes.coords]
    assert len(rows) > 3
    for number, one in enumerate(rows):
        for other in rows[:number]:
            gap = np.maximum(one[:2], other[:2]) - np.minimum(one[2:], other[2:])
            assert gap.max() > 1.9


def test_a_box_without_any_room_is_left_out(case_pool):
    found = put(case_pool, boxes((5, 5, 90, 90)))
    assert len(found.boxes.labels) == 0
    assert found.moved == [None]
    assert len(found.present.labels) == 1
