"""``gansynth import``: copy a data set into a host framework's own layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gansynth.errors import UsageFault
from gansynth_cli.common import (
    Output,
    counting,
    examples,
    nnunet_request,
    read_option,
    root_option,
    subjects_option,
    summary,
    with_output,
)
from gansynth_cli.results import lines_of_import


@click.command(
    epilog=examples(
        "gansynth import msd:Task04_Hippocampus nnunet:004",
        "gansynth import slices:nifti:cases.csv yolo:OUT --read boxes=tumour:1+2+4 "
        "--read channels=T1c",
    )
)
@click.argument("source", metavar="msd:FOLDER|slices:KIND:WHERE")
@click.argument("target", metavar="nnunet:ID|yolo:FOLDER")
@subjects_option
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Folds of nnunet:; 5 unless said. For yolo: say --read folds=N.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Deals out the subjects; of yolo: draws the backgrounds that are kept.",
)
@click.option(
    "--fold", help="Of yolo: the fold whose training volumes are train, others val; 0 unless said."
)
@click.option(
    "--bits", type=click.Choice(["8", "16"]), help="Of yolo: bits of a pixel; 8 unless said."
)
@click.option(
    "--backgrounds",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Of yolo: share of training slices without a box that is kept; 1 unless said.",
)
@read_option
@root_option
@with_output
def command(
    source: str,
    target: str,
    subjects: str | None,
    folds: int | None,
    seed: int,
    fold: str | None,
    bits: str | None,
    backgrounds: float | None,
    read: Mapping[str, str],
    root: str | None,
    out: Output,
) -> None:
    """Copy a data set into a host framework's own layout, with folds.

    msd: to nnunet: every file is read to its checksum before it is taken over. Run again after an
    interruption, it goes on where it stopped. Without --subjects, FOLDER/subjects.csv is taken if
    there is one, else every case is a subject of its own.

    slices: to yolo: each slice becomes a grey PNG file, all by one window, with the boxes of
    --read boxes= in a label file, empty for a background. The folder appears when it is complete.
    """
    kind, _, folder = source.partition(":")
    if target.startswith("yolo:"):
        if folds is not None:
            raise UsageFault(f"--folds {folds}: is for nnunet:; say --read folds={folds}")
        asked = {"subjects": subjects, "fold": fold or "0", "read": read, "root": root}
        _import_slices(source, target, asked, int(bits or 8), backgrounds, seed, out)
        return
    given = {"--fold": fold, "--bits": bits, "--backgrounds": backgrounds, "--read": read or None}
    for option, value in given.items():
        if value is not None:
            raise UsageFault(f"{option}: is for slices:KIND:WHERE yolo:FOLDER; leave it out")
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
            folds=folds or 5,
            seed=seed,
            progress=progress,
        )
    document = vars(report)
    if report.subjects == report.cases:
        out.reporter.warn("every case is a subject of its own; name subjects with --subjects")
    out.result(document, lines_of_import(document, target))


def _import_slices(
    text: str,
    target: str,
    asked: Mapping[str, Any],
    bits: int,
    backgrounds: float | None,
    seed: int,
    out: Output,
) -> None:
    from gansynth.registry import installed
    from gansynth.sources.base import SourceRequest
    from gansynth.sources.reading import refuse_idle_read
    from gansynth_yolo.import_slices import VOLUMES, import_slices

    folder = target.partition(":")[2]
    if not folder:
        raise UsageFault(f"{target!r}: expected yolo:FOLDER, a folder to write")
    request = SourceRequest.parse(text, **asked)
    refuse_idle_read(request, request.read)
    source = installed().open_source(request)
    with counting(out.reporter, "import") as progress:
        report = import_slices(
            source,
            Path(folder),
            bits=bits,
            backgrounds=1.0 if backgrounds is None else backgrounds,
            seed=seed,
            progress=progress,
        )
    data = Path(folder) / "data.yaml"
    document = {**vars(report), "data": str(data)}
    told = [*summary(document), f"--data yolo:{data} --read volumes='{VOLUMES}'"]
    out.result(document, told)
