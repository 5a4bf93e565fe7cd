"""``gansynth prepare``: plan and preprocess a data set with its host framework."""

from __future__ import annotations

from typing import Any

import click

from gansynth_cli.common import (
    Output,
    examples,
    nnunet_request,
    root_option,
    stepping,
    subjects_option,
    summary,
    with_output,
)
from gansynth_cli.typed import with_needs


def _whole_numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r}: expected whole numbers of at least 1, e.g. 40,56,40")
    return numbers


@click.command(
    epilog=examples(
        "gansynth prepare nnunet:004 -c 3d_fullres",
        "gansynth prepare nnunet:004 -c 2d -c 3d_fullres --small --patch 40,56,40",
    )
)
@with_needs(
    dict.fromkeys(("patch", "batch_size", "features", "convolutions", "plans_name"), "small")
)
@click.argument("data", metavar="KIND:WHERE")
@click.option(
    "-c",
    "--configuration",
    "configurations",
    multiple=True,
    default=("3d_fullres",),
    show_default=True,
    help="Configuration to preprocess; may be repeated.",
)
@click.option("--plans", help="Name of the host's plans; its default if not given.")
@click.option("--small", is_flag=True, help="Also write plans for a small network (CPUs, trials).")
@click.option("--patch", callback=_whole_numbers, metavar="N,N,N", help="Small plans: voxels.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Small plans: cases per batch.")
@click.option(
    "--features", callback=_whole_numbers, metavar="N,N,...", help="Small plans: per stage."
)
@click.option(
    "--convolutions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Small plans: of each stage, at most.",
)
@click.option("--plans-name", help="Small plans: their name, for --plans later on.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Workers."
)
@click.option("--force", is_flag=True, help="Do again what is done.")
@subjects_option
@root_option
@with_output
def command(
    data: str,
    configurations: tuple[str, ...],
    plans: str | None,
    small: bool,
    patch: tuple[int, ...] | None,
    batch_size: int | None,
    features: tuple[int, ...] | None,
    convolutions: int | None,
    plans_name: str | None,
    processes: int,
    force: bool,
    subjects: str | None,
    root: str | None,
    out: Output,
) -> None:
    """Plan and preprocess a data set with its host framework.

    The data set is checked first. What is done already is not done again. --small adds plans for a
    small network on the same preprocessed cases; it changes nothing of the host's own.
    """
    request = nnunet_request(data, "prepare", plans=plans, subjects=subjects, root=root)
    asked: dict[str, Any] = {
        "patch_size": patch,
        "batch_size": batch_size,
        "features": features,
        "convolutions": convolutions,
        "name": plans_name,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    from gansynth_nnunet.prepare import SmallPlans, prepare

    with stepping(out.reporter) as progress:
        report = prepare(
            request,
            configurations,
            small=SmallPlans(**given) if small else None,
            num_processes=processes,
            progress=progress,
            force=force,
        )
    for finding in report.warnings:
        out.reporter.warn(finding.message)
    document = {**vars(report), "warnings": [vars(finding) for finding in report.warnings]}
    out.result(document, summary({**document, "warnings": len(report.warnings)}))
