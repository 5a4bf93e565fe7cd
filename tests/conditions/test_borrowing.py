"""Edits that take something from other cases, or from what training cases taught."""

import json
from collections import Counter
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import ks_2samp

from gansynth.conditions.asked import build_edit
from gansynth.conditions.parts import parts
from gansynth.conditions.room import Room, Scene
from gansynth.conditions.sampler import ConditionSampler
from gansynth.conditions.size import learnt_sizes
from gansynth.errors import UsageFault
from gansynth.registry import installed
from gansynth.schema import OUTSIDE, Schema
from gansynth.space import Placement, Space
from tests.conftest import DATA

NAMES = ("transplant", "interpolate", "merge", "place", "size")


def body(shape=(24, 26, 28)):
    labels = np.full(shape, OUTSIDE, np.int16)
    labels[tuple(slice(1, -1) for _ in shape)] = 0
    return labels


def with_ball(labels, centre, radius, value=1, core=None):
    """A ball, and a core of half its radius in it if a value is given for one."""
    grid = np.indices(labels.shape)
    middle = np.reshape(centre, (-1, *[1] * labels.ndim))
    away = np.sqrt(np.square(grid - middle).sum(axis=0))
    out = labels.copy()
    out[(away < radius) & (labels != OUTSIDE)] = value
    if core is not None:
        out[(away < radius / 2) & (labels != OUTSIDE)] = core
    return out


def pieces(labels, value):
    return len(parts(np.where(labels == value, labels, np.int16(0)), THREE))


THREE = Schema(("T1",), {"bg": 0, "a": 1, "b": 2, "c": 4}, (1.0, 1.0, 1.0), has_outside=True)
TISSUES = Schema(
    ("T1",),
    {"bg": 0, "csf": 1, "gm": 2, "wm": 3, "oedema": 4, "core": 5},
    (1.0, 1.0, 1.0),
    has_outside=True,
)


def at(room, case_id, index=0, turn=None, labels=None):
    """A whole case of a room as a scene, or a stranger with labels of its own."""
    case = room.cut(case_id if labels is None else room.ids[0], Placement())
    if labels is not None:
        image = np.where(labels == OUTSIDE, 0, 100)[None].astype(np.float32)
        case = type(case)("other", "other", image, labels)
    return Scene(case, Placement(), case.image.shape[1:], index, room, turn)


def run(edit, scene, seed=0):
    """Parameters and labels; that these are what JSON of the parameters gives is checked."""
    schema = scene.room.schema
    params = edit.draw_in(scene.labels, schema, np.random.default_rng(seed), scene)
    before = scene.labels.copy()
    after = edit.apply_in(scene.labels, schema, params, scene)
    read = json.loads(json.dumps(params))
    again = installed().edit(edit.name)().apply_in(before, schema, read, scene)
    assert np.array_equal(after, again)
    assert np.array_equal(before, scene.labels)
    assert np.array_equal(after == OUTSIDE, before == OUTSIDE)
    return params, after


@pytest.fixture
def tumours(maps):
    """Four people; their tumours, of a core in a shell, lie and weigh differently."""
    seats = {"p0": (8, 8, 8), "p1": (8, 16, 10), "p2": (15, 9, 18), "p3": (14, 15, 16)}
    cases = {
        name: with_ball(body(), seat, 4 + i / 2, 1, 2)
        for i, (name, seat) in enumerate(seats.items())
    }
    return Room(maps(cases, THREE), Space())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_training_cases_is_opened(name, tumours, make):
    for seed in range(3):
        run(make(name), at(tumours, "p0"), seed)
    assert set(tumours.source.opened) <= set(tumours.ids)


# -- transplant -----------------------------------------------------------------------------------


def test_a_tumour_comes_to_the_same_place_of_another_brain(tumours, make):
    params, after = run(make("transplant"), at(tumours, "p0"))
    donor = tumours.source.maps[params["donor"]]
    assert params["donor"] != "p0"
    assert params["shift"] == [0, 0, 0]
    assert np.array_equal(after, donor)


