"""``gansynth import``, ``prepare`` and ``splits``: commands that a host has for its data sets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from gansynth.core.requests.base import Request
from gansynth.core.requests.hosts import ImportRequest, PrepareRequest, SplitsRequest
from gansynth.runtime.errors import GansynthError
from gansynth_cli.common import Output, examples, summary, table, then
from gansynth_cli.requests import request_command
from gansynth_cli.results import then_fit, then_prepare

if TYPE_CHECKING:
    from gansynth.core.source import FoldSplit
    from gansynth.hosts.data_sets.data_commands import CommandReport


def show_report(request: Request, report: CommandReport, out: Output) -> None:
    """Print the report of a framework's command, and the next command."""
    from gansynth.hosts.deciding.suggestion import Suggestion, suggested_generator
    from gansynth.sampling.run_source import open_source

    lines = ["imported already: the same files are there"] if report.already else []
    lines += list(report.lines) or summary(report.document)
    if report.fits is not None:
        suggested = Suggestion("parametric")
        with suppress(GansynthError):  # what no fit reads, such as an export of samples
            suggested = suggested_generator(open_source(replace(report.fits, fold="all")))
        lines += then_fit(suggested, report.fits)
    elif report.prepares is not None:
        lines.append(then_prepare(report.prepares))
    elif report.then:
        lines.append(then(*report.then))
    out.result(report.document, lines)


import_ = request_command(
    ImportRequest,
    "gansynth.hosts.data_sets.data_commands:report_import",
    show_report,
    epilog=examples(
        "gansynth import scans/ nnunet:004",
        "gansynth import slices:nifti:cases.csv yolo:OUT --read boxes=tumour:1+2+4 "
        "--read channels=T1c --set bits=16",
    ),
)
prepare = request_command(
    PrepareRequest,
    "gansynth.hosts.data_sets.data_commands:report_preparation",
    show_report,
    epilog=examples(
        "gansynth prepare nnunet:004 -c 3d_fullres",
        "gansynth prepare nnunet:004 -c 2d -c 3d_fullres --set small=yes --set patch=40x56x40",
    ),
)


def show_splits(request: SplitsRequest, splits: Sequence[FoldSplit], out: Output) -> None:
    """Print the sizes of the folds, and the next command."""
    from gansynth.hosts.deciding.one_command import open_suited
    from gansynth.hosts.deciding.suggestion import suggested_generator

    rows = [
        (f"fold {fold}", f"{len(split['train'])} training", f"{len(split['val'])} validation")
        for fold, split in enumerate(splits)
    ]
    data = replace(request.request, subjects=None)  # which are stored beside the folds now
    try:
        source = open_suited(data)
        found = replace(source.request, where=data.where)
        following = then_fit(suggested_generator(source), found, fold="0")
    except GansynthError:  # raw cases
        following = [then_prepare(data)]
    out.result({"dataset": request.data, "splits": splits}, [*table(rows), *following])


splits = request_command(
    SplitsRequest,
    "gansynth.hosts.data_sets.data_commands:run_splits",
    show_splits,
    epilog=examples(
        "gansynth splits nnunet:004 --subjects subjects.csv",
        r"gansynth splits nnunet:004 --subjects '(patient\d+)_' --folds 3 --force",
    ),
)
