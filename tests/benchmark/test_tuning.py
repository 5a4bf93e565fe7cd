import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime.files import read_json
from gansynth_benchmark import study, tuning
from gansynth_benchmark.jobs.attempt import FAILED, UNTRAINED
from gansynth_benchmark.jobs.graph import GraphReport, JobPhase, JobStatus
from gansynth_benchmark.jobs.store import JobSpec
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import TuneRequest
from gansynth_benchmark.tuning import (
    CHOICE,
    Tuning,
    choose,
    choose_arm,
    gains_over,
    going_on,
)
from tests.benchmark.people import design_of, finish, people, plan_of
from tests.expected import raises_fault

BANK = {"generator": "g", "offline": True, "bank_size": "3x"}
ARMS = [
    "default",
    {"name": "plain", **BANK},
    {"name": "fading", **BANK, "ratio": "2:1", "schedule": "anneal"},
    {"name": "pasted", "from": "copy-paste"},
    {"name": "tuned", "tune": ["default", "plain", "fading", "pasted"]},
]
LOG = Path("log.txt")


def plan(**changes: Any) -> BenchmarkPlan:
    """A plan that chooses among four arms, on six people of nine."""
    usual: dict[str, Any] = {
        "arms": ARMS,
        "sizes": [6],
        "generators": {"g": {"generator": "cgan3d", "set": {"steps": 100}}},
        "tune": {"folds": 3, "rungs": [0.25, 1.0], "keep": 0.5, "fit_share": 0.5},
    }
    return plan_of(**{**usual, **changes})


def opened(folder: Path, plan: BenchmarkPlan, seed: int = 0) -> Tuning:
    names = next(arm.tune for arm in plan.arms if arm.tune)
    design = design_of(plan)
    choice = design.choice(names, design.training_cases(plan.sizes[-1], 0), seed, "choose")
    places = {"request": {"kind": "people"}}
    return Tuning(choice.document, places, folder, env={"THREADS": "1"})


Scoring = Callable[[Mapping[str, Any], str], float | None]


@dataclass
class Race:
    """Ends every job at once, with made-up scores; remembers what each process was told.

    Attributes:
        scores: measure -> score of a training's case.
        lost: arms whose trainings fail with ``code``.
    """

    scores: Mapping[str, Scoring]
    lost: Collection[str] = ()
    code: int = UNTRAINED
    told: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, jobs: Any, store: Any, executor: Any, *, on_change: Any) -> GraphReport:
        standings = []
        for job in jobs:
            assert job.function == "gansynth_benchmark.worker:run_job"
            spec = job.document["spec"]
            self.told.append({**job.document, "env": dict(job.env), "key": job.key})
            if spec["kind"] == "train" and name_of(spec) in self.lost:
                why: Any = {"why": "all were rejected", "code": self.code}
                standings.append(JobStatus(job, JobPhase.FAILED, LOG, **why))
                continue
            scores = {
                key: {case: score(spec, case) for case, *_ in spec.get("judged", ())}
                for key, score in self.scores.items()
                if key.partition("/")[0] in spec.get("measures", ())
            }
            finish(store, job.key, {"seconds": 1.0, "scores": scores})
            standings.append(JobStatus(job, JobPhase.DONE, LOG))
        return GraphReport(tuple(standings))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [told for told in self.told if told["spec"]["kind"] == kind]


def by_arm(levels: Mapping[str, float], noise: float = 0.001) -> Scoring:
    """Scores by the name of an arm: none, plain, fading or pasted; people differ by a little."""
    return lambda spec, case: levels[name_of(spec)] + noise * (int(case[1:3]) % 3)


def name_of(spec: Mapping[str, Any]) -> str:
    """An arm by what it does; its name is in no document."""
    if spec["augment"]["ratio"] == "1:0":
        return "default"
    if "offline" not in spec["augment"]:
        return "pasted"
    return "fading" if "schedule" in spec["augment"] else "plain"


LEVELS = {"default": 0.5, "plain": 0.6, "fading": 0.7, "pasted": 0.4}


