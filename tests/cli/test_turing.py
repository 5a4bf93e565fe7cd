import json
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth_evaluate.turing import Study, TuringOptions, make_study, open_study
from tests.evaluation.turing.rating import answered, write_answers


def rated(study: Study, right: int) -> Path:
    """Answers of who is right in so many images, and wrong in the others."""
    other = {"real": "synthetic", "synthetic": "real"}
    truth = [image["truth"] for image in study.key]
    said = [kind if number < right else other[kind] for number, kind in enumerate(truth)]
    return write_answers(study, answered(study, 1, said))


def test_options_reach_the_study(run, run_json, monkeypatch, tmp_path):
    told: list[Any] = []

    def make(run: Path, folder: Path, options: Any, **more: Any) -> Any:
        told.append((folder, options))
        return make_study(run, folder, TuringOptions(n=1), device="cpu")

    monkeypatch.setattr("gansynth_evaluate.turing.rated_study.make_study", make)
    (tmp_path / "words.txt").write_text("Look first.\n")
    run_json(
        *("turing-test", run, "-n", 7, "--from", "training", "--seed", 4),
        *("--channel", "first", "--name", "readers"),
        *("--instructions", tmp_path / "words.txt", "--filter", "none", "--edit", "flip"),
        *("--class", "a", "--class", "b", "--real", "toy:2", "--real-read", "fold=1"),
    )
    samples = SampleRequest(keep_flawed=True, edits=("flip",))
    asked: dict[str, Any] = {"n": 7, "origin": "training", "seed": 4, "channel": "first"}
    asked |= {"classes": ("a", "b"), "real": {"kind": "toy", "where": "2", "fold": "1"}}
    wanted = TuringOptions(samples=samples, instructions="Look first.", **asked)
    assert told == [(run / "turing" / "readers", wanted)]


def test_pages_are_written_and_answers_give_the_papers_table(run, run_json, succeed, refuse):
    made = run_json("turing-test", run, "-n", 2, "--raters", 2)
    study = open_study(Path(made["folder"]))
    assert [Path(page).name for page in made["pages"]] == ["rater-1.html", "rater-2.html"]
    assert all(Path(page).read_text().startswith("<!doctype html>") for page in made["pages"])
    # The folder alone is enough: the run may lie elsewhere by then.
    (run / "manifest.json").unlink()
    shown = succeed("turing-test", run, rated(study, right=3))
    heading, row = shown.stdout.splitlines()[:2]
    assert heading.split("  ")[-1].strip() == "Synt as Synt"
    assert row.startswith("Dr. Ito  75            19.4 to 99.4   0.625")
    assert (study.folder / "answers.csv").read_text().count("\n") == 5
    answers = rated(study, right=4)
    document = run_json("turing-test", run, answers)
    written = json.loads((study.folder / "results.json").read_text())
    assert {key: document[key] for key in written} == written
    assert document["raters"][0]["table"]["correct"] == 4
    for ignored in (("-n", "2"), ("--raters", "2"), ("--filter", "none")):
        says = ["with ANSWERS", "leave it out"]
        refuse("turing-test", run, answers, *ignored, code=2, says=says, keep=[run])


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"x" * 4001], ids=["no-text", "long"])
def test_instructions_are_some_text(run, refuse, tmp_path, data):
    (tmp_path / "words.txt").write_bytes(data)
    words = ("--instructions", tmp_path / "words.txt", "-n", 2)
    refuse("turing-test", run, *words, code=2, says=["--instructions"], keep=[run])
