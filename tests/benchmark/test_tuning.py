import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gansynth.hosts.host import framework
from gansynth.runtime.errors import EnvironmentFault, TrainingFault
from gansynth.runtime.files import read_json
from gansynth_benchmark import study, tuning
from gansynth_benchmark.jobs.attempt import FAILED, UNTRAINED
from gansynth_benchmark.jobs.graph import GraphReport, JobPhase, JobStatus
from gansynth_benchmark.jobs.store import JobSpec
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import TuneRequest
from gansynth_benchmark.study import ComputationSpec
from gansynth_benchmark.tuning import (
    CHOICE,
    TuningResult,
    choose,
    choose_arm,
    gains_over,
    going_on,
)
from tests.benchmark.people import design_of, finish, people, plan_of

BANK = {"offline": True, "bank_size": "3x"}
ARMS = [
    "default",
    {"name": "plain", "generator": "g", **BANK},
    {
        "name": "fading",
        "generator": "g",
        "offline": True,
        "bank_size": "3x",
        "ratio": "2:1",
        "schedule": "anneal",
    },
    {"name": "pasted", "from": "copy-paste"},
    {"name": "tuned", "tune": ["default", "plain", "fading", "pasted"]},
]


def plan(**changes: Any) -> BenchmarkPlan:
    """A plan that chooses among four arms, on six people of nine."""
    usual: dict[str, Any] = {
        "arms": ARMS,
        "sizes": [6],
        "generators": {"g": {"generator": "cgan3d", "set": {"steps": 100}}},
        "tune": {"folds": 3, "rungs": [0.25, 1.0], "keep": 0.5, "fit_share": 0.5},
        "host": {"set": {"network": "unet"}, "env": {"THREADS": "1"}},
    }
    return plan_of(**{**usual, **changes})


def choice(plan: BenchmarkPlan, seed: int = 0) -> ComputationSpec:
    names = next(arm.tune for arm in plan.arms if arm.tune)
    design = design_of(plan)
    return design.choice(names, design.training_cases(plan.sizes[-1], 0), seed, "choose")


def open_tuning(folder: Path, plan: BenchmarkPlan, seed: int = 0) -> TuningResult:
    return TuningResult(choice(plan, seed).document, {"request": {"kind": "people"}}, folder)


Scoring = Callable[[Mapping[str, Any], str], float | None]


class Race:
    """Ends every job at once, with made-up scores; remembers what each process was told."""

    def __init__(self, score: Scoring, key: str = "dice/mean", **others: Scoring) -> None:
        self.scores = {key: score, **{f"{name}/mean": of for name, of in others.items()}}
        self.told: list[dict[str, Any]] = []

    def __call__(self, jobs: Any, store: Any, executor: Any, *, on_change: Any) -> GraphReport:
        standings = []
        for job in jobs:
            told = dict(job.document)
            assert job.function == "gansynth_benchmark.worker:run_job"
            self.told.append({**told, "env": dict(job.env), "needs": job.needs, "key": job.key})
            document: dict[str, Any] = {"seconds": 1.0}
            if told["spec"]["kind"] == "train":
                cases = [case for case, *_ in told["spec"]["judged"]]
                document["scores"] = {
                    key: {case: score(told["spec"], case) for case in cases}
                    for key, score in self.scores.items()
                    if key.partition("/")[0] in told["spec"]["measures"]
                }
            finish(store, job.key, document)
            standings.append(JobStatus(job, JobPhase.DONE, Path("log.txt")))
        return GraphReport(tuple(standings))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [told for told in self.told if told["spec"]["kind"] == kind]


def by_arm(levels: Mapping[str, float], noise: float = 0.001) -> Scoring:
    """Scores by the name of an arm: none, plain, fading or pasted; people differ by a little."""

    def score(spec: Mapping[str, Any], case: str) -> float:
        return levels[name_of(spec)] + noise * (int(case[1:3]) % 3)

    return score


def name_of(spec: Mapping[str, Any]) -> str:
    """An arm by what it does; its name is in no document."""
    if spec["augment"]["ratio"] == "1:0":
        return "default"
    if "offline" not in spec["augment"]:
        return "pasted"
    return "fading" if "schedule" in spec["augment"] else "plain"


