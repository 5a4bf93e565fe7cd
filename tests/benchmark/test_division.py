"""Who is trained on and who is judged on: nobody is on both sides, whatever the plan."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import pytest

from gansynth.benchmark.division import DEVELOPMENT, SEALED, Division, divide, largest_set
from gansynth.benchmark.study import request_of
from gansynth.runtime.errors import DataFault, UsageFault
from tests.benchmark.people import People, plan_of

SEEDS = range(12)
FOLD: dict[str, Any] = {"sizes": [1, 2], "split": {"sealed": None, "fold": "1", "development": 1}}


def dealt(**changes: Any) -> Division:
    plan = plan_of(**changes)
    return divide(People(request_of(plan)), plan)


def divided(**split: Any) -> Division:
    """``PLAN`` on fourteen people, with another split."""
    return dealt(split=split)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fold", [None, "0", "1"])
def test_nobody_is_on_two_sides_and_all_cases_of_a_person_go_together(seed, fold):
    named = {"seed": seed} if fold is None else {"seed": seed, "fold": fold, "development": 1}
    found = dealt(sizes=[1, 2], split={"sealed": 3 if fold is None else None, **named})
    sides = [set(found.pool), set(found.development), set(found.sealed)]
    assert all(sides)
    assert not any(one & other for one, other in combinations(sides, 2))
    for side in sides:
        cases = found.cases_of(sorted(side))
        assert list(cases) == sorted(cases)
        assert {case[:3] for case in cases} == side
        assert len(cases) == sum(int(person[1:]) % 3 + 1 for person in side)
    judged = {case for look in (DEVELOPMENT, SEALED) for case in found.judged(look)}
    for draw in range(6):
        trained = set(found.cases_of(found.training_set(4, draw, 4)))
        assert trained
        assert not trained & judged


def test_everybody_is_dealt_out_where_the_pool_has_no_number():
    found = divided()
    assert len({*found.pool, *found.development, *found.sealed}) == 14
    assert (len(found.development), len(found.sealed)) == (2, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sealed_people_stay_whatever_else_the_plan_says(seed):
    others = [{"development": 0}, {"development": 3}, {"pool": 8}, {"pool": 9, "development": 1}]
    assert len({divided(seed=seed, **other).sealed for other in others}) == 1


def test_another_seed_deals_otherwise_and_the_same_one_the_same():
    assert len({divided(seed=seed).sealed for seed in SEEDS}) > 6
    assert len({divided(seed=seed).training_set(4, 0, 8) for seed in SEEDS}) > 6
    assert divided().training_set(4, 1, 8) == divided().training_set(4, 1, 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_share_nobody_as_long_as_the_pool_lasts(seed):
    found = divided(development=0, seed=seed)  # eleven people
    first, later = (
        [set(found.training_set(3, draw, 3)) for draw in draws] for draws in (range(3), range(3, 6))
    )
    assert len(set.union(*first)) == len(set.union(*later)) == 9
    assert sorted(map(sorted, first)) != sorted(map(sorted, later))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("draw", range(4))
def test_a_smaller_set_of_a_draw_lies_within_its_larger_one(seed, draw):
    found = divided(development=0, seed=seed)
    sets = [set(found.training_set(size, draw, 5)) for size in (1, 2, 4, 5)]
    assert [len(one) for one in sets] == [1, 2, 4, 5]
    assert all(one < other for one, other in pairwise(sets))


def test_an_arm_of_twice_the_people_doubles_the_largest_set():
    assert largest_set(plan_of()) == 8
    assert largest_set(plan_of(arms=["default"])) == 4


def test_the_folds_held_out_people_are_the_sealed_ones():
    source, found = People(request_of(plan_of(**FOLD))), dealt(**FOLD)
    assert set(found.judged(SEALED)) == set(source.held_out_ids)
    assert set(found.cases_of(found.pool)) | set(found.judged(DEVELOPMENT)) == set(source.train_ids)
    assert len(found.development) == 1


def test_a_fold_in_which_somebody_is_on_both_sides_loses_them_from_the_pool(monkeypatch):
    one_case = People(request_of(plan_of(**FOLD))).held_out_ids[1:]  # p02 has three, one is moved
    monkeypatch.setattr(People, "held_out_ids", one_case[:2])
    found = dealt(sizes=[1, 2], split={**FOLD["split"], "development": 0})
    assert not set(found.pool) & set(found.sealed)
    assert set(found.sealed) == {"p02"}
    assert len(found.judged(SEALED)) == 3


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"sealed": 7}, ("14 subject(s)", "7 sealed", "leave 5", "at least 8")),
        ({"sealed": 20}, ("14 sealed", "leave 0")),
        ({"development": 4}, ("4 for development", "leave 7", "at least 8")),
        ({"pool": 7}, ("leave 7", "at least 8")),
        ({"pool": 10}, ("leave 9", "at least 10")),
    ],
)
def test_too_few_people_are_told_in_one_line(split, words):
    with pytest.raises(DataFault) as refused:
        divided(**split)
    line = str(refused.value)
    assert "\n" not in line
    assert [w for w in (*words, "people:") if w not in line] == []


def test_a_look_at_nobody_says_how_to_look_at_somebody():
    found = divided(development=0)
    with pytest.raises(UsageFault, match=r"split\.development: 0 subjects.*--sealed"):
        found.judged(DEVELOPMENT)
    assert len(found.judged(SEALED)) >= 3
