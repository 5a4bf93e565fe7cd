"""``gansynth.benchmark``, ``tune`` and ``papers``: the commands in Python."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.core.requests.base import function_of
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.signals import Interrupted, telling
from gansynth_benchmark.estimate import estimate
from gansynth_benchmark.hours import run_in_hours
from gansynth_benchmark.jobs.graph import GraphReport
from gansynth_benchmark.new_plan import write_new
from gansynth_benchmark.papers.commands import PaperCommands, bare
from gansynth_benchmark.papers.plan import find_plan
from gansynth_benchmark.papers.table_run import PaperTableRun, write
from gansynth_benchmark.papers.table_run import papers as figures_of
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.plan_file import placed_data, read_plan
from gansynth_benchmark.requests import BenchmarkRequest, PapersRequest, TuneRequest
from gansynth_benchmark.running import run_benchmark
from gansynth_benchmark.suite import SuitePlan, known_document, read_suite, suite_of, write_suite
from gansynth_benchmark.tuning import candidates, choose_arm, open_choice


@dataclass(frozen=True)
class Benchmarked:
    """What a benchmark found; no reports of jobs of a dry run's estimate, or of a new plan."""

    document: Mapping[str, Any]
    reports: tuple[GraphReport, ...] = ()


def measure(request: BenchmarkRequest) -> Benchmarked:
    """Run the missing jobs of a plan or a suite, and write results and report; or a new plan."""
    keeps = request.new is None and not request.dry_run
    anew = f"stopped; nothing is written, so {Interrupted.ANEW}"
    with telling(request.reporter.warn, *(() if keeps else (anew,))):
        return _measured(request)


def _measured(request: BenchmarkRequest) -> Benchmarked:
    if request.new is not None:
        return Benchmarked(write_new(request))
    if request.hours is not None:
        return _finished(run_in_hours(request), request)
    suite = read_suite(request.file)
    if suite is not None:
        return _measure_suite(suite, request)
    return _measure_plan(read_plan(request.file, request.data), request)


def _measure_plan(plan: BenchmarkPlan, request: BenchmarkRequest) -> Benchmarked:
    if request.dry_run:
        return Benchmarked(estimate(plan, request))
    return _finished(run_benchmark(plan, request), request)


def _finished(
    done: tuple[dict[str, Any], dict[str, Path], GraphReport], request: BenchmarkRequest
) -> Benchmarked:
    document, files, report = done
    for warning in document["warnings"]:
        request.reporter.warn(warning)
    document["files"] = {name: str(path) for name, path in files.items()}
    return Benchmarked(document, (report,))


def _measure_suite(suite: SuitePlan, request: BenchmarkRequest) -> Benchmarked:
    """Run the plans of a suite one after the other, and say what they say together."""
    if request.data is not None:
        raise UsageFault(
            "benchmark.data-given-with-suite",
            f"--data {request.data}: {request.file} is a suite, whose sets name their own data; "
            "leave it out",
        )
    home, folder = request.file.parent, request.folder(suite.name)
    documents: list[Mapping[str, Any]] = []
    reports: list[GraphReport] = []
    for one in suite.sets:
        if one.plan is None:
            documents.append(known_document(home / str(one.results)))
            continue
        data = None if one.data is None else placed_data(one.data, home)
        file = home / one.plan
        plan = read_plan(file, data)
        done = _measure_plan(plan, request.replace(plan=file, data=data, out=folder / plan.name))
        documents.append(done.document)
        reports += done.reports
    if request.dry_run:
        estimates = [document for document in documents if "jobs" in document]
        return Benchmarked({"dry_run": True, "suite": suite.name, "plans": estimates})
    document = suite_of(suite, documents)
    files = write_suite(document, folder)
    document["files"] = {name: str(path) for name, path in files.items()}
    return Benchmarked(document, tuple(reports))


