"""``gansynth.check``, ``import_data``, ``prepare``, ``splits``, ``doctor``: commands in Python."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.hosts import (
    DoctorRequest,
    ImportRequest,
    PrepareRequest,
    SplitsRequest,
)
from gansynth.core.requests.samples import CheckRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import (
    CaseSource,
    CheckReport,
    Finding,
    FoldSplit,
    Looked,
    SourceRequest,
)
from gansynth.data import plausibility
from gansynth.data.held_out import unnamed_people
from gansynth.data.kinds import find_kind, kinds_described, source_request
from gansynth.data.listing import files_not_read, read_by
from gansynth.data.look_alikes import write_merged_subjects
from gansynth.data.source_checks import check_data
from gansynth.hosts.data_sets import doctor as checks
from gansynth.hosts.data_sets.sites import site_gap, sites_asked
from gansynth.hosts.deciding.advice import advice_for, describe_source
from gansynth.hosts.deciding.one_command import open_suited, raw_of
from gansynth.runtime.errors import GansynthError, UsageFault, describe_error
from gansynth.runtime.machine import DoctorLine
from gansynth.runtime.progress import Reporter, counting, stepping
from gansynth.sampling.request_checks import read_request
from gansynth.sampling.run_source import open_moved, open_source, wrong_records

MOVED = "--data KIND:WHERE", "gansynth check KIND:WHERE --generator RUN"
"""How moved data are named to most commands, and to this one."""


@dataclass(frozen=True)
class CommandReport:
    """A command's report, to read and as JSON; ``then``: arguments of the next command.

    That command fits a generator on the data ``fits``, or prepares the data ``prepares``, if there
    are such. ``already``: what the command makes was there, and is unchanged.
    """

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()
    fits: SourceRequest | None = None
    prepares: SourceRequest | None = None
    already: bool = False


def report_import(request: ImportRequest) -> CommandReport:
    """Copy a data set into the layout of a host, and report it; its kind is found."""
    host = request.host  # refused first
    request = request.replace(source=find_kind(request.source, request.root))
    report: CommandReport = installed().run("import", host, request, request.set)
    return report


def run_import_data(request: ImportRequest) -> Mapping[str, Any]:
    """Copy a data set into the layout of a target framework, with folds: ``gansynth import``.

    Other arguments are settings.

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

    Other arguments are settings.

    Returns:
        What ``--json`` prints.

    Raises:
        GansynthError: the data set has errors, or the framework fails.
    """
    return report_preparation(request).document


def run_splits(request: SplitsRequest) -> Sequence[FoldSplit]:
    """Write folds so that no subject is in both training and validation: ``gansynth splits``.

    Returns:
        The training and validation cases of each fold.

    Raises:
        GansynthError: there are other folds already, or too few subjects.
    """
    splits: Sequence[FoldSplit] = installed().run("splits", request.request.kind, request, {})
    return splits


def run_check(request: CheckRequest) -> CheckReport:
    """Find what is wrong with a data set, file by file, or with samples: ``gansynth check``.

    Returns:
        Name, number of cases, and findings, errors first. It raises nothing for what is found.
        ``will_it_harm`` has ``lines`` on the samples, and their figures; ``lineage_verified`` says
        whether a run's record is that of the data.

    Raises:
        GansynthError: data set, run or bank cannot be opened, or all samples are rejected.
    """
    data, generator, bank = request.data, request.generator, request.bank
    if (data is None and generator is None) or (bank is not None and generator is not None):
        raise UsageFault(
            "hosts.nothing-to-check",
            "gansynth check: expected a data set, --generator RUN, or a data set and --bank BANK",
        )
    reporter, root = request.reporter, request.root
    report: CheckReport | None = None
    if data is not None:
        asked = _checked_data(request)
        data = f"{asked.kind}:{asked.where}"
        table = request.write_subjects
        if table is not None:
            everyone = open_source(replace(asked, fold="all"))
            with stepping(reporter) as progress:
                reporter.say(write_merged_subjects(table, everyone, progress))
            asked = replace(asked, subjects=str(table))
        sites_are_asked = request.sites is not None or request.against is not None
        source = _opened(asked) if sites_are_asked else None
        # What does not fit is refused before files are read.
        compared = [] if source is None else sites_asked(request, source)
        with counting(reporter, "check") as progress:
            report = replace(check_data(asked, progress), request=asked)
        if asked.kind not in installed().loaders["checks"]:
            reporter.say(f"{asked.kind}: has no check of its own, cases were read as by a fit")
        unread = _description_unread(asked)
        if unread is not None:
            report = replace(report, findings=[*report.findings, unread])
        if any(finding.level == "error" for finding in report.findings):
            return report
        source = source or _opened(asked)
        if source is not None:
            findings = [*report.findings, *_found_by_looking(source, report.looked, reporter)]
            report = replace(report, findings=findings, source=source)
            if source.note:
                reporter.say(source.note)
            gaps = [site_gap(*pair, reporter) for pair in compared]
            report = replace(report, site_gaps=gaps)
        prepared_later = asked.kind in installed().hosts_with("prepare")
        people = _opened(raw_of(asked)) if source is None and prepared_later else source
        text = "" if people is None else unnamed_people(people)
        if text:
            reporter.warn(text)
    if generator is not None and request.verify_lineage:
        folder = RunFolder(Path(generator))
        with describe_error(*MOVED):
            read_again = open_moved(folder, data, root)
        wrong = wrong_records(folder, read_again, reporter)
        report = report or CheckReport(read_again.name, 0, ())
        verified = not any(finding.level == "error" for finding in wrong)
        findings = [*wrong, *report.findings]
        return replace(report, findings=findings, lineage_verified=verified)
    if generator is not None:
        from gansynth.sampling.evaluation_data import check_run
        from gansynth.sampling.open_run import below_its_size, load_run
        from gansynth.sampling.sampler import Sampler

        run = load_run(Path(generator), request.device)
        why, _ = below_its_size(run)
        if why:
            reporter.warn(why)
        samples = read_request(request, request.seed)
        with describe_error(*MOVED):
            source_of_fit = open_moved(run, data, root)
        sampler = Sampler(run, source_of_fit, samples, reporter, learn=False)
        report = report or CheckReport(sampler.source.name, 0, ())
        return replace(report, will_it_harm=_harm(check_run(sampler, reporter), source_of_fit))
    assert report is not None, "there is a data set"
    if bank is None:
        return report
    from gansynth.bank.filling import check_bank

    source = open_source(asked)
    return replace(report, will_it_harm=_harm(check_bank(Path(bank), source, reporter), source))


def _harm(found: Mapping[str, Any], source: CaseSource) -> dict[str, Any]:
    """Return what is said of samples, and of what they did to sets like the data."""
    return {**found, "sets": str(advice_for(describe_source(source)))}


def _description_unread(source: SourceRequest) -> Finding | None:
    """Warn of a folder that says it is of another kind than the one that was typed."""
    where = Path(source.where).expanduser()
    others = kinds_described(where) if where.is_dir() else []
    if not others or source.kind in others:
        return None
    text = (
        f"{where}: says what it holds, and {source.kind}: does not read that; to have its names "
        f"and labels: {replace(source, kind=others[0], read={}).check()}"
    )
    return Finding("warning", None, where, text)


def _opened(request: SourceRequest) -> CaseSource | None:
    """Return the cases, or None: they are not prepared yet, for example."""
    logging.disable(logging.WARNING)  # the findings have said it
    try:
        return open_suited(request)
    except GansynthError:
        return None
    finally:
        logging.disable(logging.NOTSET)


def _found_by_looking(
    source: CaseSource, looked: Looked | None, reporter: Reporter
) -> Iterator[Finding]:
    """Warn of labels that are misplaced, or that nobody reads.

    ``looked``: what was seen as the files were read; None: some cases are read again.
    """
    where = Path(source.request.where).expanduser()
    if looked is None and source.schema.foreground:
        looked = plausibility.look(source)
    if looked is not None and looked.unclear and source.schema.foreground:
        reporter.say(f"whether label maps lie on what they label cannot be told: {looked.unclear}")
    if looked is not None and looked.wrong:
        yield Finding(
            "warning",
            None,
            where,
            f"{where}: label maps may be paired or oriented wrongly: {looked.wrong}. Look at "
            "some cases in a viewer, and turn or pair them again if that is so",
        )
    labelled = source.schema.foreground or source.schema.box_classes
    if where.is_dir() and not labelled and source.request.kind in read_by():
        for text in files_not_read(where, read_by()[source.request.kind]):
            yield Finding("warning", None, where, text)


def _checked_data(request: CheckRequest) -> SourceRequest:
    """Return the data set to check; the kind of a folder or file is found."""
    named = find_kind(str(request.data), request.root)
    return source_request(named, subjects=request.subjects, read=request.read, root=request.root)


def run_doctor(request: DoctorRequest) -> list[DoctorLine]:
    """Report what this machine has, and what is missing: ``gansynth doctor``.

    Returns:
        A line for each item: its state (``ok``, ``note`` or ``bad``), a text, and a cure.
    """
    return list(itertools.chain(checks.examine(), checks.host_lines(request)))


check = function_of(CheckRequest, run_check)
import_data = function_of(ImportRequest, run_import_data)
prepare = function_of(PrepareRequest, run_prepare)
splits = function_of(SplitsRequest, run_splits)
doctor = function_of(DoctorRequest, run_doctor)
