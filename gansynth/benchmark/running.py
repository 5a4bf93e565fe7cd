"""``gansynth benchmark``: run what is missing, then say what it came to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.benchmark.division import DEVELOPMENT, SEALED
from gansynth.benchmark.jobs.executor import parse_executor
from gansynth.benchmark.jobs.graph import Report, run_jobs
from gansynth.benchmark.jobs.table import JobTable
from gansynth.benchmark.looks import Looks
from gansynth.benchmark.plan import Plan
from gansynth.benchmark.results import RESULTS, document_of, known_results
from gansynth.benchmark.study import Study
from gansynth.runtime.files import disk_errors, read_json, write_bytes_atomic


@dataclass(frozen=True)
class Asked:
    """What somebody asked of a benchmark.

    Attributes:
        again: why a sealed split is looked at once more; empty for no reason.
        arms: these and the control alone; all if empty.
        executor: ``local``, ``local:4``, ``ray``.
        caches: results documents whose trainings need not be computed.
        pictures: show the worst cases in the report; it then holds images of people.
    """

    file: Path
    folder: Path
    sealed: bool = False
    again: str = ""
    arms: Sequence[str] = ()
    executor: str = "local"
    caches: Sequence[Path] = ()
    pictures: bool = True

    @property
    def look(self) -> str:
        """``sealed`` or ``development``."""
        return SEALED if self.sealed else DEVELOPMENT


def open_study(plan: Plan, asked: Asked) -> Study:
    """The look that is asked for.

    Raises:
        GansynthError: data, plan or results that cannot be used.
    """
    cached: dict[str, Mapping[str, Any]] = {}
    for file in asked.caches:
        cached |= known_results(read_json(file))
    return Study(plan, asked.look, asked.folder, arms=asked.arms, cached=cached)


def run_benchmark(
    plan: Plan, asked: Asked, *, quiet: bool = False
) -> tuple[dict[str, Any], dict[str, Path], Report]:
    """Compute what is missing, and write results and report.

    Returns:
        The results document, the files written by name, and how the jobs ended.

    Raises:
        GansynthError: what cannot be run at all; failed jobs are in the report instead.
        Interrupted: after all jobs have been stopped; what is done stays done.
    """
    executor = parse_executor(asked.executor)
    study, looks = open_study(plan, asked), Looks(asked.file)
    number = looks.look(study.look, plan.hash, study.people, study.arms, asked.again)
    report = _run(study, asked, executor, quiet)
    document = document_of(study, report, looks.told(), number, machine())
    files = write_results(document, asked.folder, study if asked.pictures else None)
    return document, files, report


def machine() -> dict[str, Any]:
    """What numbers depend on, without the machine's name."""
    import platform
    from importlib.metadata import version

    from gansynth.benchmark.jobs.machine import describe

    told = {key: value for key, value in describe().items() if key != "name"}
    return {**told, "python": platform.python_version(), "torch": version("torch")}


def _run(study: Study, asked: Asked, executor: Any, quiet: bool) -> Report:
    """Run all jobs; arms that had to be chosen first may bring more."""
    specs = study.specs()
    with JobTable(quiet=quiet) as table:
        while True:
            jobs = study.jobs(specs.values())
            report = run_jobs(jobs, study.store, executor, on_change=table)
            known, specs = specs, study.specs()
            if specs.keys() <= known.keys():
                return report
            executor = parse_executor(asked.executor)


def write_results(
    document: Mapping[str, Any], folder: Path, study: Study | None
) -> dict[str, Path]:
    """Write ``results.json`` and the reports; the files by name."""
    from gansynth.benchmark.report import write_report

    path = folder / RESULTS
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # A training a line: large, but a change is seen where it is.
    runs = ",\n".join(json.dumps(run) for run in document["runs"])
    rest = json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1)
    text = f'{rest[:-2]},\n "runs": [\n{runs}\n]\n}}\n'
    write_bytes_atomic(path, text.encode())
    overlays = []
    if study is not None:
        from gansynth.benchmark.pictures import overlays_of

        overlays = overlays_of(document, study)
    return {"results": path, **write_report(document, folder, overlays)}
