"""``gansynth benchmark``: arms x training subsets x seeds, paired statistics, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import click

from gansynth_cli.common import (
    FILE,
    FOLDER,
    Hint,
    Output,
    dry_run_option,
    examples,
    executor_option,
    table,
    with_output,
)
from gansynth_cli.help import with_needs


@click.command(
    epilog=examples(
        "gansynth benchmark plan.yaml --dry-run",
        "gansynth benchmark plan.yaml --test-set --executor local:2 -o results/gain",
    )
)
@with_needs({"no_probe": "dry_run", "again": "sealed"})
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--data", metavar="KIND:WHERE", help="Cases to use instead of those in the plan.")
@click.option(
    "-o",
    "--out",
    "output",
    type=FOLDER,
    metavar="DIR",
    help="Results. [default: runs/benchmarks/NAME]",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME",
    help="Run this experiment arm only; may be repeated.",
)
@click.option("--test-set", "sealed", is_flag=True, help="Evaluate on the sealed test set, once.")
@click.option(
    "--reopen-test-set",
    "again",
    default="",
    metavar="REASON",
    help="Access the sealed test set although another plan has; every report will show it.",
)
@executor_option
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="results.json with trainings to reuse; may be repeated.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    help="Show the worst cases in the report (default), or keep patients' images out of it.",
)
@click.option("--no-probe", is_flag=True, help="Dry run: do not measure how long a training takes.")
@dry_run_option
@with_output
def command(
    plan_file: Path,
    data: str | None,
    output: Path | None,
    dry_run: bool,
    no_probe: bool,
    out: Output,
    **how: Any,
) -> None:
    """Measure whether samples help, by how much, and how certain that is.

    Every experiment arm of a plan trains the target framework on several training subsets. The
    same command resumes after an interruption, or adds new seeds of the plan. Finished trainings
    are kept. A training that fails is named in the report, and tried again next time.
    """
    from gansynth.benchmark.plan_file import read_plan
    from gansynth.benchmark.running import BenchmarkRequest, run_benchmark

    plan = read_plan(plan_file, data)
    folder = output or Path("runs") / "benchmarks" / plan.name
    request = BenchmarkRequest(file=plan_file, folder=folder, **how)
    if dry_run:
        from gansynth.benchmark.estimate import estimate, lines_of_estimate

        estimated = estimate(plan, request, probe=not no_probe, reporter=out.reporter)
        out.result(estimated, lines_of_estimate(estimated))
        return
    document, files, report = run_benchmark(plan, request, quiet=out.quiet)
    paths = {name: str(path) for name, path in files.items()}
    for warning in document["warnings"]:
        out.reporter.warn(warning)
    out.result({**_short(document), "files": paths}, _lines(document, paths))
    report.raise_if_failed()


def _short(document: Mapping[str, Any]) -> dict[str, Any]:
    runs = [{k: v for k, v in run.items() if k != "scores"} for run in document["runs"]]
    return {**document, "runs": runs}


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.benchmark.report.study import ReportData, ends_of
    from gansynth.benchmark.subject_split import DEVELOPMENT
    from gansynth.metrics.segmentation.measures import NO_CASE
    from gansynth.report.numbers import NOTHING, probability

    yield document["verdict"]["sentence"]
    study = ReportData(document)
    rows: list[tuple[object, ...]] = [
        ("arm", "N", "measure", "difference", "95 % interval", "p (Holm)", "detectable")
    ]
    for arm, n, (key, show) in product(study.others, study.sizes, study.beside().items()):
        node = study.entry("comparisons", arm.key, n, key)
        if node:
            low, high = map(show.difference, ends_of(node))
            numbers = (probability(node["p_holm"]), show.size(node["mde"]))
            span = "too small a design" if low == NOTHING else f"{low} to {high}"
            change = show.difference(node["difference"])
            if change == NOTHING:
                span = NO_CASE if key.startswith("false_alarms") else NOTHING
            rows.append((arm.key, n, f"{show.title}, {show.unit}", change, span, *numbers))
    if len(rows) > 1:
        yield from ("", *table(rows), "")
    yield f"report: {files['report.html']}"
    if missing := sum(run["status"] != "done" for run in document["runs"]):
        yield Hint(f"next: the same command again; {missing} trainings have no result yet")
    elif document["look"]["split"] == DEVELOPMENT:
        yield Hint("next: the same command with --test-set, once the plan is final")