def run_study(request: BenchmarkRequest) -> dict[str, Any]:
    """Measure whether samples help, by how much, and how certain that is: ``gansynth benchmark``.

    The same call resumes.

    Returns:
        The results document, with ``files``: name -> path; of a dry run the estimate; of a new
        plan what it is for.

    Raises:
        GansynthError: the plan cannot be run, or a training failed; the report names it.
    """
    done = measure(request)
    for report in done.reports:
        report.raise_if_failed()
    return dict(done.document)


benchmark = function_of(BenchmarkRequest, run_study, "benchmark")


def run_tuning(request: TuneRequest) -> dict[str, Any]:
    """Choose generator, ratio and schedule by inner folds, or none: ``gansynth tune``.

    Returns:
        The choice and why, and the command that uses it; of a dry run what would be compared.

    Raises:
        GansynthError: data or plan cannot be used, or trainings failed.
    """
    plan = read_plan(request.file, request.data)
    if not request.dry_run:
        return choose_arm(plan, request)
    spec, study = open_choice(plan, request)
    document = {
        "dry_run": True,
        "data": study.source.name,
        "training_cases": len(spec.document["train"]),
        "candidates": list(candidates(plan)),
        "by": plan.primary_measure,
    }
    document.update(plan.tune.model_dump(mode="json"))
    document["time_and_memory"] = (
        "not measured here; gansynth benchmark --dry-run measures a fit and a training of the plan"
    )
    return document


tune = function_of(TuneRequest, run_tuning, "tune")


def run_papers(request: PapersRequest) -> dict[str, Any]:
    """Reproduce a paper's table, with its numbers beside ours: ``gansynth papers``.

    Returns:
        The results document; its ``table`` has the lines of the table, ``file`` its place. Of a
        dry run ``commands``, too.

    Raises:
        GansynthError: recipe, data or a setting cannot be used, or a command failed.
    """
    with ExitStack() as stack:
        if request.out is not None:
            home = Path(request.out)
        elif request.dry_run:
            home = Path("papers") / Path(request.plan).stem
        else:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        table = _table(request, home if request.dry_run else home.absolute())
        if request.dry_run:
            return {
                "dry_run": True,
                "commands": [f"gansynth {shlex.join(words)}" for words in table.listed()],
                "papers": figures_of(table.plan),
                "cost": "time and memory: not known here; use --dry-run of each command",
                "pictures": [picture.of for picture in table.plan.pictures if request.figures],
                "table": table.lines(),
                "open": list(table.plan.open),
            }
        table.run()
        file = write(table, shlex.join(["gansynth", *map(bare, sys.argv[1:])]))
        document = table.document()
        if request.out is not None:
            document["file"] = str(file)
        document["table"] = table.lines()
        return document


papers = function_of(PapersRequest, run_papers)


def _table(request: PapersRequest, home: Path) -> PaperTableRun:
    plan = find_plan(request.plan)
    if request.steps is not None and request.epochs is not None:
        raise UsageFault(
            "benchmark.steps-and-epochs-both",
            "--steps and --epochs: expected one of them; leave one out",
        )
    if request.figures and not plan.pictures:
        raise UsageFault(
            "benchmark.table-without-pictures",
            f"--figures: {request.plan} has no pictures; leave it out",
        )
    arms = {arm.name: arm for arm in plan.arms}
    for arm in request.only:
        if arm not in arms:
            raise UsageFault(
                "benchmark.only-arm-unknown", f"--only {arm}: expected among: {', '.join(arms)}"
            )
    chosen = [a for a in plan.arms if (a.name in request.only if request.only else not a.optional)]
    commands = PaperCommands(plan, request, home)
    trained = plan.hosts_for(request.kind, tuple(request.host))
    commands.check_settings(trained)
    assert commands.source is not None
    say = request.reporter.say
    seeds = request.seed if isinstance(request.seed, tuple) else (request.seed,)
    table = PaperTableRun(commands, trained, chosen, seeds, say)
    commands.check_growth(table.generators)
    return table
