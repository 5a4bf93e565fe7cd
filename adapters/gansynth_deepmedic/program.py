"""The user's own DeepMedic: a checkout, and a Python with its TensorFlow. Neither is changed.

DeepMedic is not in a package index, so a folder names it. Its TensorFlow may need another numpy, so
it may be installed in another environment.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from gansynth.core.adapter import HostOptions
from gansynth.core.host_commands import DoctorRequest
from gansynth.runtime import child, version
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.machine import DoctorLine

CHECKOUT = "GANSYNTH_DEEPMEDIC"
PYTHON = "GANSYNTH_DEEPMEDIC_PYTHON"
LEAST = (3, 11)  # least Python for gansynth's modules, which the process also imports
SCRIPT = "deepMedicRun"
PACKAGES = ("tensorflow", "numpy", "nibabel", "pandas", "scipy", "six")
"""Imported packages of the process: DeepMedic's own."""
TOUCHED: Mapping[str, tuple[str, ...]] = {
    "deepmedic/dataManagement/io.py": ("load_volume", "saveImgToNiiWithOriginalHdr"),
    "deepmedic/dataManagement/sampling.py": (
        *("get_samples_for_subepoch", "choose_random_subjects", "get_n_samples_per_subj"),
        *("load_subj_and_sample", "load_imgs_of_subject", "shuffle_samples"),
        "comp_valid_sampling_mask_excluding_edges",
    ),
    "deepmedic/routines/training.py": ("do_training", "process_in_batches"),
    "deepmedic/routines/testing.py": ("inference_on_whole_volumes",),
}
"""Functions of the checkout that ``host`` uses; DeepMedic 0.8 has them."""
GET_CHECKOUT = "git clone https://github.com/deepmedic/deepmedic"
_GET_AND_NAME = f"{GET_CHECKOUT}; export {CHECKOUT}=$PWD/deepmedic"
GET_PACKAGES = "tensorflow-cpu nibabel pandas scipy six"
_SECONDS = 60.0
_DISTRIBUTIONS = {
    "tensorflow": (
        *("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-macos"),
        *("tf-nightly", "tf-nightly-cpu", "tensorflow-rocm"),
    )
}
_ASK = """
import json, sys
sys.path[:1] = []
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
def of(package, names):
    if find_spec(package) is None:
        return ""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return "unknown"
asked = json.loads(sys.argv[1])
found = {package: of(package, names) for package, names in asked.items()}
print("found " + json.dumps(found))
"""


class ProgramSettings(HostOptions):
    """The user's own DeepMedic."""

    deepmedic: str | None = Field(
        None, description="folder of the checkout of DeepMedic; else GANSYNTH_DEEPMEDIC"
    )
    deepmedic_python: str | None = Field(
        None,
        description="Python with DeepMedic's TensorFlow; else GANSYNTH_DEEPMEDIC_PYTHON, else "
        "gansynth's own",
    )


@dataclass(frozen=True)
class DeepMedicProgram:
    """The real program."""

    checkout: Path  # its folder, absolute
    # the Python that runs it; not resolved, for a link may lead out of its environment
    python: Path
    versions: Mapping[str, str]  # of that Python (``python``) and of ``PACKAGES``


def find_program(
    checkout: str | None, python: str | None, environ: Mapping[str, str] = os.environ
) -> DeepMedicProgram:
    """Find and check a checkout and its Python, without importing TensorFlow or DeepMedic.

    Args:
        checkout: its folder; None for ``GANSYNTH_DEEPMEDIC``.
        python: a Python; None for ``GANSYNTH_DEEPMEDIC_PYTHON``, or else gansynth's own.

    Raises:
        UsageFault: no checkout is named, or the folder is not one.
        EnvironmentFault: the Python cannot be started, is too old, or lacks a package.
    """
    return DeepMedicProgram(
        folder := find_checkout(checkout, environ),
        executable := find_python(python, environ),
        examine(executable, folder),
    )


