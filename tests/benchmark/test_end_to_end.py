"""A plan of two arms on phantoms, by the real command and real processes, start to report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PLAN = """
name: toy
data: nifti:data
read: {channels: flair, size: "16"}
subjects: people.csv
host:
  target: segmenter
  steps: 3
  set: {network: unet, width: 4, levels: 2, patch: "16", precision: fp32}
arms: [default, copy-paste]
sizes: [2]
draws: 2
seeds: 1
split: {pool: 4, development: 1, sealed: 2, seed: 1}
regions: {WT: 1+2+4}
measures: [dice, hd95]
primary: dice/WT
"""


def gansynth(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "gansynth_cli", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The benchmark, run once on the sealed people."""
    pytest.importorskip("nilearn", reason="phantoms are made from nilearn's atlas")
    from gansynth.testing.phantoms import PhantomOptions, write_gliomas

    home = tmp_path_factory.mktemp("toy")
    options = PhantomOptions(spacing_mm=8.0, channels=("FLAIR", "T1c"))
    write_gliomas(home / "data", 8, seed=0, options=options)
    rows = [f"phantom_{n:03d},person{max(n, 1)}" for n in range(8)]  # the first two are of one
    (home / "people.csv").write_text("\n".join(["case,subject", *rows]) + "\n")
    (home / "plan.yaml").write_text(PLAN)
    before = snapshot(home / "data")
    words = ("benchmark", home / "plan.yaml", "-o", home / "out", "--executor", "local:2")
    done = gansynth(*words, "--sealed", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads((home / "out" / "results.json").read_text())
    return SimpleNamespace(home=home, words=words, done=done, document=document, before=before)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_every_place_of_the_design_has_a_result(toy):
    places = {(r["arm"], r["draw"]): r for r in toy.document["runs"]}
    assert set(places) == {(a, d) for a in ("default", "copy-paste") for d in (0, 1)}
    assert all(run["status"] == "done" for run in places.values())


def test_trainings_are_judged_on_the_sealed_people_and_on_nobody_else(toy):
    people = toy.document["subjects"]
    assert len(set(people.values())) == 2
    for run in toy.document["runs"]:
        assert set(run["scores"]["dice/WT"]) == set(people)


def test_the_synthetic_arm_has_the_ratio_it_was_asked_for(toy):
    realised = {(r["arm"], r["realised"]) for r in toy.document["runs"]}
    assert realised == {("default", 0.0), ("copy-paste", 0.5)}


def test_nobody_who_is_judged_on_was_trained_on(toy):
    told = [json.loads(path.read_text())["spec"] for path in (toy.home / "out/work").iterdir()]
    sealed = set(toy.document["subjects"].values())
    trained = {person for spec in told for _, person, _ in spec["train"]}
    assert len(told) == 6
    assert trained
    assert not trained & sealed


def test_the_comparison_is_of_the_scores_in_the_document(toy):
    means: dict[str, list[float]] = {}
    people = sorted(set(toy.document["subjects"].values()))
    for run in toy.document["runs"]:
        for person in people:
            cases = [c for c, p in toy.document["subjects"].items() if p == person]
            own = [run["scores"]["dice/WT"][case] for case in cases]
            means.setdefault(run["arm"], []).append(sum(own) / len(own))
    expected = sum(means["copy-paste"]) / 4 - sum(means["default"]) / 4
    row = next(r for r in toy.document["comparisons"] if r["measure"] == "dice/WT")
    assert row["difference"] == pytest.approx(expected, abs=1e-9)
    assert row["mde"] > 0


def test_the_report_says_the_verdict(toy):
    page = (toy.home / "out" / "report.html").read_text()
    assert "copy-paste" in page
    assert json.loads(toy.done.stdout)["verdict"]["sentence"]
    assert (toy.home / "out" / "report.md").is_file()


def test_the_users_folder_is_as_it_was(toy):
    assert snapshot(toy.home / "data") == toy.before


def test_what_is_done_is_not_done_again_and_is_the_same_look(toy):
    results = {p: p.stat().st_mtime_ns for p in toy.home.glob("out/jobs/*/result.json")}
    again = gansynth(*toy.words, "--sealed", "--json")
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in toy.home.glob("out/jobs/*/result.json")} == results
    assert len((toy.home / "plan.looks.jsonl").read_text().splitlines()) == 1


def test_another_plan_may_not_look_at_the_sealed_people_without_a_reason(toy):
    changed = toy.home / "plan.yaml"
    changed.write_text(PLAN.replace("steps: 3", "steps: 4"))
    try:
        refused = gansynth(*toy.words, "--sealed")
    finally:
        changed.write_text(PLAN)
    assert refused.returncode == 6
    assert "--look-again" in refused.stderr
    assert len((toy.home / "plan.looks.jsonl").read_text().splitlines()) == 1


def test_results_are_a_cache_for_somebody_else(toy, tmp_path):
    other = (
        *("benchmark", toy.home / "plan.yaml", "-o", tmp_path / "other", "--sealed"),
        *("--cache", toy.home / "out" / "results.json", "--dry-run", "--no-probe", "--json"),
    )
    told = gansynth(*other)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["jobs"].get("train", {"left": 0})["left"] == 0


def test_a_plan_for_development_alone_says_how_to_go_on(toy, tmp_path):
    plan = toy.home / "nobody.yaml"
    plan.write_text(PLAN.replace("development: 1", "development: 0"))
    refused = gansynth("benchmark", plan, "-o", tmp_path / "out")
    assert refused.returncode == 2
    assert "--sealed" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