def test_a_tumour_keeps_its_place_relative_to_a_larger_body(tumours, make):
    scene = at(tumours, "p0", labels=body((46, 50, 54)))
    params, after = run(make("transplant"), scene)
    donor = tumours.source.maps[params["donor"]]
    assert (after > 0).sum() == (donor > 0).sum()
    relative = [np.argwhere(m > 0).mean(axis=0) / m.shape for m in (donor, after)]
    assert np.abs(relative[0] - relative[1]).max() < 0.04


def test_a_tumour_comes_to_a_brain_without_one(tumours, make):
    drawn = [run(make("transplant"), at(tumours, "p0", labels=body()), s) for s in range(20)]
    assert {params["donor"] for params, _ in drawn} == {"p0", "p1", "p2", "p3"}
    assert all(set(np.unique(after)) == {OUTSIDE, 0, 1, 2} for _, after in drawn)


def test_an_own_tumour_is_removed_or_kept(tumours, make):
    own = tumours.source.maps["p0"] > 0
    _, removed = run(make("transplant"), at(tumours, "p0"), 1)
    _, kept = run(make("transplant", own="keep"), at(tumours, "p0"), 1)
    assert not (removed[own] > 0).all()
    assert (kept[own] > 0).all()
    assert np.array_equal(kept > 0, (removed > 0) | own)


def test_a_removed_core_is_closed_by_its_shell(tumours, make):
    scene = at(tumours, "p0")
    params, after = run(make("transplant", classes=(2,), where="anywhere"), scene, 3)
    assert params["strength"] == 1
    own = (scene.labels == 2) & (after != 2)
    assert own.any()
    assert (after[own] == 1).all()


def test_every_ordered_pair_is_shown_once(tumours, make):
    sampler = ConditionSampler(
        tumours.source, Space(), [make("transplant", pairs="ordered")], seed=3
    )
    seen = []
    for index in range(12):
        found = sampler.draw(index).provenance
        seen.append((found["edits"][0]["params"]["donor"], found["case"]))
    people = tumours.ids
    assert Counter(seen) == Counter((a, b) for a in people for b in people if a != b)
    # And any stretch of them shows every brain, and every tumour, about as often.
    for first in range(0, 12, 4):
        for shown in zip(*seen[first : first + 4], strict=True):
            assert sorted(shown) == list(people)


def test_other_edits_draw_the_case_as_ever(tumours, make):
    edits = [[], [make("transplant")], [make("transplant", pairs="nearest")]]
    cases = [
        [
            ConditionSampler(tumours.source, Space(), chosen).draw(i).provenance["case"]
            for i in range(6)
        ]
        for chosen in edits
    ]
    assert cases[0] == cases[1] == cases[2]
    assert cases[0] != [tumours.ids[i % 4] for i in range(6)]


@pytest.mark.parametrize("grid", ["native", "crop", "slice"])
def test_another_source_without_tumours_gives_the_brains(grid, tumours, maps, make):
    brains = maps({f"brain{i}": body((26 + i, 28, 30)) for i in range(3)}, THREE)
    space = {"crop": Space("crop", (20, 20, 20)), "slice": Space("slice", (26, 28))}
    sampler = ConditionSampler(
        tumours.source,
        space.get(grid, Space()),
        [make("transplant", pairs="ordered")],
        base=brains,
    )
    drawn = [sampler.draw(i) for i in range(12)]
    assert [d.provenance["case"] for d in drawn] == [f"brain{i % 3}" for i in range(12)]
    # A slice at the very border shows no body.
    assert sum((d.labels > 0).any() for d in drawn if (d.labels == 0).any()) >= 10
    people = Counter(d.provenance["edits"][0]["params"]["donor"] for d in drawn)
    assert people == dict.fromkeys(tumours.ids, 3)
    for one in drawn:
        read = json.loads(json.dumps(one.provenance))
        assert np.array_equal(sampler.replay(read), one.labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("transplant:own=keep,pairs=ordered,classes=1+2", {"own": "keep", "classes": (1, 2)}),
        ("interpolate:pairs=nearest,among=3,low=0.1", {"pairs": "nearest", "among": 3}),
        ("merge:tissues=1+2+3", {"tissues": (1, 2, 3), "tumour": None}),
        ("place:each=yes,where=anywhere", {"each": True, "where": "anywhere"}),
        ("size:like=small,bias=2,each=no", {"like": "small", "bias": 2.0, "each": False}),
    ],
)
def test_they_are_asked_for_as_text(text, expected):
    options = build_edit(text).options
    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize("pairs", ["any", "ordered", "nearest"])
