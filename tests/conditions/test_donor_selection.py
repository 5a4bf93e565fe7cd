from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.case_pool import CaseContext, CasePool
from gansynth.core.schema import OUTSIDE, Schema
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import UsageFault
from tests.conditions.rooms import THREE, at, body, run, with_ball

TISSUES = Schema(
    ("T1",),
    {"bg": 0, "csf": 1, "gm": 2, "wm": 3, "oedema": 4, "core": 5},
    (1.0, 1.0, 1.0),
    has_outside=True,
)
Pool = Callable[..., CasePool]


def test_a_tumour_comes_to_the_same_place_of_another_brain(tumours, make):
    params, after = run(make("transplant"), at(tumours, "p0"))
    assert params["donor"] != "p0"
    assert params["shift"] == [0, 0, 0]
    assert np.array_equal(after, tumours.cases(params["donor"]).labels)


def test_an_own_tumour_is_removed_or_kept(tumours, make):
    own = tumours.cases("p0").labels > 0
    _, removed = run(make("transplant"), at(tumours, "p0"), 1)
    _, kept = run(make("transplant", own="keep"), at(tumours, "p0"), 1)
    assert not (removed[own] > 0).all()
    assert np.array_equal(kept > 0, (removed > 0) | own)


def test_every_ordered_pair_is_shown_once(patients, tumours, make):
    edit = make("transplant", pairs="ordered")
    sampler = ConditionSampler(patients, Space(), [edit], seed=3)
    told = [sampler.draw(index).provenance for index in range(12)]
    seen = [(found["edits"][0]["params"]["donor"], found["case"]) for found in told]
    people = tumours.ids
    assert Counter(seen) == Counter((a, b) for a in people for b in people if a != b)
    # And any stretch of them shows every brain, and every tumour, about as often.
    for first in range(0, 12, 4):
        for shown in zip(*seen[first : first + 4], strict=True):
            assert sorted(shown) == list(people)


@pytest.mark.parametrize(
    "space", [Space(), Space("crop", (20, 20, 20)), Space("slice", (26, 28))], ids=lambda s: s.grid
)
def test_another_source_without_tumours_gives_the_brains(space, patients, tumours, maps, make):
    brains = maps({f"brain{i}": body((26 + i, 28, 30)) for i in range(3)}, THREE)
    edit = make("transplant", pairs="ordered")
    sampler = ConditionSampler(patients, space, [edit], base=brains)
    drawn: list[Any] = [sampler.draw(i) for i in range(12)]
    assert [d.provenance["case"] for d in drawn] == [f"brain{i % 3}" for i in range(12)]
    # A slice at the very border shows no body.
    assert sum((d.labels > 0).any() for d in drawn if (d.labels == 0).any()) >= 10
    people = Counter(d.provenance["edits"][0]["params"]["donor"] for d in drawn)
    assert people == dict.fromkeys(tumours.ids, 3)


@pytest.mark.parametrize("pairs", ["any", "ordered", "nearest"])
def test_donors_are_other_people_while_there_are_others(pairs, case_pool, make):
    seats = {"p0_1": (8, 8, 8), "p0_2": (9, 9, 9), "p1_1": (14, 14, 14)}
    everybody = case_pool({n: with_ball(body(), s, 4, 1) for n, s in seats.items()})
    alone = CasePool(everybody.cases, Space(), ids=("p0_1", "p0_2"))
    edit = make("transplant", pairs=pairs)
    for pool, lender in ((everybody, "p1_1"), (alone, "p0_2")):
        assert {run(edit, at(pool, "p0_1", i), i)[0]["donor"] for i in range(6)} == {lender}


def test_a_tumour_that_finds_no_body_or_no_lender_changes_nothing(tumours, make):
    labels = np.full((24, 26, 28), OUTSIDE, np.int16)
    labels[10:12, 10:12, 10:12] = 0
    params, after = run(make("transplant"), at(tumours, "p0", labels=labels))
    assert (params["strength"], params["why"]) == (0, "too little of it lies in the body")
    assert np.array_equal(after, labels)
    params, _ = run(make("transplant", classes=(4,)), at(tumours, "p0"))
    assert (params["strength"], params["why"]) == (0.0, "nobody lends these classes")


def test_a_slice_takes_a_tumour_from_a_slice(tumours, make):
    case_pool, placement = CasePool(tumours.cases, Space("slice", (26, 28))), Placement((0, 0), 8)
    for seed in range(4):
        case_context = CaseContext(
            case_pool.cut("p0", placement), placement, (24, 26, 28), 0, case_pool
        )
        params, after = run(make("transplant"), case_context, seed)
        donor = tumours.cases(params["donor"]).labels[params["plane"]]
        assert (donor > 0).any()
        assert np.array_equal(after > 0, donor > 0)


@pytest.fixture
def kinds(case_pool: Pool) -> CasePool:
    """A tumour map and a tissue map, of bodies of different size."""
    tissue = np.full((30, 32, 36), OUTSIDE, np.int16)
    for value, rim in ((1, 1), (2, 4), (3, 8)):
        tissue[tuple(slice(rim, -rim) for _ in range(3))] = value
    tumour = with_ball(body(), (8, 8, 8), 5, 4, 5)
    return case_pool({"tumour0": tumour, "tissue0": tissue}, TISSUES)


def test_tissues_fill_the_background_around_a_tumour(kinds, make):
    case_context = at(kinds, "tumour0")
    params, after = run(make("merge", tissues=(1, 2, 3)), case_context)
    assert params["donor"] == "tissue0"
    tumour = case_context.labels > 0
    assert np.array_equal(after[tumour], case_context.labels[tumour])
    assert not (after == 0).any(), "the tissues are stretched over the whole body"
    share, real = (
        [(m == v).sum() / (m >= 0).sum() for v in (1, 2, 3)]
        for m in (after, kinds.cases("tissue0").labels)
    )
    assert np.abs(np.subtract(share, real)).max() < 0.1
    _, some = run(make("merge", tissues=(3,)), case_context)
    assert set(np.unique(some)) == {OUTSIDE, 0, 3, 4, 5}


def test_a_tumour_comes_on_top_of_tissues_and_overwrites_no_other(kinds, case_pool, make):
    edit, case_context = make("merge", tumour=(4, 5)), at(kinds, "tissue0")
    params, after = run(edit, case_context)
    assert params["donor"] == "tumour0"
    for value in (4, 5):
        assert (after == value).sum() == (kinds.cases("tumour0").labels == value).sum()
    assert np.array_equal(after[after < 4], case_context.labels[after < 4])
    pool = case_pool(
        {f"p{i}": with_ball(body(), (8 + i, 8, 8), 5, 4, 5) for i in range(2)}, TISSUES
    )
    case_context = at(pool, "p0")
    own = case_context.labels > 0
    assert np.array_equal(run(edit, case_context)[1][own], case_context.labels[own])


def test_a_class_to_merge_that_the_schema_lacks_is_refused(kinds, make):
    with pytest.raises(UsageFault, match=r"edit 'merge': tissues holds \[9\], expected"):
        run(make("merge", tissues=(9,)), at(kinds, "tumour0"))
