"""``gansynth papers``: reproduce a paper's table, with its numbers beside ours."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault
from gansynth_cli.common import (
    FOLDER,
    Hint,
    Output,
    dry_run_option,
    examples,
    pairs_option,
    read_option,
    root_option,
    subjects_option,
    with_option,
    with_output,
)
from gansynth_cli.help import with_needs

if TYPE_CHECKING:
    from gansynth.benchmark.papers.table_run import PaperTableRun


@click.command(
    epilog=examples(
        "gansynth papers shin2018 --data nifti:brats/ --extra-source tissues=nifti:tissues/ "
        "--dry-run",
        "gansynth papers han2019-cpggan --data yolo:data.yaml -o papers/han2019",
    )
)
@with_needs({"name": "folder"})
@click.argument("plan", metavar="RECIPE|PLAN.yaml")
@click.option("--data", required=True, metavar="KIND:WHERE", help="Cases, e.g. nifti:brats/.")
@with_option
@read_option
@click.option("--fold", default="0", show_default=True, help="Fold of the data.")
@subjects_option
@root_option
@click.option("--scale", help="A scale of the plan, e.g. tiny. [default: the paper's]")
@click.option(
    "--seed", "seeds", type=int, multiple=True, default=(0,), help="May be repeated. [default: 0]"
)
@click.option(
    "--only",
    "arms",
    multiple=True,
    metavar="ARM",
    help="Run this experiment arm only; may be repeated.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Use this framework only; may be repeated.",
)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps of every arm.")
@click.option(
    "--epochs", type=click.FloatRange(0, min_open=True), help="Epochs of the frameworks, instead."
)
@pairs_option(
    "--fit-set", "fit_set", "steps=200", "Change one setting of the generators; may be repeated."
)
@pairs_option(
    "--host-set", "host_set", "steps=200", "Change one setting of the frameworks; may be repeated."
)
@click.option("--regions", default="", help="Regions of other labels: WT:1+2+3,TC:2+3,ET:3.")
@dry_run_option
@click.option("-o", "--out", "folder", type=FOLDER, help="Keep everything here, to resume later.")
@click.option(
    "--name", help="Name of the results, NAME.json in the folder. [default: papers_RECIPE]"
)
@with_output
def command(
    plan: str,
    arms: tuple[str, ...],
    hosts: tuple[str, ...],
    seeds: tuple[int, ...],
    dry_run: bool,
    folder: Path | None,
    name: str | None,
    out: Output,
    **request: Any,
) -> None:
    """Reproduce a paper's table, with its numbers beside ours.

    Documented commands fit the recipe and train the experiment arms. All arms of a framework
    train for equally many optimiser steps. They are evaluated on real held-out cases. --dry-run
    prints the commands and the paper's table. Without -o only the table is left.
    """
    from gansynth.benchmark.papers.table_run import papers, write

    with ExitStack() as stack:
        home = folder or (Path("papers") / Path(plan).stem if dry_run else None)
        scratch = home is None and stack.enter_context(tempfile.TemporaryDirectory())
        home = home or Path(str(scratch))
        table = _table(plan, arms, hosts, seeds, home if dry_run else home.absolute(), request, out)
        if dry_run:
            lines = [f"gansynth {shlex.join(words)}" for words in table.listed()]
            cost = "time and memory: not known here; use --dry-run of each command"
            document = {
                "dry_run": True,
                "commands": lines,
                "papers": papers(table.plan),
                "cost": cost,
            }
            out.result(document, [*lines, "", *table.lines(), cost])
            return
        table.run()
        file = write(table, name or f"papers_{table.plan.name.replace('-', '_')}", _typed())
        document = table.document()
        keep = Hint("next: the same with -o DIR keeps runs and results")
        paths = [keep] if folder is None else [f"results: {file}"]
        out.result(document, [*table.lines(), *paths])


def _typed() -> str:
    import sys

    from gansynth.benchmark.papers.commands import bare

    return shlex.join(["gansynth", *map(bare, sys.argv[1:])])


def _table(
    name: str,
    arms: tuple[str, ...],
    hosts: tuple[str, ...],
    seeds: tuple[int, ...],
    home: Path,
    request: Mapping[str, Any],
    out: Output,
) -> PaperTableRun:
    from gansynth.benchmark.papers.commands import PaperArguments, PaperCommands
    from gansynth.benchmark.papers.plan import find_plan
    from gansynth.benchmark.papers.table_run import PaperTableRun

    plan = find_plan(name)
    if request["steps"] is not None and request["epochs"] is not None:
        raise UsageFault("--steps and --epochs: expected one of them; leave one out")
    arms_by_name = {arm.name: arm for arm in plan.arms}
    for arm in arms:
        if arm not in arms_by_name:
            raise UsageFault(f"--only {arm}: expected among: {', '.join(arms_by_name)}")
    chosen = [arm for arm in plan.arms if (arm.name in arms if arms else not arm.optional)]
    settings = {"fit": request["fit_set"], "host": request["host_set"]}
    options = {key: value for key, value in request.items() if key not in ("fit_set", "host_set")}
    commands = PaperCommands(plan, PaperArguments(out=home, **options, **settings))
    trained = plan.hosts_for(commands.asked.kind, hosts)
    commands.check_settings(trained)
    assert commands.source is not None
    return PaperTableRun(commands, trained, chosen, seeds, out.reporter.say)
