import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth_benchmark import running
from gansynth_benchmark.access_log import AccessLog, person_hash
from gansynth_benchmark.estimate import estimate
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.running import run_benchmark
from gansynth_benchmark.study import request_of
from gansynth_benchmark.subject_split import DEVELOPMENT, SEALED, SubjectSplit, split_subjects
from tests.benchmark.people import People, people, plan_of
from tests.expected import raises_fault

SEEDS = range(8)
FOLD: dict[str, Any] = {"sizes": [1, 2], "split": {"sealed": None, "fold": "1", "development": 1}}


def dealt(**changes: Any) -> SubjectSplit:
    plan = plan_of(**changes)
    return split_subjects(People(request_of(plan)), plan)


def divided(**split: Any) -> SubjectSplit:
    return dealt(split=split)


@pytest.mark.parametrize("fold", [None, "0", "1"])
def test_nobody_is_on_two_sides_and_all_cases_of_a_person_go_together(fold):
    ways = {"sealed": 3} if fold is None else {**FOLD["split"], "fold": fold}
    for found in (dealt(sizes=[1, 2], split={"seed": seed, **ways}) for seed in SEEDS):
        sides = [set(found.pool), set(found.development), set(found.sealed)]
        assert all(sides)
        assert not any(one & other for one, other in combinations(sides, 2))
        for side in sides:
            cases = found.cases_of(sorted(side))
            assert list(cases) == sorted(cases)
            assert {case[:3] for case in cases} == side
            assert len(cases) == sum(int(person[1:]) % 3 + 1 for person in side)
        judged = {case for look in (DEVELOPMENT, SEALED) for case in found.test_cases(look)}
        for draw in range(6):
            trained = set(found.cases_of(found.training_set(4, draw, 4, 4)))
            assert trained
            assert not trained & judged


def test_a_seed_deals_everybody_out_and_the_sealed_stay_whatever_else_the_plan_says():
    found = divided()
    assert len({*found.pool, *found.development, *found.sealed}) == 14
    assert (len(found.development), len(found.sealed)) == (2, 3)
    usual = divided(development=None, sealed=2)
    assert (len(usual.development), len(usual.sealed)) == (2, 2)
    assert divided().training_set(4, 1, 4, 8) == found.training_set(4, 1, 4, 8)
    others = [{"development": 0}, {"development": 3}, {"pool": 8}, {"pool": 9, "development": 1}]
    for seed in SEEDS:
        assert len({divided(seed=seed, **other).sealed for other in others}) == 1
    assert len({divided(seed=seed).sealed for seed in SEEDS}) > 4
    assert len({divided(seed=seed).training_set(4, 0, 4, 8) for seed in SEEDS}) > 4


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_share_nobody_as_long_as_the_pool_lasts_and_small_ones_where_large_ones_must(seed):
    found = divided(development=0, seed=seed)  # eleven people

    def draws(size: int, largest: int, first: int = 0) -> list[set[str]]:
        numbers = range(first, first + 3)
        return [set(found.training_set(size, draw, 3, largest)) for draw in numbers]

    first, later = draws(3, 3), draws(3, 3, first=3)
    assert len(set.union(*first)) == len(set.union(*later)) == 9
    assert sorted(map(sorted, first)) != sorted(map(sorted, later))
    small, large = draws(3, 8), draws(8, 8)
    assert len(set.union(*small)) == 9
    assert all(one < other for one, other in zip(small, large, strict=True))


