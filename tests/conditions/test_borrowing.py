"""Edits that take something from other cases: all of them, then transplant and merge."""

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edit
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.scene import CasePool, Scene
from gansynth.core.schema import OUTSIDE, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache
from gansynth.runtime.errors import UsageFault
from tests.conditions.rooms import THREE, at, body, run, with_ball

NAMES = ("transplant", "interpolate", "merge", "place", "size")
TISSUES = Schema(
    ("T1",),
    {"bg": 0, "csf": 1, "gm": 2, "wm": 3, "oedema": 4, "core": 5},
    (1.0, 1.0, 1.0),
    has_outside=True,
)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_training_cases_is_opened(name, tumours, make):
    for seed in range(3):
        run(make(name), at(tumours, "p0"), seed)
    assert set(tumours.source.opened) <= set(tumours.ids)


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
    labels = [d.labels for d in drawn if d.labels is not None]
    # A slice at the very border shows no body.
    assert sum(bool((m > 0).any()) for m in labels if (m == 0).any()) >= 10
    people = Counter(d.provenance["edits"][0]["params"]["donor"] for d in drawn)
    assert people == dict.fromkeys(tumours.ids, 3)
    for one, shown in zip(drawn, labels, strict=True):
        read = json.loads(json.dumps(one.provenance))
        assert np.array_equal(sampler.replay(read), shown)


@pytest.mark.parametrize("pairs", ["any", "ordered", "nearest"])
def test_nobody_lends_to_himself_while_there_are_others(pairs, maps, make):
    seats = {"p0_1": (8, 8, 8), "p0_2": (9, 9, 9), "p1_1": (14, 14, 14)}
    room = CasePool(
        CaseCache(maps({n: with_ball(body(), s, 4, 1) for n, s in seats.items()}, THREE)), Space()
    )
    edit = make("transplant", pairs=pairs)
    assert {run(edit, at(room, "p0_1", i), i)[0]["donor"] for i in range(6)} == {"p1_1"}
    alone = CasePool(CaseCache(room.source), Space(), ids=("p0_1", "p0_2"))
    assert {run(edit, at(alone, "p0_1", i), i)[0]["donor"] for i in range(6)} == {"p0_2"}


def test_the_nearest_lender_has_the_most_alike_body(maps, make):
    shapes = {"p0": (24, 26, 28), "p1": (24, 16, 36), "p2": (23, 26, 29), "p3": (34, 26, 28)}
    cases = {n: with_ball(body(s), (8, 8, 8), 4, 1) for n, s in shapes.items()}
    room = CasePool(CaseCache(maps(cases, THREE)), Space())
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
    room = CasePool(CaseCache(tumours.source), space)
    for seed in range(4):
        placement = Placement((0, 0), 8)
        case = room.cut("p0", placement)
        scene = Scene(case, placement, (24, 26, 28), 0, room)
        params, after = run(make("transplant"), scene, seed)
        donor = tumours.source.maps[params["donor"]][params["plane"]]
        assert (donor > 0).any()
        assert np.array_equal(after > 0, donor > 0)


# -- merge ----------------------------------------------------------------------------------------


@pytest.fixture
def kinds(maps: Callable[..., CaseSource]) -> CasePool:
    """A tumour map and a tissue map, of bodies of different size."""
    tissue = np.full((30, 32, 36), OUTSIDE, np.int16)
    tissue[1:-1, 1:-1, 1:-1] = 1
    tissue[4:-4, 4:-4, 4:-4] = 2
    tissue[8:-8, 8:-8, 8:-8] = 3
    tumour = with_ball(body(), (8, 8, 8), 5, 4, 5)
    return CasePool(CaseCache(maps({"tumour0": tumour, "tissue0": tissue}, TISSUES)), Space())


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
    scene = at(CasePool(CaseCache(maps(cases, TISSUES)), Space()), "p0")
    _, after = run(make("merge", tumour=(4, 5)), scene)
    own = scene.labels > 0
    assert np.array_equal(after[own], scene.labels[own])


def test_tissues_and_a_tumour_at_once_are_refused(make):
    with pytest.raises(ValueError, match="both given, expected one"):
        make("merge", tissues=(1,), tumour=(4,))


def test_a_class_to_merge_that_the_schema_lacks_is_refused(kinds, make):
    with pytest.raises(UsageFault, match=r"edit 'merge': tissues holds \[9\], expected"):
        run(make("merge", tissues=(9,)), at(kinds, "tumour0"))
