"""The user's checkout and its Python: found, examined, and what doctor says of them."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime import child
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.machine import Line
from gansynth_deepmedic import program
from gansynth_deepmedic.program import CHECKOUT, PACKAGES, PYTHON
from tests.adapters.deepmedic.fake_deepmedic import write_fake

EVERYTHING = {package: "1.2.3" for package in PACKAGES}


@pytest.fixture
def checkout(tmp_path) -> Path:
    return write_fake(tmp_path / "checkout")


@pytest.fixture
def python(tmp_path):
    """A "Python" that says of itself what it is told to."""

    def make(text: str) -> Path:
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


# -- the checkout ----------------------------------------------------------------------------------


def test_an_option_goes_before_the_variable(checkout):
    assert program.find_checkout(None, {CHECKOUT: str(checkout)}) == checkout
    assert program.find_checkout(str(checkout), {CHECKOUT: "/nowhere"}) == checkout


def test_nobody_names_a_checkout():
    with pytest.raises(UsageFault) as fault:
        program.find_program(None, None, {})
    says(fault, CHECKOUT, "--deepmedic", "git clone https://github.com/deepmedic/deepmedic")


@pytest.mark.parametrize(("option", "by"), [(True, "--deepmedic"), (False, f"${CHECKOUT}")])
def test_a_folder_that_is_no_checkout(tmp_path, option, by):
    with pytest.raises(UsageFault) as fault:
        program.find_checkout(
            str(tmp_path) if option else None, {} if option else {CHECKOUT: str(tmp_path)}
        )
    says(fault, tmp_path, f"({by})", "deepMedicRun", "git clone")


@pytest.mark.parametrize(
    ("remove", "lacks"),
    [("def load_imgs_of_subject(", "load_imgs_of_subject in deepmedic/dataManagement/sampling.py"),
     (None, "deepmedic/routines/testing.py is missing")],
    ids=["function", "file"],
)  # fmt: skip
def test_another_release(checkout, remove, lacks):
    file = checkout / lacks.split(" in ")[-1].split()[0]
    if remove:
        file.write_text(file.read_text().replace(remove, "def other("))
    else:
        file.unlink()
    with pytest.raises(UsageFault) as fault:
        program.find_checkout(str(checkout))
    says(fault, lacks, "expected DeepMedic 0.8.4")


# -- its Python ------------------------------------------------------------------------------------


def test_without_a_name_it_is_this_one():
    assert program.find_python(None, {}) == Path(sys.executable)


def test_a_name_is_looked_up_but_a_link_is_not_followed(tmp_path, python):
    """A virtual environment's Python is a link, and is itself only by its own name."""
    link = tmp_path / "link"
    link.symlink_to(sys.executable)
    assert program.find_python(str(link), {}) == link
    assert program.find_python(None, {PYTHON: str(link)}) == link
    python("echo")
    assert (
        program.find_python("python3", {"PATH": str(tmp_path / "bin")}) == tmp_path / "bin/python3"
    )
    assert program.look(link)["python"] == sys.version.split()[0]


def test_there_is_no_such_python():
    with pytest.raises(EnvironmentFault) as fault:
        program.find_python(None, {PYTHON: "/nowhere/python"})
    says(fault, "/nowhere/python", f"${PYTHON}", "python3 -m venv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo python 3.8.10; echo SyntaxError >&2; exit 1", ["Python 3.8.10", "3.11 or newer"]),
        ("echo cannot execute >&2; exit 126", ["is no Python that starts", "cannot execute"]),
        ("echo python 3.11.7; echo 'found {}'".format(
            '{"tensorflow": "", "numpy": "1", "nibabel": "1", "pandas": "", "scipy": "1", '
            '"six": "1", "h5py": "1"}'),
         ["no tensorflow, pandas", "-m pip install tensorflow-cpu pandas", PYTHON]),
    ],
    ids=["old", "broken", "bare"],
)  # fmt: skip
def test_a_python_that_cannot_run_it(checkout, python, text, words):
    path = python(text)
    with pytest.raises(EnvironmentFault) as fault:
        program.find_program(str(checkout), str(path), {})
    says(fault, path, *words)


