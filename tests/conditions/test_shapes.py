from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from gansynth.conditions.edits.lesions import learnt_sizes
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.case_pool import CaseContext, CasePool
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, Schema
from gansynth.core.space import Placement, Space
from tests.conditions.rooms import (
    THREE,
    Maps,
    at,
    body,
    case_pool,
    make,
    patients,
    pool_of,
    run,
    with_ball,
)

PEOPLE = patients()
TUMOURS = pool_of(PEOPLE)
TISSUES = Schema(
    ("T1",),
    {"bg": 0, "csf": 1, "gm": 2, "wm": 3, "oedema": 4, "core": 5},
    (1.0, 1.0, 1.0),
    has_outside=True,
)


def test_a_tumour_comes_to_the_same_place_of_another_brain_whose_own_is_removed_or_kept():
    params, after = run(make("transplant"), at(TUMOURS, "p0"))
    assert params["donor"] != "p0"
    assert params["shift"] == [0, 0, 0]
    assert np.array_equal(after, PEOPLE.maps[params["donor"]])
    own = PEOPLE.maps["p0"] > 0
    _, kept = run(make("transplant", own="keep"), at(TUMOURS, "p0"))
    assert not (after[own] > 0).all()
    assert np.array_equal(kept > 0, (after > 0) | own)


def test_every_ordered_pair_is_shown_once():
    edit = make("transplant", pairs="ordered")
    sampler = ConditionSampler(PEOPLE, Space(), [edit], seed=3)
    told = [sampler.draw(index).provenance for index in range(12)]
    seen = [(found["edits"][0]["params"]["donor"], found["case"]) for found in told]
    people = TUMOURS.ids
    assert Counter(seen) == Counter((a, b) for a in people for b in people if a != b)
    # And any stretch of them shows every brain, and every tumour, about as often.
    for first in range(0, 12, 4):
        for shown in zip(*seen[first : first + 4], strict=True):
            assert sorted(shown) == list(people)


@pytest.mark.parametrize(
    "space", [Space(), Space("crop", (20, 20, 20)), Space("slice", (26, 28))], ids=lambda s: s.grid
)
def test_another_source_without_tumours_gives_the_brains(space):
    brains = Maps({f"brain{i}": body((26 + i, 28, 30)) for i in range(3)}, THREE)
    edit = make("transplant", pairs="ordered")
    sampler = ConditionSampler(PEOPLE, space, [edit], base=brains)
    drawn: list[Any] = [sampler.draw(i) for i in range(12)]
    assert [d.provenance["case"] for d in drawn] == [f"brain{i % 3}" for i in range(12)]
    # A slice at the very border shows no body.
    assert sum((d.labels > 0).any() for d in drawn if (d.labels == 0).any()) >= 10
    people = Counter(d.provenance["edits"][0]["params"]["donor"] for d in drawn)
    assert people == dict.fromkeys(TUMOURS.ids, 3)


@pytest.mark.parametrize("pairs", ["any", "ordered", "nearest"])
def test_donors_are_other_people_while_there_are_others(pairs):
    seats = {"p0_1": (8, 8, 8), "p0_2": (9, 9, 9), "p1_1": (14, 14, 14)}
    everybody = case_pool({n: with_ball(body(), s, 4, 1) for n, s in seats.items()})
    alone = CasePool(everybody.cases, Space(), ids=("p0_1", "p0_2"))
    edit = make("transplant", pairs=pairs)
    for pool, lender in ((everybody, "p1_1"), (alone, "p0_2")):
        assert {run(edit, at(pool, "p0_1", i), i)[0]["donor"] for i in range(6)} == {lender}


def test_a_tumour_that_finds_no_body_or_no_lender_changes_nothing():
    labels = np.full((24, 26, 28), OUTSIDE, np.int16)
    labels[10:12, 10:12, 10:12] = 0
    params, after = run(make("transplant"), at(TUMOURS, "p0", labels=labels))
    assert (params["strength"], params["why"]) == (0, "too little of it lies in the body")
    assert np.array_equal(after, labels)
    params, _ = run(make("transplant", classes=(4,)), at(TUMOURS, "p0"))
    assert (params["strength"], params["why"]) == (0.0, "nobody lends these classes")


