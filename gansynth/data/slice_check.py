"""What is wrong with ``slices:INNER``: what its volumes have, then the choice of slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gansynth.core.findings import Checked, Finding
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.classes import without_cases
from gansynth.data.reading import parse_read
from gansynth.data.slice_options import SliceOptions, split_read
from gansynth.data.slices import SliceSource
from gansynth.runtime.errors import GansynthError


def check_slices(request: SourceRequest, progress: Callable[[int, int], None]) -> Checked:
    """Find everything that is wrong with ``slices:INNER``: what its volumes have, then the choice.

    Raises UsageFault: options that do not fit.
    """
    own, rest = split_read(request)
    parse_read(SliceOptions, own)
    checked = installed().check(rest.kind)(rest, progress)
    findings, slices, path = list(checked.findings), 0, Path(rest.where)
    if not any(finding.level == "error" for finding in findings):
        try:
            source = SliceSource(request)
            slices = len(source.train_ids) + len(source.held_out_ids)
            findings += without_cases(source, source.choice.classes, path)
        except GansynthError as fault:
            findings.insert(0, Finding("error", None, path, str(fault)))
    return Checked(f"slices:{checked.name}", slices or checked.cases, findings)
