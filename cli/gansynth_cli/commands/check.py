"""``gansynth check``: say what is wrong with a data set, file by file."""

from __future__ import annotations

import click

from gansynth.errors import DataFault
from gansynth_cli.common import (
    Output,
    counting,
    examples,
    nnunet_request,
    root_option,
    subjects_option,
    table,
    with_output,
)


@click.command(
    epilog=examples(
        "gansynth check nnunet:004",
        "gansynth check nnunet:004 --subjects subjects.csv --json",
    )
)
@click.argument("data", metavar="KIND:WHERE")
@subjects_option
@root_option
@with_output
def command(data: str, subjects: str | None, root: str | None, out: Output) -> None:
    """Say what is wrong with a data set, file by file.

    Every file is read to its last byte. Errors stop gansynth prepare, warnings do not. Exit code 3
    if there are errors.
    """
    request = nnunet_request(data, "check")
    from gansynth_nnunet.check import check_raw, raw_cases
    from gansynth_nnunet.paths import NnunetRoot

    folders = NnunetRoot.find(root)
    name = folders.dataset(request.where)
    with counting(out.reporter, "check") as progress:
        findings = check_raw(folders, name, subjects=subjects, progress=progress)
    errors = sum(finding.level == "error" for finding in findings)
    cases = len(raw_cases(folders.raw / name).images)
    document = {
        "dataset": name,
        "cases": cases,
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": [vars(finding) for finding in findings],
    }
    verdict = f"{name}: {cases} cases, {errors} error(s), {len(findings) - errors} warning(s)"
    out.result(document, [*table((f.level, f.message) for f in findings), verdict])
    if errors:  # they come first
        raise DataFault(f"{name}: {errors} error(s), expected none; first: {findings[0].message}")