def race(
    folder: Path, scores: Mapping[str, Scoring], lost: Collection[str] = (),
    code: int = UNTRAINED, **changes: Any,
) -> tuple[dict[str, Any], Race]:  # fmt: skip
    made = Race({"dice/mean": by_arm(LEVELS), **scores}, lost, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "run_jobs", made)
        return opened(folder, plan(**changes)).run(), made


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> tuple[dict[str, Any], Race]:
    precision = by_arm({**LEVELS, "default": 0.8, "fading": 0.7}, 0.0)
    alarms: dict[str, Scoring] = {
        "lesion_precision/mean": precision,
        "false_alarms/mean": lambda spec, case: None,
    }
    return race(tmp_path_factory.mktemp("usual"), alarms)


def chosen(
    scores: Mapping[str, Mapping[str, float]], folds: Mapping[str, int] | None = None
) -> tuple[str, str]:
    """The choice and the reason; each person is a fold of its own unless said."""
    people = {person for arm in scores.values() for person in arm}
    alone = {person: number for number, person in enumerate(people)}
    return choose(gains_over(scores, "default", folds or alone), "default")


def gained(*gains: float) -> dict[str, dict[str, float]]:
    people = [f"p{i}" for i in range(len(gains))]
    gan = {person: 0.5 + gain for person, gain in zip(people, gains, strict=True)}
    return {"default": dict.fromkeys(people, 0.5), "gan": gan}


HALF = {"p": 0.5, "q": 0.5}


@pytest.mark.parametrize(
    ("scores", "best", "says"),
    [
        (
            gained(0.1, 0.3),
            "default",
            "gan against default: +0.2000 (standard error 0.1000, 2 subject(s)), not more than 6.3",
        ),
        (gained(0.1, 0.1, 0.1), "gan", "more than 2.9 standard errors"),
        (gained(-0.1, 0.3), "default", "+0.1000 (standard error 0.2000"),
        (gained(-0.05, 0.2, 0.3), "default", "+0.1500 (standard error 0.1041"),
        (gained(0.15, 0.2, 0.3), "gan", "+0.2167 (standard error 0.0441"),
        (gained(-0.1, -0.1), "default", "not more than 6.3 standard errors"),
        (gained(0.4), "default", "+0.4000 (standard error inf, 1 subject(s)), not more than inf"),
        # Of those alone whom both have.
        ({"default": HALF, "gan": {"p": 0.4, "q": 0.6, "r": 0.99}}, "default", "2 subject"),
        ({"default": {"p": 0.5}, "gan": {"r": 0.99}}, "default", "no other arm was trained"),
        ({"default": HALF, "a": {"p": 0.8, "q": 0.79}, "b": {"p": 0.79, "q": 0.8}}, "a", ""),
        # The best score is luck, the next one is sure.
        (
            {"default": HALF, "lucky": {"p": 0.4, "q": 1.0}, "sure": {"p": 0.6, "q": 0.601}},
            "sure",
            "more than 12.7 standard errors, which chance exceeds once in 20 times",
        ),
    ],
)
def test_what_is_chosen_beats_none_by_more_than_chance_gives(scores, best, says):
    found, why = chosen(scores)
    assert found == best
    assert says in why
    assert why.startswith("not known, use none: ") == (best == "default")


@pytest.mark.parametrize(
    ("levels", "best"), [((0.8, 0.49), "default"), ((0.6, 0.61), "gan")], ids=["luck", "gain"]
)
def test_the_luck_of_one_inner_training_is_no_gain_but_one_that_all_folds_show(levels, best):
    people = {f"p{n}": n % 2 for n in range(10)}  # all of a fold share one training
    scores = {p: levels[fold] + 0.001 * int(p[1:]) for p, fold in people.items()}
    both = {"default": dict.fromkeys(people, 0.5), "gan": scores}
    assert chosen(both)[0] == "gan"  # over people alone
    assert chosen(both, people)[0] == best


