from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ks_2samp

from gansynth.conditions.edits.lesions import learnt_sizes
from gansynth.core.case_pool import CaseContext, CasePool
from gansynth.core.edit import EditContext
from gansynth.core.space import Placement, Space
from gansynth.data.connected_components import parts
from tests.conditions.rooms import THREE, at, body, pieces, run, with_ball

Pool = Callable[..., CasePool]


@pytest.fixture
def mixed(make):
    def mix(case_context: CaseContext, weight: float, seed: int = 0, **options: Any) -> Any:
        return run(make("interpolate", low=weight, high=weight, **options), case_context, seed)

    return mix


def test_interpolate_ends_at_the_two_shapes(tumours, mixed):
    case_context = at(tumours, "p0")
    assert np.array_equal(mixed(case_context, 0.0)[1], case_context.labels)
    params, after = mixed(case_context, 1.0)
    donor = tumours.cases(params["donor"]).labels
    assert params["strength"] == 1
    for value in (1, 2):
        assert (after == value).sum() == pytest.approx((donor == value).sum(), rel=0.02)
    middles = [np.argwhere(m > 0).mean(axis=0) for m in (after, case_context.labels)]
    assert np.abs(middles[0] - middles[1]).max() < 0.5


def test_interpolated_volumes_follow_the_weight(tumours, mixed):
    case_context, volumes = at(tumours, "p0", turn=2), []
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        params, after = mixed(case_context, weight, pairs="ordered")
        assert (params["donor"], params["weight"]) == ("p3", weight)
        volumes.append([int((after == value).sum()) for value in (1, 2)])
        for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
            beside = np.argwhere(after == 2) + step
            assert (after[tuple(beside.T)] > 0).all(), "the core is bare"
    for found in zip(*volumes, strict=True):
        assert list(found) == sorted(found)
        assert found[0] < found[-1]
    assert volumes[0][0] < volumes[2][0] < volumes[4][0]


def test_interpolate_mixes_no_people_with_other_classes(case_pool, make):
    seat = (8, 8, 8)
    cases = {"p0": with_ball(body(), seat, 4, 1, 2), "p1": with_ball(body(), seat, 4, 1)}
    params, _ = run(make("interpolate"), at(case_pool(cases), "p0"))
    assert params["strength"] == 0


@pytest.fixture
def spots(case_pool: Pool) -> CasePool:
    """Cases with two lesions each, all of class 1 in the body's lower half; other tissue above."""
    cases = {}
    for i in range(5):
        labels = with_ball(body((40, 26, 28)), (6 + i % 3, 7 + i % 2, 8), 3.2, 1, 2)
        labels = with_ball(labels, (8 + i % 2, 18, 19), 2.3, 1)
        labels[30:36, 5:20, 5:20] = 4
        cases[f"p{i}"] = labels
    return case_pool(cases)


@pytest.mark.parametrize("each", [False, True])
def test_lesions_move_whole_to_where_there_is_room(each, spots, make):
    case_context = at(spots, "p0")
    own = parts(case_context.labels, THREE, (1, 2))
    edit, moved = make("place", classes=(1, 2), each=each, where="anywhere"), 0
    for seed in range(10):
        params, after = run(edit, case_context, seed)
        if params["strength"] == 0:
            continue
        moved += 1
        for value in (1, 2, 4):
            assert (after == value).sum() == (case_context.labels == value).sum()
        assert np.array_equal(after == 4, case_context.labels == 4)
        assert len(params["shifts"]) == (2 if each else 1)
        for part, shift in zip(own, params["shifts"] * (1 if each else 2), strict=True):
            pairs = zip(part.box, shift, strict=True)
            there = tuple(slice(b.start + s, b.stop + s) for b, s in pairs)
            assert np.array_equal(after[there][part.mask], part.labels[part.mask])
    assert moved > (6 if each else 2)


def test_place_follows_the_prior(spots, make):
    case_context = at(spots, "p0")

    def low(where: str) -> float:
        edit = make("place", classes=(1, 2), each=True, where=where)
        found = [parts(run(edit, case_context, seed)[1], THREE, (1, 2)) for seed in range(30)]
        return float(np.mean([part.centroid[0] < 14 for each in found for part in each]))

    assert low("prior") > 0.85
    assert low("anywhere") < 0.65


@pytest.mark.parametrize(
    ("name", "options"),
    [("place", {"each": True}), ("place", {}), ("size", {}), ("size", {"each": False})],
)
def test_place_and_size_move_the_image_too(name, options, spots, sizes, make):
    """An image that shows the labels shows the edited labels where lesions lie."""
    case_context = at(spots, "p0") if name == "place" else at(sizes, "p2")
    edit = make(name, classes=(1, 2), **options)
    params, after = run(edit, case_context, 1)
    assert params["strength"] == 1
    image = np.where(np.isin(case_context.labels, (1, 2)), case_context.labels, 0)[None].astype(
        np.float32
    )
    moved = edit.apply(EditContext(case_context.labels, THREE, image=image), params).image
    lesion = np.isin(after, (1, 2))
    # Where labels take the nearest voxel, an image is interpolated between two.
    assert np.abs(moved[0] - after)[lesion].mean() < (0.01 if name == "place" else 0.2)
    assert np.abs(image[0] - after)[lesion].mean() > 0.5