@pytest.fixture
def race(tmp_path, monkeypatch) -> Callable[..., tuple[dict[str, Any], Race]]:
    """Races with made-up scores: ``found, race = race(levels)``."""

    def run(levels: Mapping[str, float] | Scoring, key: str = "dice/mean", others=(), **changes):
        made = Race(levels if callable(levels) else by_arm(levels), key, **dict(others))
        monkeypatch.setattr(tuning, "run_jobs", made)
        return open_tuning(tmp_path / "tune", plan(**changes)).run(), made

    return run


def chosen(scores: Mapping[str, Mapping[str, float]], folds: Mapping[str, int] | None = None):
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
    ("scores", "best"),
    [
        (gained(0.1, 0.3), "gan"),  # 0.2 of 0.1
        (gained(0.1, 0.1, 0.1), "gan"),
        (gained(-0.1, 0.3), "default"),  # 0.1 of 0.2
        (gained(-0.2, 0.3, 0.1), "default"),  # 0.067 of 0.145
        (gained(-0.05, 0.2, 0.3), "gan"),  # 0.15 of 0.104
        (gained(-0.1, -0.1), "default"),
        (gained(0.0, 0.0), "default"),
        (gained(0.4), "default"),  # of one person nobody knows
        ({"default": HALF, "gan": {"p": 0.4, "q": 0.6, "r": 0.99}}, "default"),  # of both alone
        ({"default": {"p": 0.5}, "gan": {"r": 0.99}}, "default"),
        ({"default": HALF, "a": {"p": 0.8, "q": 0.7}, "b": {"p": 0.7, "q": 0.8}}, "a"),  # the first
        # The best score is luck, the next one is sure.
        ({"default": HALF, "lucky": {"p": 0.4, "q": 1.0}, "sure": {"p": 0.6, "q": 0.61}}, "sure"),
    ],
)
def test_what_is_chosen_beats_none_by_more_than_one_standard_error(scores, best):
    found, why = chosen(scores)
    assert found == best
    assert why.startswith("not known, use none: ") == (best == "default")
    assert ("not more than one standard error" in why) <= (best == "default")


def test_the_reason_has_the_gain_its_error_and_the_number_of_people():
    said = "gan against default: +0.2000 (standard error 0.1000, 2 subject(s)), more than one"
    assert chosen(gained(0.1, 0.3))[1].startswith(said)
    assert "+0.4000 (standard error inf, 1 subject(s)), not" in chosen(gained(0.4))[1]


@pytest.mark.parametrize(
    ("levels", "best"), [((0.8, 0.49), "default"), ((0.6, 0.61), "gan")], ids=["luck", "gain"]
)
def test_the_luck_of_one_inner_training_is_no_gain_but_one_that_all_folds_show(levels, best):
    people = {f"p{n}": n % 2 for n in range(10)}  # all of a fold share one training
    scores = {p: levels[fold] + 0.001 * int(p[1:]) for p, fold in people.items()}
    both = {"default": dict.fromkeys(people, 0.5), "gan": scores}
    assert chosen(both)[0] == "gan"  # over people alone
    found, why = chosen(both, people)
    assert (found, "use none" in why) == (best, best == "default")


@pytest.mark.parametrize(
    ("order", "keep", "left"),
    [
        *(("abcdefgh", 0.5, "abcd"), ("abcdefg", 0.5, "abcd"), ("abcd", 0.5, "ab")),
        *(("abc", 0.34, "ab"), ("abc", 0.33, "a"), ("ab", 0.1, "a"), ("a", 0.5, "a")),
        # N and H draw no samples: the better of them always goes on.
        *(("abcN", 0.5, "abN"), ("aNbc", 0.5, "aN"), ("Nabc", 0.5, "Na")),
        *(("abHN", 0.5, "abH"), ("aHNb", 0.5, "aH")),
    ],
)
def test_the_better_share_goes_on_and_the_best_arm_without_samples(order, keep, left):
    assert going_on(list(order), keep, ("N", "H")) == list(left)


NNUNET = {"num_epochs": "6", "num_iterations_per_epoch": "50"}


