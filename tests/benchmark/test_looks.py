"""Every look at the sealed people is written down first, and none goes unseen."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from gansynth.benchmark import running
from gansynth.benchmark.estimate import estimate
from gansynth.benchmark.looks import Looks, person_hash
from gansynth.benchmark.running import Asked, run_benchmark
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.progress import NullReporter
from tests.benchmark.people import people, plan_of

PEOPLE = ("Ada", "Grace", "Emmy")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The file of a plan; the log lies beside it."""
    return tmp_path / "gain.yaml"


def look(
    plan: Path, plan_hash: str = "one", *, split: str = "sealed", who: tuple[str, ...] = PEOPLE,
    again: str = "",
) -> int:  # fmt: skip
    return Looks(plan).look(split, plan_hash, who, ["default", "gan"], again)


def lines(plan: Path) -> list[str]:
    return plan.with_name("gain.looks.jsonl").read_text().splitlines()


def test_a_look_says_who_looked_when_with_what_and_nobodys_name_can_be_read(plan):
    assert look(plan) == 1
    (entry,) = Looks(plan).told()
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
    says = ("gain.looks.jsonl", "1 time(s)", "plan one", "this one is two", "--look-again REASON")
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
    assert [entry["reason"] for entry in Looks(plan).told()] == [None, "the first had a bug"]
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
    """A log of three looks."""
    for number, name in enumerate(("one", "two", "three")):
        look(plan, name, again="a bug" if number else "")
    assert len(lines(plan)) == 3
    return Path(plan).with_name("gain.looks.jsonl")


def refused_at(plan: Path, log: Path, line: int, rows: list[str]) -> None:
    log.write_text("\n".join(rows) + "\n")
    with pytest.raises(IntegrityFault, match=rf"line {line} .*version control"):
        Looks(plan)


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
    assert len(Looks(plan).entries) == 2


@pytest.fixture(scope="module", autouse=True)
def _offered():
    with people():
        yield


@pytest.fixture
def asked(plan) -> Asked:
    return Asked(file=plan, folder=plan.parent / "out", sealed=True)


def test_a_look_is_written_down_before_the_first_job_runs(plan, asked, monkeypatch):
    seen = []

    def run(jobs, *_, **__):
        seen.append((len(jobs), len(lines(plan))))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_jobs", run)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan_of(), asked, quiet=True)
    assert seen == [(8 + 20, 1)]  # fits, and trainings, of which some arms share four
    assert Looks(plan).told()[0]["plan_hash"] == plan_of().hash


DRY = partial(estimate, probe=False, reporter=NullReporter())


@pytest.mark.parametrize("started", [DRY, partial(run_benchmark, quiet=True)], ids=["dry", "run"])
def test_nothing_is_run_for_a_plan_that_is_refused(plan, asked, monkeypatch, started):
    monkeypatch.setattr(running, "run_jobs", lambda *_, **__: pytest.fail("it was run"))
    other = plan_of(seeds=1)
    look(plan, other.hash, who=running.open_study(other, asked).people)
    with pytest.raises(IntegrityFault, match="--look-again"):
        started(plan_of(), asked)


def test_a_dry_run_is_no_look(plan, asked):
    DRY(plan_of(), asked)
    assert Looks(plan).told() == []
