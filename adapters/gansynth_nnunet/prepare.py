"""Check a raw data set, then plan and preprocess it with nnU-Net's own functions."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from gansynth.core.host_commands import CommandReport, PrepareRequest
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.files import disk_errors
from gansynth.runtime.progress import stepping
from gansynth_nnunet.cases import PreprocessedArrays, write_hashes
from gansynth_nnunet.dataset import RawSet, raw_cases
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.plans import (
    DEFAULT_PLANS,
    NnunetPlans,
    PrepareSettings,
    write_small_plans,
)
from gansynth_nnunet.raw import check_raw, raise_on_errors

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, done, total)``; steps: check, fingerprint, plan, a configuration."""

_WORKERS = "nnUNet_n_proc_DA"


def prepare(request: PrepareRequest, options: PrepareSettings) -> CommandReport:
    """Implement ``gansynth prepare nnunet:ID``: check, fingerprint, plan and preprocess.

    What is done already is not done again. nnU-Net starts its workers by spawning: a script that
    calls this needs ``if __name__ == "__main__":``. Plans other than the default must exist
    already.
    """
    options.check_small()
    asked = request.request
    root = NnunetRoot.find(asked.root)
    dataset = root.dataset(asked.where)
    seconds: dict[str, float] = {}  # of each step; 0.0 if it had been done before
    with stepping(request.reporter) as progress:
        tell = _outspoken(progress)
        with _timed(seconds, "check"):
            findings = check_raw(
                root,
                dataset,
                subjects=asked.subjects,
                progress=lambda done, total: tell("check", done, total),
            )
            raise_on_errors(findings)
        raw = raw_cases(root.raw / dataset)
        plans_name = asked.plans or DEFAULT_PLANS
        job = _PrepareJob(
            root, dataset, raw, plans_name, options.voxels, request.processes, tell, seconds
        )
        _plan(job, request.force)
        plans = NnunetPlans.read(job.folder, job.plans)
        configurations = tuple(request.configurations) or (plans.usual(prepared=False),)
        for configuration in configurations:
            plans.configuration(configuration)
        for configuration in configurations:
            _preprocess(job, plans, configuration, request.force)
        if options.small:
            write_small_plans(plans.path, options, configurations)
    warned = [finding for finding in findings if finding.level == "warning"]
    for finding in warned:
        request.reporter.warn(finding.message)
    small = ("--plans", options.name) if options.small else ()
    words = [("--subjects", asked.subjects), ("--root", asked.root)]
    option = [text for name, value in words if value for text in (name, value)]
    data = ("--data", f"nnunet:{asked.where}", "-c", configurations[0], *option)
    return CommandReport(
        {
            "dataset": dataset,
            "plans": (job.plans, options.name) if options.small else (job.plans,),
            "configurations": configurations,
            "seconds": seconds,
            "warnings": [vars(finding) for finding in warned],
        },
        then=("fit", "cgan3d", *data, *small, "-o", "runs/g0"),
    )


@dataclass
class _PrepareJob:
    root: NnunetRoot
    dataset: str
    raw: RawSet
    plans: str
    voxels: int | None
    num_processes: int
    tell: Progress
    seconds: dict[str, float]

    @property
    def id(self) -> int:
        return int(self.dataset[7:10])

    @property
    def folder(self) -> Path:
        return self.root.preprocessed / self.dataset

    def newest(self) -> float:
        """Time of the last change of the raw files."""
        files = [f for case in self.raw.images.values() for f in case]
        files += [*self.raw.labels.values(), self.raw.folder / "dataset.json"]
        return max(f.stat().st_mtime for f in files)


