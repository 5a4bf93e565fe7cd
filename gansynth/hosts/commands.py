"""``gansynth.import_data``, ``prepare``, ``splits`` and ``doctor``: the commands in Python."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gansynth.core.host_commands import CommandReport
from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.hosts import (
    DoctorRequest,
    ImportRequest,
    PrepareRequest,
    SplitsRequest,
)
from gansynth.core.source import FoldSplit
from gansynth.data.api import find_kind
from gansynth.hosts import doctor as checks
from gansynth.runtime.machine import DoctorLine


def report_import(request: ImportRequest) -> CommandReport:
    """Copy a data set into the layout of a host, and report it; its kind is found."""
    host = request.host  # refused first
    if ":" not in request.source:
        request = request.but(source=find_kind(request.source, request.root))
    report: CommandReport = installed().run("import", host, request, request.set)
    return report


def run_import_data(request: ImportRequest) -> Mapping[str, Any]:
    """Copy a data set into the layout of a target framework, with folds: ``gansynth import``.

    Each argument is the option of that name; ``gansynth import --help`` explains them. Others are
    settings.

    Returns:
        What ``--json`` prints.

    Raises:
        GansynthError: the data set has errors, or the new place is taken.
    """
    return report_import(request).document


def report_preparation(request: PrepareRequest) -> CommandReport:
    """Plan and preprocess a data set with its host, and report it."""
    kind = request.request.kind
    report: CommandReport = installed().run("prepare", kind, request, request.set)
    return report


def run_prepare(request: PrepareRequest) -> Mapping[str, Any]:
    """Plan and preprocess a data set with its target framework: ``gansynth prepare``.

    Each argument is the option of that name; ``gansynth prepare --help`` explains them. Others are
    settings.

    Returns:
        What ``--json`` prints.

    Raises:
        GansynthError: the data set has errors, or the framework fails.
    """
    return report_preparation(request).document


def run_splits(request: SplitsRequest) -> Sequence[FoldSplit]:
    """Write folds so that no subject is in both training and validation: ``gansynth splits``.

    Each argument is the option of that name; ``gansynth splits --help`` explains them.

    Returns:
        The training and validation cases of each fold.

    Raises:
        GansynthError: there are other folds already, or too few subjects.
    """
    splits: Sequence[FoldSplit] = installed().run("splits", request.request.kind, request, {})
    return splits


def run_doctor(request: DoctorRequest) -> list[DoctorLine]:
    """Report what this machine has, and what is missing: ``gansynth doctor``.

    Each argument is the option of that name; ``gansynth doctor --help`` explains them.

    Returns:
        A line for each item: its state (``ok``, ``note`` or ``bad``), a text, and a cure.
    """
    return [*itertools.chain(checks.examine(), checks.host_lines(request, request.set))]


import_data = function_of(ImportRequest, run_import_data)
prepare = function_of(PrepareRequest, run_prepare)
splits = function_of(SplitsRequest, run_splits)
doctor = function_of(DoctorRequest, run_doctor)


def document_of(lines: Sequence[DoctorLine]) -> dict[str, Any]:
    """Return the lines of a machine as a JSON document."""
    ok = not any(line.state == "bad" for line in lines)
    return {"ok": ok, "lines": [asdict(line) for line in lines]}
