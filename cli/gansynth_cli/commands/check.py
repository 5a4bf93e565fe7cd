"""``gansynth check``: report what is wrong with a data set, file by file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.samples import CheckRequest
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth_cli.common import Output, examples, table
from gansynth_cli.requests import request_command
from gansynth_cli.results import then_fit, then_prepare, way_to_nnunet

BIDS = r"(sub-[A-Za-z0-9]+)_"
"""What names a person in names of files."""

if TYPE_CHECKING:
    from gansynth.core.source import CaseSource, CheckReport


def show(request: CheckRequest, checked: CheckReport, out: Output) -> None:
    """Print the findings, and raise if there are errors."""
    from gansynth.hosts.data_sets.sites import gap_lines
    from gansynth.hosts.deciding.dry_run import harm_lines

    name, findings = checked.name, checked.findings
    errors = [finding.level for finding in findings].count("error")
    warnings = len(findings) - errors
    document: dict[str, Any] = {
        "dataset": name,
        "cases": checked.cases,
        "errors": errors,
        "warnings": warnings,
        "findings": [vars(finding) for finding in findings],
    }
    if checked.site_gaps:
        document["site_gaps"] = checked.site_gaps
    if checked.will_it_harm:
        document["will_it_harm"] = checked.will_it_harm
    if checked.lineage_verified is not None:
        document["lineage_verified"] = checked.lineage_verified
    verdict = f"{name}: {checked.cases} cases; files: {errors} error(s), {warnings} warning(s)"
    lines = table([(finding.level, finding.message) for finding in findings])
    if request.data:
        lines.append(verdict)
    lines += gap_lines(checked.site_gaps)
    lines += harm_lines(document)
    if checked.lineage_verified:
        lines.append(f"{request.generator}: its training cases in {name} are as it records them")
    cures = [finding.cure for finding in findings if finding.level == "error" or finding.cure]
    if cures and all(cures):
        lines.append(out.again(**cures[0]))
    elif request.data and not errors:
        lines += _contents(checked)
    out.result(document, lines)
    if checked.lineage_verified is False:
        raise IntegrityFault(
            "command.lineage-not-verified", f"{request.generator}: {findings[0].message}"
        )
    if errors:  # they come first
        raise DataFault(
            "command.check-found-faults",
            f"{name}: {errors} error(s), expected none; correct what is listed above",
        )


command = request_command(
    CheckRequest,
    "gansynth.hosts.data_sets.data_commands:run_check",
    show,
    epilog=examples(
        "gansynth check nnunet:004",
        "gansynth check --generator runs/g0",
    ),
)


def _contents(checked: CheckReport) -> Iterator[str]:
    """Yield what a data set without errors holds, and the next command."""
    from gansynth.core.registry import installed
    from gansynth.hosts.deciding.advice import advice_for, describe_source
    from gansynth.hosts.deciding.suggestion import suggested_generator
    from gansynth.runtime.errors import GansynthError

    request, source = checked.request, checked.source
    assert request is not None, "there is a data set"
    if source is None:
        if request.kind in installed().hosts_with("prepare"):
            yield then_prepare(request)
        return
    try:
        schema, generator = source.schema, suggested_generator(source)
        told = checked.will_it_harm or not (schema.foreground or schema.box_classes)
        advice = "" if told else str(advice_for(describe_source(source)))
    except GansynthError:  # of a case that cannot be read any more
        return
    if advice:
        yield advice
    labels = [name for name, value in schema.labels.items() if value > 0]
    kinds = {"channels": schema.channels, "labels": labels, "boxes": schema.box_classes}
    yield "; ".join([f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names])
    # Where the files lie is named as it was typed; what else was found in them is kept.
    people = request.subjects or _people_in_names(source)
    found = replace(source.request, where=request.where, subjects=people)
    *noted, fitting = then_fit(generator, found)
    yield from noted
    if schema.foreground and request.kind not in installed().names("hosts"):
        yield way_to_nnunet(request)
    yield fitting


def _people_in_names(source: CaseSource) -> str | None:
    """Return what names people in ids as ``sub-003_z014``, where every case is a subject so far."""
    ids = (*source.train_ids, *source.held_out_ids)
    people = [re.search(BIDS, case_id) for case_id in ids]
    subjects = {source.header(case_id).subject for case_id in ids}
    named = {person[1] for person in people if person}
    return BIDS if all(people) and len(named) < len(ids) == len(subjects) else None
