import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.host_commands import DoctorRequest
from gansynth.runtime import child
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth_deepmedic import program
from gansynth_deepmedic.program import CHECKOUT, PACKAGES, PYTHON
from tests.adapters.deepmedic.fake_deepmedic import write_fake

EVERYTHING = {"python": "3.12.1", **{package: "1.2.3" for package in PACKAGES}}
BARE = '{"tensorflow": "", "numpy": "1", "nibabel": "1", "pandas": "", "scipy": "1", "six": "1"'


@pytest.fixture
def checkout(tmp_path) -> Path:
    return write_fake(tmp_path / "checkout")


@pytest.fixture
def python(tmp_path):
    """A "Python" that says of itself what it is told to."""

    def make(text: str = "exit 1") -> Path:
        path: Path = tmp_path / "bin" / "python3"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


def says(fault: pytest.ExceptionInfo[Any], *words: object) -> None:
    text = str(fault.value)
    assert [word for word in words if str(word) not in text] == [], text
    assert "\n" not in text


def test_an_option_goes_before_the_variable(checkout):
    assert program.find_checkout(None, {CHECKOUT: str(checkout)}) == checkout
    assert program.find_checkout(str(checkout), {CHECKOUT: "/nowhere"}) == checkout


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(UsageFault) as fault:
        program.find_program(None, None, {})
    says(fault, CHECKOUT, "--deepmedic", "git clone https://github.com/deepmedic/deepmedic")
    where = str(tmp_path)
    for option, environ, by in ((where, {}, "--deepmedic"), (None, {CHECKOUT: where}, CHECKOUT)):
        with pytest.raises(UsageFault) as fault:
            program.find_checkout(option, environ)
        says(fault, tmp_path, f"{by})", "deepMedicRun", "git clone")


@pytest.mark.parametrize(
    ("file", "remove", "lacks"),
    [
        ("dataManagement/sampling.py", "def load_imgs_of_subject(", "load_imgs_of_subject in "),
        ("routines/testing.py", None, "testing.py is missing"),
    ],
    ids=["function", "file"],
)
def test_another_release(checkout, file, remove, lacks):
    path = checkout / "deepmedic" / file
    if remove:
        path.write_text(path.read_text().replace(remove, "def other("))
    else:
        path.unlink()
    with pytest.raises(UsageFault) as fault:
        program.find_checkout(str(checkout))
    says(fault, lacks, f"deepmedic/{file}", "expected DeepMedic 0.8.4")


def test_a_python_is_looked_up_by_name_but_a_link_is_not_followed(tmp_path, python):
    """A virtual environment's Python is a link, and is itself only by its own name."""
    assert program.find_python(None, {}) == Path(sys.executable)
    link = tmp_path / "link"
    link.symlink_to(sys.executable)
    assert program.find_python(str(link), {}) == link
    assert program.find_python(None, {PYTHON: str(link)}) == link
    named = python()
    assert program.find_python("python3", {"PATH": str(tmp_path / "bin")}) == named
    assert program.look(link)["python"] == sys.version.split()[0]
    found = program.look(Path(sys.executable))  # versions are asked for without an import
    assert set(found) == {"python", *PACKAGES}
    assert found["numpy"] == np.__version__
    with pytest.raises(EnvironmentFault) as fault:
        program.find_python(None, {PYTHON: "/nowhere/python"})
    says(fault, "/nowhere/python", f"${PYTHON}", "python3 -m venv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo python 3.8.10; echo SyntaxError >&2; exit 1", ["Python 3.8.10", "3.11 or newer"]),
        ("echo cannot execute >&2; exit 126", ["is no Python that starts", "cannot execute"]),
        (f"echo python 3.11.7; echo 'found {BARE}}}'",
         ["no tensorflow, pandas", "-m pip install tensorflow-cpu pandas", PYTHON]),
    ],
    ids=["old", "broken", "bare"],
)  # fmt: skip
def test_a_python_that_cannot_run_it(checkout, python, text, words):
    path = python(text)
    with pytest.raises(EnvironmentFault) as fault:
        program.find_program(str(checkout), str(path), {})
    says(fault, path, *words)


def test_the_command_and_its_environment(checkout, tmp_path, monkeypatch):
    here = program.DeepMedicProgram(checkout, Path("/env/bin/python"), {})
    python, launch, order, package = program.command(here, tmp_path / "order.json")
    assert (python, order) == ("/env/bin/python", str(tmp_path / "order.json"))
    assert Path(launch).parts[-3:] == ("gansynth_deepmedic", "host", "launch.py")
    assert Path(launch).is_file()
    assert (Path(package) / "bank" / "reader.py").is_file()
    monkeypatch.setenv("PYTHONHOME", "/other")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environ = program.environ_of(here)
    assert environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environ[child.PARENT] == str(os.getpid())
    assert environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert environ["TF_NUM_INTRAOP_THREADS"] == "3"
    assert environ["PATH"] == os.environ["PATH"]
    assert "PYTHONHOME" not in environ


def doctor(checkout: Any, python: Any, environ: dict[str, str]) -> tuple[list[str], list[Any]]:
    """Its states, of the checkout, of its Python and of packages there; and its lines."""
    options = program.ProgramSettings(deepmedic=checkout, deepmedic_python=python)
    lines = list(program.doctor_lines(DoctorRequest(None, quick=True), options, environ))
    assert all(bool(line.cure) == (line.state != "ok") for line in lines)
    names = ["deepmedic", "deepmedic's python", "deepmedic's packages", "deepmedic's packages"]
    assert [line.what for line in lines] == names[: len(lines)]
    return [line.state for line in lines], lines


def test_doctor_is_content(checkout, python, monkeypatch):
    path = python()
    monkeypatch.setattr(program, "look", lambda executable: EVERYTHING)
    states, lines = doctor(None, str(path), {CHECKOUT: str(checkout)})
    assert states == ["ok", "ok", "ok"]
    assert lines[0].found == f"{checkout} (${CHECKOUT})"
    assert lines[1].found == f"3.12.1, {path} (--deepmedic-python)"
    assert "tensorflow 1.2.3" in lines[2].found
    found = program.find_program(str(checkout), str(path), {})
    assert found == program.DeepMedicProgram(checkout, path, EVERYTHING)


def test_doctor_names_what_is_missing_and_the_command_that_installs_it(python, monkeypatch):
    path, lacks = python(), {"python": "3.9.2", "tensorflow": "", "six": ""}
    monkeypatch.setattr(program, "look", lambda executable: {**EVERYTHING, **lacks})
    states, lines = doctor(None, None, {PYTHON: str(path)})
    assert states == ["note", "note", "ok", "note"]
    assert "git clone" in lines[0].cure
    assert f"${PYTHON}" in lines[1].found
    assert "3.11 or newer" in lines[1].found
    assert lines[3].cure == f"{shlex.quote(str(path))} -m pip install tensorflow-cpu six"


def test_doctor_of_a_python_that_does_not_start(checkout, python):
    states, lines = doctor(str(checkout), str(python()), {})
    assert states == ["ok", "note"]
    assert "python3 -m venv" in lines[1].cure
    assert lines[0].found == f"{checkout} (--deepmedic)"
