"""Benchmarks and choices from the plan to the report, by the command that is typed.

Jobs are run here, one after the other; ``slow`` tests leave them to processes, as users do.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.metrics.segmentation.measures import DICE_AT_ALARMS, LESIONS
from gansynth.metrics.segmentation.measures import beside as beside_of
from gansynth.runtime.files import read_json
from gansynth.sampling.run_source import open_source
from gansynth_benchmark import tuning
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.requests import TuneRequest
from gansynth_benchmark.study import BenchmarkStudy
from gansynth_benchmark.tuning import open_choice
from gansynth_cli.main import cli
from tests.conftest import save_nifti
from tests.expected import raises_fault
from tests.flat_sets import EACH, FLAT, lesion, pictures, seen, slices
from tests.house import ROOT
from tests.producers import forked_producers
from tests.yolo_sets import toy_yolo

pytestmark = pytest.mark.usefixtures("unrendered")
SMALL = {"width": "4", "levels": "2", "patch": "16", "precision": "fp32", "device": "cpu"}
PLAN = {
    **{"name": "toy", "data": "nifti:data", "read": {"size": "16"}},
    "subjects": "people.csv",
    "host": {"target": "segmenter", "steps": 3, "set": {"network": "unet", **SMALL}},
    "arms": ["default", {"from": "copy-paste", "offline": True, "bank_size": "1x"}],
    **{"sizes": [2], "draws": 1, "seeds": 1},
    "split": {"pool": 4, "development": 1, "sealed": 2, "seed": 1},
    **{"regions": {"WT": "1+2"}, "measures": ["dice", "hd95"], "primary": "dice/WT"},
}


def gansynth(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    home = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    for number in range(8):
        labels = np.zeros((20, 20, 20), np.int16)
        labels[4:8, 4 : 8 + number % 3, 4:8], labels[5:7, 5:7, 5:7] = 2, 1
        image = (3 * labels + rng.normal(5, 1, labels.shape)).astype(np.float32)
        save_nifti(home / "data/images" / f"c{number}_0000.nii.gz", image)
        save_nifti(home / "data/labels" / f"c{number}.nii.gz", labels)
    rows = [f"c{n},person{max(n, 1)}" for n in range(8)]  # the first two are of one
    (home / "people.csv").write_text("\n".join(["case,subject", *rows]) + "\n")
    (home / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    before = snapshot(home / "data")
    words: list[object] = ["benchmark", home / "plan.yaml", "-o", home / "out", "--test-set"]
    words += ["--json", "--executor", "here"]
    with forked_producers():
        done = gansynth(*words)
    assert done.exit_code == 0, done.output
    document = json.loads((home / "out" / "results.json").read_text())
    return SimpleNamespace(home=home, words=words, done=done, document=document, before=before)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_every_place_has_a_result_with_the_ratio_it_was_asked_for_judged_on_the_sealed(toy):
    told = {run["arm"]: (run["status"], run["realised"]) for run in toy.document["runs"]}
    assert told == {"default": ("done", 0.0), "copy-paste": ("done", 0.5)}
    people = toy.document["subjects"]
    assert len(set(people.values())) == 2
    assert all(set(run["scores"]["dice/WT"]) == set(people) for run in toy.document["runs"])
    assert json.loads(toy.done.stdout)["verdict"]["sentence"]
    beside = {beside_of(name, "dice/WT") for name in LESIONS}  # though the plan names none of them
    assert beside <= {row["measure"] for row in toy.document["comparisons"]}
    for page in ("report.html", "report.md"):
        assert "copy-paste" in (toy.home / "out" / page).read_text()
    head, *rows = (toy.home / "out" / "per_case_2.csv").read_text().splitlines()
    assert head == "case_id,alg_default,alg_copy-paste"  # as Claims Reloaded reads it
    assert {row.partition(",")[0] for row in rows} == set(people.values())


def test_a_suite_runs_its_plans_and_puts_them_together(toy):
    other = toy.home / "other.json"
    other.write_text(json.dumps({**toy.document, "name": "toy2"}))
    suite = {"name": "both", "sets": [{"plan": "plan.yaml"}, {"results": "other.json"}]}
    (toy.home / "suite.yaml").write_text(json.dumps(suite))
    cached = ("--cache", toy.home / "out" / "results.json", "--test-set", "--executor", "here")
    words = ("benchmark", toy.home / "suite.yaml", *cached, "-o", toy.home / "both")
    dry = gansynth(*words, "--dry-run", "--no-probe")
    assert dry.exit_code == 0, dry.output
    assert "2 subjects" not in dry.stdout
    assert "toy (" in dry.stdout
    done = gansynth(*words)
    assert done.exit_code == 0, done.output
    assert (toy.home / "both" / "toy" / "report.md").exists()
    rows = json.loads((toy.home / "both" / "results.json").read_text())["rows"]
    assert [one["set"] for one in rows[0]["sets"]] == ["toy", "toy2"]


def test_what_is_done_is_not_done_again_is_the_same_look_and_a_cache_for_somebody_else(toy):
    results = {p: p.stat().st_mtime_ns for p in toy.home.glob("out/jobs/*/result.json")}
    again = gansynth(*toy.words)
    assert again.exit_code == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in toy.home.glob("out/jobs/*/result.json")} == results
    assert len((toy.home / "plan.looks.jsonl").read_text().splitlines()) == 1
    dry = ("--cache", toy.home / "out" / "results.json", "--dry-run", "--no-probe", "--json")
    told = gansynth(*toy.words[:3], toy.home / "other", "--test-set", *dry)
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["jobs"].get("train", {"left": 0})["left"] == 0
    assert snapshot(toy.home / "data") == toy.before


@pytest.mark.slow
def test_the_same_command_on_two_machines_shares_the_jobs_of_a_plan(toy, tmp_path):
    words = ["bash", ROOT / "examples/slurm/benchmark.sh", *toy.words[1:2], "-o", tmp_path, "-q"]
    typed = [subprocess.Popen([str(word) for word in words]) for _ in range(2)]
    assert [process.wait(240) for process in typed] == [0, 0]
    results = [json.loads(path.read_text()) for path in tmp_path.glob("jobs/*/result.json")]
    assert [result["attempts"] for result in results] == [1, 1, 1]
    assert [run["status"] for run in read_json(tmp_path / "results.json")["runs"]] == ["done"] * 2
    assert not list(tmp_path.glob("jobs/.work/*.json"))


@pytest.mark.slow
def test_a_dry_run_estimates_what_jobs_take_in_processes_of_their_own(toy, tmp_path):
    words = (*toy.words[:2], "-o", tmp_path / "out", "--test-set", "--executor", "local:1")
    told = gansynth(*words, "--dry-run", "--json")
    assert told.exit_code == 0, told.stderr
    jobs = json.loads(told.stdout)["jobs"]
    estimated = sum(each["left"] * each["seconds_each"] for each in jobs.values())
    assert not list(tmp_path.iterdir())
    assert gansynth(*words).exit_code == 0
    results = [json.loads(path.read_text()) for path in tmp_path.glob("out/jobs/*/result.json")]
    assert len(results) == sum(each["left"] for each in jobs.values()) == 3
    took = sum(result["seconds"] for result in results)
    assert took / 2 < estimated < 2 * took, (took, estimated)


BESIDE = {"from": "copy-paste", "lesions": "add", "prevalence": 1}
"""Small blobs without tissue like their rim elsewhere: their own lesions cannot be taken out."""


def plan_in(home: Path, kind: str, rival: object = BESIDE) -> Path:
    request = FLAT[kind](home / "set")
    plan = {
        **{"name": "flat", "data": f"{request.kind}:{request.where}", "read": dict(request.read)},
        "host": {"target": "segmenter", "steps": 3, "set": SMALL},
        **{"arms": ["default", rival], "sizes": [2], "draws": 1, "seeds": 1},
        **{"split": {"development": 2, "sealed": 2}, "measures": ["dice", "hd95"]},
        **{"tune": {"folds": 2, "rungs": [1.0]}},
        **({"subjects": request.subjects} if request.subjects else {}),
    }
    (home / "plan.yaml").write_text(yaml.safe_dump(plan))
    return home / "plan.yaml"


def test_a_new_plan_is_opened_as_it_stands_marks_what_is_required_and_is_never_overwritten(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "set")
    new = ("benchmark", "--new", "set", "--subjects", r"(p\d)_")
    made = gansynth(*new)
    assert made.exit_code == 0, made.output
    text = (tmp_path / "plan.yaml").read_text()
    for key, field in BenchmarkPlan.model_fields.items():
        marked = re.search(f"^{key}:.*  # required", text, re.MULTILINE)
        assert bool(marked) == field.is_required(), key
    assert max(map(len, text.splitlines())) <= 80
    planned = gansynth(*shlex.split(made.stderr.partition("next: gansynth ")[2]), "--no-probe")
    assert planned.exit_code == 0, planned.output
    assert re.search("^train +24 jobs", planned.stdout, re.MULTILINE)
    for file in (tmp_path / "set").rglob("p5_*"):
        file.unlink()
    again, fewer = gansynth(*new), gansynth(*new, "few.yaml")
    assert (again.exit_code, fewer.exit_code) == (2, 3)
    assert "plan.yaml: is there already" in again.stderr
    assert r"gansynth benchmark OTHER.yaml --new set --subjects '(p\d)_'" in again.stderr
    assert "5 subject(s), expected at least 6" in fewer.stderr
    assert (tmp_path / "plan.yaml").read_text() == text
    assert not (tmp_path / "few.yaml").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--new", "set"), "stopped; nothing is written, so typed again it begins anew"),
        (("set", "--hours", "1"), "stopped; type the same command again to resume"),
    ],
)
def test_a_stop_before_the_first_job_says_in_one_line_what_is_kept(
    tmp_path, monkeypatch, words, said
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "set")
    monkeypatch.setattr("gansynth_benchmark.new_plan.decide", stop)
    stopped = gansynth("benchmark", *words, "--quiet")
    assert (stopped.exit_code, stopped.stderr) == (130, f"warning: {said}\n")


def set_of_short_trainings(folder: Path, monkeypatch: Any, draws: int) -> None:
    """Pictures in ``set``, and few steps and draws for them, whatever the hours."""
    monkeypatch.chdir(folder)
    for name, value in {"STEPS": 10, "FEWEST_STEPS": 10, "MOST_DRAWS": draws}.items():
        monkeypatch.setattr(f"gansynth_benchmark.hours.{name}", value)
    pictures(folder / "set")


@pytest.mark.slow
def test_hours_end_in_a_sentence_and_a_command_and_typed_again_go_on(tmp_path, monkeypatch):
    set_of_short_trainings(tmp_path, monkeypatch, draws=3)
    words = ("benchmark", "set", "--subjects", r"(p\d)_", "--executor", "here", "-o", "out")
    first = gansynth(*words, "--hours", "0.001", "--json")
    told = json.loads(first.stdout)
    assert told["answer"].startswith("cannot tell, ")
    assert told["use"][:2] == ["benchmark", "set"]
    trained = sorted(path.name for path in Path("out/jobs").iterdir())
    more = gansynth(*told["use"])
    plan = yaml.safe_load(Path("out/plan.yaml").read_text())
    assert [*told["arms"]] == ["default", "again", "double", "parametric"]
    assert (plan["draws"], plan["host"]["steps"]) == (3, 10)
    assert set(trained) < {path.name for path in Path("out/jobs").iterdir()}
    answer, following = more.stdout.splitlines()[-1], more.stderr.splitlines()[-1]
    assert answer.startswith(("with samples", "without samples", "cannot tell"))
    assert gansynth(*shlex.split(following)[2:], "--help").exit_code == 0
    # The same trainings with a truth that is planted in their scores: each ending is seen.
    for effect, ending in ((20, "with samples, "), (-20, "without samples: ")):
        plant(effect, ["parametric"])
        found = json.loads(gansynth(*words, "--hours", "0.001", "--json").stdout)
        assert found["answer"].startswith(ending), found["answer"]
        assert found["use"][:2] == ["augment", "pictures:set"]
        assert found["use"][-1] == {20: "1:1", -20: "1:0"}[effect]


@pytest.mark.slow
def test_the_command_of_an_answer_in_hours_trains_as_the_arm_was(tmp_path, monkeypatch):
    set_of_short_trainings(tmp_path, monkeypatch, draws=1)
    Path("normal").mkdir()
    for number in range(8):
        Image.fromarray(seen(1000 + number)).save(f"normal/n{number}.png")
    scans = ("--unlabelled", "pictures:normal", *IGNORING)
    asked = ("--executor", "here", "-o", "out", "--hours", "0.001", "--json")
    words = ("benchmark", "set", "--subjects", r"(p\d)_", *scans, *asked)
    first = gansynth(*words)
    assert first.exit_code == 0, first.output
    assert [*json.loads(first.stdout)["arms"]][3:] == [*TRAINED_AS]
    repeat_draws(3)
    gansynth(*words)  # names the trainings of all draws
    for arm, last in TRAINED_AS.items():
        plant(20, [arm])
        found = json.loads(gansynth(*words).stdout)
        assert found["answer"].startswith(f"with samples, those of {arm}: "), found["answer"]
        use = ["pictures:set", "--subjects", r"(p\d)_", *IGNORING, "--ratio", "1:1"]
        assert found["use"] == ["augment", *use, *last]


TRAINED_AS = {
    "parametric": [],
    "parametric-unlabelled": ["--unlabelled", "pictures:normal", "--lesion-free"],
    "self-training": ["--unlabelled", "pictures:normal", "--self-train", "1.0"],
}


def repeat_draws(number: int) -> None:
    """Let the plan of ``out`` have more draws, whose results are those of its first one."""
    file, jobs = Path("out/plan.yaml"), Path("out/jobs")
    file.write_text(file.read_text().replace("draws: 1 ", f"draws: {number} "))
    study = BenchmarkStudy(read_plan(file), "development", Path("out"))
    for place in study.places():
        same = replace(place, draw=0)
        for spec, of in (
            (study.train(place), study.train(same)),
            (study.fit_of(place), study.fit_of(same)),
        ):
            if spec is not None and of is not None and not (jobs / spec.key).exists():
                shutil.copytree(jobs / of.key, jobs / spec.key)
                result = read_json(jobs / spec.key / "result.json") | {"key": spec.key}
                (jobs / spec.key / "result.json").write_text(json.dumps(result))


def plant(points: float, arms: Collection[str]) -> None:
    """Give trainings made-up scores, better by so many points of Dice in some arms."""
    by_key = {run["key"]: run["arm"] for run in read_json(Path("out/results.json"))["runs"]}
    for number, path in enumerate(sorted(Path("out/jobs").glob("*/result.json"))):
        result, rng = json.loads(path.read_text()), np.random.default_rng(number)
        document = result["document"]
        for values in document.get("at_thresholds", {}).get(DICE_AT_ALARMS, {}).values():
            more = points * (by_key[path.parent.name] in arms) / 100
            values[:] = [0.5 + more + rng.normal(0, 1e-5)] * len(values)
        path.write_text(json.dumps(result))


def organs(folder: Path) -> SourceRequest:
    """Pictures of ten people with a mask of one size, in one place."""
    for number in range(10):
        for kind, array in (("images", seen(0) + number), ("masks", 255 * lesion(0))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / kind / f"c{number}.png")
    return SourceRequest("pictures", str(folder))


def boxes(folder: Path) -> SourceRequest:
    return SourceRequest("yolo", str(toy_yolo(folder)))


DRAWN = {"generator": "parametric"}
ELSEWHERE = DRAWN | {"unlabelled": ["pictures:normal"]}
IGNORING = ("--read", "labels=lesion:255,ignore:2")


@pytest.mark.parametrize(
    ("data", "words", "arms", "target"),
    [
        (pictures, ("--unlabelled", "pictures:normal"), [DRAWN, ELSEWHERE], "segmenter"),
        (
            pictures,
            ("--unlabelled", "pictures:normal", *IGNORING),
            [DRAWN, ELSEWHERE, ELSEWHERE | {"self_train": 1}],
            "segmenter",
        ),
        (slices, (), [], "segmenter"),  # what they show is of one size, in one place
        (organs, (), [], "segmenter"),
        (organs, ("--generator", "cgan3d"), [{"generator": "cgan3d"}], "segmenter"),
        pytest.param(boxes, (), [], "yolo", marks=pytest.mark.extra("yolo")),
    ],
)
def test_a_new_plan_has_what_augment_chooses_and_further_generators_only_if_asked(
    tmp_path, monkeypatch, data, words, arms, target
):
    monkeypatch.chdir(tmp_path)
    request = data(Path("set"))
    read = [word for key, value in request.read.items() for word in ("--read", f"{key}={value}")]
    subjects = ["--subjects", request.subjects] if request.subjects else []
    pictures(Path("normal"))
    shutil.rmtree("normal/masks")
    named = f"{request.kind}:{request.where}"
    made = gansynth("benchmark", "--new", named, *read, *subjects, *words)
    assert made.exit_code == 0, made.output
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    assert plan["arms"][:3] == ["default", "again", "double"]
    assert [{k: v for k, v in arm.items() if k != "name"} for arm in plan["arms"][3:]] == arms
    assert plan["host"]["target"] == target


def test_a_new_plan_takes_plans_for_this_machine_and_of_raw_data_names_what_prepares_them(
    tmp_path, monkeypatch, toy_copy
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gansynth_benchmark.new_plan.FEWEST_SUBJECTS", 5)  # as many as it has
    new = ("benchmark", "--new", f"nnunet:{toy_copy.dataset[7:10]}", "--root", toy_copy.root)
    made = gansynth(*new)
    assert made.exit_code == 0, made.output
    assert yaml.safe_load(Path("plan.yaml").read_text())["plans"] == "gansynthSmallPlans"
    shutil.rmtree(toy_copy.root / "nnUNet_preprocessed")
    raw = gansynth(*new, "raw.yaml")
    assert raw.exit_code == 3
    assert "run: gansynth prepare nnunet:501 --set small=yes --root " in raw.stderr


@pytest.mark.parametrize("kind", FLAT)
def test_people_are_dealt_out_with_all_their_slices(kind, tmp_path):
    plan = read_plan(plan_in(tmp_path, kind))
    study = BenchmarkStudy(plan, "development", tmp_path / "out")
    assert len(study.people) == 2
    assert len(study.test_cases) == 2 * EACH
    spec, design = open_choice(plan, TuneRequest(plan="plan.yaml", out=tmp_path / "tune"))
    assert {person for _, person, _ in spec.document["train"]}.isdisjoint(study.people)
    # The command that is printed trains on those alone, and is evaluated on the others.
    (line,) = tuning.commands(design, spec, "default", tmp_path / "tune")
    words = shlex.split(line)
    options = dict(zip(words[3::2], words[4::2], strict=True))
    read = dict(w.split("=", 1) for option, w in pairwise(words) if option == "--read")
    asked = {"subjects": options["--subjects"], "fold": options["--fold"], "read": read}
    source = open_source(SourceRequest.parse(words[2], **asked))
    assert list(source.train_ids) == [case for case, *_ in spec.document["train"]]
    assert source.held_out_ids == study.test_cases


def test_one_image_of_two_subjects_is_refused_before_any_job(tmp_path):
    plan = read_plan(plan_in(tmp_path, "pictures"))
    images = tmp_path / "set" / "images"
    (images / "p1_s0.png").write_bytes((images / "p0_s0.png").read_bytes())
    with raises_fault("benchmark.same-image-of-two-subjects"):
        BenchmarkStudy(plan, "development", tmp_path / "out").specs()


def show_alike(home: Path, *cases: str) -> None:
    """Two cases of pictures show almost the same."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(60, 200, (8, 8)), np.ones((8, 8))) + rng.integers(0, 9, (64, 64))
    for more, case in enumerate(cases):  # not the same image
        for kind, array in (("images", pixels + more), ("masks", np.zeros((64, 64)))):
            path = home / "set" / kind / f"{case}.png"
            Image.fromarray(array.astype(np.uint8)).save(path)


