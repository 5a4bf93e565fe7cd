import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth_benchmark import running
from gansynth_benchmark.access_log import AccessLog, person_hash
from gansynth_benchmark.estimate import estimate
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.running import run_benchmark
from gansynth_benchmark.study import request_of
from gansynth_benchmark.subject_split import DEVELOPMENT, SEALED, SubjectSplit, split_subjects
from tests.benchmark.people import People, people, plan_of

SEEDS = range(12)
FOLD: dict[str, Any] = {"sizes": [1, 2], "split": {"sealed": None, "fold": "1", "development": 1}}


def dealt(**changes: Any) -> SubjectSplit:
    plan = plan_of(**changes)
    return split_subjects(People(request_of(plan)), plan)


def divided(**split: Any) -> SubjectSplit:
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
        trained = set(found.cases_of(found.training_set(4, draw, 4, 4)))
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
    assert len({divided(seed=seed).training_set(4, 0, 4, 8) for seed in SEEDS}) > 6
    assert divided().training_set(4, 1, 4, 8) == divided().training_set(4, 1, 4, 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_share_nobody_as_long_as_the_pool_lasts(seed):
    found = divided(development=0, seed=seed)  # eleven people
    first, later = (
        [set(found.training_set(3, draw, 3, 3)) for draw in draws]
        for draws in (range(3), range(3, 6))
    )
    assert len(set.union(*first)) == len(set.union(*later)) == 9
    assert sorted(map(sorted, first)) != sorted(map(sorted, later))


@pytest.mark.parametrize("seed", SEEDS)
def test_small_draws_share_nobody_where_large_ones_must(seed):
    found = divided(development=0, seed=seed)  # eleven people
    small, large = (
        [set(found.training_set(size, draw, 3, 8)) for draw in range(3)] for size in (3, 8)
    )
    assert len(set.union(*small)) == 9
    assert all(one < other for one, other in zip(small, large, strict=True))


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
        ({"sealed": 7}, ("14 subject(s)", "7 sealed", "leaves 5", "at least 8")),
        ({"sealed": 20}, ("14 sealed", "leaves 0")),
        ({"development": 4}, ("4 for development", "leaves 7", "at least 8")),
        ({"pool": 7}, ("leaves 7", "at least 8")),
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
    found = divided(development=0)
    with pytest.raises(UsageFault, match=r"split\.development: 0 subjects.*--test-set"):
        found.judged(DEVELOPMENT)
    assert len(found.judged(SEALED)) >= 3


PEOPLE = ("Ada", "Grace", "Emmy")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "gain.yaml"


def look(
    plan: Path, plan_hash: str = "one", *, split: str = "sealed", who: tuple[str, ...] = PEOPLE,
    again: str = "",
) -> int:  # fmt: skip
    return AccessLog(plan).look(split, plan_hash, who, ["default", "gan"], again)


def lines(plan: Path) -> list[str]:
    return plan.with_name("gain.looks.jsonl").read_text().splitlines()


def test_a_look_says_who_looked_when_with_what_and_nobodys_name_can_be_read(plan):
    assert look(plan) == 1
    (entry,) = AccessLog(plan).told()
    assert (entry["split"], entry["plan_hash"], entry["look"]) == ("sealed", "one", 1)
    assert (entry["arms"], entry["reason"]) == (["default", "gan"], None)
    assert entry["when"].endswith("Z")
    assert not {"people", "before", "hash"} & set(entry)
    (text,) = lines(plan)
    assert not [name for name in PEOPLE if name in text]
    assert person_hash("Ada") in text


def test_the_same_plan_may_go_on(plan):
    assert [look(plan), look(plan), look(plan, again="a reason that nobody needs")] == [1, 1, 1]
    assert len(lines(plan)) == 1


def test_another_plan_is_refused_and_told_the_way_out(plan):
    look(plan)
    before = lines(plan)
    with pytest.raises(IntegrityFault) as refused:
        look(plan, "two")
    assert refused.value.exit_code == 6
    line = str(refused.value)
    assert "\n" not in line
    says = (
        "gain.looks.jsonl",
        "1 time(s)",
        "plan one",
        "this plan is two",
        "--reopen-test-set REASON",
    )
    assert [words for words in says if words not in line] == []
    assert lines(plan) == before


def test_one_person_seen_before_is_enough_to_refuse(plan):
    look(plan)
    for plan_hash, who in (("two", ("Emmy", "Lise")), ("one", ("Ada", "Lise"))):
        with pytest.raises(IntegrityFault):
            look(plan, plan_hash, who=who)
    assert look(plan, "two", who=("Lise", "Mary")) == 2


def test_a_reason_lets_it_look_again_and_is_kept(plan):
    look(plan)
    assert look(plan, "two", again="the first had a bug") == 2
    assert [entry["reason"] for entry in AccessLog(plan).told()] == [None, "the first had a bug"]
    assert look(plan, "two") == 2
    assert look(plan) == 1


def test_development_is_looked_at_as_often_as_anybody_likes(plan):
    found = [look(plan, name, split="development") for name in ("one", "two", "three", "one")]
    assert found == [1, 2, 3, 1]
    look(plan, "one")  # they do not use up the sealed one
    assert look(plan, "four", split="development") == 4
    assert look(plan, "one", split="development") == 1
    assert len(lines(plan)) == 5


@pytest.fixture
def log(plan) -> Path:
    for number, name in enumerate(("one", "two", "three")):
        look(plan, name, again="a bug" if number else "")
    assert len(lines(plan)) == 3
    return Path(plan).with_name("gain.looks.jsonl")


def refused_at(plan: Path, log: Path, line: int, rows: list[str]) -> None:
    log.write_text("\n".join(rows) + "\n")
    with pytest.raises(IntegrityFault, match=rf"line {line} .*version control"):
        AccessLog(plan)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"reason": ', '"reason": "none", "said": '),
        ('"look": ', '"look": 1'),
        ('"when": "', '"when": "1'),
    ],
)
def test_a_changed_line_is_seen(plan, log, number, old, new):
    rows = lines(plan)
    assert old in rows[number]
    rows[number] = rows[number].replace(old, new, 1)
    json.loads(rows[number])
    refused_at(plan, log, number + 1, rows)


