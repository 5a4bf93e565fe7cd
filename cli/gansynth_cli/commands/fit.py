"""``gansynth fit``: fit a generator on the training cases of one fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.errors import UsageFault
from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    edit_option,
    examples,
    set_option,
    summary,
    table,
    with_output,
    with_source,
)

if TYPE_CHECKING:
    from gansynth.sources.base import SourceRequest

COLUMNS = ("run", "train_cases", "steps", "seconds", "kept")
"""Of a recipe's sets, once they are fitted."""


@click.command(
    epilog=examples(
        "gansynth fit cgan3d --data nnunet:004 -c 3d_fullres -o runs/g0 --fit-memory 16GB",
        "gansynth fit dcgan --recipe han2018-wgan --data nifti:brats -o runs/han --only Concat-64",
    )
)
@click.argument("generator", metavar="NAME")
@with_source
@click.option("-o", "--out", "run", required=True, type=FOLDER, help="Folder of the new run.")
@click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME",
    help="Fit what a paper fitted, all its sets: a name, or a YAML file.",
)
@click.option("--only", multiple=True, metavar="SET", help="A recipe's set; may be repeated.")
@click.option("--scale", metavar="NAME", help="The recipe's settings for another amount of work.")
@edit_option
@set_option
@device_option
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on where the run in this folder stopped, if there is one.",
)
@click.option(
    "--fit-memory",
    metavar="SIZE",
    help="Choose patch, width and checkpointing by measurement, to stay within it (16GB).",
)
@click.option(
    "--init-from",
    type=FOLDER,
    metavar="RUN",
    help="Start from another run's weights; what it has seen counts as seen.",
)
@click.option(
    "--per-channel",
    is_flag=False,
    flag_value="each",
    metavar="[GROUPS]",
    help="One model per image channel, or per group of them: T1,T2+FLAIR.",
)
@click.option(
    "--per-class",
    is_flag=False,
    flag_value="each",
    metavar="[GROUPS]",
    help="One model per class of cases, or for some: cyst,metastasis+haemangioma.",
)
@click.option(
    "--with-mask",
    is_flag=True,
    help="Draw label maps with the images, for generators that draw from noise (dcgan).",
)
@click.option(
    "--log",
    "log",
    multiple=True,
    metavar="NAME",
    help="Log to tensorboard, wandb or mlflow too, in the run folder; may be repeated.",
)
@dry_run_option
@with_output
def command(
    generator: str,
    request: SourceRequest,
    run: Path,
    recipe_name: str | None,
    only: tuple[str, ...],
    scale: str | None,
    edits: tuple[str, ...],
    settings: dict[str, str],
    device: str,
    resume: bool,
    fit_memory: str | None,
    init_from: Path | None,
    per_channel: str | None,
    per_class: str | None,
    with_mask: bool,
    log: tuple[str, ...],
    dry_run: bool,
    out: Output,
) -> None:
    """Fit a generator on the training cases of one fold.

    NAME is a registered generator (see: gansynth plugins), or the YAML file of a chain of them. No
    generator sees held-out cases; they are opened only to make sure that --init-from has not seen
    them. The run folder holds the resolved settings, the lineage, checkpoints and metrics, and can
    be moved.
    """
    from functools import partial

    from gansynth.composite_fit import fit_composite
    from gansynth.composite_spec import asked_for
    from gansynth.fitting import fit
    from gansynth.loggers import check_loggers
    from gansynth.measuring import parse_bytes

    check_loggers(log)
    if with_mask:
        settings.setdefault("with_mask", "yes")
    parts = asked_for(generator, per_channel, per_class)
    if recipe_name is not None:
        begin = by_recipe(recipe_name, generator, parts is not None, only, scale)
    elif only or scale:
        raise UsageFault("--only and --scale are a recipe's: expected --recipe NAME with them")
    else:
        begin = partial(fit, generator) if parts is None else partial(fit_composite, parts)
    report: dict[str, Any] = begin(
        request,
        run,
        settings=settings,
        edits=edits or None,
        device=device,
        memory=None if fit_memory is None else parse_bytes(fit_memory),
        init_from=init_from,
        resume=resume,
        dry_run=dry_run,
        log=log,
        reporter=out.reporter,
    )
    if report:  # of several processes, the first one speaks for all
        out.result(report, lines_of_sets(report) if "sets" in report else summary(report))


def by_recipe(
    name: str, generator: str, composite: bool, only: tuple[str, ...], scale: str | None
) -> Callable[..., dict[str, Any]]:
    """What fits a recipe, but for the arguments that it shares with ``fit``.

    Raises:
        UsageFault: no such recipe, or it is asked for as a composite run.
    """
    from functools import partial

    from gansynth.recipe_fit import fit_recipe
    from gansynth.recipes import find_recipe

    if composite:
        raise UsageFault(
            f"--recipe {name}: says itself what its runs are; leave out --per-channel and "
            "--per-class, and name a generator, not a chain's file"
        )
    return partial(fit_recipe, find_recipe(name), generator, only=only, scale=scale)


def lines_of_sets(report: Mapping[str, Any]) -> list[str]:
    """A table with a row for each set of a recipe."""
    dry = report.get("dry_run", False)
    columns = ("train_cases", "steps", "estimated_hours") if dry else COLUMNS
    rows = [("set", *columns, *(["paper_hours"] if dry else []))]
    for name, found in report["sets"].items():
        own = {**found, "steps": found.get("fit", found).get("steps")}
        row = [own.get(column) for column in columns]
        row += [found["paper"].get("hours")] if dry else []
        rows.append((name, *("-" if value is None else str(value) for value in row)))
    left_open = [f"left open by the paper: {sentence}" for sentence in report.get("open", ())]
    return [*table(rows), *left_open]
