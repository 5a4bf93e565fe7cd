import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth.evaluation.turing import TuringOptions, open_session, prepare_session
from gansynth.evaluation.turing.raters import new_rater


@pytest.fixture
def folder(run: Path) -> Path:
    """A prepared session of 2 + 2 images."""
    prepare_session(run, options=TuringOptions(n=2), device="cpu")
    return run / "turing" / "session"


def rate(folder: Path, right: int = 4) -> Any:
    """A rater who is right in so many images, and wrong in the others."""
    session = open_session(folder)
    rater = new_rater(folder, "Dr. Ito", 12, 4)
    other = {"real": "synthetic", "synthetic": "real"}
    for place, number in enumerate(rater.order):
        truth = session.key()[number]["truth"]
        rater.answer(rater.names[place], truth if place < right else other[truth], {"ms": 900.0})
    return rater


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sessions are prepared of; nothing is served."""
    told: list[Any] = []

    def prepare(run: Path, folder: Path, options: Any, **more: Any) -> Any:
        told.append((folder, options))
        return prepare_session(run, folder, TuringOptions(n=1), device="cpu")

    monkeypatch.setattr("gansynth.evaluation.turing.prepare_session", prepare)
    monkeypatch.setattr("gansynth.evaluation.turing.serve", lambda session, **more: None)
    return told


def test_options_reach_the_session(run, run_json, seen, tmp_path):
    (tmp_path / "words.txt").write_text("Look first.\n")
    run_json(
        *("turing-test", run, "-n", 7, "--from", "training", "--per-case", 2, "--seed", 4),
        *("--channel", "first", "--contrast", "own", "--show-results", "--name", "study"),
        *("--instructions", tmp_path / "words.txt", "--filter", "none", "--edit", "flip"),
    )
    samples = SampleRequest(keep_flawed=True, edits=("flip",))
    shown = {"channel": "first", "contrast": "own", "show_results": True}
    asked: dict[str, Any] = {"n": 7, "origin": "training", "per_case": 2, "seed": 4, **shown}
    wanted = TuringOptions(samples=samples, instructions="Look first.", **asked)
    assert seen == [(run / "turing" / "study", wanted)]


def test_classes_and_another_source_reach_the_session(run, run_json, seen):
    words = ("--class", "a", "--class", "b", "--per-class", "--real", "toy:2")
    run_json("turing-test", run, *words, "--real-read", "fold=1")
    ((_, options),) = seen
    assert (options.classes, options.per_class) == (("a", "b"), True)
    assert options.real == {"kind": "toy", "where": "2", "fold": "1"}


def test_results_are_the_papers_table(folder, run, run_cli):
    rate(folder, right=3)
    shown = run_cli("turing-test", run, "--results")
    assert shown.exit_code == 0, shown.stderr
    heading, row = shown.stdout.splitlines()[:2]
    assert heading.split("  ")[-1].strip() == "s synt"
    assert row.startswith("Dr. Ito  75            19.4 to 99.4   0.625")
    assert "2 + 2 images tell one rater's accuracy of 60 % from chance" in shown.stdout
    assert (folder / "answers.csv").read_text().count("\n") == 5


def test_results_need_neither_the_run_nor_a_server(folder, run, run_json, monkeypatch):
    """The folder alone is enough: the run may lie elsewhere by then."""
    rate(folder)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    (run / "manifest.json").unlink()
    document = run_json("turing-test", run, "--results")
    written = json.loads((folder / "results.json").read_text())
    assert {key: document[key] for key in written} == written
    assert document["raters"][0]["finished"]
    assert document["raters"][0]["table"]["correct"] == 4


def test_without_the_servers_package_the_cure_is_said_before_anything_is_prepared(
    run, refuse, monkeypatch
):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    words = ["aiohttp is not installed", "pip install '.[study]'"]
    refuse("turing-test", run, "-n", 2, code=4, says=words, keep=[run])


@pytest.mark.parametrize("option", ["--resume", "--results"])
@pytest.mark.parametrize("other", [("-n", "2"), ("--show-results",), ("--filter", "none")])
def test_options_that_would_be_ignored_are_refused(folder, run, refuse, option, other):
    words = [f"{option} with --", "leave it out"]
    refuse("turing-test", run, option, *other, code=2, says=words, keep=[run])


@pytest.mark.extra("study")
@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"x" * 4001], ids=["no-text", "long"])
def test_instructions_are_some_text(run, refuse, tmp_path, data):
    (tmp_path / "words.txt").write_bytes(data)
    words = ("--instructions", tmp_path / "words.txt", "-n", 2)
    refuse("turing-test", run, *words, code=2, says=["--instructions"], keep=[run])