def _plan(job: _PrepareJob, force: bool) -> None:
    path = job.folder / f"{job.plans}.json"
    whole = path.is_file() and _whole(job)
    if whole and path.stat().st_mtime >= job.newest() and not force:
        job.seconds.update(fingerprint=0.0, plan=0.0)
        return
    if job.plans != DEFAULT_PLANS:
        raise UsageFault(
            f"{path}: not there, damaged or older than the raw data, and only {DEFAULT_PLANS} are "
            "made here; make it with nnUNetv2_plan_experiment"
        )
    with _nnunet(job):
        if not whole:
            path.unlink(missing_ok=True)  # nnU-Net would read it and extend it
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (
            DatasetFingerprintExtractor,
            plan_experiment_dataset,
        )

        job.tell("fingerprint", 0, 1)
        with _timed(job.seconds, "fingerprint"):
            extractor = DatasetFingerprintExtractor(job.id, job.num_processes)
            if job.voxels is not None:
                extractor.num_foreground_voxels_for_intensitystats = job.voxels
            extractor.show_progress_bar = False
            extractor.run(overwrite_existing=True)
        job.tell("fingerprint", 1, 1)
        with _timed(job.seconds, "plan"):
            plan_experiment_dataset(job.id)
        job.tell("plan", 1, 1)


def _whole(job: _PrepareJob) -> bool:
    """Whether the plans can be read: nnU-Net writes them non-atomically."""
    try:
        NnunetPlans.read(job.folder, job.plans)
    except DataFault:
        return False
    return True


def _preprocess(job: _PrepareJob, plans: NnunetPlans, configuration: str, force: bool) -> None:
    folder = plans.data_folder(configuration)
    cases = len(job.raw.images)
    if not force and _complete(folder, job):
        job.seconds[configuration] = 0.0
        arrays = PreprocessedArrays(folder, "preprocess again: gansynth prepare --force")
        for file in arrays.unnoted():  # of nnU-Net's own command; the first notes all
            arrays.checked(file.name)
        return
    with _timed(job.seconds, configuration), _nnunet(job):
        from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

        with _counting(folder, lambda done: job.tell(configuration, min(done, cases), cases)):
            preprocess_dataset(
                job.id,
                job.plans,
                [configuration],
                [job.num_processes],
                verbose=False,
                show_progress_bar=False,
            )
        write_hashes(folder)
    job.tell(configuration, cases, cases)


def _complete(folder: Path, job: _PrepareJob) -> bool:
    """Whether every case exists and is newer than the raw data; nnU-Net writes its .pkl last."""
    done = {path.stem: path.stat().st_mtime for path in folder.glob("*.pkl")}
    return set(done) == set(job.raw.images) and min(done.values()) >= job.newest()


# -- calling nnU-Net -----------------------------------------------------------------------------


def _outspoken(progress: Progress) -> Progress:
    """Exempt a progress function's output from the suppression of nnU-Net's output."""
    stdout = sys.stdout

    def tell(step: str, done: int, total: int) -> None:
        with contextlib.redirect_stdout(stdout):
            progress(step, done, total)

    return tell


@contextlib.contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


@contextlib.contextmanager
def _nnunet(job: _PrepareJob) -> Iterator[None]:
    """Run nnU-Net quietly, with its folders set, one thread per worker, and one-line errors."""
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if os.environ.get(_WORKERS) == "0":  # allowed in training, breaks planning
        environment[_WORKERS] = "1"
    output = io.StringIO()
    with (
        disk_errors(job.folder),
        _environment({**job.root.variables(), **environment}),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(output),
    ):
        warnings.simplefilter("ignore")
        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except Exception as error:  # nnU-Net has no error classes of its own
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            words = " ".join(str(error).split()) or type(error).__name__
            raise EnvironmentFault(
                f"{job.dataset}: nnU-Net failed: {words:.400}. Make room if the disk of "
                f"{job.folder} is full; use fewer processes (--processes 1) if memory is short"
            ) from error


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _counting(folder: Path, tell: Callable[[int], None]) -> Iterator[None]:
    """Report the number of finished cases, twice a second, while nnU-Net works."""
    stop = Event()

    def watch() -> None:
        while not stop.wait(0.5):
            tell(sum(1 for _ in folder.glob("*.pkl")))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
