"""Edits that change shapes, places and sizes as training cases have them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ks_2samp

from gansynth.conditions.edits.size import learnt_sizes
from gansynth.core.edit import Edit, EditContext
from gansynth.core.scene import CasePool, Scene
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache
from gansynth.data.lesion_parts import parts
from tests.conditions.rooms import THREE, at, body, pieces, run, with_ball
from tests.conftest import DATA


def mixed(
    make: Callable[..., Edit], scene: Scene, weight: float, seed: int = 0, **options: Any
) -> tuple[dict[str, Any], LabelArray]:
    return run(make("interpolate", low=weight, high=weight, **options), scene, seed)


def test_the_ends_are_the_two_shapes(tumours, make):
    scene = at(tumours, "p0")
    assert np.array_equal(mixed(make, scene, 0.0)[1], scene.labels)
    params, after = mixed(make, scene, 1.0)
    donor = tumours.source.maps[params["donor"]]
    assert params["strength"] == 1
    for value in (1, 2):
        assert (after == value).sum() == pytest.approx((donor == value).sum(), rel=0.02)
    middles = [np.argwhere(m > 0).mean(axis=0) for m in (after, scene.labels)]
    assert np.abs(middles[0] - middles[1]).max() < 0.5


def test_volumes_lie_between_and_follow_the_weight(tumours, make):
    scene = at(tumours, "p0", turn=2)
    volumes = {}
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        params, after = mixed(make, scene, weight, pairs="ordered")
        assert (params["donor"], params["weight"]) == ("p3", weight)
        volumes[weight] = [int((after == value).sum()) for value in (1, 2)]
        inner = np.argwhere(after == 2)
        for axis in range(3):
            for step in (-1, 1):
                beside = inner + step * np.eye(3, dtype=int)[axis]
                assert (after[tuple(beside.T)] > 0).all(), "the core is bare"
    for value in range(2):
        found = [volume[value] for volume in volumes.values()]
        assert found == sorted(found)
        assert found[0] < found[-1]
    assert volumes[0.0][0] < volumes[0.5][0] < volumes[1.0][0]


def test_classes_come_in_no_more_pieces_than_real_ones(maps, make):
    """Thin bars that turn: mixed half and half without care they fall apart, or vanish."""
    cases = {}
    for i, axis in enumerate((0, 1, 2)):
        labels = body()
        box = [slice(12, 14)] * 3
        box[axis] = slice(4, 21)
        labels[tuple(box)] = 1
        labels[10:12, 10:12, 10:12] = 2
        cases[f"p{i}"] = labels
    room = CasePool(CaseCache(maps(cases, THREE)), Space())
    weaker = 0
    for seed in range(6):
        scene = at(room, "p0")
        params, after = mixed(make, scene, 0.6, seed)
        weaker += params["strength"] < 1
        assert [pieces(after, value) for value in (1, 2)] == [1, 1]
        assert (after == 1).sum() >= 0.3 * (scene.labels == 1).sum()
    assert weaker


def test_people_with_other_classes_are_not_mixed(maps, make):
    cases = {"p0": with_ball(body(), (8, 8, 8), 4, 1, 2), "p1": with_ball(body(), (8, 8, 8), 4, 1)}
    params, _ = run(make("interpolate"), at(CasePool(CaseCache(maps(cases, THREE)), Space()), "p0"))
    assert params["strength"] == 0


def test_weights_in_the_wrong_order_are_refused(make):
    with pytest.raises(ValueError, match=r"low 0\.7 is above high 0\.2"):
        make("interpolate", low=0.7, high=0.2)


@pytest.fixture
def spots(maps: Callable[..., CaseSource]) -> CasePool:
    """Cases with two lesions each, all of class 1 in the body's lower half; other tissue above."""
    cases = {}
    for i in range(5):
        labels = with_ball(body((40, 26, 28)), (6 + i % 3, 7 + i % 2, 8), 3.2, 1, 2)
        labels = with_ball(labels, (8 + i % 2, 18, 19), 2.3, 1)
        labels[30:36, 5:20, 5:20] = 4
        cases[f"p{i}"] = labels
    return CasePool(CaseCache(maps(cases, THREE)), Space())