def mixed(case_context: CaseContext, weight: float, **options: Any) -> Any:
    return run(make("interpolate", low=weight, high=weight, **options), case_context)


def test_interpolate_ends_at_the_two_shapes():
    here = at(TUMOURS, "p0")
    assert np.array_equal(mixed(here, 0.0)[1], here.labels)
    params, after = mixed(here, 1.0)
    donor = PEOPLE.maps[params["donor"]]
    assert params["strength"] == 1
    for value in (1, 2):
        assert (after == value).sum() == pytest.approx((donor == value).sum(), rel=0.02)
    middles = [np.argwhere(m > 0).mean(axis=0) for m in (after, here.labels)]
    assert np.abs(middles[0] - middles[1]).max() < 0.5


@pytest.fixture(scope="module")
def sizes() -> CasePool:
    """Cases with one nested lesion each, mostly large, some small; and tissue that stays."""
    radii = [3.0, 3.4, 4.0, 6.0, 6.5, 7.0]
    return case_pool(
        {f"p{i}": with_ball(body(), (12, 13, 14), r, 1, 2) for i, r in enumerate(radii)}
    )


@pytest.mark.parametrize("options", [{}, {"each": False}])
def test_size_moves_the_image_too(options, sizes):
    """An image that shows the labels shows the edited labels where lesions lie."""
    here, edit = at(sizes, "p2"), make("size", classes=(1, 2), **options)
    params, after = run(edit, here, 1)
    assert params["strength"] == 1
    shown = np.where(np.isin(here.labels, (1, 2)), here.labels, 0)
    image = shown[None].astype(np.float32)
    moved: Any = edit.apply(EditContext(here.labels, THREE, image=image), params).image
    lesion = np.isin(after, (1, 2))
    # Where labels take the nearest voxel, an image is interpolated between two.
    assert np.abs(moved[0] - after)[lesion].mean() < 0.2
    assert np.abs(image[0] - after)[lesion].mean() > 0.5


def resized(sizes: CasePool, count: int = 24, **options: Any) -> Any:
    """Volumes that come of the second smallest lesion."""
    edit, here = make("size", max_factor=4.0, **options), at(sizes, "p1")
    after = [run(edit, here, seed)[1] for seed in range(count)]
    assert all({1, 2} <= set(np.unique(a)) for a in after)
    return np.array([(a > 0).sum() for a in after], float)


def test_sizes_follow_those_of_training_cases_or_are_smaller_by_the_bias(sizes):
    real, even = learnt_sizes(sizes, None, True), resized(sizes)
    assert len(real) == 6
    own = np.full(24, (sizes.cases("p1").labels > 0).sum(), float)
    assert ks_2samp(own, real).statistic > 0.6
    assert ks_2samp(even, real).statistic < 0.3
    small, smaller = (resized(sizes, like="small", bias=b) for b in (1.0, 3.0))
    medians = [np.median(volumes) for volumes in (even, small, smaller)]
    assert medians[0] > 1.5 * medians[1] >= 1.5 * medians[2]
    assert even.mean() > 2 * small.mean() > 3 * smaller.mean()
    # Sizes like those of training cases are drawn without any bias, whatever it is.
    assert np.array_equal(resized(sizes, 6, bias=3.0), even[:6])
    assert np.array_equal(resized(sizes, 6, like="small", bias=0.0), even[:6])


def test_sizes_are_as_many_voxels_as_asked_for_and_the_provenance_has_what_came_of_it(sizes):
    edit, here = make("size", like="150..600", classes=(1, 2), max_factor=4.0), at(sizes, "p1")
    ratios = []
    for seed in range(12):
        params, after = run(edit, here, seed)
        [asked], [voxels] = params["asked"], params["voxels"]
        assert 150 <= asked <= 600
        assert voxels == np.isin(after, (1, 2)).sum()
        ratios.append(voxels / asked)
    assert np.median(ratios) == pytest.approx(1, abs=0.1)


def test_a_lesion_that_a_crop_cuts_off_stays(sizes):
    pool = CasePool(sizes.cases, Space("crop", (12, 12, 12)))
    here = at(pool, "p3", placement=Placement((12, 8, 8)))
    params, after = run(make("size"), here)
    assert params["strength"] == 0
    assert np.array_equal(after, here.labels)
