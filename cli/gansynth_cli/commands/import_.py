"""``gansynth import``: copy a data set into a host framework's own layout."""

from __future__ import annotations

import click

from gansynth.errors import UsageFault
from gansynth_cli.common import (
    Output,
    counting,
    examples,
    nnunet_request,
    root_option,
    subjects_option,
    summary,
    with_output,
)


@click.command(
    epilog=examples(
        "gansynth import msd:Task04_Hippocampus nnunet:004",
        "gansynth import msd:Task04_Hippocampus nnunet:004 --subjects subjects.csv --root nnunet/",
    )
)
@click.argument("source", metavar="msd:FOLDER")
@click.argument("target", metavar="nnunet:ID")
@subjects_option
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Folds.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Deals out the subjects.",
)
@root_option
@with_output
def command(
    source: str,
    target: str,
    subjects: str | None,
    folds: int,
    seed: int,
    root: str | None,
    out: Output,
) -> None:
    """Copy a data set into a host framework's own layout, with folds.

    Every file is read to its checksum before it is taken over. Run again after an interruption, it
    goes on where it stopped. Without --subjects, FOLDER/subjects.csv is taken if there is one, else
    every case is a subject of its own.
    """
    kind, _, folder = source.partition(":")
    if kind != "msd" or not folder:
        raise UsageFault(f"{source!r}: expected msd:FOLDER, the only kind imported so far")
    request = nnunet_request(target, "import msd:FOLDER")
    from gansynth_nnunet.msd import import_msd
    from gansynth_nnunet.paths import NnunetRoot

    with counting(out.reporter, "import") as progress:
        report = import_msd(
            folder,
            NnunetRoot.find(root),
            request.where,
            subjects=subjects,
            folds=folds,
            seed=seed,
            progress=progress,
        )
    document = vars(report)
    if report.subjects == report.cases:
        out.reporter.warn("every case is a subject of its own; name subjects with --subjects")
    out.result(document, summary(document))