@pytest.mark.parametrize(
    ("order", "keep", "left"),
    [
        *(("abcdefg", 0.5, "abcd"), ("abc", 0.34, "ab"), ("abc", 0.33, "a"), ("ab", 0.1, "a")),
        # N and H draw no samples: the better of them always goes on.
        *(("abcN", 0.5, "abN"), ("Nabc", 0.5, "Na"), ("abHN", 0.5, "abH")),
    ],
)
def test_the_better_share_goes_on_and_the_best_arm_without_samples(order, keep, left):
    assert going_on(list(order), keep, ("N", "H")) == list(left)


NNUNET = {"num_epochs": "6", "num_iterations_per_epoch": "50"}


@pytest.mark.parametrize(
    ("target", "settings", "share", "found"),
    [
        ("segmenter", {"steps": "300", "width": "8"}, 0.25, {"steps": "75"}),
        ("segmenter", {"steps": "1"}, 0.1, {}),
        ("nnunet", NNUNET, 0.5, {"num_epochs": "3"}),
        ("nnunet", NNUNET, 0.1, {"num_epochs": "1", "num_iterations_per_epoch": "30"}),
        ("yolo", {"epochs": "10", "batch": "4"}, 0.25, {"epochs": "2"}),
    ],
)
def test_a_share_of_the_steps(target, settings, share, found):
    assert trials_of(target).shortened(settings, share) == {**settings, **found}


def test_a_race_trains_all_briefly_and_the_better_ones_longer(usual):
    found, made = usual
    arms = [
        Counter(
            name_of(told["spec"])
            for told in made.of("train")
            if told["spec"]["augment"]["set"]["steps"] == steps
        )
        for steps in ("10", "40")
    ]
    assert arms == [dict.fromkeys(LEVELS, 3), {"fading": 3, "plain": 3, "default": 3}]
    assert (found["chosen"], found["folds"]) == ("fading", 3)
    subjects = {arm: row["subjects"] for arm, row in found["gains"].items()}
    assert subjects == {"fading": 6, "plain": 6}
    assert [row["share"] for row in found["rungs"]] == [0.25, 1.0]
    assert list(found["rungs"][0]["scores"]) == ["fading", "plain", "default", "pasted"]
    assert found["rungs"][0]["scores"]["fading"] == pytest.approx(0.7, abs=0.003)
    assert found["why"].endswith(
        "; with it -10.0 points of lesion precision (standard error 0.0), "
        "no lesion-free case is judged"
    )
    assert found["rungs"][1]["beside"] == {
        "lesion_precision/mean": pytest.approx({"fading": 0.7, "plain": 0.6, "default": 0.8}),
        "false_alarms/mean": dict.fromkeys(("fading", "plain", "default")),
    }


def test_arms_of_one_generator_share_its_fit_and_trainings_get_the_hosts_variables(usual):
    made = usual[1]
    fits = made.of("fit")
    plugins = Counter(t["spec"]["generator"]["generator"] for t in fits[:6])
    assert plugins == {"cgan3d": 3, "copypaste": 3}
    assert len({told["key"] for told in fits}) == 6  # of the later rung they are the same
    assert {t["spec"]["generator"]["set"].get("steps") for t in fits} == {"50", None}
    assert [told["env"] for told in made.of("train")] == [{"THREADS": "1"}] * 7 * 3


def test_no_process_hears_of_anybody_else(usual):
    design, made = design_of(plan()), usual[1]
    trained = design.division.training_set(6, 0, 6, 6)
    others = [person for person in design.division.cases if person not in trained]
    outside = {*design.test_cases, *design.division.cases_of(others)}
    text = json.dumps(made.told)
    assert outside
    assert [case for case in outside if case in text] == []
    for told in made.of("fit"):
        held = set(told["places"]["held_out"])
        assert held
        assert not held & {case for case, *_ in told["spec"]["train"]}


def test_where_less_is_better_the_least_wins(tmp_path):
    levels = by_arm({"default": 5.0, "plain": 3.0, "fading": 6.0, "pasted": 7.0})
    found, _ = race(tmp_path, {"hd95/mean": levels}, primary="hd95/mean", margin=1.0)
    assert found["chosen"] == "plain"
    assert list(found["rungs"][0]["scores"]) == ["plain", "default", "fading", "pasted"]
    assert found["rungs"][0]["scores"]["plain"] == pytest.approx(3.0, abs=0.003)