def test_the_folds_held_out_people_are_the_sealed_ones(monkeypatch):
    source, found = People(request_of(plan_of(**FOLD))), dealt(**FOLD)
    assert set(found.test_cases(SEALED)) == set(source.held_out_ids)
    assert set(found.cases_of(found.pool)) | set(found.test_cases(DEVELOPMENT)) == set(
        source.train_ids
    )
    assert len(found.development) == 1
    # Somebody on both sides is lost from the pool: p02 has three cases, one is moved.
    monkeypatch.setattr(People, "held_out_ids", source.held_out_ids[1:3])
    found = dealt(sizes=[1, 2], split={**FOLD["split"], "development": 0})
    assert not set(found.pool) & set(found.sealed)
    assert set(found.sealed) == {"p02"}
    assert len(found.test_cases(SEALED)) == 3
    usual = dealt(sizes=[1, 2], split={**FOLD["split"], "development": None})
    assert len(usual.development) == 1  # as many as are held out


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"sealed": 7}, ("14 subject(s)", "7 sealed", "leaves 5", "at least 8")),
        ({"development": 4}, ("4 for development", "leaves 7", "at least 8")),
        ({"pool": 10}, ("leaves 9", "at least 10")),
    ],
)
def test_too_few_people_are_told_in_one_line(split, words):
    with pytest.raises(DataFault) as refused:
        divided(**split)
    line = str(refused.value)
    assert "\n" not in line
    assert [w for w in (*words, "people:") if w not in line] == []


def test_a_look_at_nobody_says_how_to_look_at_somebody():
    with raises_fault("benchmark.split-without-subjects"):
        divided(development=0).test_cases(DEVELOPMENT)


PEOPLE = ("Ada", "Grace", "Emmy")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "gain.yaml"


def look(
    plan: Path, plan_hash: str = "one", split: str = SEALED, who: tuple[str, ...] = PEOPLE,
    again: str = "",
) -> int:  # fmt: skip
    return AccessLog(plan).look(split, plan_hash, who, ["default", "gan"], again)


def lines(plan: Path) -> list[str]:
    return plan.with_name("gain.looks.jsonl").read_text().splitlines()


def test_a_look_says_who_looked_when_with_what_and_nobodys_name_can_be_read(plan):
    assert look(plan) == 1
    (entry,) = AccessLog(plan).report_entries()
    assert (entry["split"], entry["plan_hash"], entry["look"]) == (SEALED, "one", 1)
    assert (entry["arms"], entry["reason"]) == (["default", "gan"], None)
    assert entry["when"].endswith("Z")
    assert not {"people", "before", "hash"} & set(entry)
    (text,) = lines(plan)
    assert not [name for name in PEOPLE if name in text]
    assert person_hash("Ada") in text


DEVELOPED = [((name, DEVELOPMENT), number) for number, name in enumerate(("one", "two", "four"), 1)]


@pytest.mark.parametrize(
    ("looks", "written"),
    [
        ([(("one",), 1), (("one",), 1), (("one", SEALED, PEOPLE, "needless"), 1)], 1),
        ([(("one",), 1), (("two",), None), (("one",), 1)], 1),
        ([(("one",), 1), (("two", SEALED, ("Emmy", "Lise")), None)], 1),
        ([(("one",), 1), (("one", SEALED, ("Ada", "Lise")), None)], 1),
        ([(("one",), 1), (("two", SEALED, ("Lise", "Mary")), 2)], 2),
        ([(("one",), 1), (("two", SEALED, PEOPLE, "a bug"), 2), (("two",), 2), (("one",), 1)], 2),
        ([*DEVELOPED, *DEVELOPED, (("one",), 1), (("five", DEVELOPMENT), 4)], 5),
    ],
    ids=[
        *("the same plan goes on", "another is refused", "one person seen before is enough"),
        *("also of the same plan", "nobody seen before", "a reason", "development is free"),
    ],
)
def test_a_second_look_at_sealed_people_needs_a_reason(plan, looks, written):
    """Each look with its number, or None: it is refused, and leaves no line."""
    for asked, number in looks:
        if number is None:
            with pytest.raises(IntegrityFault) as refused:
                look(plan, *asked)
            line = str(refused.value)
            says = ("gain.looks.jsonl", "1 time(s)", "plan one", "--reopen-test-set REASON")
            assert [words for words in says if words not in line] == []
        else:
            assert look(plan, *asked) == number
    assert len(lines(plan)) == written
    reasons = {entry["reason"] for entry in AccessLog(plan).report_entries()}
    assert reasons == ({None, "a bug"} if "a bug" in str(looks) else {None})


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_line_is_seen_and_one_that_is_no_look_or_was_taken_out(plan, number):
    for count, name in enumerate(("one", "two", "three")):
        look(plan, name, again="a bug" if count else "")
    rows = lines(plan)
    assert len(rows) == 3
    cases = [(1, rows[1:]), (2, [rows[0], rows[2]])]
    cases += [(4, [*rows, text]) for text in ("{", "5", "[]", "", '{"look": 1}')]
    for old, new in (
        ('"reason": ', '"reason": "none", "said": '),
        ('"look": ', '"look": 1'),
        ('"when": "', '"when": "1'),
    ):
        changed = rows[number].replace(old, new, 1)
        assert changed != rows[number]
        json.loads(changed)
        cases.append((number + 1, [*rows[:number], changed, *rows[number + 1 :]]))
    for line, left in cases:
        plan.with_name("gain.looks.jsonl").write_text("\n".join(left) + "\n")
        with raises_fault("benchmark.access-log-altered", names=f"line {line} "):
            AccessLog(plan)


