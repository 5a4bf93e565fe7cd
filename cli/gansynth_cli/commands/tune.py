"""``gansynth tune``: choose generator, ratio and schedule by inner folds of the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    with_output,
)
from gansynth_cli.help import with_needs


@click.command(
    epilog=examples(
        "gansynth tune plan.yaml --executor local:2",
        "gansynth tune plan.yaml --size 12 --draw 1 -o runs/tune",
    )
)
@with_needs({"draw": "size"})
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--data", metavar="KIND:WHERE", help="Cases to use instead of those in the plan.")
@click.option(
    "-o", "--out", "output", type=FOLDER, metavar="DIR", help="Results. [default: runs/tune/NAME]"
)
@click.option(
    "--size",
    type=click.IntRange(min=2),
    metavar="N",
    help="Choose for a training set of N subjects. [default: all but those evaluated on]",
)
@click.option(
    "--draw", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the subset."
)
@executor_option
@dry_run_option
@with_output
def command(
    plan_file: Path,
    data: str | None,
    output: Path | None,
    dry_run: bool,
    out: Output,
    **how: Any,
) -> None:
    """Choose generator, ratio and schedule by inner folds, or none.

    Experiment arms of a plan are trained briefly on every inner fold, the better ones longer
    (successive halving). The answer is "not known, use none" unless an arm beats training on real
    cases alone by more than a standard error. Subjects that the plan evaluates on, sealed or not,
    are not read.
    """
    from gansynth.benchmark.plan_file import read_plan
    from gansynth.benchmark.tuning import TuningRequest, candidates, choose_arm, open_choice

    plan = read_plan(plan_file, data)
    request = TuningRequest(folder=output or Path("runs") / "tune" / plan.name, **how)
    if dry_run:
        spec, design = open_choice(plan, request)
        facts = {
            "dry_run": True,
            "data": design.source.name,
            "training_cases": len(spec.document["train"]),
            "candidates": list(candidates(plan)),
            "by": plan.judged_by,
            **plan.tune.model_dump(mode="json"),
            "time_and_memory": "not measured here; gansynth benchmark --dry-run measures a fit and "
            "a training of the plan",
        }
        out.result(facts, (f"{key}  {value}" for key, value in facts.items()))
        return
    document = choose_arm(plan, request, quiet=out.quiet)
    out.result(document, _lines(document))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"chosen: {document['chosen']}; {document['why']}"
    yield from (f"dropped: {arm}: {why}" for arm, why in document["dropped"].items())
    last = document["rungs"][-1]
    for key, values in {document["by"]: last["scores"], **last["beside"]}.items():
        told = (f"{arm} {'-' if v is None else f'{v:.4f}'}" for arm, v in values.items())
        rungs = len(document["rungs"])
        yield f"{key} on inner folds, at the last of {rungs} rungs: {', '.join(told)}"
    for arm, gain in document["gains"].items():
        yield f"{arm} against {document['compared_with']}: {gain['words']}"
    yield from (Hint(f"next: {line}") for line in document["use"])
