"""``gansynth.check``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from gansynth.core.findings import CheckReport
from gansynth.core.registry import installed
from gansynth.data.api import find_kind, source_request
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import RichReporter, counting
from gansynth.runtime.words import Given, changed
from gansynth.sampling.request_parsing import REAL, SampleWords, read_request
from gansynth.sampling.run_source import open_moved, open_source

NEEDS = dict.fromkeys(("seed", "device", *SampleWords.__annotations__), "generator")


def check(
    data: str | None = None,
    *,
    generator: str | os.PathLike[str] | None = None,
    bank: str | os.PathLike[str] | None = None,
    subjects: str | None = None,
    read: Mapping[str, Any] | None = None,
    root: str | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    **samples: Unpack[SampleWords],
) -> CheckReport:
    """Find what is wrong with a data set, file by file, or with samples: ``gansynth check``.

    Each argument is the option of that name; ``gansynth check --help`` explains them.

    Args:
        data: KIND:WHERE, or a folder or file whose kind is found. A generator needs none; if given,
            it is also where the data set of its fit lies now.

    Returns:
        Name, number of cases, and findings, errors first. It raises nothing for what is found.
        ``will_it_harm`` has ``lines`` on the samples, and their figures.

    Raises:
        GansynthError: data set, run or bank cannot be opened, or all samples are rejected.
    """
    words = {**locals(), **samples}
    given = [word for word in changed(words, check) if words[word] != REAL]  # the command's default
    Given(words, given).refuse_idle(NEEDS)
    if (data is None and generator is None) or (bank is not None and generator is not None):
        raise UsageFault(
            "gansynth check: expected a data set, --generator RUN, or a data set and --bank BANK"
        )
    reporter = RichReporter(quiet=quiet)
    report: CheckReport | None = None
    if data is not None:
        data = data if ":" in data else find_kind(data, root)
        request = source_request(data, subjects=subjects, read=read, root=root)
        with counting(reporter, "check") as progress:
            report = installed().check(request.kind)(request, progress)
        if any(finding.level == "error" for finding in report.findings):
            return report
    if generator is not None:
        from gansynth.sampling.open_run import load_run
        from gansynth.sampling.sample_check import check_run
        from gansynth.sampling.sampler import Sampler

        run, asked = load_run(Path(generator), device), read_request(seed=seed, **samples)
        sampler = Sampler(run, open_moved(run, data, root), asked, reporter, learn=False)
        report = report or CheckReport(sampler.source.name, 0, ())
        return replace(report, will_it_harm=check_run(sampler, reporter))
    assert report is not None, "there is a data set"
    if bank is None:
        return report
    from gansynth.bank.api import check_bank

    return replace(report, will_it_harm=check_bank(Path(bank), open_source(request), reporter))