@pytest.fixture(scope="module", autouse=True)
def _offered():
    with people():
        yield


@pytest.fixture
def asked(plan) -> BenchmarkRequest:
    return BenchmarkRequest(plan=plan, out=plan.parent / "out", test_set=True)


def test_a_look_is_written_down_before_the_first_job_runs(plan, asked, monkeypatch):
    seen = []

    def run(jobs, *_, **__):
        seen.append((len(jobs), len(lines(plan))))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_jobs", run)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan_of(), asked)
    assert seen == [(8 + 20, 1)]  # fits, and trainings, of which some arms share four
    assert AccessLog(plan).report_entries()[0]["plan_hash"] == plan_of().hash


def test_a_dry_run_is_no_look_and_nothing_is_run_for_a_plan_that_is_refused(
    plan, asked, monkeypatch
):
    dry = asked.replace(dry_run=True, no_probe=True)
    estimate(plan_of(), dry)
    assert AccessLog(plan).report_entries() == []
    monkeypatch.setattr(running, "run_jobs", lambda *_, **__: pytest.fail("it was run"))
    other = plan_of(seeds=1)
    look(plan, other.hash, who=running.open_study(other, asked).people)
    with raises_fault("benchmark.sealed-subjects-already-accessed"):
        estimate(plan_of(), dry)
    with raises_fault("benchmark.sealed-subjects-already-accessed"):
        run_benchmark(plan_of(), asked)


SITES: dict[str, Any] = {"sites": "^p(.)", "target": "0", "development": 3, "sealed": 3}
"""Ten people of site 0, four of site 1."""


def by_site(*arms: Any, **split: Any) -> SubjectSplit:
    return dealt(sizes=[2, 4], arms=["default", *arms], split={**SITES, **split})


@pytest.mark.parametrize("seed", SEEDS)
def test_of_the_evaluated_site_nobody_trains_but_in_an_arm_that_asks_for_it(seed):
    found = by_site("target", seed=seed)
    people = {person[:3] for person in found.cases}
    assert set(found.pool) == {person for person in people if person[1] == "1"}
    sides = [found.development, found.sealed, found.target_pool]
    assert sorted(person for side in sides for person in side) == sorted(people - set(found.pool))
    assert list(map(len, sides)) == [3, 3, 4]
    at_target = found.training_set(4, 0, 2, 4, at_target=True)
    assert set(at_target) == set(found.target_pool)


@pytest.mark.parametrize(
    ("arms", "split", "fault"),
    [
        ((), {"target": "north"}, "benchmark.target-site-unknown"),
        ((), {"sealed": 8}, "benchmark.too-few-subjects-to-evaluate"),
        ((), {"target": "1", "sites": "^p(.)_", "sealed": 1}, "folds.cases-without-subject"),
        ((), {"sites": "_(.)$", "target": "0"}, "folds.subject-of-two-sites"),
        (("double",), {}, "benchmark.too-few-subjects-for-training"),
        (("target",), {"sealed": 4}, "benchmark.too-few-subjects-of-target"),
    ],
)
def test_sites_that_do_not_fit_a_plan_are_refused(arms, split, fault):
    with raises_fault(fault):
        by_site(*arms, **split)