@pytest.mark.parametrize(
    ("target", "settings", "share", "found"),
    [
        ("segmenter", {"steps": "300", "width": "8"}, 0.25, {"steps": "75", "width": "8"}),
        ("segmenter", {"steps": "1"}, 0.1, {"steps": "1"}),
        ("segmenter", {"steps": "300"}, 1.0, {"steps": "300"}),
        ("segmenter", {"width": "8"}, 0.5, {}),
        ("nnunet", NNUNET, 0.5, {"num_epochs": "3"}),
        ("nnunet", NNUNET, 0.1, {"num_epochs": "1", "num_iterations_per_epoch": "30"}),
        ("yolo", {"epochs": "10", "batch": "4"}, 0.25, {"epochs": "2"}),
        ("deepmedic", {"epochs": "10", "segments": "8"}, 0.5, {"epochs": "5"}),
    ],
)
def test_a_share_of_the_steps(target, settings, share, found):
    assert framework(target).shortened(settings, share) == {**settings, **found}


LEVELS = {"default": 0.5, "plain": 0.6, "fading": 0.7, "pasted": 0.4}


ALARMS = {
    "lesion_precision": by_arm({**LEVELS, "default": 0.8, "fading": 0.7}, 0.0),
    "false_alarms": lambda spec, case: None,
}


def test_a_race_trains_all_briefly_and_the_better_ones_longer(race):
    found, made = race(LEVELS, others=ALARMS)
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
    assert {arm: row["subjects"] for arm, row in found["gains"].items()} == {
        "fading": 6,
        "plain": 6,
    }
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


def test_where_less_is_better_the_least_wins(race):
    levels = {"default": 5.0, "plain": 3.0, "fading": 6.0, "pasted": 7.0}
    found, _ = race(levels, "hd95/mean", primary="hd95/mean", margin=1.0)
    assert found["chosen"] == "plain"
    assert list(found["rungs"][0]["scores"]) == ["plain", "default", "fading", "pasted"]
    assert found["rungs"][0]["scores"]["plain"] == pytest.approx(3.0, abs=0.003)


def test_a_person_counts_once_however_many_cases(race):
    """The arm that is better on cases but not on people is not better."""

    def score(spec: Mapping[str, Any], case: str) -> float:
        many = int(case[1:3]) % 3 > 0  # those with more than one case
        return 0.5 + ((0.1 if many else -0.25) if spec["augment"]["ratio"] != "1:0" else 0.0)

    found, made = race(score)
    people = {person for told in made.of("train") for _, person, _ in told["spec"]["judged"]}
    count = sum(int(person[1:]) % 3 > 0 for person in people)
    expected = 0.5 + (0.1 * count - 0.25 * (6 - count)) / 6
    assert len(people) == 6
    assert found["rungs"][0]["scores"]["plain"] == pytest.approx(expected)


def test_arms_of_one_generator_share_its_fit(race):
    _, made = race(LEVELS)
    fits = made.of("fit")
    plugins = Counter(t["spec"]["generator"]["generator"] for t in fits[:6])
    assert plugins == {"cgan3d": 3, "copypaste": 3}
    assert len({told["key"] for told in fits}) == 6  # of the later rung they are the same
    assert {t["spec"]["generator"]["set"].get("steps") for t in fits} == {"50", None}


def test_trainings_get_the_hosts_variables(race, tmp_path):
    _, made = race(LEVELS)
    made.told.clear()
    env = {"THREADS": "1"}
    TuningResult(choice(plan()).document, {"request": {}}, tmp_path / "other", env=env).run()
    assert {json.dumps(told["env"]) for told in made.of("train")} == {json.dumps(env)}


def breaking(names: set[str], code: int) -> Callable[..., GraphReport]:
    """Ends the trainings of the named arms with an exit code, and all others as ``Race`` does."""
    rest = Race(by_arm(LEVELS))

    def run(jobs: Any, store: Any, *_: Any, **more: Any) -> GraphReport:
        told = {job: job.document["spec"] for job in jobs}
        lost = [j for j, spec in told.items() if spec["kind"] == "train" and name_of(spec) in names]
        ended = rest([job for job in told if job not in lost], store, None, on_change=None)
        why: Any = {"why": "all were rejected", "code": code}
        failed = [JobStatus(job, JobPhase.FAILED, Path("log.txt"), **why) for job in lost]
        return GraphReport((*failed, *ended.standings))

    return run