def test_near_identical_images_of_two_subjects_are_refused_before_any_job(tmp_path):
    plan = read_plan(plan_in(tmp_path, "pictures"))
    study = BenchmarkStudy(plan, "development", tmp_path / "out")
    trainings = [spec for spec in study.specs().values() if spec.kind == "train" and spec.needs]
    (seen, *_), (judged, *_) = [trainings[0].document[side][0] for side in ("train", "judged")]
    show_alike(tmp_path, seen, judged)
    # what the guard of the training refuses
    with raises_fault(
        "benchmark.nearly-identical-case-trains", names=f"{judged} (near-identical image of {seen})"
    ):
        BenchmarkStudy(plan, "development", tmp_path / "out").specs()


def test_a_dry_run_refuses_scans_of_people_who_are_judged(tmp_path):
    file = plan_in(tmp_path, "pictures")
    study = BenchmarkStudy(read_plan(file), "development", tmp_path / "out")
    study.specs()
    judged, scans = study.test_cases[0], tmp_path / "scans"
    scans.mkdir()
    shutil.copy(tmp_path / "set" / "images" / f"{judged}.png", scans / "renamed.png")
    plan = yaml.safe_load(file.read_text())
    plan["arms"].append({"from": "copy-paste", "name": "with", "unlabelled": "pictures:scans"})
    file.write_text(yaml.safe_dump(plan))
    dry = gansynth("benchmark", file, "-o", tmp_path / "out", "--dry-run", "--no-probe")
    assert dry.exit_code == 6, dry.output
    assert f"--unlabelled pictures:scans shows 1 held-out case(s): {judged}" in dry.stderr