def test_nobody_lends_to_himself_while_there_are_others(pairs, maps, make):
    seats = {"p0_1": (8, 8, 8), "p0_2": (9, 9, 9), "p1_1": (14, 14, 14)}
    room = Room(maps({n: with_ball(body(), s, 4, 1) for n, s in seats.items()}, THREE), Space())
    edit = make("transplant", pairs=pairs)
    assert {run(edit, at(room, "p0_1", i), i)[0]["donor"] for i in range(6)} == {"p1_1"}
    alone = Room(room.source, Space(), ids=("p0_1", "p0_2"))
    assert {run(edit, at(alone, "p0_1", i), i)[0]["donor"] for i in range(6)} == {"p0_2"}


def test_the_nearest_lender_has_the_most_alike_body(maps, make):
    shapes = {"p0": (24, 26, 28), "p1": (24, 16, 36), "p2": (23, 26, 29), "p3": (34, 26, 28)}
    cases = {n: with_ball(body(s), (8, 8, 8), 4, 1) for n, s in shapes.items()}
    room = Room(maps(cases, THREE), Space())
    drawn = [run(make("transplant", pairs="nearest"), at(room, "p0"), s) for s in range(4)]
    assert {params["donor"] for params, _ in drawn} == {"p2"}
    some = [run(make("transplant", pairs="nearest", among=2), at(room, "p0"), s) for s in range(9)]
    assert len({params["donor"] for params, _ in some}) == 2


def test_a_tumour_is_cut_where_the_body_ends(tumours, make):
    labels = body()
    labels[:, :14] = OUTSIDE
    for seed in range(6):
        params, after = run(
            make("transplant", where="anywhere"), at(tumours, "p0", labels=labels), seed
        )
        donor = tumours.source.maps[params["donor"]]
        for value in (1, 2):
            assert (after == value).sum() >= 0.3 * (donor == value).sum()


def test_a_tumour_that_finds_no_body_changes_nothing(tumours, make):
    labels = np.full((24, 26, 28), OUTSIDE, np.int16)
    labels[10:12, 10:12, 10:12] = 0
    params, after = run(make("transplant"), at(tumours, "p0", labels=labels))
    assert params["strength"] == 0
    assert params["why"] == "too little of it lies in the body"
    assert np.array_equal(after, labels)


def test_a_class_that_nobody_lends_changes_nothing(tumours, make):
    params, _ = run(make("transplant", classes=(4,)), at(tumours, "p0"))
    assert (params["strength"], params["why"]) == (0.0, "nobody lends these classes")


def test_a_slice_takes_a_tumour_from_a_slice(tumours, make):
    space = Space("slice", (26, 28))
    room = Room(tumours.source, space)
    for seed in range(4):
        placement = Placement((0, 0), 8)
        case = room.cut("p0", placement)
        scene = Scene(case, placement, (24, 26, 28), 0, room)
        params, after = run(make("transplant"), scene, seed)
        donor = tumours.source.maps[params["donor"]][params["plane"]]
        assert (donor > 0).any()
        assert np.array_equal(after > 0, donor > 0)


# -- interpolate ----------------------------------------------------------------------------------