@pytest.mark.parametrize(
    ("lost", "chosen", "says"),
    [
        ({"fading"}, "plain", "once in 20 times; could not be trained: fading"),
        ({"plain", "fading", "pasted"}, "default", "not known, use none: no other arm was trained"),
    ],
    ids=["the next", "real cases alone"],
)
def test_an_arm_whose_samples_fail_is_dropped_with_its_reason(lost, chosen, says, tmp_path):
    found, _ = race(tmp_path, {}, lost)
    assert (found["chosen"], says in found["why"]) == (chosen, True)
    assert found["dropped"] == dict.fromkeys(lost, "all were rejected")


@pytest.mark.parametrize(
    ("scores", "lost", "code", "expected"),
    [
        ({}, "pasted", FAILED, "benchmark.tuning-jobs-failed"),
        ({}, "default", UNTRAINED, "benchmark.tuning-jobs-failed"),
        (
            {"dice/mean": lambda spec, case: None},
            "",
            FAILED,
            "benchmark.tuning-subjects-without-measure",
        ),
    ],
    ids=["the machine", "real cases alone", "nobody has a score"],
)
def test_what_ends_a_choice(scores, lost, code, expected, tmp_path):
    with raises_fault(expected) as refused:
        race(tmp_path, scores, {lost}, code)
    assert "\n" not in str(refused.value)


def test_inner_folds_are_of_the_training_people_alone(tmp_path):
    tuned = opened(tmp_path, plan(tune={"folds": 5}), seed=5)
    trained = {case: person for case, person, _ in tuned.spec["train"]}
    judged: Counter[str] = Counter()
    for fold in tuned.folds:
        fit, train = tuned.fit("plain", fold), tuned.train("plain", fold, 0)
        assert fit is not None
        sides = [{case for case, *_ in train.document[side]} for side in ("train", "judged")]
        assert set.union(*sides) == set(trained)
        assert not {trained[case] for case in sides[0]} & {trained[case] for case in sides[1]}
        assert {case for case, *_ in fit.document["train"]} == sides[0]
        assert "judged" not in fit.document
        judged.update(sides[1])
    assert judged == dict.fromkeys(trained, 1)


def toy_host(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train nothing; each process of these leaves a line."""
    spec = document["spec"]
    steps, real = spec.get("augment", {}).get("set", {}).get("steps"), spec.get("generator") is None
    with (folder.parents[4] / "begun").open("a") as begun:
        begun.write(f"{spec['kind']}-{steps}-{real}\n")
    scores = {case: (0.5 if real else 0.6) for case, *_ in spec.get("judged", ())}
    return {"seconds": 1.0, "scores": {"dice/mean": scores}}


def test_a_choice_may_be_typed_again_and_nothing_of_it_is_done_again(tmp_path, monkeypatch, capsys):
    def toy(key: str, title: str, kind: str, function: str, **more: Any) -> JobSpec:
        return JobSpec(key, title, kind, f"{__name__}:toy_host", **more)

    monkeypatch.setattr(study, "JobSpec", toy)
    made = plan(arms=["default", {"name": "pasted", "from": "copy-paste"}], tune={"folds": 2})
    asked = TuneRequest(plan="p", out=tmp_path / "tune", size=6, executor="here")
    with people():
        found = choose_arm(made, asked)
        begun = (tmp_path / "begun").read_text()
        capsys.readouterr()
        assert choose_arm(made, asked) == found
    assert Counter(begun.split()) == {
        "fit-None-False": 2,
        **{f"train-{steps}-{real}": 2 for steps in (10, 40) for real in (True, False)},
    }
    assert (tmp_path / "begun").read_text() == begun
    assert "6 jobs: 6 done already" in capsys.readouterr().err
    assert found["chosen"] == "pasted"
    assert [rung["share"] for rung in found["rungs"]] == [0.25, 1.0]
    assert read_json(tmp_path / "tune" / CHOICE) == found
