"""The user's own DeepMedic: a checkout, and a Python with its TensorFlow. Neither is changed.

DeepMedic is not in a package index, so a folder names it. Its TensorFlow may need another numpy, so
it may be installed in another environment. It trains as a child process, followed by its own log.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gansynth import (
    DoctorLine,
    DoctorRequest,
    EnvironmentFault,
    GansynthError,
    HostOptions,
    Job,
    TrainingFault,
    UsageFault,
    read_json,
    write_json_atomic,
)
from gansynth.runtime import child
from gansynth.runtime.processes import ProcessResult, run
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.hook import SCRIPT, TrainingOrder

CHECKOUT, PYTHON = "GANSYNTH_DEEPMEDIC", "GANSYNTH_DEEPMEDIC_PYTHON"
LEAST_PYTHON = (3, 11)  # least Python for gansynth's modules, which the process also imports
PACKAGES = ("tensorflow", "numpy", "nibabel", "pandas", "scipy", "six")
"""Imported packages of the process: DeepMedic's own."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    SCRIPT: (),
    "deepmedic/dataManagement/sampling.py": (
        "get_samples_for_subepoch",
        "load_imgs_of_subject",
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
_IMPORT = """
import sys, types
for name, folder in zip(("gansynth", "gansynth_deepmedic"), sys.argv[2:]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from gansynth_deepmedic.hook import main, predict
"""
"""Finds gansynth's two packages by folder; all other modules are those of DeepMedic's Python."""
PACKAGE_FOLDERS = (str(Path(child.__file__).parents[1]), str(Path(__file__).parent))
ORDER = "gansynth_order.json"
CHECKPOINT = "gansynth_checkpoint.json"
"""File in the output folder: DeepMedic's newest checkpoint, and the subepochs before it."""
_JOB = r"\[TRA\|JOB:(\d+)\|PID:\d+\]"
_LINES = {
    "case": re.compile(rf"{_JOB} gansynth: subepoch (\d+): (real|synthetic|fallback) (.+)"),
    "spread": re.compile(rf"{_JOB} gansynth: no segment fits"),
    "segments": re.compile(rf"{_JOB} Done. Samples per category: (.*)"),
    "began": re.compile(r"=+ Training the CNN model =+"),
    "step": re.compile(r"\[TRAINING\] Processed (\d+)/\d+ batches"),
    "trained": re.compile(r"TIMING: Training on batches of this subepoch"),
    "epoch": re.compile(r"TIMING: Whole Epoch #(\d+) lasted"),
    "dice": re.compile(r"average DICE Coefficients .* DICE2=\[ (.*?) ?\]"),
    "final": re.compile(r"Saving the final model at:(.+)"),
    "ended": re.compile(r"The whole do_training\(\) function has finished"),
}
_EXCEPTION = re.compile(
    r"^(?:    (?P<code>\S.*)\n(?:[ ^~]+\n)?)?(?P<error>[\w.]*(?:Error|Exception)\b.*)", re.MULTILINE
)
_ERROR = re.compile(r"\bERROR\b[:\s]*(\S.*)")


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


def find_program(checkout: str | None, python: str | None) -> DeepMedicProgram:
    """Find and check a checkout and its Python, without importing TensorFlow or DeepMedic."""
    return DeepMedicProgram(find_checkout(checkout), *find_python(python))


def find_checkout(checkout: str | None) -> Path:
    """Return the folder of a checkout that has all that is ``NEEDED`` (UsageFault: it has not)."""
    named, by = checkout or os.environ.get(CHECKOUT), "--deepmedic" if checkout else f"${CHECKOUT}"
    if not named:
        raise UsageFault(
            "deepmedic.checkout-not-given",
            f"--deepmedic: not given, and {CHECKOUT} is not set; {_GET_CHECKOUT}",
        )
    folder = Path(named).expanduser().absolute()
    for file, functions in NEEDED.items():
        path = folder / file
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        lacking = [name for name in functions if not re.search(rf"^def {name}\(", text, re.M)]
        if not text or lacking:
            raise UsageFault(
                "deepmedic.not-a-checkout",
                f"{named} ({by}): holds no {file}{' with ' * bool(lacking)}{', '.join(lacking)}, "
                f"expected a checkout of DeepMedic 0.8.4; {_GET_CHECKOUT}",
            )
    return folder


def find_python(python: str | None) -> tuple[Path, Mapping[str, str]]:
    """Return the Python that runs DeepMedic, and its versions."""
    named, by = python or os.environ.get(PYTHON), "--deepmedic-python" if python else f"${PYTHON}"
    program = shutil.which(os.path.expanduser(named or sys.executable))
    if program is None:
        raise EnvironmentFault(
            "deepmedic.python-not-found",
            f"{named} ({by}): no such program, expected a Python with TensorFlow, for example "
            f"/home/me/deepmedic-env/bin/python; {_MAKE_ENVIRONMENT}",
        )
    path = Path(program).absolute()
    words = [str(path), "-c", _ASK, *PACKAGES]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_SECONDS, check=False, env=environ_of()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(
            "deepmedic.python-not-startable", f"{path}: cannot be started: {error}"
        ) from None
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    if "python" not in found:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EnvironmentFault(
            "deepmedic.not-a-python", f"{path}: is no Python that starts: {last[0]}"
        )
    if tuple(map(int, re.findall(r"\d+", found["python"])[:2])) < LEAST_PYTHON:
        raise EnvironmentFault(
            "deepmedic.python-too-old",
            f"{path}: Python {found['python']}, expected {'.'.join(map(str, LEAST_PYTHON))} or "
            f"newer to run DeepMedic with synthetic cases; {_MAKE_ENVIRONMENT}",
        )
    missing = [package for package in PACKAGES if not found.get(package)]
    if missing:
        names = " ".join(missing).replace("tensorflow", "tensorflow-cpu")
        raise EnvironmentFault(
            "deepmedic.python-packages-missing",
            f"{path}: no {', '.join(missing)}, which DeepMedic needs; {shlex.quote(str(path))} -m "
            f"pip install {names}, or name another Python by --deepmedic-python or {PYTHON}",
        )
    return path, found


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, if git knows it."""
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        return subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environ_of() -> dict[str, str]:
    """Return the environment of the program; nothing is written into the checkout.

    Unless the user sets them, threads are one fewer than cores. TensorFlow would take all, but the
    producer and DeepMedic's sampling need some too.
    """
    threads = str(child.cpu_threads())
    reserved = {"PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"}
    environ = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
    }
    environ |= {key: value for key, value in os.environ.items() if key not in reserved}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return environ


def doctor_lines(request: DoctorRequest, options: ProgramSettings) -> Iterator[DoctorLine]:
    """Yield the lines of ``gansynth doctor`` on DeepMedic: the checkout, and its Python."""
    checkout, python = options.deepmedic, options.deepmedic_python
    if not any((checkout, python, os.environ.get(CHECKOUT), os.environ.get(PYTHON))):
        text = "not named; only for augmenting DeepMedic"
        yield DoctorLine("note", "deepmedic", text, _GET_CHECKOUT)
        return

    def found_python() -> str:
        path, versions = find_python(python)
        packages = [f"{name} {versions[name]}" for name in PACKAGES]
        return f"{path}, {versions['python']}, with {', '.join(packages)}"

    parts: dict[str, Callable[[], str]] = {
        "deepmedic": lambda: str(find_checkout(checkout)),
        "deepmedic's python": found_python,
    }
    for name, find in parts.items():
        try:
            yield DoctorLine("ok", name, find())
        except GansynthError as fault:
            text, _, cure = str(fault).partition("; ")
            yield DoctorLine("note", name, text, cure or _MAKE_ENVIRONMENT)


# -- a training ------------------------------------------------------------------------------------


def checkpoint_in(output: Path) -> dict[str, Any]:
    """Return the newest checkpoint (``file``), its ``subepochs``, and the ``dice`` after it."""
    path = output / CHECKPOINT
    return read_json(path) if path.is_file() else {"subepochs": 0, "file": None, "dice": {}}


def check_checkpoint(output: Path) -> None:
    """Refuse to go on without the files of the checkpoint."""
    known = checkpoint_in(output)
    index = output / f"{known['file']}.index"
    if known["file"] is not None and not index.is_file():
        raise UsageFault(
            "deepmedic.checkpoint-missing",
            f"{index}: missing, expected the checkpoint of subepoch {known['subepochs']} to go on "
            "with; restore it, or take another folder: -o",
        )


def newest_checkpoint(output: Path) -> str:
    """Return DeepMedic's last checkpoint of an epoch, relative to the output."""
    found = []
    for path in (output / "saved_models").rglob("*.model.ckpt.index"):
        if ".initial." not in path.name and ".final." not in path.name:
            found.append((path.stat().st_mtime_ns, path.with_suffix("")))
    _, newest = max(found)
    return str(newest.relative_to(output))


def run_program(
    job: Job, order: TrainingOrder, program: DeepMedicProgram, config: TrainConfig
) -> None:
    """Train by an order, to its end.

    Raises:
        Interrupted: a signal, which was passed on to the program.
        GansynthError: the training failed.
    """
    write_json_atomic(job.folder / ORDER, order.to_json())
    ProcessResult(0, "", job.stop()).raise_if_stopped()
    log, file = ProgramLog(job, config), job.output_log
    words = [*_start(program, "main(sys.argv[1])"), str(job.folder / ORDER), *PACKAGE_FOLDERS]
    ended = run(words, environ_of(), file, show=lambda line: log.look())
    log.look()
    ended.raise_if_stopped()
    if not log.complete:
        raise log.fault(ended, file)


def run_test(program: DeepMedicProgram, arguments: Sequence[str], log: Path) -> ProcessResult:
    """Run a test of the stock DeepMedic; its exit code, always 0, says nothing."""
    words = _start(program, "predict(sys.argv[1], sys.argv[4:])")
    words += [str(program.checkout), *PACKAGE_FOLDERS, *arguments]
    ended = run(words, environ_of(), log, show=lambda line: None)
    ended.raise_if_stopped()
    return ended


def _start(program: DeepMedicProgram, call: str) -> list[str]:
    return [str(program.python), "-P", "-c", f"{_IMPORT}{call}\n"]


@dataclass
class SampledCase:
    """A case of a subepoch, with its segments."""

    kind: str  # real, synthetic, or fallback: a real case for a missing sample
    name: str  # of the sample or case
    segments: int = 0
    spread: bool = False  # a synthetic case with segments anywhere in it


class ProgramLog:
    """Follows DeepMedic's log of one session, to which further sessions are appended.

    The log has every line that DeepMedic prints. ``job`` gets what it says of progress.
    """

    def __init__(self, job: Job, config: TrainConfig) -> None:
        self.job, self.subepochs = job, config.subepochs
        self.file, self.trained = job.folder / "logs" / f"{config.session}.txt", job.first
        self._read = self.file.stat().st_size if self.file.exists() else 0
        self._cases: dict[int, dict[str, SampledCase]] = {}  # subepoch -> job -> its case
        self._sampling: dict[str, int] = {}  # job -> its subepoch
        self._seen: dict[str, str] = {}
        self._known = checkpoint_in(job.folder)
        self._last = 0, 0.0  # batches of the subepoch, and when they were done
        self._failed = False

    def look(self) -> None:
        """Take what is new in the log."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._read)
                text = stream.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.decode("utf-8", "replace").splitlines():
                for name, pattern in _LINES.items():
                    found = pattern.search(line)
                    if found:
                        self._take(name, *found.groups(""))
        except FileNotFoundError:
            return  # not yet
        except Exception as error:  # training continues without complete counts
            if not self._failed:
                self.job.warn(
                    "the training continues, but its progress is not completely counted: "
                    f"{type(error).__name__}: {error}"
                )
            self._failed = True

    def _take(self, name: str, first: str = "", *more: str) -> None:
        self._seen[name] = first
        match name:
            case "case":  # again, if DeepMedic repeats a job
                subepoch = self._sampling[first] = int(more[0])
                self._cases.setdefault(subepoch, {})[first] = SampledCase(more[1], more[2])
            case "spread":
                self._cases[self._sampling[first]][first].spread = True
            case "segments":
                numbers = re.findall(r": (\d+)/\d+\]", more[0])
                self._cases[self._sampling[first]][first].segments = sum(map(int, numbers))
            case "step":  # steps since DeepMedic's last line about them count as equally long
                now, (before, began) = time.monotonic(), self._last
                each = (now - began) / max(1, int(first) - before)
                for number in range(int(first) - before):  # none at the beginning of a subepoch
                    self.job.log_step(began + number * each, began + (number + 1) * each)
                self._last = int(first), now
            case "trained":
                self.trained += 1
                self.job.end_round(self.trained, self.counts(self.trained - 1))
            case "epoch":
                file = newest_checkpoint(self.job.folder)
                self._know(subepochs=(int(first) + 1) * self.subepochs, file=file)
            case "dice":  # DICE2, of the region of interest as predictions; 0 is all foreground
                values = enumerate(first.split())
                self._know(dice={str(n or "foreground"): float(v) for n, v in values if v != "N/A"})

    def _know(self, **news: Any) -> None:
        self._known |= news
        write_json_atomic(self.job.folder / CHECKPOINT, self._known)

    def counts(self, subepoch: int) -> dict[str, int]:
        """Return the cases and segments of a subepoch, counted from 0."""
        cases = self._cases.get(subepoch, {}).values()
        synthetic = [case for case in cases if case.kind == "synthetic"]
        real = [case for case in cases if case.kind != "synthetic"]
        return {
            "cases_real": len(real),
            "cases_synthetic": len(synthetic),
            "cases_fell_back": [case.kind for case in real].count("fallback"),
            "segments_real": sum(case.segments for case in real),
            "segments_synthetic": sum(case.segments for case in synthetic),
            "samples": len({case.name for case in synthetic}),
            "spread": sum(case.spread for case in cases),
        }

    @property
    def complete(self) -> bool:
        """Whether the training has ended, and its final checkpoint is there."""
        final = Path(f"{self._seen.get('final', '')}.model.ckpt.index")
        return "ended" in self._seen and final.is_file()

    def fault(self, ended: ProcessResult, log: Path) -> GansynthError:
        """Return why a training is not complete; DeepMedic's exit code is always 0."""
        if ended.code < 0:
            ended.raise_if_failed(f"{log}: the training")
        fault = GansynthError.traced(ended.output)
        if fault:
            return fault
        before, _, after = ended.output.rpartition("\nFinished.")  # then only its forks complain
        text = before or after
        said = [
            error if ":" in error or not code else f"{error}: {code}"
            for code, error in _EXCEPTION.findall(text)
        ]
        said = said or _ERROR.findall(text) or ended.last or ["it did not say why"]
        why = textwrap.shorten(said[-1], 400)
        if "began" in self._seen:
            return TrainingFault(
                "deepmedic.program-failed", f"DeepMedic failed: {why}; {log} says more"
            )
        if re.match("ImportError|ModuleNotFoundError", why):
            return EnvironmentFault(
                "deepmedic.program-not-importable",
                f"DeepMedic cannot be imported: {why}; gansynth doctor says what is missing",
            )
        return UsageFault(
            "deepmedic.configuration-rejected",
            f"DeepMedic rejects its configuration: {why}; {log} says more",
        )
