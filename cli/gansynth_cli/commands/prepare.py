"""``gansynth prepare``: plan and preprocess a data set with its target framework."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gansynth_cli.common import (
    Output,
    examples,
    root_option,
    set_option,
    subjects_option,
    with_output,
)
from gansynth_cli.results import show_report


@click.command(
    epilog=examples(
        "gansynth prepare nnunet:004 -c 3d_fullres",
        "gansynth prepare nnunet:004 -c 2d -c 3d_fullres --set small=yes --set patch=40x56x40",
    )
)
@click.argument("data", metavar="HOST:WHERE")
@click.option(
    "-c",
    "--configuration",
    "configurations",
    multiple=True,
    help="Configuration to preprocess; may be repeated. [default: the target's, e.g. 3d_fullres]",
)
@click.option("--plans", help="Name of the framework's plans; its default if not given.")
@set_option
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Number of workers.",
)
@click.option("--force", is_flag=True, help="Repeat finished steps.")
@subjects_option
@root_option
@with_output
def command(
    data: str,
    configurations: tuple[str, ...],
    plans: str | None,
    settings: Mapping[str, str],
    processes: int,
    force: bool,
    subjects: str | None,
    root: str | None,
    out: Output,
) -> None:
    """Plan and preprocess a data set with its target framework.

    The data set is checked first. Finished steps are not repeated.

    With nnunet, --set small=yes adds plans for a small network (CPUs, trials) on the same
    preprocessed cases. nnU-Net's plans stay unchanged. Further settings: gansynth options nnunet.
    """
    from gansynth.core.host_commands import PrepareRequest, run_command
    from gansynth.core.source import SourceRequest

    request = SourceRequest.parse(data, plans=plans, subjects=subjects, root=root)
    asked = PrepareRequest(request, configurations, processes, force, out.reporter)
    show_report(run_command("prepare", request.kind, asked, settings), out)
