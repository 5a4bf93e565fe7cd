import os
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gansynth.core.requests.hosts import DoctorRequest
from gansynth.runtime.errors import EnvironmentFault, GansynthError, TrainingFault, UsageFault
from gansynth.runtime.processes import ProcessResult
from gansynth_deepmedic import program
from gansynth_deepmedic.program import CHECKOUT, PACKAGES, PYTHON, ProgramLog
from tests.adapters.deepmedic.fake_deepmedic import write_fake

BARE = "\\n".join(f"{p} 1.2.3" for p in PACKAGES if p not in ("tensorflow", "six"))


@pytest.fixture
def checkout(tmp_path) -> Path:
    return write_fake(tmp_path / "checkout")


def says(
    kind: type[GansynthError], words: list[object], find: Callable[..., object], *given: Any
) -> None:
    with pytest.raises(kind) as fault:
        find(*given)
    text = str(fault.value)
    assert [word for word in words if str(word) not in text] == [], text
    assert "\n" not in text


def test_a_folder_that_is_no_checkout_of_this_release(checkout, tmp_path, monkeypatch):
    clone = "git clone https://github.com/deepmedic/deepmedic"
    says(UsageFault, [CHECKOUT, "--deepmedic", clone], program.find_program, None, None)
    monkeypatch.setenv(CHECKOUT, str(tmp_path))
    assert program.find_checkout(str(checkout)) == checkout
    words = [tmp_path, f"{CHECKOUT})", "holds no deepMedicRun", "git clone"]
    says(UsageFault, words, program.find_checkout, None)
    path = checkout / "deepmedic" / "dataManagement" / "sampling.py"
    path.write_text(path.read_text().replace("def load_imgs_of_subject(", "def other("))
    words = [f"{path.relative_to(checkout)} with load_imgs_of_subject", "DeepMedic 0.8.4"]
    says(UsageFault, words, program.find_checkout, str(checkout))


def python_that(folder: Path, does: str) -> Path:
    """A "Python" that says of itself what it is told to."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("echo python 3.8.10; echo SyntaxError >&2; exit 1", ["Python 3.8.10", "3.11 or newer"]),
        ("echo cannot execute >&2; exit 126", ["is no Python that starts", "cannot execute"]),
        (f"printf 'python 3.11.7\\n{BARE}\\n'",
         ["no tensorflow, six", "-m pip install tensorflow-cpu six", PYTHON]),
    ],
    ids=["old", "broken", "bare"],
)  # fmt: skip
def test_a_python_that_cannot_run_it(checkout, tmp_path, monkeypatch, does, words):
    path = python_that(tmp_path, does)
    monkeypatch.setenv(PYTHON, str(path))
    says(EnvironmentFault, [path, *words], program.find_program, str(checkout), None)
    words = ["/nowhere/python", "--deepmedic-python", "python3 -m venv"]
    says(EnvironmentFault, words, program.find_python, "/nowhere/python")


def test_the_environment_of_the_program_is_the_users(monkeypatch):
    told = {"PYTHONHOME": "/other", "TF_CPP_MIN_LOG_LEVEL": "0", "OMP_NUM_THREADS": "3"}
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    found = {"PYTHONDONTWRITEBYTECODE": "1", "TF_NUM_INTRAOP_THREADS": "3"}
    found |= {"TF_CPP_MIN_LOG_LEVEL": "0", "PATH": os.environ["PATH"]}
    environ = program.environ_of()
    assert {key: environ[key] for key in found} == found
    assert "PYTHONHOME" not in environ


def test_doctor_says_what_is_there_or_how_to_get_it(checkout, tmp_path):
    def doctor(checkout: Any, python: Path) -> Any:
        options = program.ProgramSettings(deepmedic=checkout, deepmedic_python=str(python))
        return program.doctor_lines(DoctorRequest(quick=True), options)

    first, second = doctor(str(checkout), checkout / "python")
    assert (first.state, second.state, first.found) == ("ok", "ok", str(checkout))
    assert "3.11-fake, with tensorflow 3.11-fake" in second.found
    path = python_that(tmp_path, f"printf 'python 3.11.2\\n{BARE}\\n'")
    first, second = doctor(None, path)
    assert (first.state, second.state) == ("note", "note")
    assert "git clone" in first.cure
    assert second.cure.startswith(f"{shlex.quote(str(path))} -m pip install tensorflow-cpu six")
    _, second = doctor(str(checkout), python_that(tmp_path, "exit 1"))
    assert "python3 -m venv" in second.cure


def line(text: str, job: int = 0) -> str:
    return f"2026-11-25 12:00:00.00: [TRA|JOB:{job}|PID:7] {text}\n"


def log_of(folder: Path, first: int = 0) -> ProgramLog:
    nothing = dict.fromkeys(("end_round", "log_step", "say"), lambda *_: None)
    job: Any = SimpleNamespace(folder=folder, first=first, **nothing)
    config: Any = SimpleNamespace(subepochs=2, session="toy")
    return ProgramLog(job, config)


def test_cases_are_counted_from_whole_new_lines_of_the_log(tmp_path):
    file = tmp_path / "logs" / "toy.txt"
    file.parent.mkdir()
    file.write_text(line("gansynth: subepoch 8: real pat_9"))  # of an earlier session
    log = log_of(tmp_path, 2)
    shares = "Done. Samples per category: [Class-0: 3/4] [Class-1: 2/2] "
    with file.open("a") as stream:
        stream.write(line("gansynth: subepoch 2: synthetic 000001") + line(shares))
        stream.write(line("gansynth: subepoch 2: fallback pat_1", 1) + line(shares, 1))
        stream.write(line("gansynth: subepoch 2: real pat_2", 2) + line(shares, 2)[:-1])
        stream.flush()
        log.look()
        assert log.counts(2)["segments_real"] == 5
        stream.write("\nTIMING: Training on batches of this subepoch #0 lasted: 0.1 secs.\n")
        stream.write(line("gansynth: subepoch 3: synthetic 000002"))  # sampled ahead
    log.look()
    assert log.counts(2) == {
        "cases_real": 2, "cases_synthetic": 1, "cases_fell_back": 1, "segments_real": 10,
        "segments_synthetic": 5, "samples": 1, "spread": 0,
    }  # fmt: skip
    assert (log.counts(3)["cases_synthetic"], log.trained, log.complete) == (1, 3, False)


@pytest.mark.parametrize(
    ("printed", "kind", "reason"),
    [
        ("gansynth.runtime.errors.TrainingFault: no sample\nFinished.", TrainingFault, "no sample"),
        ("ERROR:\tThe option is wrong. Exiting.", UsageFault, "The option is wrong. Exiting."),
        ("  File x\n    f()\nValueError: a", UsageFault, "ValueError: a"),
        ("  File x\n    assert a\n    ^^^\nAssertionError", UsageFault, "AssertionError: assert a"),
        ("ModuleNotFoundError: No module named 'six'", EnvironmentFault, "gansynth doctor"),
        ("usage: DeepMedic\nDeepMedic: error: unrecognized", UsageFault, "unrecognized"),
    ],
    ids=range(6),
)
def test_why_it_ended(tmp_path, printed, kind, reason):
    fault = log_of(tmp_path).fault(ProcessResult(0, printed), tmp_path / "launch.log")
    assert type(fault) is kind
    assert reason in str(fault)