def mixed(make, scene, weight, seed=0, **options):
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
    room = Room(maps(cases, THREE), Space())
    weaker = 0
    for seed in range(6):
        scene = at(room, "p0")
        params, after = mixed(make, scene, 0.6, seed)
        weaker += params["strength"] < 1
        assert [pieces(after, value) for value in (1, 2)] == [1, 1]
        assert (after == 1).sum() >= 0.3 * (scene.labels == 1).sum()
    assert weaker


def test_a_neck_that_would_break_makes_the_mixture_weaker(maps, make):
    """Two balls joined by a neck: above in one case, below in the other, and nowhere between."""
    cases = {}
    for name, height, radius in (("p0", 8, 5), ("p1", 16, 7)):
        labels = with_ball(with_ball(body(), (12, 13, 6), radius), (12, 13, 21), radius)
        labels[height : height + 2, 11:15, 6:21] = 1
        cases[name] = labels
    scene = at(Room(maps(cases, THREE), Space()), "p0")
    params, after = mixed(make, scene, 0.5)
    assert pieces(after, 1) == 1
    assert 0 < params["strength"] < 1
    assert not np.array_equal(after, scene.labels)


def test_a_turned_shape_is_turned_back_first(maps, make, schema):
    shape = (30, 60, 60)
    grid = np.indices(shape) - np.reshape((15, 30, 30), (3, 1, 1, 1))

    def bar(degrees):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        y, x = c * grid[1] + s * grid[2], c * grid[2] - s * grid[1]
        inside = (np.abs(grid[0]) < 3) & (np.abs(y) < 5) & (np.abs(x) < 18)
        return np.where(inside, 1, 0).astype(np.int16)

    room = Room(maps({"p0": bar(0), "p1": bar(35)}, schema()), Space())
    scene = at(room, "p0")
    _, after = mixed(make, scene, 1.0)
    both = ((after == 1) & (scene.labels == 1)).sum()
    assert 2 * both / ((after == 1).sum() + (scene.labels == 1).sum()) > 0.9


def test_people_with_other_classes_are_not_mixed(maps, make):
    cases = {"p0": with_ball(body(), (8, 8, 8), 4, 1, 2), "p1": with_ball(body(), (8, 8, 8), 4, 1)}
    params, _ = run(make("interpolate"), at(Room(maps(cases, THREE), Space()), "p0"))
    assert params["strength"] == 0


def test_weights_in_the_wrong_order_are_refused(make):
    with pytest.raises(ValueError, match=r"low 0\.7 is above high 0\.2"):
        make("interpolate", low=0.7, high=0.2)


# -- merge ----------------------------------------------------------------------------------------


@pytest.fixture
def kinds(maps):
    """A tumour map and a tissue map, of bodies of different size."""
    tissue = np.full((30, 32, 36), OUTSIDE, np.int16)
    tissue[1:-1, 1:-1, 1:-1] = 1
    tissue[4:-4, 4:-4, 4:-4] = 2
    tissue[8:-8, 8:-8, 8:-8] = 3
    tumour = with_ball(body(), (8, 8, 8), 5, 4, 5)
    return Room(maps({"tumour0": tumour, "tissue0": tissue}, TISSUES), Space())


def test_tissues_fill_the_background_around_a_tumour(kinds, make):
    scene = at(kinds, "tumour0")
    params, after = run(make("merge", tissues=(1, 2, 3)), scene)
    assert params["donor"] == "tissue0"
    tumour = scene.labels > 0
    assert np.array_equal(after[tumour], scene.labels[tumour])
    assert not (after == 0).any(), "the tissues are stretched over the whole body"
    share = [(after == v).sum() / (after >= 0).sum() for v in (1, 2, 3)]
    tissue = kinds.source.maps["tissue0"]
    real = [(tissue == v).sum() / (tissue >= 0).sum() for v in (1, 2, 3)]
    assert np.abs(np.subtract(share, real)).max() < 0.1


def test_chosen_tissues_alone_are_taken(kinds, make):
    _, after = run(make("merge", tissues=(3,)), at(kinds, "tumour0"))
    assert set(np.unique(after)) == {OUTSIDE, 0, 3, 4, 5}


