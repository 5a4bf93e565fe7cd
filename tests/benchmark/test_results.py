import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.metrics.segmentation.evaluation import THRESHOLDS
from gansynth_benchmark.jobs.graph import GraphReport, JobPhase, JobStatus
from gansynth_benchmark.running import document_of, known_results
from gansynth_benchmark.study import BenchmarkStudy, TrainingPoint
from tests.benchmark.people import WHERE, finish_all, people, plan_of
from tests.expected import raises_fault

TUNED = {"name": "tuned", "tune": ["default", "fading"]}
BANK = {"generator": "elastic", "offline": True, "bank_size": "4x"}
FADING = {"name": "fading", "candidate": True, **BANK}
NOTHING = GraphReport(())
ARMS = ["default", {"name": "pasted", "from": "copy-paste"}, "double", FADING, TUNED]


@pytest.fixture(scope="module", autouse=True)
def _offered() -> Iterator[None]:
    with people():
        yield


def study_of(folder: Path, look: str = "sealed", seeds: int = 2, **more: Any) -> BenchmarkStudy:
    plan = plan_of(arms=ARMS, tune={"folds": 2}, fits="draw", seeds=seeds)
    return BenchmarkStudy(plan, look, folder, **more)


def told(study: BenchmarkStudy, report: GraphReport = NOTHING) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document_of(study, report, [], 1, {})))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[BenchmarkStudy, dict[str, Any]]:
    study = study_of(tmp_path_factory.mktemp("out"))
    finish_all(study, chosen="fading")
    return study, told(study)


@pytest.fixture(scope="module")
def known(finished) -> Any:
    return known_results(finished[1])


def test_every_place_of_the_design_has_the_scores_and_costs_of_its_jobs(finished):
    study, found = finished
    places = [TrainingPoint(r["arm"], r["n"], r["draw"], r["seed"]) for r in found["runs"]]
    assert places == list(study.places())
    assert len(places) == 4 * 2 * 2 * 2
    assert set(found["arms"]) == {"default", "pasted", "double", "tuned"}
    assert set(found["subjects"]) == set(study.test_cases)
    for row in found["runs"]:
        result, tuned = study.store.result(row["key"])["document"], row["arm"] == "tuned"
        assert (row["status"], row["scores"]) == ("done", row["scores"] | result["scores"])
        assert row["realised"] == result["told"]["realised_synthetic_share"]
        assert row["chosen"] == ("fading" if tuned else None)
        assert (row["seconds"]["tune"] > 0) == tuned
        assert (row["seconds"]["fit"] > 0) == (row["arm"] in ("tuned", "pasted"))
    choices = [(t["n"], t["draw"], t["chosen"]) for t in found["tunings"]]
    assert choices == [(n, draw, "fading") for draw in (0, 1) for n in (2, 4)]


def test_the_published_plan_tells_generators_and_no_folder(finished):
    _, found = finished
    assert WHERE not in json.dumps(found)
    assert found["plan"]["data"] == "people:14"
    plugins = {name: g["generator"] for name, g in found["plan"]["generators"].items()}
    assert plugins == {"copypaste": "copypaste", "elastic": "elastic"}


def test_results_are_a_cache_but_a_studys_own_go_before_them(finished, known, tmp_path):
    """They have label maps beside them."""
    more = [*study_of(tmp_path, seeds=3, cached=known).specs().values()]
    new = {spec.document["seed"] % 1000 for spec in more if spec.kind == "train"}
    assert (new, {spec.kind for spec in more}) == ({2}, {"fit", "train"})
    study = study_of(tmp_path, cached=known)
    assert study.specs() == {}
    assert told(study) == finished[1]
    key = finished[1]["runs"][0]["key"]
    (study.store.folder / key).mkdir()
    own = {"key": key, "document": {"scores": {}, "seconds": 1.0, "mine": True}}
    (study.store.folder / key / "result.json").write_text(json.dumps(own))
    found = study.result(key)
    assert found is not None
    assert found["document"].get("mine") is True


def test_scores_at_equal_false_alarms_are_where_an_arm_raises_as_many_as_the_control(finished):
    """Samples raise as many at 0.6 as the control at 0.5."""
    dice, (study, found) = "dice@alarms/foreground", finished
    for row in found["runs"]:
        assert row["threshold"] == (0.6 if row["arm"] in ("pasted", "tuned") else 0.5)
        at = study.store.result(row["key"])["document"]["at_thresholds"]
        own = {
            case: values[THRESHOLDS.index(row["threshold"])] for case, values in at[dice].items()
        }
        assert row["scores"][dice] == own
    assert {r["measure"] for r in found["comparisons"]} > {"false_alarms@alarms/foreground"}


def test_results_of_elsewhere_are_at_the_alarms_of_their_own_control_alone(known, tmp_path):
    plan = plan_of(arms=ARMS, tune={"folds": 2}, fits="draw", seeds=2, control="pasted")
    study = BenchmarkStudy(plan, "sealed", tmp_path, cached=known)
    assert {row["threshold"] for row in told(study)["runs"]} == {None}


def test_what_failed_is_told_with_its_words_and_what_needed_it_is_skipped(tmp_path):
    study = study_of(tmp_path)
    finish_all(study)
    fit = study.fit_of(TrainingPoint("pasted", 2, 0, 0))
    train = study.train(TrainingPoint("default", 2, 1, 1))
    assert fit is not None
    specs = [spec for place in study.places() if (spec := study.spec(place)) is not None]
    lost = {spec.key for spec in specs if fit.key in spec.needs or spec.key == train.key}
    jobs = {job.key: job for job in study.jobs(study.specs().values())}
    for key in lost:
        (study.store.folder / key / "result.json").unlink()
    ends = {key: (JobPhase.SKIPPED, "needs the fit") for key in lost}
    ends |= {fit.key: (JobPhase.FAILED, "no lesions"), train.key: (JobPhase.FAILED, "NaN")}
    standings = [
        JobStatus(jobs[key], phase, Path("log"), why=why) for key, (phase, why) in ends.items()
    ]
    report = GraphReport(tuple(standings))
    found = told(study, report)
    undone = [row for row in found["runs"] if row["status"] != "done"]
    rows = {(row["status"], row["arm"], row["error"], row["n"]) for row in undone}
    # chosen is the default, so that arm has lost its run, too
    lost_too = {("failed", arm, "NaN", 2) for arm in ("default", "tuned")}
    assert rows == {*lost_too, ("skipped", "pasted", "needs the fit", 2)}
    assert {row["error"] for row in found["failures"]} == {"no lesions", "NaN"}
    pairs = [r for r in found["comparisons"] if (r["arm"], r["n"]) == ("pasted", 2)]
    assert {row["runs"] for row in pairs} == {1}


def test_some_arms_alone_come_with_the_control(tmp_path):
    study = study_of(tmp_path, arms=["pasted"])
    assert {place.arm for place in study.places()} == {"default", "pasted"}
    with raises_fault("benchmark.arm-not-in-plan"):
        study_of(tmp_path, arms=["fading"])