@pytest.mark.parametrize(
    ("lost", "chosen", "says"),
    [
        ({"fading"}, "plain", "standard error; could not be trained: fading"),
        ({"plain", "fading", "pasted"}, "default", "not known, use none: no other arm was trained"),
    ],
    ids=["the next", "real cases alone"],
)
def test_an_arm_whose_samples_fail_is_dropped_with_its_reason(
    lost, chosen, says, tmp_path, monkeypatch
):
    monkeypatch.setattr(tuning, "run_jobs", breaking(lost, UNTRAINED))
    found = open_tuning(tmp_path, plan()).run()
    assert (found["chosen"], says in found["why"]) == (chosen, True)
    assert found["dropped"] == dict.fromkeys(lost, "all were rejected")


@pytest.mark.parametrize(("lost", "code"), [("pasted", FAILED), ("default", UNTRAINED)])
def test_a_failure_of_the_machine_or_of_real_cases_ends_the_choice(
    lost, code, tmp_path, monkeypatch
):
    monkeypatch.setattr(tuning, "run_jobs", breaking({lost}, code))
    with pytest.raises(TrainingFault, match="all were rejected") as refused:
        open_tuning(tmp_path, plan()).run()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["dice/mean", "dice/1"])
def test_scores_that_nobody_has_are_told(race, key):
    with pytest.raises(TrainingFault, match=r"default: no subject .* dice/mean"):
        race(lambda spec, case: None if key == "dice/mean" else 0.5, key)


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_inner_folds_are_of_the_training_people_alone(tmp_path, seed, folds):
    made = plan(tune={"folds": folds})
    trained = {case: person for case, person, _ in choice(made, seed).document["train"]}
    tuned = open_tuning(tmp_path, made, seed)
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


def test_no_process_hears_of_anybody_else(race):
    design = design_of(plan())
    outside = set(design.judged) | {
        case
        for person in design.division.cases
        if person not in design.division.training_set(6, 0, 6, 6)
        for case in design.division.cases[person]
    }
    _, made = race(LEVELS)
    text = json.dumps(made.told)
    assert outside
    assert [case for case in outside if case in text] == []
    held = [told["places"]["held_out"] for told in made.of("fit")]
    trained = [[case for case, *_ in told["spec"]["train"]] for told in made.of("fit")]
    assert all(one and not set(one) & set(other) for one, other in zip(held, trained, strict=True))


def toy_host(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train nothing, and break off at the second rung of the arm with samples, until it is calm."""
    spec, here = document["spec"], folder.parents[4]
    steps, real = spec.get("augment", {}).get("set", {}).get("steps"), spec.get("generator") is None
    name = f"{spec['kind']}-{steps}-{real}"
    with (here / "begun").open("a") as begun:
        begun.write(name + "\n")
    if name == "train-40-False" and not (here / "calm").exists():
        raise EnvironmentFault("the second rung broke off")
    scores = {case: (0.5 if real else 0.6) for case, *_ in spec.get("judged", ())}
    return {"seconds": 1.0, "scores": {"dice/mean": scores}}


def test_a_race_of_two_rungs_that_broke_off_is_taken_up_and_may_be_typed_again(
    tmp_path, monkeypatch, capsys
):
    def toy(key: str, title: str, kind: str, function: str, **more: Any) -> JobSpec:
        return JobSpec(key, title, kind, f"{__name__}:toy_host", **more)

    def typed() -> dict[str, Any]:
        with people():
            return choose_arm(
                made, TuneRequest(plan="p", out=tmp_path / "tune", size=6, executor="here")
            )

    def begun() -> Counter[str]:
        return Counter((tmp_path / "begun").read_text().split())

    monkeypatch.setattr(study, "JobSpec", toy)
    made = plan(arms=["default", {"name": "pasted", "from": "copy-paste"}], tune={"folds": 2})
    with pytest.raises(TrainingFault, match="the second rung broke off"):
        typed()
    first_rung = {"fit-None-False": 2, "train-10-False": 2, "train-10-True": 2}
    assert {name: begun()[name] for name in first_rung} == first_rung
    (tmp_path / "calm").touch()
    found = typed()
    assert {name: begun()[name] for name in first_rung} == first_rung
    assert found["chosen"] == "pasted"
    assert [rung["share"] for rung in found["rungs"]] == [0.25, 1.0]
    assert read_json(tmp_path / "tune" / CHOICE) == found
    after = begun()
    capsys.readouterr()
    assert typed() == found
    assert "6 jobs: 6 done already" in capsys.readouterr().err
    assert begun() == after
