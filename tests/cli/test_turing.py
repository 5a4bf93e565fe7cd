import json
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth_evaluate.turing import Study, TuringOptions, make_study, open_study
from tests.evaluation.turing.rating import answered, write_answers


@pytest.fixture
def study(run: Path) -> Study:
    """A study of 2 + 2 images."""
    return make_study(run, options=TuringOptions(n=2), device="cpu")[0]


def rated(study: Study, right: int = 4) -> Path:
    """Answers of who is right in so many images, and wrong in the others."""
    other = {"real": "synthetic", "synthetic": "real"}
    truth = [image["truth"] for image in study.key]
    said = [kind if number < right else other[kind] for number, kind in enumerate(truth)]
    return write_answers(study, answered(study, 1, said))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What studies are made of."""
    told: list[Any] = []

    def make(run: Path, folder: Path, options: Any, **more: Any) -> Any:
        told.append((folder, options))
        return make_study(run, folder, TuringOptions(n=1), device="cpu")

    monkeypatch.setattr("gansynth_evaluate.turing.api.make_study", make)
    return told


def test_options_reach_the_study(run, run_json, seen, tmp_path):
    (tmp_path / "words.txt").write_text("Look first.\n")
    run_json(
        *("turing-test", run, "-n", 7, "--from", "training", "--per-case", 2, "--seed", 4),
        *("--channel", "first", "--contrast", "own", "--name", "readers"),
        *("--instructions", tmp_path / "words.txt", "--filter", "none", "--edit", "flip"),
    )
    samples = SampleRequest(keep_flawed=True, edits=("flip",))
    shown = {"channel": "first", "contrast": "own"}
    asked: dict[str, Any] = {"n": 7, "origin": "training", "per_case": 2, "seed": 4, **shown}
    wanted = TuringOptions(samples=samples, instructions="Look first.", **asked)
    assert seen == [(run / "turing" / "readers", wanted)]


def test_classes_and_another_source_reach_the_study(run, run_json, seen):
    words = ("--class", "a", "--class", "b", "--per-class", "--real", "toy:2")
    run_json("turing-test", run, *words, "--real-read", "fold=1")
    ((_, options),) = seen
    assert (options.classes, options.per_class) == (("a", "b"), True)
    assert options.real == {"kind": "toy", "where": "2", "fold": "1"}


def test_pages_are_written_and_answers_give_the_papers_table(run, run_json, run_cli):
    made = run_json("turing-test", run, "-n", 2, "--raters", 2)
    study = open_study(Path(made["folder"]))
    assert [Path(page).name for page in made["pages"]] == ["rater-1.html", "rater-2.html"]
    assert all(Path(page).read_text().startswith("<!doctype html>") for page in made["pages"])
    shown = run_cli("turing-test", run, rated(study, right=3))
    assert shown.exit_code == 0, shown.stderr
    heading, row = shown.stdout.splitlines()[:2]
    assert heading.split("  ")[-1].strip() == "s synt"
    assert row.startswith("Dr. Ito  75            19.4 to 99.4   0.625")
    assert "2 + 2 images tell one rater's accuracy of 60 % from chance" in shown.stdout
    assert (study.folder / "answers.csv").read_text().count("\n") == 5


def test_results_do_not_need_the_run(study, run, run_json):
    """The folder alone is enough: the run may lie elsewhere by then."""
    (run / "manifest.json").unlink()
    document = run_json("turing-test", run, rated(study))
    written = json.loads((study.folder / "results.json").read_text())
    assert {key: document[key] for key in written} == written
    assert document["raters"][0]["table"]["correct"] == 4


@pytest.mark.parametrize("other", [("-n", "2"), ("--raters", "2"), ("--filter", "none")])
def test_options_that_would_be_ignored_are_refused(study, run, refuse, other):
    words = ["with ANSWERS", "leave it out"]
    refuse("turing-test", run, rated(study), *other, code=2, says=words, keep=[run])


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"x" * 4001], ids=["no-text", "long"])
def test_instructions_are_some_text(run, refuse, tmp_path, data):
    (tmp_path / "words.txt").write_bytes(data)
    words = ("--instructions", tmp_path / "words.txt", "-n", 2)
    refuse("turing-test", run, *words, code=2, says=["--instructions"], keep=[run])
