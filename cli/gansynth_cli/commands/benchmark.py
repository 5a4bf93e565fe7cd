"""``gansynth benchmark``: arms x draws x seeds, paired statistics, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gansynth_cli.common import (
    FILE,
    FOLDER,
    Output,
    dry_run_option,
    examples,
    executor_option,
    table,
    with_output,
)
from gansynth_cli.typed import with_needs


@click.command(
    epilog=examples(
        "gansynth benchmark plan.yaml --dry-run",
        "gansynth benchmark plan.yaml --sealed --executor local:2 -o results/gain",
    )
)
@with_needs({"no_probe": "dry_run", "again": "sealed"})
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--data", metavar="KIND:WHERE", help="Other cases than the plan names.")
@click.option(
    "-o", "--output", type=FOLDER, metavar="DIR", help="Results. [default: runs/benchmarks/NAME]"
)
@click.option(
    "--arm", "arms", multiple=True, metavar="NAME", help="This one only; may be repeated."
)
@click.option("--sealed", is_flag=True, help="Judge on the sealed subjects, once.")
@click.option(
    "--look-again",
    "again",
    default="",
    metavar="REASON",
    help="Judge on them although another plan has; every report will show it.",
)
@executor_option
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="results.json whose trainings need not be done again; may be repeated.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    help="Show the worst cases in the report (default), or keep images of people out of it.",
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
    """Say whether it helps, by how much, and how sure that is.

    The host is trained by every arm of a plan, on several training sets. What is done is never
    done again: after an interruption, or with more seeds in the plan, the same command goes on. A
    training that fails is named in the report, and tried again next time.
    """
    from gansynth.benchmark.plan_file import read_plan
    from gansynth.benchmark.running import Asked, run_benchmark

    plan = read_plan(plan_file, data)
    folder = output or Path("runs") / "benchmarks" / plan.name
    asked = Asked(file=plan_file, folder=folder, **how)
    if dry_run:
        from gansynth.benchmark.estimate import estimate, lines_of_estimate

        estimated = estimate(plan, asked, probe=not no_probe, reporter=out.reporter)
        out.result(estimated, lines_of_estimate(estimated))
        return
    document, files, report = run_benchmark(plan, asked, quiet=out.quiet)
    told = {name: str(path) for name, path in files.items()}
    for warning in document["warnings"]:
        out.reporter.warn(warning)
    out.result({**_short(document), "files": told}, _lines(document, told))
    report.raise_if_failed()


def _short(document: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints: all but every single score."""
    runs = [{k: v for k, v in run.items() if k != "scores"} for run in document["runs"]]
    return {**document, "runs": runs}


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    """The verdict, a line for each comparison, and where to read on."""
    from gansynth.benchmark.division import DEVELOPMENT
    from gansynth.benchmark.report.study import Study

    yield document["verdict"]["sentence"]
    show = Study(document).show
    rows: list[tuple[object, ...]] = [
        ("arm", "N", f"{show.title}, {show.unit}", "95 % interval", "p (Holm)", "detectable")
    ]
    for row in document["comparisons"]:
        if row["measure"] == document["primary"]:
            numbers = (row["difference"], row["interval"]["low"], row["interval"]["high"])
            told, low, high = (f"{show.scale * v:+.2f}" if v is not None else "-" for v in numbers)
            p = "-" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
            mde = "-" if row["mde"] is None else f"{show.scale * row['mde']:.2f}"
            span = "too small a design" if low == "-" else f"{low} to {high}"
            rows.append((row["arm"], row["n"], told, span, p, mde))
    if len(rows) > 1:
        yield from ("", *table(rows), "")
    yield f"report: {files['report.html']}"
    if missing := sum(run["status"] != "done" for run in document["runs"]):
        yield f"next: the same command again; {missing} trainings have no result yet"
    elif document["look"]["split"] == DEVELOPMENT:
        yield "next: the same command with --sealed, once nothing is to be changed any more"