def test_a_tumour_comes_on_top_of_tissues(kinds, make):
    scene = at(kinds, "tissue0")
    params, after = run(make("merge", tumour=(4, 5)), scene)
    assert params["donor"] == "tumour0"
    tumour = kinds.source.maps["tumour0"]
    for value in (4, 5):
        assert (after == value).sum() == (tumour == value).sum()
    rest = after < 4
    assert np.array_equal(after[rest], scene.labels[rest])


def test_no_tumour_is_overwritten_by_another(maps, make):
    cases = {f"p{i}": with_ball(body(), (8 + i, 8, 8), 5, 4, 5) for i in range(2)}
    scene = at(Room(maps(cases, TISSUES), Space()), "p0")
    _, after = run(make("merge", tumour=(4, 5)), scene)
    own = scene.labels > 0
    assert np.array_equal(after[own], scene.labels[own])


def test_tissues_and_a_tumour_at_once_are_refused(make):
    with pytest.raises(ValueError, match="both given, expected one"):
        make("merge", tissues=(1,), tumour=(4,))


def test_a_class_to_merge_that_the_schema_lacks_is_refused(kinds, make):
    with pytest.raises(UsageFault, match=r"edit 'merge': tissues holds \[9\], expected"):
        run(make("merge", tissues=(9,)), at(kinds, "tumour0"))


# -- place ----------------------------------------------------------------------------------------


@pytest.fixture
def spots(maps):
    """Cases with two lesions each, all of class 1 in the body's lower half; other tissue above."""
    cases = {}
    for i in range(5):
        labels = with_ball(body((40, 26, 28)), (6 + i % 3, 7 + i % 2, 8), 3.2, 1, 2)
        labels = with_ball(labels, (8 + i % 2, 18, 19), 2.3, 1)
        labels[30:36, 5:20, 5:20] = 4
        cases[f"p{i}"] = labels
    return Room(maps(cases, THREE), Space())


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

    def depths(where):
        edit = make("place", classes=(1, 2), each=True, where=where)
        after = [run(edit, scene, seed)[1] for seed in range(30)]
        return np.array([part.centroid[0] for a in after for part in parts(a, THREE, (1, 2))])

    assert np.mean(depths("prior") < 14) > 0.85
    assert np.mean(depths("anywhere") < 14) < 0.65


def test_a_lesion_that_fills_its_body_stays(maps, make):
    labels = np.where(body() == 0, 1, OUTSIDE).astype(np.int16)
    room = Room(maps({"p0": labels}, THREE), Space())
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
    moved = edit.apply_image(image, scene.labels, THREE, params)
    assert np.array_equal(image, before)
    assert (moved.shape, moved.dtype) == (image.shape, np.float32)
    lesion = np.isin(after, (1, 2))
    # Where labels take the nearest voxel, an image is interpolated between two.
    assert np.abs(moved[0] - after)[lesion].mean() < (0.01 if name == "place" else 0.2)
    assert np.abs(image[0] - after)[lesion].mean() > 0.5


# -- size -----------------------------------------------------------------------------------------


@pytest.fixture
def sizes(maps):
    """Cases with one nested lesion each, mostly large, some small; and tissue that stays."""
    radii = [3.0, 3.4, 4.0, 6.0, 6.5, 7.0]
    cases = {f"p{i}": with_ball(body(), (12, 13, 14), r, 1, 2) for i, r in enumerate(radii)}
    return Room(maps(cases, THREE), Space())


def resized(make, room, count=40, **options):
    """Volumes that come of the smallest lesion."""
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


def test_crumbs_are_no_sizes_and_stay(maps, make):
    labels = with_ball(with_ball(body(), (12, 13, 14), 8, 1), (3, 3, 3), 1.5, 1)
    room = Room(maps({"p0": labels}, THREE), Space())
    assert len(parts(labels, THREE)) == 2
    assert learnt_sizes(room, None, True).tolist() == [parts(labels, THREE)[0].volume]
    for name in ("size", "place"):
        _, after = run(make(name, **({"each": True} if name == "place" else {})), at(room, "p0"))
        assert np.array_equal(after[:5, :5, :5], labels[:5, :5, :5])


