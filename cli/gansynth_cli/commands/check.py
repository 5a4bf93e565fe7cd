"""``gansynth check``: report what is wrong with a data set, file by file."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gansynth.runtime.errors import DataFault
from gansynth_cli.common import (
    Output,
    again,
    examples,
    read_option,
    root_option,
    subjects_option,
    table,
    then,
    with_output,
)


@click.command(
    epilog=examples(
        "gansynth check nnunet:004",
        "gansynth check nifti:cases.csv --read spacing=1 --json",
    )
)
@click.argument("data", metavar="KIND:WHERE|FOLDER")
@subjects_option
@read_option
@root_option
@with_output
def command(
    data: str, subjects: str | None, read: Mapping[str, str], root: str | None, out: Output
) -> None:
    """Report what is wrong with a data set, file by file.

    The kind of a folder or file is found, if only one can open it. Every file is read completely.
    Commands refuse a data set with errors, not one with warnings. Exit code 3 if there are errors.
    """
    from gansynth.data.api import check

    checked = check(data, subjects=subjects, read=read, root=root, quiet=out.quiet)
    name, findings = checked.name, checked.findings
    errors = sum(finding.level == "error" for finding in findings)
    document = {
        "dataset": name,
        "cases": checked.cases,
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": [vars(finding) for finding in findings],
    }
    verdict = (
        f"{name}: {checked.cases} cases, {errors} error(s), {len(findings) - errors} warning(s)"
    )
    kind = checked.name.partition(":")[0]
    found = data if ":" in data else f"{kind}:{data}"
    how = again(read, subjects=subjects, root=root)
    fitted = then("fit", "cgan3d", "--data", found, *how, "-o", "runs/g0")
    lines = [*table((f.level, f.message) for f in findings), verdict]
    out.result(document, lines if errors else [*lines, fitted])
    if errors:  # they come first
        raise DataFault(f"{name}: {errors} error(s), expected none; first: {findings[0].message}")
