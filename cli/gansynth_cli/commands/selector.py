"""``gansynth selector``: fit what tells slices with foreground from those without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.errors import refuse_unknown
from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    examples,
    set_option,
    summary,
    with_output,
    with_source,
)

if TYPE_CHECKING:
    from gansynth.sources.base import SourceRequest


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "gansynth selector fit --data slices:nifti:labelled/ --read plane=sagittal -o sel/",
        "gansynth selector fit --data slices:nifti:labelled/ -o sel/ --dry-run",
    ),
)
@click.pass_context
def command(context: click.Context) -> None:
    """Choose slices with foreground where nobody has labelled any.

    A selector is a small classifier. It is fitted once, on labelled volumes; --read selector=FOLDER
    then has it choose among the slices of volumes without labels (docs/sources.md).
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command(
    "fit",
    epilog=examples(
        "gansynth selector fit --data slices:nifti:labelled/ --read plane=sagittal -o sel/",
        "gansynth selector fit --data slices:msd:Task01_BrainTumour --read channels=FLAIR "
        "--set steps=2000 -o sel/ --dry-run",
    ),
)
@with_source
@click.option("-o", "--out", "folder", required=True, type=FOLDER, help="The new folder.")
@set_option
@device_option
@dry_run_option
@with_output
def fit(
    request: SourceRequest,
    folder: Path,
    settings: dict[str, str],
    device: str,
    dry_run: bool,
    out: Output,
) -> None:
    """Fit a selector on the slices of a fold's labelled volumes.

    The slices of the held-out volumes choose its threshold, and say how good it is. Every volume of
    the fold counts as seen by it, and so by every generator whose slices it chooses.
    """
    from gansynth.selector import SelectorOptions
    from gansynth.selector_fit import fit_selector

    refuse_unknown(settings, SelectorOptions.model_fields, of="a selector")
    report: dict[str, Any] = fit_selector(
        request, folder, settings=settings, device=device, dry_run=dry_run, reporter=out.reporter
    )
    out.result(report, summary(report))
