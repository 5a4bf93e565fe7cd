"""``gansynth splits``: write folds so that no subject is split."""

from __future__ import annotations

import click

from gansynth.runtime.errors import GansynthError
from gansynth_cli.common import (
    Output,
    again,
    examples,
    root_option,
    seed_option,
    subjects_option,
    table,
    then,
    with_output,
)
from gansynth_cli.results import generator_for


@click.command(
    epilog=examples(
        "gansynth splits nnunet:004 --subjects subjects.csv",
        r"gansynth splits nnunet:004 --subjects '(patient\d+)_' --folds 3 --force",
    )
)
@click.argument("data", metavar="HOST:WHERE")
@subjects_option
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Number of folds."
)
@seed_option("Seeds the split of subjects into folds.")
@click.option("--force", is_flag=True, help="Replace a different split; the old one is kept.")
@root_option
@with_output
def command(
    data: str,
    subjects: str | None,
    folds: int,
    seed: int,
    force: bool,
    root: str | None,
    out: Output,
) -> None:
    """Write folds so that no subject is in both training and validation.

    The subjects of all cases are stored beside the folds. Every later command uses them.
    """
    from gansynth.core.host_commands import SplitsRequest, run_command
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source

    request = SourceRequest.parse(data, subjects=subjects, root=root)
    splits = run_command("splits", request.kind, SplitsRequest(request, folds, seed, force), {})
    rows = [
        (f"fold {fold}", f"{len(split['train'])} training", f"{len(split['val'])} validation")
        for fold, split in enumerate(splits)
    ]
    how = ("--data", data, *again(root=root, fold="0"))
    try:
        following = then("fit", generator_for(open_source(request).schema), *how, "-o", "runs/g0")
    except GansynthError:  # raw cases
        following = then("prepare", data, *again(root=root))
    out.result({"dataset": data, "splits": splits}, [*table(rows), following])