@pytest.mark.parametrize("each", [False, True])
def test_lesions_move_whole_to_where_there_is_room(each, spots, make):
    scene = at(spots, "p0")
    own = parts(scene.labels, THREE, (1, 2))
    moved = 0
    for seed in range(10):
        edit = make("place", classes=(1, 2), each=each, where="anywhere")
        params, after = run(edit, scene, seed)
        if params["strength"] == 0:
            continue
        moved += 1
        assert np.array_equal(after == 4, scene.labels == 4)
        for value in (1, 2):
            assert (after == value).sum() == (scene.labels == value).sum()
        assert len(params["shifts"]) == (2 if each else 1)
        for part, shift in zip(own, params["shifts"] * (1 if each else 2), strict=True):
            there = tuple(
                slice(b.start + s, b.stop + s) for b, s in zip(part.box, shift, strict=True)
            )
            assert np.array_equal(after[there][part.mask], part.labels[part.mask])
    assert moved > (6 if each else 2)


def test_places_follow_the_prior(spots, make):
    scene = at(spots, "p0")

    def depths(where: str) -> npt.NDArray[np.float64]:
        edit = make("place", classes=(1, 2), each=True, where=where)
        after = [run(edit, scene, seed)[1] for seed in range(30)]
        return np.array([part.centroid[0] for a in after for part in parts(a, THREE, (1, 2))])

    assert np.mean(depths("prior") < 14) > 0.85
    assert np.mean(depths("anywhere") < 14) < 0.65


def test_a_lesion_that_fills_its_body_stays(maps, make):
    labels = np.where(body() == 0, 1, OUTSIDE).astype(np.int16)
    room = CasePool(CaseCache(maps({"p0": labels}, THREE)), Space())
    params, after = run(make("place"), at(room, "p0"))
    assert params == {"strength": 0.0, "why": "no room elsewhere"}
    assert np.array_equal(after, labels)


@pytest.mark.parametrize(
    ("name", "options"),
    [("place", {"each": True}), ("place", {}), ("size", {}), ("size", {"each": False})],
)
def test_the_image_goes_along(name, options, spots, sizes, make):
    """An image that shows the labels shows the edited labels where lesions lie."""
    scene = at(spots, "p0") if name == "place" else at(sizes, "p2")
    edit = make(name, classes=(1, 2), **options)
    params, after = run(edit, scene, 1)
    assert params["strength"] == 1
    image = np.where(np.isin(scene.labels, (1, 2)), scene.labels, 0)[None].astype(np.float32)
    before = image.copy()
    moved = edit.apply(EditContext(scene.labels, THREE, image=image), params).image
    assert np.array_equal(image, before)
    assert (moved.shape, moved.dtype) == (image.shape, np.float32)
    lesion = np.isin(after, (1, 2))
    # Where labels take the nearest voxel, an image is interpolated between two.
    assert np.abs(moved[0] - after)[lesion].mean() < (0.01 if name == "place" else 0.2)
    assert np.abs(image[0] - after)[lesion].mean() > 0.5


@pytest.fixture
def sizes(maps: Callable[..., CaseSource]) -> CasePool:
    """Cases with one nested lesion each, mostly large, some small; and tissue that stays."""
    radii = [3.0, 3.4, 4.0, 6.0, 6.5, 7.0]
    cases = {f"p{i}": with_ball(body(), (12, 13, 14), r, 1, 2) for i, r in enumerate(radii)}
    return CasePool(CaseCache(maps(cases, THREE)), Space())


def resized(
    make: Callable[..., Edit], room: CasePool, count: int = 40, **options: Any
) -> npt.NDArray[np.float64]:
    """Volumes that come of the second smallest lesion."""
    scene = at(room, "p1")
    edit = make("size", max_factor=4.0, **options)
    after = [run(edit, scene, seed)[1] for seed in range(count)]
    assert all({1, 2} <= set(np.unique(a)) for a in after)
    return np.array([(a > 0).sum() for a in after], float)


def test_sizes_follow_those_of_training_cases(sizes, make):
    real = learnt_sizes(sizes, None, True)
    assert len(real) == 6
    volumes = resized(make, sizes)
    own = np.full(40, (sizes.source.maps["p1"] > 0).sum(), float)
    before, after = ks_2samp(own, real), ks_2samp(volumes, real)
    assert before.statistic > 0.6
    assert after.statistic < 0.3
    assert after.pvalue > 0.2


