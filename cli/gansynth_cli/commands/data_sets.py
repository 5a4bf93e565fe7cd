"""``gansynth import``, ``prepare`` and ``splits``: commands that a host has for its data sets."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gansynth.runtime.errors import GansynthError, describe_error
from gansynth_cli.common import (
    Output,
    again,
    examples,
    read_option,
    root_option,
    seed_option,
    set_option,
    subjects_option,
    table,
    then,
    with_output,
)
from gansynth_cli.results import generator_for, show_report


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
def import_(
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
    from gansynth.core.host_commands import ImportRequest
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest
    from gansynth.data.api import find_kind

    with describe_error("--data", "import"):
        to = SourceRequest.parse(target)
    source = source if ":" in source else find_kind(source, root)
    options = {"subjects": subjects, "fold": fold, "read": read, "root": root}
    reading = {key: value for key, value in options.items() if value}
    request = ImportRequest(source, reading, to.where, folds, seed, out.reporter)
    show_report(installed().run("import", to.kind, request, settings), out)


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
def prepare(
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
    from gansynth.core.host_commands import PrepareRequest
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest

    request = SourceRequest.parse(data, plans=plans, subjects=subjects, root=root)
    asked = PrepareRequest(request, configurations, processes, force, out.reporter)
    show_report(installed().run("prepare", request.kind, asked, settings), out)


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
def splits(
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
    from gansynth.core.host_commands import SplitsRequest
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source

    request = SourceRequest.parse(data, subjects=subjects, root=root)
    splits = installed().run("splits", request.kind, SplitsRequest(request, folds, seed, force), {})
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
