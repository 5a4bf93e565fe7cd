"""``gansynth fit``: fit a generator on the training cases of one fold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    edit_option,
    examples,
    set_option,
    summary,
    with_output,
    with_source,
)

if TYPE_CHECKING:
    from gansynth.sources.base import SourceRequest


@click.command(
    epilog=examples(
        "gansynth fit cgan3d --data nnunet:004 -c 3d_fullres --fold 0 -o runs/g0",
        "gansynth fit cgan3d --data nnunet:004 -c 3d_fullres -o runs/g0 --set steps=500 --dry-run",
    )
)
@click.argument("generator", metavar="NAME")
@with_source
@click.option("-o", "--out", "run", required=True, type=FOLDER, help="Folder of the new run.")
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
@dry_run_option
@with_output
def command(
    generator: str,
    request: SourceRequest,
    run: Path,
    edits: tuple[str, ...],
    settings: dict[str, str],
    device: str,
    resume: bool,
    fit_memory: str | None,
    dry_run: bool,
    out: Output,
) -> None:
    """Fit a generator on the training cases of one fold.

    NAME is a registered generator (see: gansynth plugins). Held-out cases are never opened. The run
    folder holds the resolved settings, the lineage, checkpoints and metrics, and can be moved.
    """
    from gansynth.fitting import fit
    from gansynth.measuring import parse_bytes

    report: dict[str, Any] = fit(
        generator,
        request,
        run,
        settings=settings,
        edits=edits or None,
        device=device,
        memory=None if fit_memory is None else parse_bytes(fit_memory),
        resume=resume,
        dry_run=dry_run,
        reporter=out.reporter,
    )
    out.result(report, summary(report))
