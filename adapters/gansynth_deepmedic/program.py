"""The user's own DeepMedic: a checkout, and a Python that has its TensorFlow. Neither is changed.

DeepMedic is no package of an index, so a folder names it; and its TensorFlow may ask for a numpy of
its own, so it may live in another environment than gansynth.
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

from gansynth.runtime import child, version
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.machine import Line

CHECKOUT = "GANSYNTH_DEEPMEDIC"
PYTHON = "GANSYNTH_DEEPMEDIC_PYTHON"
LEAST = (3, 11)
"""Python that gansynth's own modules need, which the process imports too."""
SCRIPT = "deepMedicRun"
PACKAGES = ("tensorflow", "numpy", "nibabel", "pandas", "scipy", "six", "h5py")
"""What the process imports: DeepMedic's packages, and h5py, which the bank needs."""
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
"""Functions of the checkout that ``host`` goes by; DeepMedic 0.8 has them."""
GET_CHECKOUT = "git clone https://github.com/deepmedic/deepmedic"
_GET_AND_NAME = f"{GET_CHECKOUT}; export {CHECKOUT}=$PWD/deepmedic"
GET_PACKAGES = "tensorflow-cpu nibabel pandas scipy six h5py"
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


@dataclass(frozen=True)
class Program:
    """The real program."""

    checkout: Path  # its folder, absolute
    # the Python that runs it; not resolved, for a link may lead out of its environment
    python: Path
    versions: Mapping[str, str]  # of that Python (``python``) and of ``PACKAGES``


def find_program(
    checkout: str | None, python: str | None, environ: Mapping[str, str] = os.environ
) -> Program:
    """Find and examine a checkout and its Python; neither TensorFlow nor DeepMedic is imported.

    Args:
        checkout: its folder; None for what ``GANSYNTH_DEEPMEDIC`` says.
        python: a Python; None for ``GANSYNTH_DEEPMEDIC_PYTHON``, or else gansynth's own.

    Raises:
        UsageFault: nobody names a checkout, or it is none.
        EnvironmentFault: the Python cannot be started, is too old, or lacks a package.
    """
    return Program(
        folder := find_checkout(checkout, environ),
        executable := find_python(python, environ),
        examine(executable, folder),
    )


def find_checkout(checkout: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of a checkout that has what ``TOUCHED`` names.

    Raises:
        DataFault: there is no such folder.
        UsageFault: nobody names one, or it is none of DeepMedic 0.8.
    """
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
    """The Python that is to run DeepMedic (EnvironmentFault: there is no such program)."""
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
    """Versions of a Python (``python``) and of ``PACKAGES`` in it.

    Raises:
        EnvironmentFault: it cannot be started, is too old, or lacks a package.
    """
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
    """Version of a Python (``python``) and of ``PACKAGES`` in it, "" where one is missing.

    Raises:
        EnvironmentFault: it cannot be started.
    """
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


def command(program: Program, order: Path) -> list[str]:
    """What trains by an ``Order``; it reads the packages of gansynth by their folder."""
    launch = Path(__file__).parent / "host" / "launch.py"
    return [str(program.python), str(launch), str(order), str(_package())]


def environ_of(program: Program) -> dict[str, str]:
    """The environment for ``command``: nothing is written into the checkout.

    As many threads as cores but one, if nobody said otherwise: TensorFlow takes them all, and the
    producer and DeepMedic's own sampling need some too.
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
    checkout: str | None = None, python: str | None = None, environ: Mapping[str, str] = os.environ
) -> Iterator[Line]:
    """What ``gansynth doctor`` says of DeepMedic: checkout, Python, and the packages there."""
    if not (checkout or python or environ.get(CHECKOUT) or environ.get(PYTHON)):
        text = "not named; only for augmenting DeepMedic"
        yield Line("note", "deepmedic", text, _GET_AND_NAME)
        return
    yield _checkout_line(checkout, environ)
    try:
        executable = find_python(python, environ)
        versions = look(executable)
    except EnvironmentFault as fault:
        yield Line("note", "deepmedic's python", str(fault).partition("; ")[0], _make_environment())
        return
    by = "--deepmedic-python" if python else f"${PYTHON}" if environ.get(PYTHON) else "gansynth's"
    yield _python_line(executable, versions, by)
    yield from _package_lines(executable, versions)


def _checkout_line(checkout: str | None, environ: Mapping[str, str]) -> Line:
    try:
        folder = find_checkout(checkout, environ)
    except (DataFault, UsageFault) as fault:
        return Line("note", "deepmedic", str(fault).partition("; ")[0], _GET_AND_NAME)
    return Line("ok", "deepmedic", f"{folder} ({'--deepmedic' if checkout else f'${CHECKOUT}'})")


def _python_line(python: Path, versions: Mapping[str, str], by: str) -> Line:
    text = f"{versions['python']}, {python} ({by})"
    release = tuple(int(part) for part in re.findall(r"\d+", versions["python"])[:2])
    if release >= LEAST:
        return Line("ok", "deepmedic's python", text)
    advice = f"{text}; on the fly needs {'.'.join(map(str, LEAST))} or newer"
    return Line("note", "deepmedic's python", advice, _make_environment())


def _package_lines(python: Path, versions: Mapping[str, str]) -> Iterator[Line]:
    there = [f"{package} {versions[package]}" for package in PACKAGES if versions[package]]
    missing = [package for package in PACKAGES if not versions[package]]
    if there:
        yield Line("ok", "deepmedic's packages", ", ".join(there))
    if missing:
        text = f"no {', '.join(missing)} there; DeepMedic needs it"
        yield Line("note", "deepmedic's packages", text, _install(python, missing))


def _lacks(folder: Path) -> str:
    """What of ``TOUCHED`` a checkout does not have, in words; "" if it has everything."""
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
    """The folder of gansynth's core package."""
    return Path(version.__file__).parents[1]


def _clean() -> dict[str, str]:
    """This process's variables, but for what belongs to its own Python alone."""
    reserved = {"PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"}
    return {key: value for key, value in os.environ.items() if key not in reserved}
