"""``gansynth check``: report what is wrong with a data set, file by file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import DataFault
from gansynth_cli.common import (
    FOLDER,
    Output,
    again,
    device_option,
    examples,
    read_option,
    root_option,
    subjects_option,
    table,
    then,
    with_output,
    with_samples,
)
from gansynth_cli.help import GroupedCommand
from gansynth_cli.results import generator_for

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest


@click.command(
    cls=GroupedCommand,
    epilog=examples(
        "gansynth check nnunet:004",
        "gansynth check --generator runs/g0",
    ),
)
@click.argument("data", metavar="KIND:WHERE|FOLDER", required=False)
@click.option(
    "--generator",
    type=FOLDER,
    metavar="RUN",
    help="Compare a handful of its samples with its training cases: will they harm?",
)
@click.option("--bank", type=FOLDER, help="Compare samples of this bank with the data set's cases.")
@with_samples("Seeds labels and latents.", classes=True, read=dict)
@device_option
@subjects_option
@read_option
@root_option
@with_output
def command(
    data: str | None,
    subjects: str | None,
    read: Mapping[str, str],
    root: str | None,
    samples: Mapping[str, Any],
    out: Output,
    **words: Any,
) -> None:
    """Report what is wrong with a data set, file by file, or with samples.

    The kind of a folder or file is found, if only one can open it. Every file is read completely.
    Commands refuse a data set with errors, not one with warnings. Exit code 3 if there are errors.

    Samples are compared with training cases in units, in number, size and sign of contrast of
    lesions. Nothing is refused: the lines say what differs.
    """
    from gansynth.data.api import find_kind, source_request
    from gansynth.evaluation.check import check

    found = data if data is None or ":" in data else find_kind(data, root)
    words |= {"subjects": subjects, "read": read, "root": root, "quiet": out.quiet}
    checked = check(found, **words, **samples)
    name, findings = checked.name, checked.findings
    errors = sum(finding.level == "error" for finding in findings)
    document = {
        "dataset": name,
        "cases": checked.cases,
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": [vars(finding) for finding in findings],
        **({"will_it_harm": checked.will_it_harm} if checked.will_it_harm else {}),
    }
    verdict = (
        f"{name}: {checked.cases} cases, {errors} error(s), {len(findings) - errors} warning(s)"
    )
    lines = [*table((f.level, f.message) for f in findings), *([verdict] if found else [])]
    lines += checked.will_it_harm.get("lines", ())
    if found and not errors:
        request = source_request(found, subjects=subjects, read=read, root=root)
        lines += _contents(request)
    out.result(document, lines)
    if errors:  # they come first
        raise DataFault(f"{name}: {errors} error(s), expected none; first: {findings[0].message}")


def _contents(request: SourceRequest) -> Iterator[str]:
    """Yield what a data set without errors holds, and the next command."""
    from gansynth.core.registry import installed
    from gansynth.runtime.errors import GansynthError
    from gansynth.sampling.run_source import open_source

    named = f"{request.kind}:{request.where}"
    logging.disable(logging.WARNING)  # the findings have said it
    try:
        source = open_source(request)
        schema = source.schema
    except GansynthError as fault:
        if request.kind in installed().hosts("prepare") and isinstance(fault, DataFault):
            how = again(subjects=request.subjects, root=request.root)
            yield then("prepare", named, *how)
        return
    finally:
        logging.disable(logging.NOTSET)
    labels = [name for name, value in schema.labels.items() if value > 0]
    kinds = {"channels": schema.channels, "labels": labels, "boxes": schema.box_classes}
    yield "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    configuration = source.request.configuration
    how = again(source.request.read, subjects=request.subjects, root=request.root)
    of = ("-c", configuration) if configuration else ()
    yield then("fit", generator_for(schema), "--data", named, *of, *how, "-o", "runs/g0")