@pytest.mark.parametrize("command", ["tune", "benchmark"])
def test_a_dry_run_refuses_what_an_inner_fold_of_its_choice_would(tmp_path, command):
    file = plan_in(tmp_path, "pictures")
    plan = yaml.safe_load(file.read_text())
    plan["arms"].append({"name": "tuned", "tune": ["default", "copy-paste"]})
    file.write_text(yaml.safe_dump(plan))
    spec, _ = open_choice(read_plan(file), TuneRequest(plan=str(file), out=tmp_path / "tune"))
    of_subjects = {subject: case for case, subject, _ in spec.document["train"]}
    show_alike(tmp_path, *of_subjects.values())
    words = (command, file, "-o", tmp_path / "out", "--dry-run")
    dry = gansynth(*words, *["--no-probe"][: command == "benchmark"])
    assert dry.exit_code == 6, dry.output
    assert "benchmark.nearly-identical-case-trains" in dry.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FLAT)
def test_what_cannot_be_measured_is_refused_before_any_job(kind, tmp_path):
    plan: BenchmarkPlan = read_plan(plan_in(tmp_path, kind))
    host = plan.host.model_copy(update={"set": {**plan.host.set, "save_predictions": "no"}})
    plan = plan.model_copy(update={"host": host})
    with raises_fault("hosts.held-out-predictions-not-measurable"):
        BenchmarkStudy(plan, "development", tmp_path / "out")
    with raises_fault("hosts.held-out-predictions-not-measurable"):
        open_choice(plan, TuneRequest(plan="plan.yaml", out=tmp_path / "tune"))
    assert not (tmp_path / "out").exists()
