"""``gansynth import``: copy a data set into the layout of a target framework."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gansynth.runtime.errors import describe_error
from gansynth_cli.common import (
    Output,
    examples,
    read_option,
    root_option,
    seed_option,
    set_option,
    subjects_option,
    with_output,
)
from gansynth_cli.results import show_report


@click.command(
    epilog=examples(
        "gansynth import scans/ nnunet:004",
        "gansynth import slices:nifti:cases.csv yolo:OUT --read boxes=tumour:1+2+4 "
        "--read channels=T1c --set bits=16",
    )
)
@click.argument("source", metavar="KIND:WHERE|FOLDER")
@click.argument("target", metavar="HOST:WHERE")
@subjects_option
@click.option(
    "--folds", type=click.IntRange(min=2), help="Folds to write, for frameworks with several."
)
@seed_option("Seeds every random choice: the folds, and which cases are kept.")
@click.option("-f", "--fold", help="Fold of the source, for frameworks with one. [default: 0]")
@read_option
@set_option
@root_option
@with_output
def command(
    source: str,
    target: str,
    subjects: str | None,
    folds: int | None,
    seed: int,
    fold: str | None,
    read: Mapping[str, str],
    settings: Mapping[str, str],
    root: str | None,
    out: Output,
) -> None:
    """Copy a data set into the layout of a target framework, with folds.

    To nnunet:ID: volumes (nifti, msd, nnunet-raw), pictures or slices. They are checked first, and
    the first error stops the import. NIfTI files of one channel are copied byte for byte. Folds
    and subjects are those of the source; the default is five folds.

    slices:KIND:WHERE to yolo:FOLDER: each slice becomes a grey PNG file, all with one window. Its
    label file has the boxes of --read boxes=, none for a background. The training volumes of --fold
    are train, the others val. The depth is --set bits=16. With --set backgrounds=SHARE, that share
    of the training slices without a box is kept. Either target appears when it is complete.
    """
    from gansynth.core.host_commands import ImportRequest, run_command
    from gansynth.core.source import SourceRequest

    with describe_error("--data", "import"):
        to = SourceRequest.parse(target)
    options = {"subjects": subjects, "fold": fold, "read": read, "root": root}
    reading = {key: value for key, value in options.items() if value}
    request = ImportRequest(source, reading, to.where, folds, seed, out.reporter)
    show_report(run_command("import", to.kind, request, settings), out)
