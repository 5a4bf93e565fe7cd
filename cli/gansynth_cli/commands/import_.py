"""``gansynth import``: copy a data set into a host framework's own layout."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gansynth.runtime.errors import refuse_unknown, said_of
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
        "gansynth import msd:Task04_Hippocampus nnunet:004",
        "gansynth import slices:nifti:cases.csv yolo:OUT --read boxes=tumour:1+2+4 "
        "--read channels=T1c --set bits=16",
    )
)
@click.argument("source", metavar="KIND:WHERE")
@click.argument("target", metavar="HOST:WHERE")
@subjects_option
@click.option(
    "--folds", type=click.IntRange(min=2), help="Folds to write, of hosts that keep several."
)
@seed_option("Seeds every random choice: who is in which fold, which cases are kept.")
@click.option("-f", "--fold", help="Fold of the source, of hosts that keep one. [default: 0]")
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
    """Copy a data set into a host framework's own layout, with folds.

    msd:FOLDER to nnunet:ID: every file is read to its checksum before it is taken over. Run again
    after an interruption, it goes on where it stopped. Without --subjects, FOLDER/subjects.csv is
    taken if there is one, else every case is a subject of its own. Five folds unless --folds.

    slices:KIND:WHERE to yolo:FOLDER: each slice becomes a grey PNG file, all by one window, with
    the boxes of --read boxes= in a label file, empty for a background; the training volumes of
    --fold are train, the others val. --set bits=16, --set backgrounds=SHARE (of the training slices
    without a box, those to keep). The folder appears when it is complete.
    """
    from gansynth.core.adapter import ImportRequest
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest

    with said_of("--data", "import"):
        to = SourceRequest.parse(target)
    host = installed().adapter(to.kind)
    refuse_unknown(settings, host.ImportOptions.model_fields, of=f"import to {to.kind}")
    said = {"subjects": subjects, "fold": fold, "read": read, "root": root}
    reading = {key: value for key, value in said.items() if value}
    asked = ImportRequest(source, reading, to.where, folds, seed, settings, out.reporter)
    show_report(host.import_dataset(asked), out)