@pytest.fixture
def sizes(case_pool: Pool) -> CasePool:
    """Cases with one nested lesion each, mostly large, some small; and tissue that stays."""
    radii = [3.0, 3.4, 4.0, 6.0, 6.5, 7.0]
    return case_pool(
        {f"p{i}": with_ball(body(), (12, 13, 14), r, 1, 2) for i, r in enumerate(radii)}
    )


@pytest.fixture
def resized(make, sizes):
    """Volumes that come of the second smallest lesion."""

    def volumes(count: int = 40, **options: Any) -> npt.NDArray[np.float64]:
        edit, case_context = make("size", max_factor=4.0, **options), at(sizes, "p1")
        after = [run(edit, case_context, seed)[1] for seed in range(count)]
        assert all({1, 2} <= set(np.unique(a)) for a in after)
        return np.array([(a > 0).sum() for a in after], float)

    return volumes


def test_sizes_follow_those_of_training_cases(sizes, resized):
    real = learnt_sizes(sizes, None, True)
    assert len(real) == 6
    own = np.full(40, (sizes.cases("p1").labels > 0).sum(), float)
    before, after = ks_2samp(own, real), ks_2samp(resized(), real)
    assert before.statistic > 0.6
    assert after.statistic < 0.3
    assert after.pvalue > 0.2


def test_size_bias_draws_smaller_lesions(resized):
    even, small, smaller = (resized(24, like="small", bias=b) for b in (0.0, 1.0, 3.0))
    medians = [np.median(volumes) for volumes in (even, small, smaller)]
    assert medians[0] > 1.5 * medians[1] >= 1.5 * medians[2]
    assert even.mean() > 2 * small.mean() > 3 * smaller.mean()
    # Sizes like those of training cases are drawn without any bias, whatever it is.
    assert np.array_equal(resized(6, bias=3.0), even[:6])


@pytest.fixture
def shown(case_pool: Pool) -> CaseContext:
    """A case whose body only the image shows, and a lesion that sticks out of it a little."""
    labels = with_ball(np.zeros((24, 26, 28), np.int16), (6, 10, 10), 3.5, 1)
    labels[14:19, 3:23, 3:25] = 4
    pool = case_pool({"p0": labels, "p1": with_ball(labels, (9, 13, 14), 5, 1)})
    case = at(pool, "p0").case
    image = np.zeros_like(case.image)
    image[:, 4:20, 3:-3, 3:-3] = 100
    return CaseContext(replace(case, image=image), Placement(), (24, 26, 28), 0, pool)


@pytest.mark.parametrize(("name", "draws"), [("place", 60), ("size", 8)])
def test_where_the_image_shows_the_body_lesions_stay_in_it(name, draws, shown, make):
    out, before = ~shown.body, (shown.labels == 1).sum()
    stuck = (shown.labels == 1) & out
    assert 0 < stuck.sum() < 0.2 * before
    edit = make(name, classes=(1,), **({"where": "anywhere"} if name == "place" else {}))
    changed = 0
    for seed in range(draws):
        params, after = run(edit, shown, seed)
        assert np.array_equal(after == 4, shown.labels == 4)
        assert ((after == 1) & out).sum() <= stuck.sum()
        if name == "place":
            assert (after == 1).sum() == before
            changed += params["strength"] > 0
        else:
            changed += (after == 1).sum() > 1.2 * before
    assert changed


@pytest.mark.parametrize("name", ["place", "size"])
def test_a_lesion_that_a_crop_cuts_off_stays(name, sizes, make):
    pool = CasePool(sizes.cases, Space("crop", (12, 12, 12)))
    placement = Placement((12, 8, 8))
    case_context = CaseContext(pool.cut("p3", placement), placement, (24, 26, 28), 0, pool)
    params, after = run(make(name), case_context)
    assert params["strength"] == 0
    assert np.array_equal(after, case_context.labels)


def test_a_blob_has_the_lesions_classes_volumes_and_place_and_another_shape(case_pool, make):
    labels = with_ball(body(), (12, 13, 14), 6, core=2)
    here = at(case_pool({"p0": labels}), "p0")
    params, after = run(make("blob"), here)
    assert params["strength"] == 1
    for value in (1, 2):
        assert (after == value).sum() == (labels == value).sum()
        assert pieces(after, value) == 1
    assert np.abs(np.argwhere(after > 0).mean(axis=0) - (12, 13, 14)).max() < 1.5
    assert ((after > 0) != (labels > 0)).sum() > 0.2 * (labels > 0).sum()
    for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
        assert (after[tuple((np.argwhere(after == 2) + step).T)] > 0).all(), "the core is bare"


def test_a_blob_without_noise_is_an_ellipsoid_and_other_seeds_give_other_shapes(case_pool, make):
    labels = with_ball(body(), (12, 13, 14), 6)
    here = at(case_pool({"p0": labels}), "p0")
    smooth = run(make("blob", rough=0), here)[1]
    assert 2 * ((smooth > 0) & (labels > 0)).sum() > 1.9 * (labels > 0).sum()
    one, two = (run(make("blob"), here, seed)[1] for seed in (0, 1))
    assert not np.array_equal(one, two)