def test_small_ones_come_more_often_the_stronger_the_bias(sizes, make):
    medians = [np.median(resized(make, sizes, like="small", bias=bias)) for bias in (0.0, 1.0, 3.0)]
    assert medians[0] > 1.5 * medians[1] >= 1.5 * medians[2]
    assert resized(make, sizes, like="small", bias=3.0).mean() < 0.5 * resized(make, sizes).mean()


def test_nested_classes_are_scaled_together(sizes, make):
    scene, factors = at(sizes, "p3"), []
    for seed in range(8):
        params, after = run(make("size"), scene, seed)
        factors.append(params["factors"][0])
        # A core of some ten voxels has no exact volume.
        for value in (1, 2) if factors[-1] > 0.6 else ():
            share = (after == value).sum() / (scene.labels == value).sum()
            assert share == pytest.approx(factors[-1] ** 3, rel=0.4)
        assert np.abs(np.argwhere(after == 2).mean(axis=0) - (12, 13, 14)).max() < 0.5
    assert min(factors) < 0.7
    assert max(factors) > 1.1


def test_a_lesion_grows_neither_onto_tissue_nor_beyond_the_body(maps, make):
    labels = with_ball(body(), (5, 5, 14), 2.5, 1)
    labels[9:, :, :][labels[9:, :, :] == 0] = 4
    large = with_ball(body(), (12, 13, 14), 5, 1)
    room = Room(maps({"p0": labels, "p1": large}, THREE), Space())
    grown = 0
    for seed in range(8):
        _, after = run(make("size", classes=(1,)), at(room, "p0"), seed)
        assert np.array_equal(after == 4, labels == 4)
        grown += (after == 1).sum() > (labels == 1).sum()
    assert grown


@pytest.fixture
def shown(maps):
    """A case whose body only the image shows, and a lesion that sticks out of it a little."""
    labels = np.zeros((24, 26, 28), np.int16)
    labels = with_ball(labels, (6, 10, 10), 3.5, 1)
    labels[14:19, 3:23, 3:25] = 4
    large = with_ball(labels, (9, 13, 14), 5, 1)
    room = Room(maps({"p0": labels, "p1": large}, THREE), Space())
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
    room = Room(sizes.source, Space("crop", (12, 12, 12)))
    placement = Placement((12, 8, 8))
    scene = Scene(room.cut("p3", placement), placement, (24, 26, 28), 0, room)
    for name in ("place", "size"):
        params, after = run(make(name), scene)
        assert params["strength"] == 0
        assert np.array_equal(after, scene.labels)


# -- real ones ------------------------------------------------------------------------------------


@pytest.mark.data
def test_real_hippocampi_stay_in_one_piece_a_class(maps, make):
    found = sorted((DATA / "msd_task04_hippocampus/labelsTr").glob("*.nii.gz"))[:8]
    if not found:
        pytest.skip("no real hippocampi here")
    cases = {f"p{i}": np.asarray(nib.load(p).dataobj).astype(np.int16) for i, p in enumerate(found)}
    schema = Schema(("T1",), {"bg": 0, "anterior": 1, "posterior": 2}, (1.0, 1.0, 1.0))
    room = Room(maps(cases, schema), Space())
    changed = 0
    for i, case_id in enumerate(room.ids):
        scene = at(room, case_id)
        assert [pieces(scene.labels, value) for value in (1, 2)] == [1, 1]
        for name, options in (("interpolate", {}), ("elastic", {"amplitude_mm": 3.0})):
            params, after = run(make(name, **options), scene, i)
            assert [pieces(after, value) for value in (1, 2)] == [1, 1]
            changed += params["strength"] > 0 and not np.array_equal(after, scene.labels)
    assert changed >= 14
