"""The user's own DeepMedic: a checkout, and a Python with its TensorFlow. Neither is changed.

DeepMedic is not in a package index, so a folder names it. Its TensorFlow may need another numpy, so
it may be installed in another environment.
"""

from __future__ import annotations

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
HOOKED: Mapping[str, tuple[str, ...]] = {
    "deepmedic/dataManagement/sampling.py": (
        *("get_samples_for_subepoch", "load_imgs_of_subject"),
        "constrain_sampling_maps_near_edges",
    ),
    "deepmedic/dataManagement/io.py": ("load_volume", "saveImgToNiiWithOriginalHdr"),
}
"""Functions of the checkout that ``hook`` and ``bridge`` replace; DeepMedic 0.8 has them."""
GET_CHECKOUT = "git clone https://github.com/deepmedic/deepmedic"
_GET_AND_NAME = f"{GET_CHECKOUT}; export {CHECKOUT}=$PWD/deepmedic"
_MAKE_ENVIRONMENT = (
    "python3 -m venv deepmedic-env; deepmedic-env/bin/pip install tensorflow-cpu nibabel pandas "
    f"scipy six; export {PYTHON}=$PWD/deepmedic-env/bin/python"
)
_SECONDS = 60.0
_ASK = """
import sys
sys.path[:1] = []
print("python", sys.version.split()[0], flush=True)
from importlib.metadata import packages_distributions, version
there = packages_distributions()
for package in sys.argv[1:]:
    print(package, version(there[package][0]) if package in there else "")
"""
"""Its first lines also run in an old Python."""
_START = """
import sys, types
for name, folder in zip(("gansynth", "gansynth_deepmedic"), sys.argv[2:]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from gansynth_deepmedic.hook import main
main(sys.argv[1])
"""
"""Finds gansynth's two packages by folder; all other modules are those of DeepMedic's Python."""


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
    """The checkout and its Python."""

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
    folder, executable = find_checkout(checkout, environ), find_python(python, environ)
    versions = look(executable)
    if _is_old(versions):
        raise EnvironmentFault(
            f"{executable}: Python {versions['python']}, expected {_least()} or newer to run "
            f"DeepMedic with synthetic cases; {_MAKE_ENVIRONMENT}"
        )
    if missing := _missing(versions):
        raise EnvironmentFault(
            f"{executable}: no {', '.join(missing)}, which DeepMedic needs; "
            f"{_install(executable, missing)}, or name another Python by --deepmedic-python or "
            f"{PYTHON}"
        )
    return DeepMedicProgram(folder, executable, versions)


def find_checkout(checkout: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a checkout with all functions of ``HOOKED``."""
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
    for file, functions in HOOKED.items():
        path = folder / file
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        for function in functions:
            if not re.search(rf"^def {function}\(", text, re.MULTILINE):
                raise UsageFault(
                    f"{named} ({by}): {function} in {file} is missing, expected DeepMedic 0.8.4; "
                    f"{GET_CHECKOUT}"
                )
    return folder


def find_python(python: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Python that runs DeepMedic (EnvironmentFault: no such program)."""
    named, by = python or environ.get(PYTHON, ""), "--deepmedic-python" if python else f"${PYTHON}"
    if not named:
        return Path(sys.executable)
    executable = shutil.which(os.path.expanduser(named), path=environ.get("PATH"))
    if executable is None:
        raise EnvironmentFault(
            f"{named} ({by}): no such program, expected a Python with TensorFlow, for example "
            f"/home/me/deepmedic-env/bin/python; {_MAKE_ENVIRONMENT}"
        )
    return Path(executable).absolute()


def look(python: Path) -> dict[str, str]:
    """Return the versions of a Python (``python``) and of ``PACKAGES`` in it; "" for none."""
    command = [str(python), "-c", _ASK, *PACKAGES]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=_clean()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{python}: cannot be started: {error}") from None
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    if "python" not in found:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EnvironmentFault(f"{python}: is no Python that starts: {last[0]}")
    return {name: found.get(name, "") for name in ("python", *PACKAGES)}


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, if git knows it."""
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def command(program: DeepMedicProgram, order: Path) -> list[str]:
    """Return the command that trains by a ``TrainingOrder``."""
    packages = Path(version.__file__).parents[1], Path(__file__).parent
    return [str(program.python), "-P", "-c", _START, str(order), *map(str, packages)]


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
        "PYTHONDONTWRITEBYTECODE": "1",
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
    try:
        text = (
            f"{find_checkout(checkout, environ)} ({'--deepmedic' if checkout else f'${CHECKOUT}'})"
        )
        yield DoctorLine("ok", "deepmedic", text)
    except (DataFault, UsageFault) as fault:
        yield DoctorLine("note", "deepmedic", str(fault).partition("; ")[0], _GET_AND_NAME)
    try:
        executable = find_python(python, environ)
        versions = look(executable)
    except EnvironmentFault as fault:
        text = str(fault).partition("; ")[0]
        yield DoctorLine("note", "deepmedic's python", text, _MAKE_ENVIRONMENT)
        return
    by = "--deepmedic-python" if python else f"${PYTHON}" if environ.get(PYTHON) else "gansynth's"
    text = f"{versions['python']}, {executable} ({by})"
    if _is_old(versions):
        text += f"; on the fly needs {_least()} or newer"
        yield DoctorLine("note", "deepmedic's python", text, _MAKE_ENVIRONMENT)
    else:
        yield DoctorLine("ok", "deepmedic's python", text)
    missing = _missing(versions)
    if there := [f"{name} {versions[name]}" for name in PACKAGES if versions[name]]:
        yield DoctorLine("ok", "deepmedic's packages", ", ".join(there))
    if missing:
        text = f"no {', '.join(missing)} there; DeepMedic needs it"
        yield DoctorLine("note", "deepmedic's packages", text, _install(executable, missing))


def _is_old(versions: Mapping[str, str]) -> bool:
    return tuple(map(int, re.findall(r"\d+", versions["python"])[:2])) < LEAST


def _least() -> str:
    return ".".join(map(str, LEAST))


def _missing(versions: Mapping[str, str]) -> list[str]:
    return [package for package in PACKAGES if not versions[package]]


def _install(python: Path, missing: list[str]) -> str:
    names = ["tensorflow-cpu" if package == "tensorflow" else package for package in missing]
    return f"{shlex.quote(str(python))} -m pip install {' '.join(names)}"


def _clean() -> dict[str, str]:
    reserved = {"PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"}
    return {key: value for key, value in os.environ.items() if key not in reserved}