def find_checkout(checkout: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a checkout with all functions of ``TOUCHED``."""
    named, by = checkout or environ.get(CHECKOUT, ""), "--deepmedic" if checkout else f"${CHECKOUT}"
    cure = f"{GET_CHECKOUT}, then --deepmedic deepmedic or export {CHECKOUT}=$PWD/deepmedic"
    if not named:
        raise UsageFault(f"--deepmedic: not given, and {CHECKOUT} is not set; {cure}")
    folder = Path(named).expanduser().absolute()
    if not folder.exists():
        raise DataFault(f"{named} ({by}): no such folder, expected a checkout of DeepMedic; {cure}")
    if not (folder / "deepmedic").is_dir() or not (folder / SCRIPT).is_file():
        raise UsageFault(
            f"{named} ({by}): holds no {SCRIPT} beside a folder deepmedic, expected a checkout of "
            f"DeepMedic; {cure}"
        )
    if lacks := _lacks(folder):
        raise UsageFault(
            f"{named} ({by}): {lacks} is missing, expected DeepMedic 0.8.4; {GET_CHECKOUT}"
        )
    return folder


def find_python(python: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Python that runs DeepMedic (EnvironmentFault: no such program)."""
    named, by = (
        (python, "--deepmedic-python") if python else (environ.get(PYTHON, ""), f"${PYTHON}")
    )
    if not named:
        return Path(sys.executable)
    executable = shutil.which(os.path.expanduser(named), path=environ.get("PATH"))
    if executable is None:
        raise EnvironmentFault(
            f"{named} ({by}): no such program, expected a Python with TensorFlow, for example "
            f"/home/me/deepmedic-env/bin/python; {_make_environment()}"
        )
    return Path(executable).absolute()


def examine(python: Path, checkout: Path | None = None) -> dict[str, str]:
    """Return the versions of a Python (``python``) and of ``PACKAGES`` in it."""
    versions = look(python)
    release = tuple(int(part) for part in re.findall(r"\d+", versions["python"])[:2])
    if release < LEAST:
        raise EnvironmentFault(
            f"{python}: Python {versions['python']}, expected {'.'.join(map(str, LEAST))} or newer "
            f"to run DeepMedic with synthetic cases; {_make_environment()}"
        )
    missing = [package for package in PACKAGES if not versions[package]]
    if missing:
        raise EnvironmentFault(
            f"{python}: no {', '.join(missing)}, which DeepMedic needs; {_install(python, missing)}"
            + (f", or name another Python by --deepmedic-python or {PYTHON}" if checkout else "")
        )
    return versions


def look(python: Path) -> dict[str, str]:
    """Return the versions of a Python (``python``) and of ``PACKAGES`` in it; "" for none."""
    names = {package: _DISTRIBUTIONS.get(package, (package,)) for package in PACKAGES}
    # The version first: what follows does not run in an old Python.
    ask = f"import sys; print('python ' + sys.version.split()[0]); sys.stdout.flush()\n{_ASK}"
    command = [str(python), "-c", ask, json.dumps(names)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=_clean()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{python}: cannot be started: {error}") from None
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    if "python" not in answers:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EnvironmentFault(f"{python}: is no Python that starts: {last[0]}")
    versions = json.loads(answers["found"]) if "found" in answers else dict[str, str]()
    return {
        "python": answers["python"],
        **{package: versions.get(package, "") for package in PACKAGES},
    }


def command(program: DeepMedicProgram, order: Path) -> list[str]:
    """Return the command that trains by an ``Order``; it imports gansynth by folder."""
    launch = Path(__file__).parent / "host" / "launch.py"
    return [str(program.python), str(launch), str(order), str(_package())]


def environ_of(program: DeepMedicProgram) -> dict[str, str]:
    """Return the environment for ``command``; nothing is written into the checkout.

    Unless the user sets them, threads are one fewer than cores. TensorFlow would take all, but the
    producer and DeepMedic's sampling need some too.
    """
    threads = str(child.cpu_threads())
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        **_clean(),
        CHECKOUT: str(program.checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        child.PARENT: str(os.getpid()),
    }


def doctor_lines(
    request: DoctorRequest, options: ProgramSettings, environ: Mapping[str, str] = os.environ
) -> Iterator[DoctorLine]:
    """Yield the lines of ``gansynth doctor`` on DeepMedic: checkout, Python and packages."""
    checkout, python = options.deepmedic, options.deepmedic_python
    if not (checkout or python or environ.get(CHECKOUT) or environ.get(PYTHON)):
        text = "not named; only for augmenting DeepMedic"
        yield DoctorLine("note", "deepmedic", text, _GET_AND_NAME)
        return
    yield _checkout_line(checkout, environ)
    try:
        executable = find_python(python, environ)
        versions = look(executable)
    except EnvironmentFault as fault:
        yield DoctorLine(
            "note", "deepmedic's python", str(fault).partition("; ")[0], _make_environment()
        )
        return
    by = "--deepmedic-python" if python else f"${PYTHON}" if environ.get(PYTHON) else "gansynth's"
    yield _python_line(executable, versions, by)
    yield from _package_lines(executable, versions)


def _checkout_line(checkout: str | None, environ: Mapping[str, str]) -> DoctorLine:
    try:
        folder = find_checkout(checkout, environ)
    except (DataFault, UsageFault) as fault:
        return DoctorLine("note", "deepmedic", str(fault).partition("; ")[0], _GET_AND_NAME)
    return DoctorLine(
        "ok", "deepmedic", f"{folder} ({'--deepmedic' if checkout else f'${CHECKOUT}'})"
    )


def _python_line(python: Path, versions: Mapping[str, str], by: str) -> DoctorLine:
    text = f"{versions['python']}, {python} ({by})"
    release = tuple(int(part) for part in re.findall(r"\d+", versions["python"])[:2])
    if release >= LEAST:
        return DoctorLine("ok", "deepmedic's python", text)
    advice = f"{text}; on the fly needs {'.'.join(map(str, LEAST))} or newer"
    return DoctorLine("note", "deepmedic's python", advice, _make_environment())


def _package_lines(python: Path, versions: Mapping[str, str]) -> Iterator[DoctorLine]:
    there = [f"{package} {versions[package]}" for package in PACKAGES if versions[package]]
    missing = [package for package in PACKAGES if not versions[package]]
    if there:
        yield DoctorLine("ok", "deepmedic's packages", ", ".join(there))
    if missing:
        text = f"no {', '.join(missing)} there; DeepMedic needs it"
        yield DoctorLine("note", "deepmedic's packages", text, _install(python, missing))


def _lacks(folder: Path) -> str:
    """Return the first missing function of ``TOUCHED``, or ""."""
    for file, functions in TOUCHED.items():
        path = folder / file
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for function in functions:
            if not re.search(rf"^def {function}\(", text, re.MULTILINE):
                return f"{function} in {file}" if path.is_file() else file
    return ""


def _install(python: Path, missing: list[str]) -> str:
    names = ["tensorflow-cpu" if package == "tensorflow" else package for package in missing]
    return f"{shlex.quote(str(python))} -m pip install {' '.join(names)}"


def _make_environment() -> str:
    return (
        f"python3 -m venv deepmedic-env; deepmedic-env/bin/pip install {GET_PACKAGES}; "
        f"export {PYTHON}=$PWD/deepmedic-env/bin/python"
    )


def _package() -> Path:
    return Path(version.__file__).parents[1]


def _clean() -> dict[str, str]:
    """Return this process's environment without the variables of its own Python."""
    reserved = {"PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"}
    return {key: value for key, value in os.environ.items() if key not in reserved}