def test_a_line_taken_out_and_what_is_no_look_are_seen(plan, log):
    rows = lines(plan)
    refused_at(plan, log, 1, rows[1:])
    refused_at(plan, log, 2, [rows[0], rows[2]])
    for text in ("{", "5", "[]", "", '{"look": 1}'):
        refused_at(plan, log, 4, [*rows, text])


def test_a_log_from_before_lines_had_hashes_of_their_own_goes_on(plan):
    look(plan)
    (entry,) = map(json.loads, lines(plan))
    del entry["hash"]
    plan.with_name("gain.looks.jsonl").write_text(json.dumps(entry, sort_keys=True) + "\n")
    assert look(plan) == 1
    assert look(plan, "two", again="a bug") == 2
    assert len(AccessLog(plan).entries) == 2


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
    assert AccessLog(plan).told()[0]["plan_hash"] == plan_of().hash


def dry_run(plan, asked):
    return estimate(plan, asked.but(dry_run=True, no_probe=True), NullReporter())


@pytest.mark.parametrize("started", [dry_run, run_benchmark], ids=["dry", "run"])
def test_nothing_is_run_for_a_plan_that_is_refused(plan, asked, monkeypatch, started):
    monkeypatch.setattr(running, "run_jobs", lambda *_, **__: pytest.fail("it was run"))
    other = plan_of(seeds=1)
    look(plan, other.hash, who=running.open_study(other, asked).people)
    with pytest.raises(IntegrityFault, match="--reopen-test-set"):
        started(plan_of(), asked)


def test_a_dry_run_is_no_look(plan, asked):
    dry_run(plan_of(), asked)
    assert AccessLog(plan).told() == []
