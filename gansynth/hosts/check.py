"""``gansynth.check``: the command in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gansynth.core.findings import CheckReport
from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.samples import CheckRequest
from gansynth.core.source import SourceRequest
from gansynth.data.api import find_kind, source_request
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import counting
from gansynth.sampling.request_parsing import read_request
from gansynth.sampling.run_source import open_moved, open_source


def run_check(request: CheckRequest) -> CheckReport:
    """Find what is wrong with a data set, file by file, or with samples: ``gansynth check``.

    Each argument is the option of that name; ``gansynth check --help`` explains them.

    Returns:
        Name, number of cases, and findings, errors first. It raises nothing for what is found.
        ``will_it_harm`` has ``lines`` on the samples, and their figures.

    Raises:
        GansynthError: data set, run or bank cannot be opened, or all samples are rejected.
    """
    data, generator, bank = request.data, request.generator, request.bank
    if (data is None and generator is None) or (bank is not None and generator is not None):
        raise UsageFault(
            "gansynth check: expected a data set, --generator RUN, or a data set and --bank BANK"
        )
    reporter, root = request.reporter, request.root
    report: CheckReport | None = None
    if data is not None:
        source = checked_data(request)
        data = f"{source.kind}:{source.where}"
        with counting(reporter, "check") as progress:
            report = installed().check(source.kind)(source, progress)
        if any(finding.level == "error" for finding in report.findings):
            return report
    if generator is not None:
        from gansynth.sampling.evaluation_data import check_run
        from gansynth.sampling.open_run import load_run
        from gansynth.sampling.sampler import Sampler

        run = load_run(Path(generator), request.device)
        asked = read_request(request, request.seed)
        sampler = Sampler(run, open_moved(run, data, root), asked, reporter, learn=False)
        report = report or CheckReport(sampler.source.name, 0, ())
        return replace(report, will_it_harm=check_run(sampler, reporter))
    assert report is not None, "there is a data set"
    if bank is None:
        return report
    from gansynth.bank.api import check_bank

    return replace(report, will_it_harm=check_bank(Path(bank), open_source(source), reporter))


def checked_data(request: CheckRequest) -> SourceRequest:
    """Return the data set to check; the kind of a folder or file is found."""
    data, root = str(request.data), request.root
    named = data if ":" in data else find_kind(data, root)
    return source_request(named, subjects=request.subjects, read=request.read, root=root)


check = function_of(CheckRequest, run_check)