def test_versions_are_asked_for_without_an_import(checkout, python):
    """This Python has some of the packages; their versions are the installed ones."""
    import numpy

    found = program.look(Path(sys.executable))
    assert set(found) == {"python", *PACKAGES}
    assert found["numpy"] == numpy.__version__
    assert found["h5py"]


def test_everything_is_there(checkout, python, monkeypatch):
    path = python("exit 1")
    monkeypatch.setattr(program, "look", lambda executable: {"python": "3.12.1", **EVERYTHING})
    found = program.find_program(str(checkout), str(path), {})
    assert found == program.Program(checkout, path, {"python": "3.12.1", **EVERYTHING})


# -- starting it -----------------------------------------------------------------------------------


@pytest.fixture
def here(checkout) -> program.Program:
    return program.Program(checkout, Path("/env/bin/python"), {})


def test_the_command_names_script_order_and_package(here, tmp_path):
    python, launch, order, package = program.command(here, tmp_path / "order.json")
    assert (python, order) == ("/env/bin/python", str(tmp_path / "order.json"))
    assert Path(launch).parts[-3:] == ("gansynth_deepmedic", "host", "launch.py")
    assert Path(launch).is_file()
    assert (Path(package) / "bank" / "reader.py").is_file()


def test_the_environment(here, monkeypatch):
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


# -- doctor ----------------------------------------------------------------------------------------


def told(lines: list[Line]) -> list[tuple[str, str]]:
    assert all(bool(line.cure) == (line.state != "ok") for line in lines)
    return [(line.state, line.what) for line in lines]


def test_doctor_has_nothing_to_say_unless_asked():
    (line,) = program.doctor_lines(None, None, {})
    assert (line.state, line.what) == ("note", "deepmedic")
    assert CHECKOUT in line.cure


def test_doctor_is_content(checkout, python, monkeypatch):
    path = python("exit 1")
    monkeypatch.setattr(program, "look", lambda executable: {"python": "3.12.1", **EVERYTHING})
    lines = list(program.doctor_lines(None, str(path), {CHECKOUT: str(checkout)}))
    assert told(lines) == [
        ("ok", "deepmedic"),
        ("ok", "deepmedic's python"),
        ("ok", "deepmedic's packages"),
    ]
    assert lines[0].found == f"{checkout} (${CHECKOUT})"
    assert lines[1].found == f"3.12.1, {path} (--deepmedic-python)"
    assert "tensorflow 1.2.3" in lines[2].found


def test_doctor_names_what_is_missing_and_the_command_that_installs_it(python, monkeypatch):
    path = python("exit 1")
    found = {"python": "3.9.2", **EVERYTHING, "tensorflow": "", "h5py": ""}
    monkeypatch.setattr(program, "look", lambda executable: found)
    lines = list(program.doctor_lines(None, None, {PYTHON: str(path)}))
    assert told(lines) == [
        ("note", "deepmedic"),
        ("note", "deepmedic's python"),
        ("ok", "deepmedic's packages"),
        ("note", "deepmedic's packages"),
    ]
    assert "git clone" in lines[0].cure
    assert f"${PYTHON}" in lines[1].found
    assert "3.11 or newer" in lines[1].found
    assert lines[3].cure == f"{shlex.quote(str(path))} -m pip install tensorflow-cpu h5py"


def test_doctor_of_a_python_that_does_not_start(checkout, python):
    lines = list(program.doctor_lines(str(checkout), str(python("exit 1")), {}))
    assert told(lines) == [("ok", "deepmedic"), ("note", "deepmedic's python")]
    assert "python3 -m venv" in lines[1].cure
    assert lines[0].found == f"{checkout} (--deepmedic)"
