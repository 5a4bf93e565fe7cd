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
from gansynth.core.requests.hosts import DoctorRequest
from gansynth.runtime import child
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.machine import DoctorLine

CHECKOUT = "GANSYNTH_DEEPMEDIC"
PYTHON = "GANSYNTH_DEEPMEDIC_PYTHON"
LEAST = (3, 11)  # least Python for gansynth's modules, which the process also imports
SCRIPT = "deepMedicRun"
PACKAGES = ("tensorflow", "numpy", "nibabel", "pandas", "scipy", "six")
"""Imported packages of the process: DeepMedic's own."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    SCRIPT: (),
    "deepmedic/dataManagement/sampling.py": (
        *("get_samples_for_subepoch", "load_imgs_of_subject"),
        "constrain_sampling_maps_near_edges",
    ),
    "deepmedic/dataManagement/io.py": ("load_volume", "saveImgToNiiWithOriginalHdr"),
}
"""Files of the checkout, and their functions that ``hook`` replaces; DeepMedic 0.8 has them."""
_GET_CHECKOUT = (
    "git clone https://github.com/deepmedic/deepmedic, then --deepmedic deepmedic or export "
    f"{CHECKOUT}=$PWD/deepmedic"
)
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

    Raises:
        UsageFault: no checkout is named, or the folder is not one.
        EnvironmentFault: the Python cannot be started, is too old, or lacks a package.
    """
    folder = find_checkout(checkout, environ)
    return DeepMedicProgram(folder, *_checked_python(python, environ))


def find_checkout(checkout: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a checkout that has all that is ``NEEDED`` (UsageFault: it has not)."""
    named, by = checkout or environ.get(CHECKOUT, ""), "--deepmedic" if checkout else f"${CHECKOUT}"
    if not named:
        raise UsageFault(f"--deepmedic: not given, and {CHECKOUT} is not set; {_GET_CHECKOUT}")
    folder = Path(named).expanduser().absolute()
    for file, functions in NEEDED.items():
        path = folder / file
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        lacking = [name for name in functions if not re.search(rf"^def {name}\(", text, re.M)]
        if not text or lacking:
            raise UsageFault(
                f"{named} ({by}): holds no {file}{' with ' * bool(lacking)}{', '.join(lacking)}, "
                f"expected a checkout of DeepMedic 0.8.4; {_GET_CHECKOUT}"
            )
    return folder


def find_python(python: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Python that runs DeepMedic (EnvironmentFault: no such program)."""
    named, by = python or environ.get(PYTHON, ""), "--deepmedic-python" if python else f"${PYTHON}"
    executable = shutil.which(os.path.expanduser(named or sys.executable), path=environ.get("PATH"))
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
    packages = Path(child.__file__).parents[1], Path(__file__).parent
    return [str(program.python), "-P", "-c", _START, str(order), *map(str, packages)]


def environ_of() -> dict[str, str]:
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
    """Yield the lines of ``gansynth doctor`` on DeepMedic: the checkout, and its Python."""
    named = options.deepmedic, options.deepmedic_python, environ.get(CHECKOUT), environ.get(PYTHON)
    if not any(named):
        text = "not named; only for augmenting DeepMedic"
        yield DoctorLine("note", "deepmedic", text, _GET_CHECKOUT)
        return
    try:
        folder = find_checkout(options.deepmedic, environ)
        yield DoctorLine("ok", "deepmedic", str(folder))
    except GansynthError as fault:
        yield _note("deepmedic", fault)
    try:
        executable, versions = _checked_python(options.deepmedic_python, environ)
        packages = ", ".join(f"{name} {versions[name]}" for name in PACKAGES)
        text = f"{executable}, {versions['python']}, with {packages}"
        yield DoctorLine("ok", "deepmedic's python", text)
    except GansynthError as fault:
        yield _note("deepmedic's python", fault)


def _note(what: str, fault: GansynthError) -> DoctorLine:
    text, _, cure = str(fault).partition("; ")
    return DoctorLine("note", what, text, cure or _MAKE_ENVIRONMENT)


def _checked_python(
    python: str | None, environ: Mapping[str, str]
) -> tuple[Path, Mapping[str, str]]:
    executable = find_python(python, environ)
    versions = look(executable)
    if tuple(map(int, re.findall(r"\d+", versions["python"])[:2])) < LEAST:
        raise EnvironmentFault(
            f"{executable}: Python {versions['python']}, expected {'.'.join(map(str, LEAST))} or "
            f"newer to run DeepMedic with synthetic cases; {_MAKE_ENVIRONMENT}"
        )
    if missing := [package for package in PACKAGES if not versions[package]]:
        names = " ".join(missing).replace("tensorflow", "tensorflow-cpu")
        raise EnvironmentFault(
            f"{executable}: no {', '.join(missing)}, which DeepMedic needs; "
            f"{shlex.quote(str(executable))} -m pip install {names}, or name another Python by "
            f"--deepmedic-python or {PYTHON}"
        )
    return executable, versions


def _clean() -> dict[str, str]:
    reserved = {"PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"}
    return {key: value for key, value in os.environ.items() if key not in reserved}
