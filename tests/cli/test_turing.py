"""``gansynth turing-test``: what it hands on, prints and refuses, on toy plugins."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth.evaluation.turing import TuringOptions, open_session, prepare_session
from gansynth.evaluation.turing.raters import new_rater

DATA = ("--data", "toy:3")


@pytest.fixture
def run(toys: Any, run_json: Any, tmp_path: Path) -> Path:
    run_json("fit", "means", *DATA, "-o", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def folder(run: Path) -> Path:
    """A prepared session of 2 + 2 images."""
    prepare_session(run, options=TuringOptions(n=2), device="cpu")
    return run / "turing" / "session"


def rate(folder: Path, name: str = "Dr. Ito", right: int = 4) -> Any:
    """A rater who is right in so many images, and wrong in the others."""
    session = open_session(folder)
    rater = new_rater(folder, name, 12, 4)
    for place, number in enumerate(rater.order):
        truth = session.key()[number]["truth"]
        other = "synthetic" if truth == "real" else "real"
        said = truth if place < right else other
        rater.answer(rater.names[place], said, {"ms": 900.0})
    return rater


def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sessions are prepared of; nothing is served."""
    seen: list[Any] = []

    def prepare(run: Path, folder: Path, options: Any, **more: Any) -> Any:
        seen.append((folder, options))
        return prepare_session(run, folder, TuringOptions(n=1), device="cpu")

    monkeypatch.setattr("gansynth.evaluation.turing.prepare_session", prepare)
    monkeypatch.setattr("gansynth.evaluation.turing.serve", lambda session, **more: None)
    return seen


# -- what it hands on ------------------------------------------------------------------------------


def test_options_reach_the_session(run, run_json, monkeypatch, tmp_path):
    (tmp_path / "words.txt").write_text("Look first.\n")
    seen = asked(monkeypatch)
    run_json(
        *("turing-test", run, "-n", 7, "--from", "training", "--per-case", 2, "--seed", 4),
        *("--channel", "first", "--contrast", "own", "--show-results", "--name", "study"),
        *("--instructions", tmp_path / "words.txt", "--filter", "none", "--edit", "flip"),
    )
    folder, options = seen[0]
    assert folder == run / "turing" / "study"
    assert options == TuringOptions(
        samples=SampleRequest(keep_flawed=True, edits=("flip",)),
        n=7,
        origin="training",
        per_case=2,
        seed=4,
        channel="first",
        contrast="own",
        show_results=True,
        instructions="Look first.",
    )


def test_classes_and_another_source_reach_the_session(run, run_json, monkeypatch):
    seen = asked(monkeypatch)
    words = ("--class", "a", "--class", "b", "--per-class", "--real", "toy:2")
    run_json("turing-test", run, *words, "--real-read", "fold=1")
    options = seen[0][1]
    assert (options.classes, options.per_class) == (("a", "b"), True)
    assert options.real == {"kind": "toy", "where": "2", "fold": "1"}


# -- results ---------------------------------------------------------------------------------------


def test_results_are_the_papers_table(folder, run, run_cli):
    rate(folder, right=3)
    shown = run_cli("turing-test", run, "--results")
    assert shown.exit_code == 0, shown.stderr
    heading, row = shown.stdout.splitlines()[:2]
    assert heading.split("  ")[-1].strip() == "s synt"
    assert row.startswith("Dr. Ito  75            19.4 to 99.4   0.625")
    assert "2 + 2 images tell one rater's accuracy of 60 % from chance" in shown.stdout
    assert (folder / "answers.csv").read_text().count("\n") == 5


def test_results_as_json_are_the_document_that_is_written(folder, run, run_json):
    rate(folder)
    document = run_json("turing-test", run, "--results")
    written = json.loads((folder / "results.json").read_text())
    assert {key: document[key] for key in written} == written
    assert document["raters"][0]["table"]["correct"] == 4


def test_results_need_neither_the_run_nor_a_server(folder, run, run_json, monkeypatch):
    """The folder alone is enough: the run may lie elsewhere by then."""
    rate(folder)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    (run / "manifest.json").unlink()
    assert run_json("turing-test", run, "--results")["raters"][0]["finished"]


# -- refusals --------------------------------------------------------------------------------------


def test_an_unknown_run_is_refused(toys, refuse, tmp_path):
    refuse("turing-test", tmp_path / "no", code=3, says=["no manifest.json", "gansynth fit"])


def test_without_the_servers_package_the_cure_is_said_before_anything_is_prepared(
    run, refuse, monkeypatch
):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    words = ["aiohttp is not installed", "pip install 'gansynth[study]'"]
    refuse("turing-test", run, "-n", 2, code=4, says=words, keep=[run])


def test_fewer_cases_than_images_are_refused(run, refuse):
    words = ["-n 50: toy:3 has 16 image(s)", "use -n 16"]
    refuse("turing-test", run, code=2, says=words, keep=[run])


def test_an_unknown_class_is_refused(run, refuse):
    refuse("turing-test", run, "-n", 2, "--class", "x", code=2, says=["--class"], keep=[run])


def test_other_options_than_the_sessions_are_refused(folder, run, refuse):
    words = ["made with n 2, asked for 3", "--resume", "--name"]
    refuse("turing-test", run, "-n", 3, code=2, says=words, keep=[run])


@pytest.mark.parametrize("option", ["--resume", "--results"])
@pytest.mark.parametrize("other", [("-n", "2"), ("--show-results",), ("--filter", "none")])
def test_options_that_would_be_ignored_are_refused(folder, run, refuse, option, other):
    words = [f"{option} with --", "leave it out"]
    refuse("turing-test", run, option, *other, code=2, says=words, keep=[run])


@pytest.mark.parametrize("option", ["--resume", "--results"])
def test_no_session_is_refused(run, refuse, option):
    refuse("turing-test", run, option, code=3, says=["session.json", "gansynth turing-test RUN"])


def test_a_taken_port_is_told(folder, run, refuse):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [f"--port {port}: is taken", "choose another"]
        refuse("turing-test", run, "-n", 2, "--port", port, code=4, says=words)


def test_damaged_answers_are_told(folder, run, refuse):
    path = rate(folder).path
    path.write_text(path.read_text().replace('"position": 2', '"position": 3'))
    refuse("turing-test", run, "--results", code=6, says=[path.name, "line 4 is damaged"])


def test_a_damaged_key_is_told(folder, run, refuse):
    (folder / "key.json").write_text("{}")
    refuse("turing-test", run, "--results", code=6, says=["key.json", "SHA-256"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--real", "nosuch:x"], ["--real nosuch:x", "unknown"]),
        (["--real-read", "fold=1"], ["--real-read fold=1", "without --real"]),
        (["--name", "../other"], ["--name ../other", "expected letters"]),
        (["--channel", "frist", "-n", "2"], ["--channel frist", "Did you mean 'first'"]),
        (["-n", "1001"], ["-n 1001", "expected 1 to 1000"]),
    ],
)
def test_slips_name_the_option(run, refuse, words, says):
    refuse("turing-test", run, *words, code=2, says=says, keep=[run])


@pytest.mark.parametrize(("data", "code"), [(b"\xff\xfe\x00", 2), (b"x" * 4001, 2)])
def test_instructions_are_some_text(run, refuse, tmp_path, data, code):
    (tmp_path / "words.txt").write_bytes(data)
    words = ("--instructions", tmp_path / "words.txt", "-n", 2)
    refuse("turing-test", run, *words, code=code, says=["--instructions"], keep=[run])