def test_small_ones_come_more_often_the_stronger_the_bias(sizes, make):
    biases = (0.0, 1.0, 3.0)
    even, small, smaller = (resized(make, sizes, 24, like="small", bias=b) for b in biases)
    medians = [np.median(volumes) for volumes in (even, small, smaller)]
    assert medians[0] > 1.5 * medians[1] >= 1.5 * medians[2]
    assert even.mean() > 2 * small.mean() > 3 * smaller.mean()
    # Sizes like those of training cases are drawn without any bias, whatever it is.
    assert np.array_equal(resized(make, sizes, 6, bias=3.0), even[:6])


@pytest.fixture
def shown(maps: Callable[..., CaseSource]) -> Scene:
    """A case whose body only the image shows, and a lesion that sticks out of it a little."""
    labels = np.zeros((24, 26, 28), np.int16)
    labels = with_ball(labels, (6, 10, 10), 3.5, 1)
    labels[14:19, 3:23, 3:25] = 4
    large = with_ball(labels, (9, 13, 14), 5, 1)
    room = CasePool(CaseCache(maps({"p0": labels, "p1": large}, THREE)), Space())
    scene = at(room, "p0")
    image = np.zeros_like(scene.case.image)
    image[:, 4:20, 3:-3, 3:-3] = 100
    return Scene(replace(scene.case, image=image), Placement(), (24, 26, 28), 0, room)


def test_where_the_image_shows_the_body_lesions_stay_in_it(shown, make):
    out = ~shown.body
    stuck = (shown.labels == 1) & out
    assert 0 < stuck.sum() < 0.2 * (shown.labels == 1).sum()
    moved, grown = 0, 0
    for seed in range(60):
        params, after = run(make("place", classes=(1,), where="anywhere"), shown, seed)
        assert np.array_equal(after == 4, shown.labels == 4)
        assert (after == 1).sum() == (shown.labels == 1).sum()
        assert ((after == 1) & out).sum() <= stuck.sum()
        moved += params["strength"] > 0
    for seed in range(8):
        _, after = run(make("size", classes=(1,)), shown, seed)
        assert np.array_equal(after == 4, shown.labels == 4)
        assert not ((after == 1) & out & ~stuck).any()
        grown += (after == 1).sum() > 1.2 * (shown.labels == 1).sum()
    assert moved
    assert grown


def test_a_lesion_that_a_crop_cuts_off_stays(sizes, make):
    room = CasePool(CaseCache(sizes.source), Space("crop", (12, 12, 12)))
    placement = Placement((12, 8, 8))
    scene = Scene(room.cut("p3", placement), placement, (24, 26, 28), 0, room)
    for name in ("place", "size"):
        params, after = run(make(name), scene)
        assert params["strength"] == 0
        assert np.array_equal(after, scene.labels)


@pytest.mark.data
def test_real_hippocampi_stay_in_one_piece_a_class(maps, make):
    found = sorted((DATA / "msd_task04_hippocampus/labelsTr").glob("*.nii.gz"))[:8]
    if not found:
        pytest.skip("no real hippocampi here")
    scans: list[Any] = [nib.load(path) for path in found]
    cases = {f"p{i}": np.asarray(scan.dataobj).astype(np.int16) for i, scan in enumerate(scans)}
    schema = Schema(("T1",), {"bg": 0, "anterior": 1, "posterior": 2}, (1.0, 1.0, 1.0))
    room = CasePool(CaseCache(maps(cases, schema)), Space())
    changed = 0
    for i, case_id in enumerate(room.ids):
        scene = at(room, case_id)
        assert [pieces(scene.labels, value) for value in (1, 2)] == [1, 1]
        for name, options in (("interpolate", {}), ("elastic", {"amplitude_mm": 3.0})):
            params, after = run(make(name, **options), scene, i)
            assert [pieces(after, value) for value in (1, 2)] == [1, 1]
            changed += params["strength"] > 0 and not np.array_equal(after, scene.labels)
    assert changed >= 14
